"""Encode new rows for the equations of a fit: a user's rows, and grids along one predictor."""

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
    """N rows encoded for equation r; n of them are complete.

    Attributes
    ----------
    complete : (N,) bool array
        Rows without a missing predictor.
    X, Z : (n, p_r), (n, q_r) arrays
        Columns of the fixed and of the random part.
    at : (n,) int array
        Cluster of each row among those of the fit; -1 if new, missing, or not asked for.
    """

    complete: NDArray[np.bool_]
    X: Array
    Z: Array
    at: NDArray[np.intp]


def own_effects(fitted: LmmFit, number: int) -> tuple[slice, slice]:
    """Slices of the fixed and random effects that belong to an equation."""
    before, own = fitted.layout.equations[:number], fitted.layout.equations[number]
    p, q = sum(len(e.fixed) for e in before), sum(len(e.random) for e in before)
    return slice(p, p + len(own.fixed)), slice(q, q + len(own.random))


def read_rows(fitted: LmmFit, number: int, newdata: Any, *, clusters: bool, between: bool = False) -> NewRows:
    """Encode new rows like those of the fit; ``clusters``: also find their clusters; ``between``: rows hold means.

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
    """Encode new rows for location and scale, and flag the complete ones; otherwise as ``read_rows``.

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
    """Flag the complete rows; return them with the cluster of each, -1 if unknown."""
    table = select_columns(newdata, {*wanted, *group}, keep=group)
    refuse_infinite(table)
    codes, labels = cluster_codes(table, group) if group else (np.full(len(table), -1), pd.Index([]))
    table = replaced(table, {name: normalize(table[name]) for name in group if name in wanted})
    complete = complete_rows(table, wanted)
    places = np.append(known_clusters(known, labels), -1)  # code -1, a missing id, picks the last entry
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
    """Predictors of an equation that are responses of others, in the order of those equations."""
    equations = fitted.spec.equations
    own = equations[number].predictors
    return [name for equation in equations for name in sorted(equation.response_columns & own)]


def _need_given_responses(fitted: LmmFit, number: int, newdata: Any) -> None:
    """Refuse new data without the column of a mediator, and say why it is needed."""
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
    """Make rows that differ in one predictor; others are typical, or held by ``at``; also return those held.

    Parameters
    ----------
    layouts : sequence of EquationLayout
        The equations; the last one with a predictor defines its typical value.
    variable : str
        The predictor.
    at : mapping or None
        Values of other predictors.
    points : int or sequence
        Number of values, or the values; a factor has its levels.
    between : callable
        From a number of values to values over the range of the predictor.
    of : str
        Owner of the predictors, for messages.

    Raises
    ------
    EffectError
        ``at`` names no predictor, or a value is not one finite number.
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
    """Space values over the range of a column; both values of a boolean."""
    return list(np.linspace(column.min(), column.max(), points)) if is_numeric(column) else [False, True]


def check_held(
    at: Mapping[str, Any] | None, others: Collection[str], factors: Collection[str], *, of: str = ""
) -> dict[str, Any]:
    """Check ``at=``: one value for each predictor it names.

    Parameters
    ----------
    at : mapping or None
        From the user.
    others, factors : collections of str
        Predictors that it may name, and predictors with levels.
    of : str
        Owner of the predictors, for messages.

    Raises
    ------
    EffectError
        No mapping, an unknown name, or a predictor without a single value.
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
        Predictors held at their means by default.

    Raises
    ------
    EffectError
        Such a predictor; the message says how to hold it elsewhere.
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
    """Check ``points=``: a number of points, or their values as a list.

    Raises
    ------
    EffectError
        Neither, or a value is missing or not one number.
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
    """Whether a value is a single one that a predictor can have."""
    if factor:
        return is_one_value(value)
    return is_one_value(value) and isinstance(value, Real | Decimal | np.bool_)
