"""Data and fits that the tests of potential outcomes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import poisson

from mlmed.api.causal import causal
from mlmed.effects.counterfactual import CounterfactualSet
from mlmed.effects.setting import Chain
from mlmed.glm.family import BINARY, mean_of
from mlmed.options import FAMILIES
from mlmed.results.results import Results

#: Integrals over the mediator are promised to this.
INTEGRAL = 1e-10
#: Products of coefficients, computed twice.
EXACT = 1e-12
PAIRS = [(m, y) for m in FAMILIES for y in FAMILIES]
XM, YM = "m ~ x + w", "y ~ m * x + w"
MIXED = "Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)"


def simulated(family_m: str = "linear", family_y: str = "linear", *, n: int = 300, seed: int = 1) -> pd.DataFrame:
    """Treatment x, covariate w, clusters g, and responses of two families."""
    rng = np.random.default_rng(seed)
    x, w = np.tile([0.0, 1.0], n // 2), rng.normal(size=n)

    def response(family: str, eta: np.ndarray) -> np.ndarray:
        if family == "linear":
            return eta + rng.normal(size=n)
        mean = mean_of(family, eta)
        return (rng.poisson(mean) if family == "poisson" else rng.random(n) < mean).astype(float)

    m = response(family_m, 0.6 * x + 0.3 * w - 0.2)
    y = response(family_y, 0.3 * m + 0.2 * x - 0.2 * w - 0.3)
    return pd.DataFrame({"x": x, "w": w, "m": m, "y": y, "g": np.arange(n) % 15})


def fitted(family_m: str = "linear", family_y: str = "linear", *, outcome: str = YM, **options: Any) -> Results:
    data = simulated(family_m, family_y)
    return causal(XM, outcome, data, treatment="x", family_m=family_m, family_y=family_y, **options)


def effects_of(fit: Results, at: Any = None, **options: Any) -> CounterfactualSet:
    """The effects of a fit, before they are a table."""
    return fit.catalogue.effects(fit.fit, at, **options)


def chain(fit: Results) -> Chain:
    """Its two equations, the treatment and the values that are compared."""
    return fit.catalogue.chain(fit.fit)


def vcov_of(fit: Results, role: str) -> np.ndarray:
    """Covariance of the coefficients of one equation, as the fit was asked for it."""
    return getattr(chain(fit), role).vcov(fit.fit.usual).matrix


def column(table: pd.DataFrame, name: str = "estimate") -> pd.Series:
    return table.set_index("term")[name]


def brute(mediator: str, outcome: str, eta: float, A: float, B: float, s: float) -> float:
    """E g(A + B M) by a fine sum over M."""
    if mediator == "linear":
        z = np.arange(-14.0, 14.0, 2e-4)
        weight = np.exp(-0.5 * z * z)
        return float(weight / weight.sum() @ mean_of(outcome, A + B * (eta + s * z)))
    if mediator in BINARY:
        p = float(mean_of(mediator, np.array(eta)))
        return float((1 - p) * mean_of(outcome, np.array(A)) + p * mean_of(outcome, np.array(A + B)))
    k = np.arange(400.0)
    return float(poisson.pmf(k, np.exp(eta)) @ mean_of(outcome, A + B * k))
