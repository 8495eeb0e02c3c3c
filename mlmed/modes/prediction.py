"""Predictions for new rows from the encodings of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import encode, to_encodable
from mlmed.data.frames import cluster_codes, refuse_infinite, select_columns
from mlmed.data.newrows import as_fitted
from mlmed.errors import EffectError
from mlmed.modes.fitting import Fitted

__all__ = ["predict"]

Array = NDArray[np.float64]
LEVELS = ("population", "cluster")


def predict(fitted: Fitted, newdata: Any, *, level: str, ranef: Callable[[], pd.DataFrame]) -> pd.DataFrame | pd.Series:
    """X beta, plus Z u for ``level="cluster"``; one column per equation."""
    if level not in LEVELS:
        raise EffectError(f"level must be one of {', '.join(LEVELS)}; found {level!r}")
    columns, first_p = {}, 0
    for number, equation in enumerate(fitted.layout.equations):
        p = len(equation.fixed)
        columns[equation.name] = _predict_equation(
            fitted, number, newdata, fitted.estimates.beta[first_p : first_p + p], ranef if level == "cluster" else None
        )
        first_p += p
    index = newdata.index if isinstance(newdata, pd.DataFrame | pd.Series) else None
    out = pd.DataFrame(columns, index=index)
    return out if len(columns) > 1 else out.iloc[:, 0]


def _predict_equation(
    fitted: Fitted, number: int, newdata: Any, beta: Array, ranef: Callable[[], pd.DataFrame] | None
) -> Array:
    equation, wanted = fitted.layout.equations[number], fitted.spec.equations[number].predictors
    group = fitted.spec.group if ranef is not None else ()
    table = select_columns(newdata, {*wanted, *group}, keep=group)
    refuse_infinite(table)
    complete = ~table[sorted(wanted)].isna().to_numpy().any(axis=1) if wanted else np.ones(len(table), dtype=bool)
    usable = table.loc[np.flatnonzero(complete)]
    values = np.full(len(table), np.nan)
    if not len(usable):
        return values
    encodable = to_encodable(as_fitted(equation, usable, wanted))
    predicted = encode(equation.encodings[0], encodable, where=f"equation {equation.name}")[0] @ beta
    if ranef is not None:
        predicted = predicted + _cluster_part(fitted, number, usable, encodable, ranef())
    values[complete] = predicted
    return values


def _cluster_part(
    fitted: Fitted, number: int, table: pd.DataFrame, encodable: pd.DataFrame, ranef: pd.DataFrame
) -> Array:
    """Z u for each row; 0 for clusters that were not in the data."""
    equations = fitted.layout.equations
    equation = equations[number]
    first = sum(len(other.random) for other in equations[:number])
    J = len(fitted.clusters)
    modes = ranef["value"].to_numpy().reshape(-1, J)[first : first + len(equation.random)]
    codes, labels = cluster_codes(table.reset_index(drop=True), fitted.spec.group)
    known = np.append(fitted.clusters.get_indexer(labels) if len(labels) else np.empty(0, dtype=np.intp), -1)
    at = known[codes]  # a missing id has the code -1, which is the last entry
    Z = np.concatenate(
        [encode(encoding, encodable, where=f"equation {equation.name}")[0] for encoding in equation.encodings[1:]],
        axis=1,
    )
    u = np.where(at >= 0, modes[:, at], 0.0)
    return np.einsum("nk,kn->n", Z, u)
