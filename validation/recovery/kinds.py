"""Kinds of simulated models with their true effects: how data are drawn, how they are fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

import mlmed

#: Variances of random intercepts and slopes, and their correlation.
VARIANCE, CORRELATION = 0.25, 0.3
J, N = 150, 10


@dataclass(frozen=True)
class Kind:
    """One kind of model.

    Attributes
    ----------
    draw : function of a generator
        A data set.
    mediators, outcome : formulas
        The model; ``x`` is the treatment.
    truth : mapping of str to float
        True effects, and differences as expressions.
    at : mapping
        Values of moderators.
    """

    draw: Callable[[np.random.Generator], pd.DataFrame]
    mediators: list[str]
    outcome: str
    truth: Mapping[str, float]
    at: Mapping[str, Any] = field(default_factory=dict)

    def fit(self, data: pd.DataFrame) -> mlmed.Results:
        """The fit of a data set."""
        return mlmed.mediate(self.mediators, self.outcome, data, treatment="x")


def _effects(rng: np.random.Generator, q: int) -> np.ndarray:
    """Normal effects (J N, q) of the clusters, by row, equally correlated."""
    G = VARIANCE * (CORRELATION + (1.0 - CORRELATION) * np.eye(q))
    return np.repeat(rng.normal(size=(J, q)) @ np.linalg.cholesky(G).T, N, axis=0)


COV = VARIANCE * CORRELATION
IDS = np.repeat(np.arange(J), N)


def _parallel(rng: np.random.Generator) -> pd.DataFrame:
    u, (x, *e) = _effects(rng, 7), rng.normal(size=(4, J * N))
    m1 = u[:, 0] + (0.5 + u[:, 1]) * x + e[0]
    m2 = u[:, 2] + (0.3 + u[:, 3]) * x + e[1]
    y = u[:, 4] + 0.2 * x + (0.4 + u[:, 5]) * m1 + (0.6 + u[:, 6]) * m2 + e[2]
    return pd.DataFrame({"id": IDS, "x": x, "m1": m1, "m2": m2, "y": y})


def _serial(rng: np.random.Generator) -> pd.DataFrame:
    u, (x, *e) = _effects(rng, 7), rng.normal(size=(4, J * N))
    m1 = u[:, 0] + (0.5 + u[:, 1]) * x + e[0]
    m2 = u[:, 2] + 0.3 * x + (0.4 + u[:, 3]) * m1 + e[1]
    y = u[:, 4] + 0.2 * x + (0.3 + u[:, 5]) * m1 + (0.5 + u[:, 6]) * m2 + e[2]
    return pd.DataFrame({"id": IDS, "x": x, "m1": m1, "m2": m2, "y": y})


def _moderated(rng: np.random.Generator) -> pd.DataFrame:
    """A moderator of the rows, w, and one of the clusters, v."""
    u, (x, w, *e) = _effects(rng, 4), rng.normal(size=(4, J * N))
    v = np.repeat(rng.normal(size=J), N)
    m = u[:, 0] + (0.5 + 0.2 * w + 0.1 * v + u[:, 1]) * x + 0.1 * w + 0.3 * v + e[0]
    y = u[:, 2] + 0.2 * x + (0.4 - 0.2 * v + u[:, 3]) * m + 0.2 * v + e[1]
    return pd.DataFrame({"id": IDS, "x": x, "w": w, "v": v, "m": m, "y": y})


_THROUGH = 0.5 * 0.4 * 0.5 + COV * (0.5 + 0.4 + 0.5)
KINDS = {
    "parallel": Kind(
        _parallel,
        ["m1 ~ x + (1 + x | id)", "m2 ~ x + (1 + x | id)"],
        "y ~ m1 + m2 + x + (1 + m1 + m2 | id)",
        {
            "indirect[m1]": 0.5 * 0.4 + COV, "indirect[m2]": 0.3 * 0.6 + COV, "indirect": 0.38 + 2 * COV,
            "total": 0.58 + 2 * COV, "indirect[m1] - indirect[m2]": 0.02,
        },
    ),
    "serial": Kind(
        _serial,
        ["m1 ~ x + (1 + x | id)", "m2 ~ m1 + x + (1 + m1 | id)"],
        "y ~ m1 + m2 + x + (1 + m1 + m2 | id)",
        {
            "indirect[m1]": 0.5 * 0.3 + COV, "indirect[m2]": 0.3 * 0.5, "indirect[m1,m2]": _THROUGH,
            "indirect": 0.3 + COV + _THROUGH, "total": 0.5 + COV + _THROUGH,
        },
    ),
    "two moderators": Kind(
        _moderated,
        ["m ~ x * w + x * v + (1 + x | id)"],
        "y ~ m * v + x + (1 + m | id)",
        {"a": 0.8, "b": 0.2, "indirect": 0.8 * 0.2 + COV, "total": 0.8 * 0.2 + COV + 0.2},
        {"w": 1.0, "v": 1.0},
    ),
}  # fmt: skip
