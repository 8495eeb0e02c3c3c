"""New rows in the columns of one equation of a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.frames import column_names, normalize, replaced, select_columns
from mlmed.data.ids import cluster_codes
from mlmed.data.probing import encode_as_fitted, known_clusters
from mlmed.data.values import refuse_infinite
from mlmed.errors import DataError
from mlmed.fit.lmm import LmmFit

__all__ = ["NewRows", "given_responses", "own_effects", "read_rows"]

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
    group = fitted.spec.group if clusters else ()
    _need_given_responses(fitted, number, newdata)
    table = select_columns(newdata, {*wanted, *group}, keep=group)
    refuse_infinite(table)
    codes, labels = cluster_codes(table, group) if clusters else (np.full(len(table), -1), pd.Index([]))
    table = replaced(table, {name: normalize(table[name]) for name in group if name in wanted})
    complete = np.logical_and.reduce(table[sorted(wanted)].notna().to_numpy(dtype=bool), axis=1)
    known = np.append(known_clusters(fitted.clusters, labels), -1)
    at = known[codes[complete]]  # a missing id has the code -1, which is the last entry
    if not complete.any():
        return NewRows(complete, np.empty((0, len(equation.fixed))), np.empty((0, len(equation.random))), at)
    usable = table.loc[np.flatnonzero(complete)]
    X, *Z = encode_as_fitted(equation, usable, wanted, where=f"equation {equation.name}", between=between)
    return NewRows(complete, X, np.concatenate(Z, axis=1), at)


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
