"""Values along one predictor, and those at which the others are held, as users give them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.layout import EquationLayout
from mlmed.data.probing import jump_around, pooled, rows_of
from mlmed.data.values import is_numeric
from mlmed.effects.moderators import refuse_unreached
from mlmed.errors import EffectError
from mlmed.options import MOST_POINTS, check_mapping, is_one_value, is_whole
from mlmed.text import listed, shown

__all__ = ["check_held", "check_points", "rows_along", "spaced"]


def rows_along(
    layouts: Sequence[EquationLayout],
    variable: str,
    *,
    at: Mapping[str, Any] | None,
    points: Any,
    between: Callable[[int], list[Any]],
    of: str = "",
) -> tuple[pd.DataFrame, frozenset[str]]:
    """Rows that differ in one predictor: all others typical, or as ``at`` holds them; and which these are.

    Parameters
    ----------
    layouts : sequence of EquationLayout
        The equations; what the last says of a predictor counts.
    variable : str
        The predictor.
    at : mapping or None
        Values of others.
    points : int or sequence
        Number of values, or the values; a factor has its levels.
    between : callable
        From a number of values to those over the range of the predictor.
    of : str
        Whose predictors they are, for messages.

    Raises
    ------
    EffectError
        ``at`` names something that is none, or a value is not one finite number.
    """
    typical = {name: value for layout in layouts for name, value in layout.typical.items()}
    levels = {name: found for layout in layouts for name, found in layout.levels.items()}
    others = sorted(name for name in typical if name != variable)
    held = check_held(at, others, levels, of=of)
    refuse_unreached(held, layouts)
    grid = check_points(points, factor=variable in levels)
    if isinstance(grid, int):
        grid = list(levels[variable]) if variable in levels else between(grid)
    fixed = {name: held.get(name, typical[name]) for name in others}
    refuse_held_jumps(layouts, {**fixed, variable: grid[0]}, free=fixed.keys() - held.keys())
    return pd.DataFrame({variable: grid, **fixed}), frozenset(held)


def spaced(column: pd.Series, points: int) -> list[Any]:
    """Values over the range of a column; both truth values."""
    return list(np.linspace(column.min(), column.max(), points)) if is_numeric(column) else [False, True]


def check_held(
    at: Mapping[str, Any] | None, others: Collection[str], factors: Collection[str], *, of: str = ""
) -> dict[str, Any]:
    """``at=`` as a dict: one value for each predictor that it names.

    Parameters
    ----------
    at : mapping or None
        What the user gave.
    others, factors : collections of str
        Predictors that it may name, and predictors that have levels in place of numbers.
    of : str
        Whose predictors they are.

    Raises
    ------
    EffectError
        It is no mapping, names something else, or has not one value for a predictor.
    """
    held = check_mapping(at, "at", "at={'w': 2.0}")
    for name, value in held.items():
        if name not in others:
            raise EffectError(f"at= names {name!r}, which is not another predictor{of}; there are {listed(others)}")
        if not _is_value(value, factor=name in factors):
            raise EffectError(f"at= holds {name!r} at {_wanted(name in factors)}; found {shown(value)}")
    return held


def refuse_held_jumps(layouts: Sequence[EquationLayout], values: Mapping[str, Any], *, free: Collection[str]) -> None:
    """Refuse to hold a predictor at a mean that lies between two values where an equation jumps.

    Parameters
    ----------
    layouts : sequence of EquationLayout
        The equations.
    values : mapping
        A value of every predictor.
    free : collection of str
        Those of them that are held at their means because nothing else was said.

    Raises
    ------
    EffectError
        Such a predictor, with the way to say where it is held.
    """
    for layout in pooled(layouts):
        for name in sorted(layout.observed.keys() & free):
            row = rows_of(layout, {name: [value] for name, value in values.items()})
            if (around := jump_around(layout, row, name)) is not None:
                raise EffectError(
                    f"the equation of {layout.name} jumps with {name} around its mean ({values[name]:.6g}), between "
                    f"its values {around[0]:g} and {around[1]:g}; say where it is held with at={{{name!r}: ...}}"
                )


def check_points(points: Any, *, factor: bool) -> int | list[Any]:
    """``points=``: their number, or their values as a list.

    Raises
    ------
    EffectError
        It is neither, or a value is missing or not one number.
    """
    counted = isinstance(points, Collection) and not isinstance(points, str | bytes | Mapping | Set)
    if counted and getattr(points, "shape", None) != () and len(points):
        values = list(points)
        for value in values:
            if not _is_value(value, factor=factor):
                raise EffectError(f"each of points is {_wanted(factor)}; found {shown(value)}")
        return values
    if not is_whole(points) or not 2 <= points <= MOST_POINTS:
        raise EffectError(f"points is a number of points, at least 2, or their values; found {shown(points)}")
    return int(points)


def _wanted(factor: bool) -> str:
    return "one level" if factor else "one finite number"


def _is_value(value: Any, *, factor: bool) -> bool:
    """Whether it is a single value that a predictor can have."""
    if factor:
        return is_one_value(value)
    return is_one_value(value) and isinstance(value, Real | Decimal | np.bool_)
