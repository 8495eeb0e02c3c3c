"""A residual covariance that is singular at the optimum: rows have two of three responses each."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import mlmed
from mlmed.errors import BoundaryWarning, EffectError, NotIdentifiedError
from mlmed.lmm.objective import objective_for
from mlmed.lmm.optimum import MIN_MULTIPLIER
from mlmed.results.results import Results
from tests.multivariate.dense import made
from tests.tolerances import SAME

pytestmark = pytest.mark.filterwarnings("ignore::mlmed.errors.DroppedRowsWarning")

FORMULAS = [f"y{r} ~ x + (1 |c| id)" for r in range(3)]
PAIRS, CORRELATIONS = [(0, 1), (1, 2), (0, 2)], [0.9, 0.9, -0.2]
#: The dense search stops where -2l is flat to its own differences.
OTHER_SEARCH = 1e-5
#: Differences of a criterion of 1e3 with steps of 1e-3.
DERIVATIVE = 1e-6


def pairs(seed: int, clusters: int = 40, rows: int = 6, complete: int = 0) -> pd.DataFrame:
    """Pairs of responses with correlations that no three variables have together."""
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(clusters), rows)
    x, u = rng.normal(size=len(ids)), 0.7 * rng.normal(size=(clusters, 3))
    y = np.full((len(ids), 3), np.nan)
    for k, j in enumerate(ids):
        at, r = list(PAIRS[k % 3]), CORRELATIONS[k % 3]
        y[k, at] = rng.multivariate_normal([0.0, 0.0], [[1.0, r], [r, 1.0]]) + u[j][at] + 0.3 * x[k]
    y[:complete] = rng.normal(size=(complete, 3))
    return pd.DataFrame(y, columns=["y0", "y1", "y2"]).assign(id=ids, x=x)


@cache
def fitted(method: str = "reml") -> Results:
    with pytest.warns(BoundaryWarning, match="the residual covariance has rank 2 of 3"):
        return mlmed.mixed(FORMULAS, pairs(0), residual="unstructured", method=method)


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_the_boundary_is_reached_and_certified(method):
    fit = fitted(method)
    optimum = fit.fit.optimum
    assert fit.converged
    assert fit.is_singular
    assert optimum.residual_lost == 1
    assert optimum.rank == optimum.size == 3
    assert optimum.certificate.multiplier > 1.0 > MIN_MULTIPLIER
    values = np.linalg.eigvalsh(fit.Sigma)
    assert abs(values[0]) < SAME * values[-1]
    assert values[1] > 0.1


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_a_dense_search_finds_no_better_point(method):
    """Factors of G and Sigma with all six entries free, on the density of all rows, from two starts."""
    fit, dense = fitted(method), made(pairs(0), *FORMULAS, method=method)[1]
    low = np.tril_indices(3)

    def criterion(theta):
        L, K = np.zeros((3, 3)), np.zeros((3, 3))
        L[low], K[low] = theta[:6], theta[6:]
        try:
            return -dense.loglik(L @ L.T, K @ K.T, reml=method == "reml")
        except np.linalg.LinAlgError:
            return np.inf

    assert fit.llf == pytest.approx(
        dense.loglik(fit.G.to_numpy(), fit.Sigma.to_numpy(), reml=method == "reml"), rel=SAME
    )
    near = [np.linalg.cholesky(M + 1e-3 * np.eye(3))[low] for M in (fit.G.to_numpy(), fit.Sigma.to_numpy())]
    start = np.concatenate(near)
    best = minimize(criterion, start, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-13}).fun
    assert fit.llf >= -best - OTHER_SEARCH
    assert fit.llf == pytest.approx(-best, abs=100 * OTHER_SEARCH)  # it creeps along the boundary


def test_derivatives_on_the_face():
    """Gradient and Hessian in the linear coordinates of a singular Sigma."""
    working = fitted().fit.working
    whole = objective_for(working.problem, working.blocks, reml=True)
    optimum = fitted().fit.optimum
    lifted = whole.problem.residual.lifted(whole.problem.residual.root(optimum.sigma2))
    entries = [optimum.L[i, j] for j in range(3) for i in range(j, 3)]
    theta = np.concatenate([entries, whole.chart.coordinates(lifted)])
    objective, theta = whole.recharted(working.blocks, theta, whole.derivatives(theta).natural.spread)
    chart, part = objective.chart.on_face(objective.residual_root(theta), tol=1e-3)
    assert chart.rank == 2
    objective, theta = replace(objective, chart=chart), np.append(theta[:6], part)
    theta = theta + np.random.default_rng(0).normal(0.0, 0.05, len(theta))
    exact = objective.derivatives(theta)
    gradient = nd.Gradient(objective, step=1e-3, order=4)(theta)
    assert exact.gradient == pytest.approx(gradient, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(gradient).max())
    hessian = nd.Jacobian(lambda t: objective.derivatives(t).gradient, step=1e-3, order=4)(theta)
    assert exact.hessian == pytest.approx(hessian, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(hessian).max())


@pytest.mark.parametrize("order", range(10))
def test_any_order_of_rows_ends_there(order):
    data = pairs(0).sample(frac=1.0, random_state=order)
    with pytest.warns(BoundaryWarning):
        fit = mlmed.mixed(FORMULAS, data, residual="unstructured")
    assert fit.converged
    assert fit.fit.optimum.residual_lost == 1
    assert fit.llf == pytest.approx(fitted().llf, rel=SAME)
    assert fit.Sigma.to_numpy() == pytest.approx(fitted().Sigma.to_numpy(), abs=1e-7)  # root of the rounding of -2l


def test_what_follows_a_singular_sigma():
    """Tables, draws, profiles and predictions have numbers or say why not."""
    fit = fitted()
    table = fit.tidy().set_index("term")
    of_sigma = table[table.index.str.contains("Residual")]
    assert (of_sigma["note"] != "").all()
    assert "rank 2 of 3" in fit.summary()
    assert np.isfinite(fit.predict(pairs(0))).all(axis=None)
    simulated = fit.simulate(2, seed=1)
    assert len(simulated) > 0
    assert fit.loglik_at(fit.G, fit.Sigma) == pytest.approx(fit.llf, rel=SAME)
    with pytest.raises(EffectError, match="positive"):
        fit.loglik_at(fit.G, fit.Sigma - 0.01 * np.eye(3))
    with pytest.raises(EffectError, match="singular"):  # rows have y0 and y1 together
        fit.loglik_at(fit.G, np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        boot = fit.bootstrap(8, seed=1)
    assert boot.n_failed == 0


def test_a_few_complete_rows_beside_incomplete_ones_decide():
    """One complete row: Sigma of its responses becomes singular, which the criterion cannot follow; 40 settle it."""
    with pytest.raises(NotIdentifiedError, match="so few rows have all of three or more responses"):
        mlmed.mixed(FORMULAS, pairs(0, 60, complete=1), residual="unstructured")
    assert mlmed.mixed(FORMULAS, pairs(0, 60, complete=40), residual="unstructured").converged
