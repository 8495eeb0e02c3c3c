"""Clusters whose residual sd is far from the others': the nodes must find them."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import BoundaryWarning
from mlmed.numerics.certificate import OFF_CENTRE
from mlmed.quadrature import nodes
from mlmed.quadrature.estimates import plain_theta
from mlmed.quadrature.likelihood import conditional_loglik, loglik
from mlmed.quadrature.nodes import Centres, adapt, better_of, centres_at_zero, make_nodes
from mlmed.quadrature.optimizer import certify, not_below

#: Certified nodes are within 1e-4 of twice as many; the rest is the grid's.
INTEGRAL = 2e-4
LOCATION, SCALE = "y ~ 1 + (1 |c| id)", "~ 1 + (1 |c| id)"


def spread_out(J: int, n: int, sd: float, seed: int) -> pd.DataFrame:
    """Clusters with log residual sds of -.3 + sd * N(0, 1)."""
    rng = np.random.default_rng(seed)
    u, t = 0.8 * rng.normal(size=J), sd * rng.normal(size=J)
    at = np.repeat(np.arange(J), n)
    return pd.DataFrame({"id": at, "y": 1.0 + u[at] + np.exp(-0.3 + t[at]) * rng.normal(size=J * n)})


def by_grid(fit: mlmed.Results, df: pd.DataFrame) -> float:
    """Log-likelihood at the estimates on a fine grid of t around each cluster's own log sd."""
    beta, tau, G = fit.fit.estimates.beta[0], fit.fit.estimates.tau[0], fit.fit.estimates.G
    total = 0.0
    for _, y in df.groupby("id")["y"]:
        n, mean = len(y), y.mean()
        squares = float(((y - mean) ** 2).sum())
        t = 0.5 * np.log(squares / (n - 1)) - tau + np.linspace(-12.0, 12.0, 4001) / np.sqrt(2.0 * n)
        centre, var_u = beta + G[0, 1] / G[1, 1] * t, G[0, 0] - G[0, 1] ** 2 / G[1, 1]
        sigma2 = np.exp(2.0 * (tau + t))
        log_f = -0.5 * (n - 1) * np.log(2.0 * np.pi * sigma2) - 0.5 * squares / sigma2
        log_f -= 0.5 * np.log(2.0 * np.pi * (n * var_u + sigma2)) + 0.5 * n * (mean - centre) ** 2 / (
            n * var_u + sigma2
        )
        log_f += np.log(t[1] - t[0]) - 0.5 * np.log(2.0 * np.pi * G[1, 1]) - 0.5 * t**2 / G[1, 1]
        total += log_f.max() + np.log(np.exp(log_f - log_f.max()).sum())
    return float(total)


@pytest.mark.parametrize(("J", "n", "sd"), [(30, 100, 1.5), (50, 1000, 1.0)])
def test_widely_spread_residual_sds(J: int, n: int, sd: float) -> None:
    """The 30 x 100 case once ended 0.9 below the maximum, the 50 x 1000 one 4.5 below."""
    df = spread_out(J, n, sd, seed=J + n)
    fit = mlmed.location_scale(LOCATION, SCALE, df)
    assert fit.converged
    assert fit.llf == pytest.approx(by_grid(fit, df), abs=INTEGRAL)


@pytest.mark.parametrize("outlier", [300.0, 9999.0])
def test_one_wild_response(outlier: float) -> None:
    """The cluster's sum of squares is 1e4 to 1e8 times that of the others."""
    df = spread_out(30, 10, 0.4, seed=5)
    df.loc[3, "y"] = outlier
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        plain = mlmed.mixed("y ~ 1 + (1 | id)", df, method="ml")
    fit = mlmed.location_scale(LOCATION, SCALE, df)
    assert fit.converged
    assert fit.llf > plain.llf + 100.0
    assert fit.llf == pytest.approx(by_grid(fit, df), abs=INTEGRAL)


def test_modes_that_were_not_found_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    df = spread_out(30, 100, 1.5, seed=130)
    fit = mlmed.location_scale(LOCATION, SCALE, df)
    problem, theta = fit.fit.problem, fit.fit.optimum.theta
    zero = centres_at_zero(problem.J, 1)

    def conditional(s: np.ndarray) -> np.ndarray:
        return conditional_loglik(problem, theta, s)

    assert adapt(conditional, zero, tolerance=1e-7).left.max() < 1e-7
    monkeypatch.setattr(nodes, "MOST_STEPS", 2)
    short = adapt(conditional, zero, tolerance=1e-7)
    assert short.left.max() > 1.0
    inside = np.zeros(2, dtype=bool)
    judged = certify(np.zeros(2), np.eye(2), inside, centres=short, node_change=0.0)
    assert not judged.converged
    assert judged.value(OFF_CENTRE) == (short.left > 0.1).sum()
    assert f"not found in {judged.value(OFF_CENTRE):.0f} of 30 clusters" in judged.complaint


def test_better_centres_are_taken_cluster_by_cluster() -> None:
    """Also where the first cannot be evaluated."""

    def conditional(s: np.ndarray) -> np.ndarray:
        return np.where(s[..., 0] < -5.0, -np.inf, -((s[..., 0] - 1.0) ** 2))

    one = Centres(np.array([[0.6], [0.0], [-9.0]]), np.ones((3, 1, 1)), np.zeros(3))
    two = Centres(np.array([[0.0], [0.7], [0.1]]), 2.0 * np.ones((3, 1, 1)), np.ones(3))
    found = better_of(conditional, one, two)
    np.testing.assert_array_equal(found.mode, [[0.6], [0.7], [0.1]])
    np.testing.assert_array_equal(found.factor[:, 0, 0], [1.0, 2.0, 2.0])
    np.testing.assert_array_equal(found.left, [0.0, 1.0, 1.0])


def test_a_point_below_the_fit_with_one_sd_is_not_returned() -> None:
    df = spread_out(30, 10, 0.4, seed=6)
    fit = mlmed.location_scale(LOCATION, SCALE, df)
    mixed = mlmed.mixed("y ~ 1 + (1 | id)", df, method="ml")
    estimates = mixed.fit.estimates
    problem, optimum = fit.fit.problem, fit.fit.optimum
    plain = plain_theta(problem, fit.fit.units, estimates.beta, estimates.G, float(estimates.sigma2[0]))
    at_plain = loglik(problem, plain, make_nodes(centres_at_zero(problem.J, 1), 1))
    in_units = at_plain - problem.nobs * np.log(fit.fit.units.unit)
    assert in_units == pytest.approx(mixed.llf, abs=1e-6)  # G's factor has pivots of at least 1e-6
    again = not_below(problem, replace(optimum, loglik=at_plain - 1.0), plain)
    assert again.loglik == pytest.approx(optimum.loglik, abs=1e-6)
    assert again.certificate.converged
