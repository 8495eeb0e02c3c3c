"""The criterion with correlated residuals at fixed parameters, and its derivatives, before any optimum."""

from __future__ import annotations

from dataclasses import replace

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

from mlmed.lmm.criterion import evaluate
from mlmed.lmm.estimates import loglik_at
from mlmed.lmm.objective import objective_for
from mlmed.lmm.sigma import ResidualChart, ResidualStructure
from tests.models import random_point
from tests.multivariate.dense import made, simulated
from tests.tolerances import DENSE, DERIVATIVE, SAME

TWO = ("y0 ~ x + (1 + x |c| id)", "y1 ~ x + w + (1 |c| id)")
THREE = ("y0 ~ x + (1 + x |c| id)", "y1 ~ w + (1 |c| id)", "y2 ~ 0 + x + (0 + x |d| id)")
CASES = [(TWO, 0.0), (TWO, 0.25), (THREE, 0.0), (THREE, 0.2)]


def point(q: int, R: int, seed: int):
    """G and Sigma, (q, q) and (R, R)."""
    rng = np.random.default_rng(seed)
    G, _ = random_point(rng, q, R)
    root = np.tril(rng.normal(0.0, 0.4, (R, R)), -1) + np.diag(rng.uniform(0.5, 1.2, R))
    return G, root @ root.T


@pytest.mark.parametrize(("formulas", "missing"), CASES)
@pytest.mark.parametrize("reml", [True, False])
def test_against_dense_density(formulas, missing, reml):
    """Any number of responses, other predictors in every equation, rows with some of the responses."""
    data = simulated(6, 7, seed=4, missing=missing)
    working, dense = made(data, *formulas)
    G, Sigma = point(working.problem.n_random, len(formulas), 1)
    G = np.where(_same_block(working), G, 0.0)
    expected = dense.loglik(G, Sigma, reml=reml)
    rows, columns = working.problem.residual.at.T
    for given in (Sigma, Sigma[rows, columns]):
        assert loglik_at(working, G, given, reml=reml) == pytest.approx(expected, rel=DENSE, abs=0)


def _same_block(working):
    q = working.problem.n_random
    same = np.zeros((q, q), dtype=bool)
    for block in working.blocks:
        same[np.ix_(block.index, block.index)] = True
    return same


def test_literal_value():
    """Two clusters of two rows, two responses: by hand, as two bivariate normals for every cluster."""
    data = pd.DataFrame({"a": [1.0, 3.0, 2.0, 6.0], "b": [0.0, 1.0, 5.0, 2.0], "id": [1, 1, 2, 2]})
    working, _ = made(data, "a ~ 1 + (1 |c| id)", "b ~ 1 + (1 |c| id)", method="ml")
    G, Sigma = np.array([[1.0, 0.5], [0.5, 2.0]]), np.array([[1.0, 0.25], [0.25, 0.5]])
    # rotate the two rows of a cluster: difference/sqrt 2 has covariance Sigma, sum/sqrt 2 has Sigma + 2 G
    differences = np.array([[-2.0, -1.0], [-4.0, 3.0]]) / np.sqrt(2.0)
    sums = np.array([[4.0, 1.0], [8.0, 7.0]]) / np.sqrt(2.0)
    between = Sigma + 2 * G
    rest = sums - sums.mean(axis=0)
    value = 2 * np.log(np.linalg.det(Sigma)) + 2 * np.log(np.linalg.det(between)) + 8 * np.log(2 * np.pi)
    value += sum(d @ np.linalg.solve(Sigma, d) for d in differences) + sum(
        r @ np.linalg.solve(between, r) for r in rest
    )
    assert -0.5 * value == pytest.approx(-24.546773186591846, rel=1e-12)
    assert loglik_at(working, G, Sigma, reml=False) == pytest.approx(-0.5 * value, rel=SAME, abs=0)


