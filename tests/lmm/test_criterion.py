"""The criterion at fixed parameters and its derivatives, before any optimum."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pytest

import mlmed
from mlmed.errors import DataError
from mlmed.lmm.covariance import Block
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.estimates import loglik_at
from mlmed.lmm.objective import objective_for
from mlmed.lmm.problem import Problem
from tests.models import MEDIATOR, OUTCOME, dense_loglik, random_point, stacked_matrices, working
from tests.tolerances import DENSE, DERIVATIVE, SAME

G_FIXED = np.diag([0.6, 0.1, 0.3, 0.1, 0.04]) + 0.01
SIGMA2_FIXED = np.array([0.65, 0.5])


@pytest.fixture(scope="module")
def small():
    return mlmed.simulate.bpg(6, 5, seed=11).data


@pytest.fixture(scope="module")
def problem():
    return working(mlmed.simulate.bpg(40, 6, seed=3).data, MEDIATOR, OUTCOME)


@pytest.mark.parametrize(("reml", "literal"), [(True, -2338.2176953695066), (False, -2331.83371516443)])
def test_literal_value_at_fixed_parameters(reml, literal):
    """The dense normal density of all 2,000 responses (``dense_loglik``) at round parameters, as a number."""
    made = working(
        mlmed.datasets.load("yuan_mackinnon_sim"), "Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)"
    )
    G = np.array(
        [
            [1.0, -0.15, 0.0, 0.0, 0.0],
            [-0.15, 0.64, 0.0, -0.10, 0.0],
            [0.0, 0.0, 1.0, 0.15, -0.10],
            [0.0, -0.10, 0.15, 0.25, 0.0],
            [0.0, 0.0, -0.10, 0.0, 0.49],
        ]
    )
    assert loglik_at(made, G, np.array([0.5625, 0.25]), reml=reml) == pytest.approx(literal, rel=SAME, abs=0)


@pytest.mark.parametrize("reml", [True, False])
def test_stack_and_grams_give_the_same_criterion(small, reml):
    """The table people read and the cross-products the engine reads are the same model."""
    X, z, is_m, codes = stacked_matrices(mlmed.stack(small, x="x", m="m", y="y", cluster="id"))
    residual = np.where(is_m, *SIGMA2_FIXED)
    expected = dense_loglik(X, X, z, codes, G_FIXED, residual, reml=reml)
    assert loglik_at(working(small, MEDIATOR, OUTCOME), G_FIXED, SIGMA2_FIXED, reml=reml) == pytest.approx(
        expected, rel=DENSE, abs=0
    )


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formula", ["y ~ m + x + (1 + m | id)", "y ~ 0 + m + x + (0 + m || id)"])
def test_single_equation_against_dense_density(small, formula, reml):
    made = working(small, formula)
    one = np.ones(len(small))
    m, x, y = (small[name].to_numpy() for name in "mxy")
    intercept = "0 +" not in formula
    X = np.column_stack([one, m, x] if intercept else [m, x])
    Z = np.column_stack([one, m] if intercept else [m])
    G = np.array([[0.5, 0.1], [0.1, 0.3]])[: Z.shape[1], : Z.shape[1]]
    expected = dense_loglik(X, Z, y, small["id"].to_numpy(), G, np.full(len(y), 0.7), reml=reml)
    assert loglik_at(made, G, np.array([0.7]), reml=reml) == pytest.approx(expected, rel=DENSE, abs=0)


def test_singular_G_is_a_legitimate_point(small):
    X, z, is_m, codes = stacked_matrices(mlmed.stack(small, x="x", m="m", y="y", cluster="id"))
    root = np.array([[0.8, 0.0], [0.1, 0.0], [0.2, 0.5], [0.0, 0.3], [0.0, 0.0]])
    expected = dense_loglik(X, X, z, codes, root @ root.T, np.where(is_m, *SIGMA2_FIXED), reml=True)
    ours = loglik_at(working(small, MEDIATOR, OUTCOME), root @ root.T, SIGMA2_FIXED, reml=True)
    assert ours == pytest.approx(expected, rel=DENSE, abs=0)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_natural_derivatives_against_numdifftools(problem, seed, reml):
    """Gradient, Hessian and d beta in (vech G, sigma2) at random interior points."""
    rng = np.random.default_rng(seed)
    G, sigma2 = random_point(rng, 5, 2)
    low = np.tril_indices(5)

    def unpack(v):
        matrix = np.zeros((5, 5))
        matrix[low] = v[:15]
        return matrix + np.tril(matrix, -1).T, v[15:]

    def at(v, order):
        matrix, residual = unpack(v)
        return evaluate(problem.problem, np.linalg.cholesky(matrix), residual, reml=reml, order=order)

    start = np.append(G[low], sigma2)
    J = np.zeros((27, 17))  # d(vec G, sigma2) / d(vech G, sigma2)
    for k, (i, j) in enumerate(zip(*low, strict=True)):
        J[5 * i + j, k] = J[5 * j + i, k] = 1.0
    J[25:, 15:] = np.eye(2)
    exact = at(start, 2)
    gradient = nd.Gradient(lambda v: at(v, 0).value, step=1e-3, order=4)(start)
    assert J.T @ exact.gradient == pytest.approx(gradient, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(gradient).max())
    slope = nd.Jacobian(lambda v: J.T @ at(v, 1).gradient, step=1e-3, order=4)(start)
    assert J.T @ exact.hessian @ J == pytest.approx(slope, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(slope).max())
    moves = nd.Jacobian(lambda v: at(v, 0).beta, step=1e-3, order=4)(start)
    assert exact.beta_gradient @ J == pytest.approx(moves, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(moves).max())


@pytest.mark.parametrize("structure", ["unstructured", "diagonal", "identity", "exchangeable"])
@pytest.mark.parametrize("seed", range(5))
def test_theta_derivatives_against_numdifftools(problem, structure, seed):
    """Gradient and Hessian in theta = (entries of L, log sd), every covariance structure."""
    objective = objective_for(problem.problem, (Block((0, 1, 2, 3, 4), structure),), reml=True)
    rng = np.random.default_rng(seed)
    theta = np.append(rng.normal(0.5, 0.2, objective.n_factor), rng.normal(-0.2, 0.2, 2))
    exact = objective.derivatives(theta)
    gradient = nd.Gradient(objective, step=1e-3, order=4)(theta)
    assert exact.gradient == pytest.approx(gradient, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(gradient).max())
    hessian = nd.Jacobian(lambda t: objective.derivatives(t).gradient, step=1e-3, order=4)(theta)
    assert exact.hessian == pytest.approx(hessian, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(hessian).max())


def test_literal_derivatives():
    """Lock: one number each, so that analytic and numerical derivatives cannot be wrong together."""
    # balanced one-way layout, two clusters of two: -2l has a closed form
    y = np.array([1.0, 2.0, 4.0, 6.0])
    data = {"y": y, "id": [1, 1, 2, 2]}
    import pandas as pd

    made = working(pd.DataFrame(data), "y ~ 1 + (1 | id)", method="ml")
    s, t = 0.5, 1.5  # sigma2, tau (raw units)
    lam = s + 2 * t
    within, between = 0.5 + 2.0, 2 * 2 * (3.5 / 2) ** 2
    scale = made.units.y_scale[0] ** 2
    at = evaluate(made.problem, np.array([[np.sqrt(t / scale)]]), np.array([s / scale]), reml=False, order=2)
    first = (2 * 2 / lam - 2 * between / lam**2, 2 / s + 2 / lam - within / s**2 - between / lam**2)
    assert at.gradient / scale == pytest.approx(first, rel=SAME)
    assert first == pytest.approx((-0.8571428571428572, -6.428571428571429), rel=1e-12)
    second = -4 * 2 / lam**2 + 8 * between / lam**3
    assert at.hessian[0, 0] / scale**2 == pytest.approx(second, rel=SAME)
    assert second == pytest.approx(1.6326530612244898, rel=1e-12)


def test_chunks_do_not_change_the_sums(problem):
    G, sigma2 = random_point(np.random.default_rng(0), 5, 2)
    L = np.linalg.cholesky(G)
    whole = evaluate(problem.problem, L, sigma2, chunk=1000)
    pieces = evaluate(problem.problem, L, sigma2, chunk=7)
    assert pieces.value == pytest.approx(whole.value, rel=1e-13)
    assert pieces.hessian == pytest.approx(whole.hessian, rel=SAME, abs=SAME * np.abs(whole.hessian).max())


def test_threads_do_not_change_a_bit(monkeypatch):
    """Chunks are summed in order, whoever computed them."""
    rng = np.random.default_rng(0)
    J, q = 70_000, 2
    roots = rng.normal(size=(q, q, J))
    A = np.einsum("aij,bij->abj", roots, roots) + np.eye(q)[:, :, None]
    B = rng.normal(size=(q, 2, J))
    big = Problem(A, B, np.array([[[50.0 * J, 1.0], [1.0, 50.0 * J]]]), np.array([4 * J]), np.zeros(q, dtype=int))
    found = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("MLMED_THREADS", threads)
        found.append(evaluate(big, 0.5 * np.eye(q), np.array([0.8])))
    for other in found[1:]:
        assert other.value == found[0].value
        assert np.array_equal(other.hessian, found[0].hessian)
    monkeypatch.setenv("MLMED_THREADS", "many")
    with pytest.raises(DataError, match="MLMED_THREADS must be a positive whole number"):
        evaluate(big, 0.5 * np.eye(q), np.array([0.8]))
