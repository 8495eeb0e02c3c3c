"""Fits and values to draw from, shared by the tests of simulated responses."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

import mlmed
from mlmed.results.results import Results

TWO = ("m ~ x + w + (1 + x |c| id)", "y ~ x + (1 |c| id)")


def quietly(make: Any, *args: Any, **options: Any) -> Results:
    """Fit, leaving warnings aside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlmed.errors.MlmedWarning)
        return make(*args, **options)


def frame(clusters: int = 40, size: int = 6, *, seed: int = 3) -> pd.DataFrame:
    """Rows of a mediation model with a covariate, far from unit scale, in mixed order under an odd index."""
    data = mlmed.simulate.bpg(clusters, size, seed=seed).data
    rng = np.random.default_rng(seed)
    data = data.assign(x=10.0 + 3.0 * data["x"], w=rng.normal(size=len(data)), m=100.0 + 5.0 * data["m"])
    data = data.sample(frac=1.0, random_state=1)
    return data.set_index(pd.Index([f"row {k // 2}" for k in range(len(data))]))


def with_gaps(data: pd.DataFrame) -> pd.DataFrame:
    """Missing values in a response, a predictor and the cluster id."""
    k = np.arange(len(data))
    return data.assign(y=data["y"].where(k % 5 != 0), w=data["w"].where(k % 7 != 0), id=data["id"].where(k % 31 != 0))


def with_values(fit: Results, *, G: np.ndarray | None = None, Sigma: np.ndarray | None = None) -> Results:
    """The fit with other variances (user's units) to draw from; Sigma may have covariances."""
    fitted = fit.fit
    optimum, estimates = fitted.optimum, fitted.estimates
    if Sigma is not None:
        R = len(Sigma)
        at = np.array([(r, r) for r in range(R)] + [(r, s) for r in range(R) for s in range(r)])
        estimates = replace(estimates, sigma2=Sigma[at[:, 0], at[:, 1]], sigma_at=at)
    if G is not None:
        root = np.linalg.cholesky(G) if np.any(G) else np.zeros_like(G)
        optimum = replace(optimum, L=np.linalg.solve(fitted.working.units.Z_map, root))
        estimates = replace(estimates, G=G)
    return replace(fit, fit=replace(fitted, optimum=optimum, estimates=estimates))


def implied(fit: Results, rows: pd.DataFrame, Z: Sequence[np.ndarray], Var: np.ndarray) -> np.ndarray:
    """Covariance of the responses of one cluster, all of the first, then all of the second: Z Var Z' + Sigma by row."""
    design = np.zeros((len(rows) * len(Z), sum(part.shape[1] for part in Z)))
    first = 0
    for r, part in enumerate(Z):
        design[r * len(rows) : (r + 1) * len(rows), first : first + part.shape[1]] = part
        first += part.shape[1]
    return design @ Var @ design.T + np.kron(fit.fit.estimates.Sigma, np.eye(len(rows)))
