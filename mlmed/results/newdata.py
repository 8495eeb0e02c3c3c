"""New rows in the columns of the equations of a fit: those of a user, and grids along one predictor."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import complete_rows
from mlmed.data.frames import column_names, normalize, replaced, select_columns
from mlmed.data.ids import cluster_codes
from mlmed.data.layout import EquationLayout
from mlmed.data.probing import encode_as_fitted, jump_around, known_clusters, pooled, rows_of
from mlmed.data.values import is_numeric, refuse_infinite
from mlmed.effects.slopes import refuse_unreached
from mlmed.errors import DataError, EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.options import MOST_POINTS, check_mapping, is_one_value, is_whole
from mlmed.quadrature.posterior import NewColumns
from mlmed.quadrature.rows import Rows
from mlmed.text import listed, shown

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class NewRows:
    """Rows of a table of N in the columns of equation r; n of them are complete.

    Attributes
    ----------
    complete : (N,) bool array
        Rows without a missing predictor.
    X, Z : (n, p_r), (n, q_r) arrays
        Columns of the fixed and of the random part.
    at : (n,) int array
        Cluster of each row among those of the fit; -1 where it is new, missing, or was not asked for.
    """

    complete: NDArray[np.bool_]
    X: Array
    Z: Array
    at: NDArray[np.intp]


def own_effects(fitted: LmmFit, number: int) -> tuple[slice, slice]:
    """Which fixed and which random effects of the model belong to an equation."""
    before, own = fitted.layout.equations[:number], fitted.layout.equations[number]
    p, q = sum(len(e.fixed) for e in before), sum(len(e.random) for e in before)
    return slice(p, p + len(own.fixed)), slice(q, q + len(own.random))


def read_rows(fitted: LmmFit, number: int, newdata: Any, *, clusters: bool, between: bool = False) -> NewRows:
    """Encode new rows as the rows of the fit were; ``clusters``: also find theirs; ``between``: they hold means.

    Raises
    ------
    DataError
        A column is missing, has another type than in the fit, a level that was not there, or a value beyond the ends
        of a spline; or all cluster ids are of another type.
    """
    equation, wanted = fitted.layout.equations[number], fitted.spec.equations[number].predictors
    _need_given_responses(fitted, number, newdata)
    complete, usable, at = _usable(newdata, wanted, fitted.spec.group if clusters else (), fitted.clusters)
    X, Z = _encoded(equation, usable, wanted, where=f"equation {equation.name}", between=between)
    return NewRows(complete, X, Z, at)


def read_columns(
    rows: Rows, newdata: Any, *, clusters: bool, between: bool = False
) -> tuple[NewColumns, NDArray[np.bool_]]:
    """New rows in the columns of location and scale, and which of all rows they are; otherwise as ``read_rows``.

    Raises
    ------
    DataError
        As ``read_rows``.
    """
    wanted = frozenset().union(*(equation.predictors for equation in rows.equations))
    complete, usable, at = _usable(newdata, wanted, rows.group if clusters else (), rows.clusters)
    X, Z, W, V = (
        columns
        for equation, part in zip(rows.equations, (rows.location, rows.scale), strict=True)
        for columns in _encoded(part.layout, usable, equation.predictors, where=repr(equation.text), between=between)
    )
    return NewColumns(X, Z, W, V, at if clusters else None), complete


def _usable(
    newdata: Any, wanted: Collection[str], group: tuple[str, ...], known: pd.Index
) -> tuple[NDArray[np.bool_], pd.DataFrame, NDArray[np.intp]]:
    """Which rows are complete, these rows, and the cluster of each of them among those known, -1 for another."""
    table = select_columns(newdata, {*wanted, *group}, keep=group)
    refuse_infinite(table)
    codes, labels = cluster_codes(table, group) if group else (np.full(len(table), -1), pd.Index([]))
    table = replaced(table, {name: normalize(table[name]) for name in group if name in wanted})
    complete = complete_rows(table, wanted)
    places = np.append(known_clusters(known, labels), -1)  # a missing id has the code -1, which is the last entry
    return complete, table.loc[np.flatnonzero(complete)], places[codes[complete]]


def _encoded(
    layout: EquationLayout, table: pd.DataFrame, wanted: Collection[str], *, where: str, between: bool
) -> tuple[Array, Array]:
    """Columns of the fixed and of the random part."""
    if not len(table):
        return np.empty((0, len(layout.fixed))), np.empty((0, len(layout.random)))
    X, *Z = encode_as_fitted(layout, table[sorted(wanted)], frozenset(wanted), where=where, between=between)
    return X, np.concatenate(Z, axis=1) if Z else np.empty((len(table), 0))


def given_responses(fitted: LmmFit, number: int) -> list[str]:
    """Predictors of an equation that other equations have as their response, in the order of those equations."""
    equations = fitted.spec.equations
    own = equations[number].predictors
    return [name for equation in equations for name in sorted(equation.response_columns & own)]


def _need_given_responses(fitted: LmmFit, number: int, newdata: Any) -> None:
    """Say why the column of a mediator is needed, where it is missing."""
    missing = [name for name in given_responses(fitted, number) if name not in column_names(newdata)]
    if missing:
        response = fitted.layout.equations[number].name
        raise DataError(
            f"column {missing[0]!r} is not in the data; it is a response of the fit and a predictor of {response}, "
            f"which is predicted given {missing[0]}, so the new rows need its values, too"
        )


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
