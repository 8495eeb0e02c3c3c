"""Designs and responses that the tests of ordinary regressions share."""

from __future__ import annotations

import numpy as np

from mlmed.glm.family import mean_of
from mlmed.glm.fit import GlmFit, fit_glm

#: Two programs that iterate to convergence by different criteria.
CONVERGED = 1e-8
NAMES = ("Intercept", "x", "b", "c")


def design(n: int = 200, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Columns (1, normal, two dummies) and a linear predictor."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n)
    X = np.column_stack([np.ones(n), rng.normal(size=n), group == 1, group == 2]).astype(float)
    return X, X @ [0.2, 0.5, -0.3, 0.4]


def response(family: str, eta: np.ndarray, *, seed: int = 2) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if family == "linear":
        return eta + rng.normal(size=len(eta))
    mean = mean_of(family, eta)
    return (rng.poisson(mean) if family == "poisson" else rng.random(len(eta)) < mean).astype(float)


def fitted(family: str, **options: np.ndarray) -> GlmFit:
    X, eta = design()
    return fit_glm(family, response(family, eta), X, names=NAMES, response="y", **options)