@pytest.mark.parametrize(("formulas", "missing"), CASES)
@pytest.mark.parametrize("reml", [True, False])
def test_natural_derivatives_against_numdifftools(formulas, missing, reml):
    """Gradient, Hessian and d beta in (vech G, Sigma) at interior points."""
    problem = made(simulated(12, 6, seed=9, missing=missing), *formulas)[0].problem
    q, structure = problem.n_random, problem.residual
    G, Sigma = point(q, structure.R, 5)
    low, (rows, columns) = np.tril_indices(q), structure.at.T

    def at(v, order):
        matrix = np.zeros((q, q))
        matrix[low] = v[: len(low[0])]
        matrix += np.tril(matrix, -1).T
        return evaluate(problem, np.linalg.cholesky(matrix), v[len(low[0]) :], reml=reml, order=order)

    start = np.append(G[low], Sigma[rows, columns])
    J = np.zeros((q * q + structure.size, len(start)))
    for k, (i, j) in enumerate(zip(*low, strict=True)):
        J[q * i + j, k] = J[q * j + i, k] = 1.0
    J[q * q :, len(low[0]) :] = np.eye(structure.size)
    exact = at(start, 2)
    gradient = nd.Gradient(lambda v: at(v, 0).value, step=1e-3, order=4)(start)
    assert J.T @ exact.gradient == pytest.approx(gradient, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(gradient).max())
    slope = nd.Jacobian(lambda v: J.T @ at(v, 1).gradient, step=1e-3, order=4)(start)
    assert J.T @ exact.hessian @ J == pytest.approx(slope, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(slope).max())
    moves = nd.Jacobian(lambda v: at(v, 0).beta, step=1e-3, order=4)(start)
    assert exact.beta_gradient @ J == pytest.approx(moves, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(moves).max())


@pytest.mark.parametrize(("formulas", "missing"), CASES)
def test_expected_information_against_dense_traces(formulas, missing):
    """tr(V^-1 V_k V^-1 V_l) for every pair of residual parameters, and of these with entries of G."""
    working, dense = made(simulated(5, 6, seed=2, missing=missing), *formulas)
    problem, units = working.problem, working.units
    q, structure = problem.n_random, problem.residual
    G, Sigma = point(q, structure.R, 3)
    rows, columns = structure.at.T
    L = np.linalg.solve(units.Z_map, np.linalg.cholesky(G))
    found = evaluate(problem, L, Sigma[rows, columns] / units.sigma_scale(structure.at), reml=False).information
    V = dense.V(G, Sigma)
    move = [
        dense.V(np.zeros((q, q)), D) * scale
        for D, scale in zip(structure.basis, units.sigma_scale(structure.at), strict=True)
    ]
    turned = [np.linalg.solve(V, one) for one in move]
    expected = [[np.trace(a @ b) for a in turned] for b in turned]
    qq = q * q
    assert found[qq:, qq:] == pytest.approx(np.array(expected), rel=DENSE)
    whole = dense.V(units.Z_map @ units.Z_map.T, np.zeros_like(Sigma))  # G = I in working units
    mixed = [np.trace(np.linalg.solve(V, whole) @ a) for a in turned]
    assert found[qq:, :qq] @ np.eye(q).ravel() == pytest.approx(np.array(mixed), rel=DENSE)


@pytest.mark.parametrize("units", ["natural", "of the data", "face"])
@pytest.mark.parametrize(("formulas", "missing"), CASES)
def test_theta_derivatives_against_numdifftools(formulas, missing, units):
    """Gradient and Hessian in theta = (entries of L, coordinates of Sigma), in all charts of the search."""
    working, _ = made(simulated(12, 6, seed=9, missing=missing), *formulas)
    objective = objective_for(working.problem, working.blocks, reml=True)
    rng = np.random.default_rng(7)
    theta = np.append(rng.normal(0.5, 0.2, objective.n_factor), rng.normal(-0.2, 0.2, working.problem.residual.size))
    if units != "natural":
        spread = objective.derivatives(theta).natural.spread
        value, sigma2 = objective(theta), objective.sigma2(theta)
        objective, theta = objective.recharted(working.blocks, theta, spread)
        assert objective(theta) == pytest.approx(value, rel=SAME)
        assert objective.sigma2(theta) == pytest.approx(sigma2, rel=SAME)
        theta = theta + rng.normal(0.0, 0.05, len(theta))
    if units == "face":  # all columns of the factors kept: linear coordinates of Sigma
        chart, part = objective.chart.on_face(objective.residual_root(theta), tol=1e-5)
        value, theta = objective(theta), np.append(theta[: objective.n_factor], part)
        objective = replace(objective, chart=chart)
        assert objective(theta) == pytest.approx(value, rel=SAME)
    exact = objective.derivatives(theta)
    gradient = nd.Gradient(objective, step=1e-3, order=4)(theta)
    assert exact.gradient == pytest.approx(gradient, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(gradient).max())
    hessian = nd.Jacobian(lambda t: objective.derivatives(t).gradient, step=1e-3, order=4)(theta)
    assert exact.hessian == pytest.approx(hessian, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(hessian).max())


