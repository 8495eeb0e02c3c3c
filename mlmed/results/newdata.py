"""New rows in the columns of the equations of a fit."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import complete_rows
from mlmed.data.frames import column_names, normalize, replaced, select_columns
from mlmed.data.ids import cluster_codes
from mlmed.data.layout import EquationLayout
from mlmed.data.probing import encode_as_fitted, known_clusters
from mlmed.data.values import refuse_infinite
from mlmed.errors import DataError
from mlmed.fit.lmm import LmmFit
from mlmed.quadrature.posterior import NewColumns
from mlmed.quadrature.rows import Rows

__all__ = ["NewRows", "given_responses", "own_effects", "read_columns", "read_rows"]

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
