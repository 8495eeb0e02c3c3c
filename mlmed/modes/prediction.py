"""Predictions for new rows from the encodings of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import encode
from mlmed.data.frames import cluster_codes, refuse_infinite, select_columns
from mlmed.data.layout import EquationLayout
from mlmed.errors import DataError, EffectError
from mlmed.formula import formula_variables
from mlmed.modes.fitting import Fitted

__all__ = ["predict"]

LEVELS = ("population", "cluster")


def predict(fitted: Fitted, newdata: Any, *, level: str, ranef: Callable[[], pd.DataFrame]) -> pd.DataFrame | pd.Series:
    """X beta, plus Z u for ``level="cluster"``; one column per equation."""
    if level not in LEVELS:
        raise EffectError(f"level must be one of {', '.join(LEVELS)}; found {level!r}")
    columns, first_p = {}, 0
    group = fitted.spec.group
    for number, equation in enumerate(fitted.layout.equations):
        wanted = _predictors(equation)
        table = select_columns(newdata, {*wanted, *(group if level == "cluster" else ())})
        refuse_infinite(table)
        rows = ~table[sorted(wanted)].isna().to_numpy().any(axis=1) if wanted else np.ones(len(table), dtype=bool)
        _refuse_new_levels(equation, table)
        values = np.full(len(table), np.nan)
        p = len(equation.fixed)
        if rows.any():
            usable = table.loc[np.flatnonzero(rows)]
            X = encode(equation.encodings[0], usable, where=f"equation {equation.name}")[0]
            predicted = X @ fitted.estimates.beta[first_p : first_p + p]
            if level == "cluster":
                predicted = predicted + _cluster_part(fitted, number, usable, ranef())
            values[rows] = predicted
        first_p += p
        columns[equation.name] = values
    index = newdata.index if isinstance(newdata, pd.DataFrame | pd.Series) else None
    out = pd.DataFrame(columns, index=index)
    return out if len(columns) > 1 else out.iloc[:, 0]


def _predictors(equation: EquationLayout) -> set[str]:
    """Columns of the right-hand side."""
    return set().union(*(formula_variables(str(encoding.formula)) for encoding in equation.encodings))


def _refuse_new_levels(equation: EquationLayout, table: pd.DataFrame) -> None:
    for name, levels in equation.levels.items():
        if name not in table.columns:
            continue
        new = [value for value in pd.unique(table[name].dropna()) if value not in levels]
        if new:
            raise DataError(
                f"column {name!r} has the level {new[0]!r}, which was not in the data of equation {equation.name} "
                f"(levels: {', '.join(map(str, levels))}); its effect is unknown"
            )


def _cluster_part(fitted: Fitted, number: int, table: pd.DataFrame, ranef: pd.DataFrame) -> NDArray[np.float64]:
    """Z u for each row; 0 for clusters that were not in the data."""
    equations = fitted.layout.equations
    equation = equations[number]
    first = sum(len(other.random) for other in equations[:number])
    J = len(fitted.clusters)
    modes = ranef["value"].to_numpy().reshape(-1, J)[first : first + len(equation.random)]
    codes, labels = cluster_codes(table.reset_index(drop=True), fitted.spec.group)
    known = fitted.clusters.get_indexer(labels)
    at = np.where(codes >= 0, known[codes], -1)
    Z = np.concatenate(
        [encode(encoding, table, where=f"equation {equation.name}")[0] for encoding in equation.encodings[1:]],
        axis=1,
    )
    u = np.where(at >= 0, modes[:, at], 0.0)
    return np.einsum("nk,kn->n", Z, u)