def test_chunks_do_not_change_the_sums():
    problem = made(simulated(40, 5, seed=1, missing=0.1), *THREE)[0].problem
    G, Sigma = point(problem.n_random, 3, 0)
    rows, columns = problem.residual.at.T
    whole, pieces = (evaluate(problem, np.linalg.cholesky(G), Sigma[rows, columns], chunk=size) for size in (1000, 7))
    assert pieces.value == pytest.approx(whole.value, rel=1e-13)
    assert pieces.hessian == pytest.approx(whole.hessian, rel=SAME, abs=SAME * np.abs(whole.hessian).max())


def test_no_covariance_is_the_diagonal_criterion():
    """Sigma diagonal: the two kernels give the same value, gradient and Hessian in what they share."""
    problem = made(simulated(15, 6, seed=3), *TWO)[0].problem
    plain = replace(problem, cross=None)
    G, sigma2 = random_point(np.random.default_rng(0), problem.n_random, 2)
    ours = evaluate(problem, np.linalg.cholesky(G), np.append(sigma2, 0.0))
    other = evaluate(plain, np.linalg.cholesky(G), sigma2)
    kept = np.r_[: len(other.gradient)]
    assert ours.value == pytest.approx(other.value, rel=1e-13)
    for name in ("gradient", "hessian", "information", "beta_gradient"):
        own, expected = getattr(ours, name), getattr(other, name)
        own = own[..., kept] if own.ndim == 1 or name == "beta_gradient" else own[np.ix_(kept, kept)]
        assert own == pytest.approx(expected, rel=SAME, abs=SAME * np.abs(expected).max()), name


@pytest.mark.parametrize("R", [1, 2, 3, 4])
@pytest.mark.parametrize("correlated", [False, True])
def test_coordinates_of_sigma(R, correlated):
    """Theta and back, first and second derivatives, for every number of equations."""
    structure, rng = ResidualStructure(R, correlated), np.random.default_rng(R)
    chart = ResidualChart(structure)
    theta = rng.normal(0.0, 0.5, structure.size)
    values = chart.values(theta)
    assert chart.coordinates(structure.root(values)) == pytest.approx(theta, rel=SAME, abs=SAME)
    assert np.einsum("s,sab->ab", values, structure.basis) == pytest.approx(structure.matrix(values), rel=SAME)
    jacobian = nd.Jacobian(chart.values)(theta).reshape(structure.size, -1)
    assert chart.jacobian(theta) == pytest.approx(jacobian, rel=DERIVATIVE, abs=DERIVATIVE)
    slope = rng.normal(size=structure.size)
    hessian = nd.Hessian(lambda t: slope @ chart.values(t))(theta)
    assert chart.curvature(theta, slope) == pytest.approx(hessian, rel=DERIVATIVE, abs=DERIVATIVE)
    C = rng.normal(size=(R, R)) if correlated else np.diag(rng.normal(size=R))
    moved = C @ structure.matrix(slope) @ C.T
    rows, columns = structure.at.T
    assert slope @ structure.congruence(C) == pytest.approx(moved[rows, columns], rel=SAME, abs=SAME)
    moved = structure.inside(rng.normal(0.0, 3.0, structure.size), np.full(R, 0.1))
    assert np.linalg.eigvalsh(structure.matrix(moved))[0] > 0.0
