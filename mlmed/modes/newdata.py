"""New rows in the columns of one equation of a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import encode, to_encodable
from mlmed.data.frames import cluster_codes, normalize, refuse_infinite, select_columns
from mlmed.data.newrows import as_fitted
from mlmed.modes.fitting import Fitted

__all__ = ["NewRows", "own_effects", "read_rows"]

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


def own_effects(fitted: Fitted, number: int) -> tuple[slice, slice]:
    """Which fixed and which random effects of the model belong to an equation."""
    before, own = fitted.layout.equations[:number], fitted.layout.equations[number]
    p, q = sum(len(e.fixed) for e in before), sum(len(e.random) for e in before)
    return slice(p, p + len(own.fixed)), slice(q, q + len(own.random))


def read_rows(fitted: Fitted, number: int, newdata: Any, *, clusters: bool) -> NewRows:
    """Encode new rows as the rows of the fit were; ``clusters``: also find theirs.

    Raises
    ------
    DataError
        A column is missing, has another type than in the fit, or a level that was not there.
    """
    equation, wanted = fitted.layout.equations[number], fitted.spec.equations[number].predictors
    group = fitted.spec.group if clusters else ()
    table = select_columns(newdata, {*wanted, *group}, keep=group)
    refuse_infinite(table)
    codes, labels = cluster_codes(table, group) if clusters else (np.full(len(table), -1), pd.Index([]))
    table = table.assign(**{name: normalize(table[name]) for name in group if name in wanted})
    complete = np.logical_and.reduce(table[sorted(wanted)].notna().to_numpy(dtype=bool), axis=1)
    known = np.append(fitted.clusters.get_indexer(labels) if len(labels) else np.empty(0, dtype=np.intp), -1)
    at = known[codes[complete]]  # a missing id has the code -1, which is the last entry
    if not complete.any():
        return NewRows(complete, np.empty((0, len(equation.fixed))), np.empty((0, len(equation.random))), at)
    usable = table.loc[np.flatnonzero(complete)]
    encodable, where = to_encodable(as_fitted(equation, usable, wanted)), f"equation {equation.name}"
    X, *Z = (encode(encoding, encodable, where=where)[0] for encoding in equation.encodings)
    return NewRows(complete, X, np.concatenate(Z, axis=1), at)
