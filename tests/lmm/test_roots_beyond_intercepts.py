"""Huge slopes without random intercepts, or independent of them: digits, starts, and the best of several optima."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import mlmed
from mlmed.data.grams import FEW_DIGITS, rest_share
from mlmed.errors import MlmedWarning

#: -2l from rows, cluster by cluster, in doubles: V has a condition of 1e10.
VALUE = 1e-5
#: What counts as beaten, in log-likelihood units.
BEATEN = 1e-6


def rows(
    seed: int, sd: float, *, clusters: int = 30, size: int = 6, offset: float = 0.0, mean: float = 0.0
) -> pd.DataFrame:
    """y with an intercept of sd 1, slopes of sd ``sd`` on m, whose cluster means differ, and x; m moved afterwards."""
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(clusters), size)
    x, m = rng.normal(size=len(at)), mean + rng.normal(size=clusters)[at] + rng.normal(size=len(at))
    u = rng.normal(size=(3, clusters)) * np.array([[1.0], [sd], [sd]])
    y = u[0][at] + u[1][at] * m + u[2][at] * x + rng.normal(size=len(at))
    return pd.DataFrame({"id": at, "x": x, "m": m + offset, "y": y})


def fitted(formula: str, data: pd.DataFrame, **options: str) -> mlmed.results.results.Results:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        return mlmed.mixed(formula, data, **options)  # type: ignore[arg-type]


def dense(data: pd.DataFrame, beta: pd.Series, G: pd.DataFrame, sigma2: float) -> float:
    """Log-likelihood (ML) of y given m, x with random slopes of m and x."""
    total = 0.0
    for _, own in data.groupby("id"):
        Z = own[["m", "x"]].to_numpy()
        mean = beta["Intercept"] + Z @ beta[["m", "x"]].to_numpy()
        V = Z @ G.to_numpy() @ Z.T + sigma2 * np.eye(len(Z))
        total += float(multivariate_normal.logpdf(own["y"].to_numpy(), mean, V))
    return total


@pytest.mark.parametrize("covariance", ["unstructured", "identity", "exchangeable"])
@pytest.mark.parametrize("sd", [300.0, 1000.0])
def test_slopes_without_a_random_intercept_are_certified(sd: float, covariance: str) -> None:
    """What they leave of a response is told from the columns themselves, and not from columns less their means."""
    data = rows(3, sd, mean=0.3)
    fit = fitted("y ~ m + x + (0 + m + x | id)", data, covariance=covariance, method="ml")
    assert rest_share(fit.fit.grams, 0) < FEW_DIGITS
    assert fit.fit.grams.roots is not None
    assert fit.converged
    G = fit.G.to_numpy()
    assert np.linalg.eigvalsh(G).min() > 0.0
    assert fit.llf == pytest.approx(dense(data, fit.params, fit.G, float(fit.sigma2.iloc[0])), abs=VALUE)


def test_nearly_collinear_clusters_have_least_squares_effects() -> None:
    """Columns that hardly differ within a cluster ended in a bare LinAlgError: squares drowned the prior."""
    rng = np.random.default_rng(3)
    at = np.repeat(np.arange(36), rng.integers(2, 9, size=36))
    sizes = np.array([1.0, 600.0, 1.0, 600.0, 600.0])[:, None]
    x = rng.normal(size=len(at)) + 50.0
    u = rng.normal(size=(5, 36)) * sizes
    m = u[0][at] + u[1][at] * x + rng.normal(size=len(at))
    y = u[2][at] + u[3][at] * m + u[4][at] * x + rng.normal(size=len(at))
    data = pd.DataFrame({"id": at, "x": x, "m": m, "y": y})
    keep = rng.random(len(at)) > 0.2
    assert fitted("y ~ m + x + (0 + m + x | id)", data[keep], covariance="identity").converged


@pytest.mark.parametrize("offset", [1e5, 1e6])
def test_a_column_far_from_zero_has_roots(offset: float) -> None:
    """Products of columns that vary by 1e-4 of their size have lost eight digits of what varies."""
    data = rows(0, 30.0, clusters=16, size=7, offset=offset)
    fit = fitted("y ~ m + x + (0 + m + x | id)", data, covariance="identity")
    assert fit.converged


@pytest.mark.parametrize("seed", range(4))
def test_independent_slopes_far_from_zero_reach_the_best_optimum(seed: int) -> None:
    """Regressions of single clusters say intercepts of sd 1e5, where the best optimum has none and a large Sigma."""
    data = rows(seed, 200.0, clusters=30, size=4, offset=2500.0)
    fit = fitted("y ~ m + x + (1 + m + x || id)", data, method="ml")
    # nested in it: no random intercept at all, and none of m
    for formula in ("y ~ m + x + (0 + m + x || id)", "y ~ m + x + (0 + x | id)", "y ~ m + x + (1 + x || id)"):
        assert fitted(formula, data, method="ml").llf <= fit.llf + BEATEN
