"""Values along one predictor, and those at which the others are held, as users give them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.frames import shorten
from mlmed.data.layout import EquationLayout
from mlmed.data.probing import jump_around, pooled, rows_of
from mlmed.errors import EffectError

__all__ = ["check_held", "check_points", "refuse_held_jumps"]


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
    if at is not None and not isinstance(at, Mapping):
        raise EffectError(f"at= holds other predictors, as in at={{'w': 2.0}}; found {at!r}")
    held = dict(at or {})
    for name, value in held.items():
        if name not in others:
            raise EffectError(
                f"at= names {name!r}, which is not another predictor{of}; there are "
                f"{shorten(sorted(others), 20) or 'none'}"
            )
        if not _is_value(value, factor=name in factors):
            raise EffectError(f"at= holds {name!r} at {_wanted(name in factors)}; found {value!r}")
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
    if pd.api.types.is_list_like(points, allow_sets=False) and not isinstance(points, Mapping) and len(points):
        values = list(points)
        for value in values:
            if not _is_value(value, factor=factor):
                raise EffectError(f"each of points is {_wanted(factor)}; found {value!r}")
        return values
    if not isinstance(points, int | np.integer) or isinstance(points, bool) or points < 2:
        raise EffectError(f"points is a number of points, at least 2, or their values; found {points!r}")
    return int(points)


def _wanted(factor: bool) -> str:
    return "one level" if factor else "one finite number"


def _is_value(value: Any, *, factor: bool) -> bool:
    """Whether it is a single value that a predictor can have."""
    if factor:
        return bool(pd.api.types.is_scalar(value)) and not pd.isna(value)
    return isinstance(value, Real | Decimal | np.bool_) and math.isfinite(value)
