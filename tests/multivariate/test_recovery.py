"""Simulated data with a stated truth: bias and coverage of variances and correlations, rows with gaps included."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed

#: Covariance of (intercept, slope) of both responses, and of their residuals.
SD, CORRELATION = (
    np.array([0.8, 0.4, 0.7, 0.3]),
    np.array([[1.0, 0.3, -0.4, 0.0], [0.3, 1.0, 0.1, 0.5], [-0.4, 0.1, 1.0, 0.2], [0.0, 0.5, 0.2, 1.0]]),
)
G, SIGMA = np.outer(SD, SD) * CORRELATION, np.array([[0.6, 0.25], [0.25, 0.5]])
BETA = np.array([[0.2, 0.5], [-0.3, 0.1]])
SETS, CLUSTERS, ROWS = 200, 80, 10
#: Monte Carlo standard errors that a mean over 200 sets may be away from the truth: 17 numbers, so 3.5.
ERRORS = 3.5
#: A 95% interval over 200 sets: 95% up to 3.3 binomial standard errors of .0154.
COVERAGE = (0.90, 0.995)


def drawn(rng: np.random.Generator) -> pd.DataFrame:
    """Two responses of x; one in ten values of each is missing."""
    u = rng.standard_normal((CLUSTERS, 4)) @ np.linalg.cholesky(G).T
    codes, x = np.repeat(np.arange(CLUSTERS), ROWS), rng.standard_normal(CLUSTERS * ROWS)
    e = rng.standard_normal((len(x), 2)) @ np.linalg.cholesky(SIGMA).T
    data = pd.DataFrame({"id": codes, "x": x})
    for r in range(2):
        own = BETA[r, 0] + u[codes, 2 * r] + (BETA[r, 1] + u[codes, 2 * r + 1]) * x + e[:, r]
        data[f"y{r}"] = np.where(rng.uniform(size=len(x)) < 0.1, np.nan, own)
    return data


@pytest.fixture(scope="module")
def tables() -> list[tuple[pd.Series, pd.DataFrame]]:
    """Natural parameters, and sds and correlations, of every set."""
    rng, found = np.random.default_rng(2026), []
    for _ in range(SETS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # rows left out, and a singular set now and then
            fit = mlmed.mixed(
                ["y0 ~ x + (1 + x |c| id)", "y1 ~ x + (1 + x |c| id)"], drawn(rng), residual="unstructured"
            )
        assert fit.converged
        found.append((fit.tidy().set_index("term")["estimate"].astype(float), fit.sdcor().set_index("term")))
    return found


def test_variances_and_covariances_are_unbiased(tables):
    """REML: fixed effects, all of G and all of Sigma."""
    estimates = pd.DataFrame([natural for natural, _ in tables])
    names = ["y0~Intercept", "y0~x", "y1~Intercept", "y1~x"]
    truth = dict(zip(names, BETA.ravel(), strict=True))
    for i, first in enumerate(names):
        for j, second in enumerate(names[: i + 1]):
            truth[f"var({first})" if i == j else f"cov({second},{first})"] = G[i, j]
    truth |= {"var(y0~Residual)": SIGMA[0, 0], "var(y1~Residual)": SIGMA[1, 1]}
    truth["cov(y0~Residual,y1~Residual)"] = SIGMA[1, 0]
    assert set(truth) == set(estimates)
    error = estimates.std() / np.sqrt(SETS)
    away = (estimates.mean() - pd.Series(truth)) / error
    assert away.abs().max() < ERRORS, away[away.abs() >= ERRORS]


def test_intervals_of_sds_and_correlations_cover(tables):
    sd = np.append(SD, np.sqrt(np.diag(SIGMA)))
    names = ["y0~Intercept", "y0~x", "y1~Intercept", "y1~x", "y0~Residual", "y1~Residual"]
    truth = {f"sd({name})": value for name, value in zip(names, sd, strict=True)}
    truth |= {f"cor({names[j]},{names[i]})": CORRELATION[i, j] for i in range(4) for j in range(i)}
    truth["cor(y0~Residual,y1~Residual)"] = SIGMA[1, 0] / np.sqrt(SIGMA[0, 0] * SIGMA[1, 1])
    for term, value in truth.items():
        ends = np.array([table.loc[term, ["conf_low", "conf_high"]].to_numpy(dtype=float) for _, table in tables])
        exists = np.isfinite(ends).all(axis=1)
        assert exists.mean() > 0.97, term
        covered = float(((ends[exists, 0] <= value) & (value <= ends[exists, 1])).mean())
        assert COVERAGE[0] <= covered <= COVERAGE[1], (term, covered)
