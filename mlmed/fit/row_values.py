"""Fitted values and residuals of the rows of a fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.layout import Design
from mlmed.lmm.ranef import ModeLaw

__all__ = ["fitted_values", "residual_values", "with_index"]

Array = NDArray[np.float64]


def fitted_values(design: Design, beta: Array, law: ModeLaw | None) -> Array:
    """X beta, plus Z u where there is a law of u; (N, R), NaN where an equation does not use a row."""
    out = np.full((len(design.codes), len(design.layout.equations)), np.nan)
    first_p = first_q = 0
    for number, (equation, own) in enumerate(zip(design.layout.equations, design.members, strict=True)):
        p, q = len(equation.fixed), len(equation.random)
        found = np.stack([design.values[k][own] for k in equation.fixed_at], axis=1) @ beta[first_p : first_p + p]
        if law is not None:
            Z = np.stack([design.values[k][own] for k in equation.random_at], axis=1)
            found += np.vecdot(Z, law.modes[design.codes[own], first_q : first_q + q])
        out[own, number] = found
        first_p, first_q = first_p + p, first_q + q
    return out


def residual_values(design: Design, beta: Array, law: ModeLaw | None) -> Array:
    """Responses less the fitted values, (N, R)."""
    responses = np.stack([design.values[equation.response_at] for equation in design.layout.equations], axis=1)
    return responses - fitted_values(design, beta, law)


def with_index(table: Any, design: Design, values: Array) -> pd.Series | pd.DataFrame:
    """Values (N, R) of the rows of a design on all rows of its table, with the table's index."""
    out = np.full((design.layout.total, values.shape[1]), np.nan)
    out[design.at] = values
    index = table.index if isinstance(table, pd.DataFrame) else None
    frame = pd.DataFrame(out, index=index, columns=[equation.name for equation in design.layout.equations])
    return frame if frame.shape[1] > 1 else frame.iloc[:, 0]
