"""Points of rest that are no maximum are left, and named where they are not."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from scipy import optimize as scipy_optimize
from scipy import special, stats

import mlmed
from mlmed.fit.quadrature import QuadratureFit
from mlmed.quadrature.climb import TIGHT, centred, hessian_at, step_off
from mlmed.quadrature.likelihood import loglik
from mlmed.quadrature.nodes import Nodes, centres_at_zero, make_nodes
from mlmed.quadrature.optimizer import certify, optimize
from tests.locscale_models import simulated

#: Two searches that end where a Newton step promises 1e-8 and less, twice that for two.
SAME_MAXIMUM = 1e-6


def _without_scale_variance(seed: int) -> pd.DataFrame:
    """25 clusters of 3 to 8 rows with one residual sd."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(25), rng.integers(3, 9, 25))
    x = rng.standard_normal(len(g))
    y = 1.0 + 0.5 * x + rng.standard_normal(25)[g] * 0.7 + rng.standard_normal(len(g))
    return pd.DataFrame({"id": g, "x": x, "y": y})


def _literal(psi: np.ndarray, data: pd.DataFrame) -> float:
    """Minus log-likelihood of y ~ x + (1 |c| id), ~ x + (1 |c| id) by fixed grids for both random effects.

    ``psi`` holds beta, tau, and u = a v, t = b v + c w with v and w standard normal; rows are independent given these.
    """
    (v, first), (w, second) = (np.polynomial.hermite_e.hermegauss(n) for n in (61, 3))
    log_weights = np.log(np.outer(first / first.sum(), second / second.sum())).ravel()
    v, w = (grid.ravel() for grid in np.meshgrid(v, w, indexing="ij"))
    x, y = data["x"].to_numpy()[:, None], data["y"].to_numpy()[:, None]
    mean = psi[0] + psi[1] * x + psi[4] * v
    log_sd = psi[2] + psi[3] * x + psi[5] * v + psi[6] * w
    rows = pd.DataFrame(stats.norm.logpdf(y, mean, np.exp(log_sd)))
    clusters = rows.groupby(data["id"].to_numpy()).sum().to_numpy()
    return -float(special.logsumexp(clusters + log_weights, axis=1).sum())


def _psi(fit: QuadratureFit) -> np.ndarray:
    """The estimates as ``_literal`` takes them."""
    G = fit.estimates.G
    a = np.sqrt(G[0, 0])
    b = G[0, 1] / a
    return np.array([*fit.estimates.beta, *fit.estimates.tau, a, b, np.sqrt(max(G[1, 1] - b**2, 0.0))])


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
@pytest.mark.parametrize("seed", [241, 484])
def test_a_saddle_next_to_no_scale_variance(seed: int) -> None:
    """A search came to rest where the variance of the scale is almost 0, 1.8e-5 and 1.5e-5 below the maximum."""
    data = _without_scale_variance(seed)
    fit = mlmed.location_scale("y ~ x + (1 |c| id)", "~ x + (1 |c| id)", data).fit
    assert fit.optimum.certificate.converged
    here = _literal(_psi(fit), data)
    assert -here == pytest.approx(fit.estimates.loglik, abs=SAME_MAXIMUM)
    best = scipy_optimize.minimize(_literal, _psi(fit), (data,), method="BFGS", options={"gtol": 1e-5})
    assert here <= best.fun + SAME_MAXIMUM


@pytest.mark.parametrize(
    ("location", "scale"),
    [
        ("y ~ x + (1 |c| g)", "~ w + (1 |c| g)"),
        ("y ~ x + (1 | g)", "~ w + (1 | g)"),
        ("y ~ x + (1 + x |c| g)", "~ w + (1 |c| g)"),
    ],
)
def test_a_search_that_starts_on_a_saddle(location: str, scale: str) -> None:
    """Without scale effects the gradient in them is 0; the maximum is far above."""
    data = simulated(40, 8, seed=4, sd_scale=0.6)
    fit = mlmed.location_scale(
        location,
        scale,
        data,
    ).fit
    saddle = _saddle(fit)
    found = optimize(fit.problem, saddle, m=fit.optimum.nodes_per_dimension)
    assert fit.optimum.loglik > _value(fit, saddle) + 5.0
    assert found.certificate.converged
    assert found.loglik == pytest.approx(fit.optimum.loglik, abs=SAME_MAXIMUM)


def _saddle(fit: QuadratureFit) -> np.ndarray:
    """The maximum with scale effects of 0: a point of rest of the whole likelihood."""
    problem, d = fit.problem, fit.problem.structure.d
    first = problem.p + problem.k
    free = np.ones(problem.size, dtype=bool)
    free[first:] = problem.structure.columns >= d

    def minus(part: np.ndarray) -> float:
        theta = np.zeros(problem.size)
        theta[free] = part
        return -_value(fit, theta)

    start = fit.start[free]
    found = scipy_optimize.minimize(minus, start, method="BFGS", options={"gtol": 1e-6}).x
    theta = np.zeros(problem.size)
    theta[free] = found
    return theta


def _nodes(fit: QuadratureFit, theta: np.ndarray) -> Nodes:
    centres = centred(fit.problem, theta, centres_at_zero(fit.problem.J, fit.problem.structure.d), TIGHT)
    return make_nodes(centres, fit.optimum.nodes_per_dimension)


def _value(fit: QuadratureFit, theta: np.ndarray) -> float:
    return loglik(fit.problem, theta, _nodes(fit, theta))


def test_nothing_is_higher_than_a_maximum() -> None:
    """Neither along the least curved line nor where an effect takes up some of another."""
    data = simulated(40, 8, seed=4, sd_scale=0.6)
    fit = mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + (1 |c| g)", data).fit
    theta, m = fit.optimum.theta, fit.optimum.nodes_per_dimension
    assert step_off(fit.problem, theta, fit.optimum.hessian, m) is None
    saddle = _saddle(fit)
    hessian = hessian_at(fit.problem, saddle, _nodes(fit, saddle))
    assert float(np.linalg.eigvalsh(hessian)[0]) < -1.0
    higher = step_off(fit.problem, saddle, hessian, m)
    assert higher is not None
    assert _value(fit, higher) > _value(fit, saddle) + 1.0


@pytest.mark.parametrize(
    ("hessian", "gone", "words"),
    [
        ([1.0, -0.5], [False, False], "curved upwards in some direction .* so this is no maximum"),
        ([1.0, -0.5], [False, True], "curved upwards in some direction .* multiplier -5.0e-01.* so this is no maximum"),
        ([1.0, 0.0], [False, False], "flat in some direction .* values are arbitrary"),
    ],
)
def test_words_for_a_point_that_is_no_maximum(hessian: list[float], gone: list[bool], words: str) -> None:
    """Negative curvature is not called flat."""
    certificate = certify(np.zeros(2), np.diag(hessian), np.array(gone), centres=centres_at_zero(0, 0), node_change=0.0)
    assert not certificate.converged
    assert re.search(words, certificate.complaint)
