"""The criterion at fixed parameters against dense integration, its scores against differences."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pytest
from scipy import integrate
from scipy.linalg import solve_triangular
from scipy.stats import norm

from mlmed.quadrature.likelihood import conditional_loglik, loglik, posterior, scores
from mlmed.quadrature.nodes import Nodes, adapt, centres_at_zero, make_nodes
from mlmed.quadrature.problem import Problem
from tests.locscale_models import small_problem, some_theta
from tests.tolerances import DENSE, DERIVATIVE, SAME

#: Adaptive quadrature of many nodes against scipy's of the dense density.
INTEGRAL = 1e-8


def nodes_at(problem: Problem, theta: np.ndarray, m: int) -> Nodes:
    d = problem.structure.d
    found = adapt(lambda s: conditional_loglik(problem, theta, s), centres_at_zero(problem.J, d), tolerance=1e-7)
    return make_nodes(found, m)


def dense(problem: Problem, arrays: dict[str, np.ndarray], theta: np.ndarray, j: int, s: np.ndarray) -> float:
    """f(y_j | s) from the dense covariance matrix."""
    at, rows = problem.parameters(theta), arrays["codes"] == j
    Z = arrays["Z"][rows]
    eta = arrays["W"][rows] @ at.tau + problem.offset + arrays["V"][rows] @ (at.L_tt @ s)
    mean = arrays["X"][rows] @ at.beta + Z @ (at.L_ut @ s)
    V = Z @ at.L_uu @ at.L_uu.T @ Z.T + np.diag(np.exp(2.0 * eta))
    root = np.linalg.cholesky(V)
    z = solve_triangular(root, arrays["y"][rows] - mean, lower=True)
    return float(np.exp(-0.5 * z @ z) / np.diag(root).prod() / (2.0 * np.pi) ** (len(z) / 2))


@pytest.mark.parametrize("d", [0, 1, 2])
def test_conditional_density_is_the_dense_normal_density(d: int) -> None:
    problem, arrays = small_problem(d)
    theta = some_theta(problem)
    s = np.random.default_rng(2).normal(size=(problem.J, 3, d))
    expected = [[np.log(dense(problem, arrays, theta, j, s[j, k])) for k in range(3)] for j in range(problem.J)]
    np.testing.assert_allclose(conditional_loglik(problem, theta, s), expected, rtol=DENSE)


def test_one_dimension_against_quad() -> None:
    problem, arrays = small_problem(1)
    theta = some_theta(problem)
    expected = 0.0
    for j in range(problem.J):
        value = integrate.quad(
            lambda s, j=j: dense(problem, arrays, theta, j, np.array([s])) * norm.pdf(s), -9, 9, epsabs=0, epsrel=1e-11
        )[0]
        expected += np.log(value)
    assert loglik(problem, theta, nodes_at(problem, theta, 61)) == pytest.approx(expected, rel=INTEGRAL)


def test_two_dimensions_against_a_product_rule() -> None:
    problem, arrays = small_problem(2)
    theta = some_theta(problem)
    grid, w = np.polynomial.legendre.leggauss(90)
    points, w = 7.0 * grid, 7.0 * w  # a product rule over 7 prior sds, beyond what matters
    expected = 0.0
    for j in range(problem.J):
        s = np.stack(np.meshgrid(points, points, indexing="ij"), axis=-1).reshape(-1, 2)
        values = np.array([dense(problem, arrays, theta, j, one) for one in s]) * norm.pdf(s).prod(axis=1)
        expected += np.log(values @ np.outer(w, w).ravel())
    assert loglik(problem, theta, nodes_at(problem, theta, 61)) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("d", [0, 1, 2])
def test_scores_are_derivatives_at_fixed_nodes(d: int) -> None:
    """Exact for any number of nodes, as they stay where they are."""
    problem, _ = small_problem(d)
    theta = some_theta(problem)
    nodes = nodes_at(problem, theta, 5)
    expected = nd.Gradient(lambda at: loglik(problem, at, nodes))(theta)
    values, found = scores(problem, theta, nodes)
    np.testing.assert_allclose(found.sum(axis=0), expected, rtol=DERIVATIVE, atol=DERIVATIVE)
    assert values.sum() == pytest.approx(loglik(problem, theta, nodes), rel=SAME)


@pytest.mark.parametrize("d", [1, 2])
def test_scores_are_derivatives_of_the_integral(d: int) -> None:
    """With nodes that move along and are many: Fisher's identity."""
    problem, _ = small_problem(d)
    theta = some_theta(problem)
    m = 61
    expected = nd.Gradient(lambda at: loglik(problem, at, nodes_at(problem, at, m)), step=1e-3)(theta)
    found = scores(problem, theta, nodes_at(problem, theta, m))[1].sum(axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_far_nodes_count_for_nothing() -> None:
    """Weights of 1e20 and more, where sums of squares cancel, must not look like a large likelihood."""
    problem, _ = small_problem(2)
    theta = some_theta(problem)
    near, far = (loglik(problem, theta, nodes_at(problem, theta, m)) for m in (61, 81))
    assert far == pytest.approx(near, rel=INTEGRAL)
    with np.errstate(all="raise", under="ignore"):
        assert np.isneginf(conditional_loglik(problem, theta, np.full((problem.J, 1, 2), -1e3))).all()


def test_padding_does_not_matter() -> None:
    """Clusters of very different size, in chunks of their own and together with others."""
    problem, arrays = small_problem(1)
    theta = some_theta(problem)
    s = np.zeros((problem.J, 1, 1))
    assert len(problem.chunks) > 0
    assert sum(int(chunk.size.sum()) for chunk in problem.chunks) == len(arrays["y"])
    expected = [np.log(dense(problem, arrays, theta, j, np.zeros(1))) for j in range(problem.J)]
    np.testing.assert_allclose(conditional_loglik(problem, theta, s)[:, 0], expected, rtol=DENSE)


def test_posterior_moments_against_quad() -> None:
    """Mean and sd of the scale effect of each cluster, and the mean of its location effects."""
    problem, arrays = small_problem(1)
    theta = some_theta(problem)
    means, covariances = posterior(problem, theta, nodes_at(problem, theta, 41)).moments()
    at = problem.parameters(theta)
    for j in range(problem.J):
        grid = np.linspace(-8, 8, 4001)
        weight = np.array([dense(problem, arrays, theta, j, np.array([s])) * norm.pdf(s) for s in grid])
        weight = weight / weight.sum()
        t = at.L_tt[0, 0] * grid
        mean = weight @ t
        assert means[j, 0] == pytest.approx(mean, abs=1e-6)
        assert covariances[j, 0, 0] == pytest.approx(weight @ (t - mean) ** 2, abs=1e-6)
