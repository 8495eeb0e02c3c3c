"""Small samples with correlated residuals: dense matrices, exact distributions, special cases."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.delta import Quantity
from mlmed.errors import BoundaryWarning, DroppedRowsWarning
from mlmed.intervals import degrees as smallsample
from mlmed.intervals.degrees import satterthwaite_effects, satterthwaite_linear
from mlmed.lmm import kenward_roger as kr
from mlmed.lmm.clusters import chunks
from mlmed.lmm.covariance import natural_basis
from mlmed.lmm.sigma import ResidualStructure
from mlmed.lmm.start import natural_jacobian
from tests.models import random_point
from tests.multivariate.dense import Dense, made, simulated
from tests.oracles import scaled_f
from tests.smallsample_models import (
    DENSE,
    DIFFERENCES,
    NUMDIFFTOOLS,
    assert_explained,
    close,
    corrected,
    jacobian,
    literal_adjustment,
    literal_f,
    numdifftools_df,
)
from tests.tolerances import SAME

TWO = ("y0 ~ x + (1 + x |c| id)", "y1 ~ x + w + (1 |c| id)")
THREE = ("y0 ~ x + (1 + x |c| id)", "y1 ~ w + (1 |c| id)", "y2 ~ 0 + x + (0 + x |d| id)")
CASES = [(TWO, 0.0), (TWO, 0.3), (THREE, 0.0), (THREE, 0.25)]
NAMES = ["two", "two-gaps", "three", "three-gaps"]

#: The corrected table against matrices of all rows in the user's units: two inverses of 250 x 250 matrices and one
#: of the information, relative to each number.
CORRECTED = 1e-8
#: The smallest eigenvalue of Sigma is .004 where residuals correlate .99: steps of numdifftools short enough for it
#: are 1e-4, so that its derivatives of a Hessian are good to a few 1e-6 (they move by that much with the step).
NEARLY_SINGULAR = 1e-5
#: Distribution theory for balanced data at an optimum that is exact to about 1e-8.
EXACT = 1e-6


def dense_moments(dense: Dense, G: np.ndarray, Sigma: np.ndarray, E: np.ndarray, D: np.ndarray) -> kr.Moments:
    """All sums from the covariance matrix of all rows and its derivatives along every E and D."""
    X, Vi = dense.X, np.linalg.inv(dense.V(G, Sigma))
    moves = [dense.V(one, np.zeros_like(Sigma)) for one in E] + [dense.V(np.zeros_like(G), one) for one in D]
    turned = [Vi @ move for move in moves]
    ends = [turn @ Vi @ X for turn in turned]
    return kr.Moments(
        np.linalg.inv(X.T @ Vi @ X),
        np.array([X.T @ end for end in ends]),
        np.array([[X.T @ turn @ end for end in ends] for turn in turned]),
        np.array([[np.sum(a * b.T) for b in turned] for a in turned]),
    )


def bases(estimates) -> tuple[np.ndarray, np.ndarray]:
    """dG/dtau and dSigma/dsigma in the user's units, (n_tau, q, q) and (S, R, R), from the places of the entries."""
    found = []
    for places, size in ((estimates.tau_at, len(estimates.G)), (estimates.sigma_at, len(estimates.Sigma))):
        basis = np.zeros((len(places), size, size))
        for one, (i, j) in zip(basis, places, strict=True):
            one[i, j] = one[j, i] = 1.0
        found.append(basis)
    return found[0], found[1]


def fitted(formulas, missing, *, J=14, n=7, seed=4, **options):
    data = simulated(J, n, seed=seed, missing=missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mixed(list(formulas), data, residual="unstructured", **options)
    return fit, made(data, *formulas)[1]


def fixed_rows(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["effect"] == "fixed"]


# -- dense matrices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("formulas", "missing"), CASES, ids=NAMES)
@pytest.mark.parametrize("singular", [False, True])
def test_sums_against_dense_matrices(formulas, missing, singular):
    """P_k, Q_kl (not symmetrized) and traces at any point, G singular or not."""
    working, dense = made(simulated(9, 6, seed=3, missing=missing), *formulas)
    problem, units, structure = working.problem, working.units, working.problem.residual
    q, R = problem.n_random, problem.n_strata
    rng = np.random.default_rng(2)
    root = np.tril(rng.normal(0.0, 0.4, (R, R)), -1) + np.diag(rng.uniform(0.5, 1.2, R))
    E = np.concatenate([natural_basis(block, q) for block in working.blocks])
    G = np.where(np.abs(E).sum(axis=0) > 0.0, random_point(rng, q, R)[0], 0.0)
    L = np.linalg.cholesky(G)
    L[:, 0] *= not singular
    rows, columns = structure.at.T
    own = replace(dense, X=dense.X @ units.X_map, Z=dense.Z @ units.Z_map)
    scale = units.y_scale[own.equation][:, None]
    own = replace(own, X=own.X / scale, Z=own.Z / scale)
    expected = dense_moments(own, L @ L.T, root @ root.T, E, structure.basis)
    sigma2, J = (root @ root.T)[rows, columns], natural_jacobian(problem, working.blocks)
    found = kr.moments(problem, L, sigma2, J)
    for name in ("P_inv", "moved", "twice", "trace"):
        close(getattr(found, name), getattr(expected, name), DENSE)
    close(kr.moved_crossproducts(problem, L, sigma2, J), expected.moved, DENSE)


@pytest.mark.parametrize(("formulas", "missing"), CASES, ids=NAMES)
def test_kenward_roger_table_against_dense_matrices(formulas, missing):
    """What ``tidy`` prints, from the paper's formulas in the user's units at the estimates."""
    fit, dense = fitted(formulas, missing)
    estimates = fit.fit.estimates
    expected = dense_moments(dense, estimates.G, estimates.Sigma, *bases(estimates))
    adjusted, W = literal_adjustment(expected)
    table = fixed_rows(fit.tidy(ddf="kenward-roger"))
    np.testing.assert_allclose(table["std_error"], np.sqrt(np.diag(adjusted)), rtol=CORRECTED)
    assert np.all(table["std_error"].to_numpy() > np.sqrt(np.diag(expected.P_inv)))  # unbalanced: never zero
    each = np.eye(len(table))
    np.testing.assert_allclose(table["df"], [literal_f(l[None], expected, W)[1] for l in each], rtol=CORRECTED)  # noqa: E741
    both = scaled_f(each[1:3], corrected(fit))
    assert (both.scale, both.df) == pytest.approx(literal_f(each[1:3], expected, W), rel=CORRECTED)


@pytest.mark.parametrize(("formulas", "missing"), CASES[1:3], ids=NAMES[1:3])
def test_satterthwaite_table_against_numdifftools(formulas, missing):
    """2 v^2 / (g'V g) with v and g from the dense (X'V^-1 X)^-1, V the printed covariance of the variances."""
    fit, dense = fitted(formulas, missing, J=30, seed=3)
    assert not fit.is_singular
    estimates = fit.fit.estimates
    E, D = bases(estimates)

    def variances(psi):
        G, Sigma = np.tensordot(psi[: len(E)], E, axes=1), np.tensordot(psi[len(E) :], D, axes=1)
        return np.diag(np.linalg.inv(dense.X.T @ np.linalg.solve(dense.V(G, Sigma), dense.X)))

    start = np.append(estimates.tau, estimates.sigma2)
    slopes = nd.Jacobian(variances, step=2e-3, order=4)(start)
    V = fit.fit.vcov("block").matrix[-len(start) :, -len(start) :]
    expected = 2.0 * variances(start) ** 2 / np.einsum("nk,kl,nl->n", slopes, V, slopes)
    np.testing.assert_allclose(fixed_rows(fit.tidy(ddf="satterthwaite"))["df"], expected, rtol=NUMDIFFTOOLS)


# -- any function of the estimates ---------------------------------------------------------------------------------


@pytest.mark.parametrize("near", [False, True], ids=["moderate", "nearly-one"])
def test_satterthwaite_of_functions_against_numdifftools(near):
    """Residual variances and covariance among them, also where the residual correlation is .99."""
    rng = np.random.default_rng(21)
    data = simulated(40, 8, seed=21, R=2)
    if near:
        e = rng.normal(size=(len(data), 2)) @ np.array([[1.0, 0.99], [0.0, 0.14]])
        u = rng.normal(size=(40, 3))[data["id"]]
        data = data.assign(y0=u[:, 0] + u[:, 1] * data["x"] + e[:, 0], y1=u[:, 2] + e[:, 1])
    fit = mlmed.mixed(list(TWO), data, residual="unstructured")
    assert not fit.is_singular
    Sigma = fit.fit.estimates.Sigma
    assert (Sigma[0, 1] / np.sqrt(Sigma[0, 0] * Sigma[1, 1]) > 0.98) == near

    def quantities(estimates):
        psi = np.concatenate([estimates.beta, estimates.tau, estimates.sigma2])
        linear = [Quantity(str(k), psi[k], np.eye(len(psi))[k]) for k in (1, 3, len(psi) - 2, len(psi) - 1)]
        return [*linear, (linear[0] * linear[1]).named("product"), (linear[0] * linear[3]).named("with the covariance")]

    engine = fit.fit
    for vcov in ("block", "joint"):
        found = satterthwaite_effects(quantities, engine.working, engine.optimum, reml=True, vcov=vcov)
        assert_explained(found)
        expected = numdifftools_df(fit, quantities, vcov, "second", share=1e-3 if near else 4e-3)
        np.testing.assert_allclose(found.values, expected, rtol=NEARLY_SINGULAR if near else NUMDIFFTOOLS)
    plain = satterthwaite_effects(quantities, engine.working, engine.optimum, reml=True)
    exact = satterthwaite_linear(np.eye(5)[[1, 3]], engine.working, engine.optimum)
    np.testing.assert_allclose(plain.values[:2], exact.values, rtol=DIFFERENCES)


@pytest.mark.parametrize("R", [1, 2, 5])
@pytest.mark.parametrize("correlated", [False, True])
def test_moves_of_sigma_stay_inside_and_span(R, correlated):
    """Sigma plus any multiple of any direction is a covariance; variances move by one unit of tr(Sigma^-1 D)."""
    structure = ResidualStructure(R, correlated)
    root = np.tril(np.random.default_rng(R).normal(size=(R, R)))
    Sigma = root @ root.T + 1e-3 * np.eye(R) if correlated else np.diag(np.diag(root) ** 2)
    rows, columns = structure.at.T
    found = smallsample._residual_directions(structure, structure.root(Sigma[rows, columns]))
    assert np.linalg.matrix_rank(found / np.abs(found).max(axis=1, keepdims=True)) == structure.size
    for k, move in enumerate(found):
        D = structure.matrix(move)
        assert np.linalg.eigvalsh(D)[0] >= -SAME * np.abs(D).max()
        if k < R:
            assert np.trace(np.linalg.solve(Sigma, D)) == pytest.approx(1.0, rel=SAME)


# -- special cases -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_no_covariance_shares_the_sums_of_the_diagonal_problem(missing):
    """At sigma_rs = 0 the two kernels give the same sums for the parameters they share."""
    working, _ = made(simulated(15, 6, seed=3, missing=missing), *TWO)
    problem = working.problem
    plain = replace(problem, cross=None)
    G, sigma2 = random_point(np.random.default_rng(0), problem.n_random, 2)
    L = np.linalg.cholesky(G)
    ours = kr.moments(problem, L, np.append(sigma2, 0.0), natural_jacobian(problem, working.blocks))
    other = kr.moments(plain, L, sigma2, natural_jacobian(plain, working.blocks))
    kept = len(other.moved)
    close(ours.P_inv, other.P_inv, SAME)
    close(ours.moved[:kept], other.moved, SAME)
    close(ours.twice[:kept, :kept], other.twice, SAME)
    close(ours.trace[:kept, :kept], other.trace, SAME)


@pytest.mark.parametrize("R", [2, 3])
def test_balanced_means_give_hotelling_s_test(R):
    """Cluster means of complete rows are J normal vectors: T^2 is exactly (J - 1) R / (J - R) F(R, J - R)."""
    J, n, rng = 15, 6, np.random.default_rng(5)
    root, mix = np.tril(rng.normal(size=(R, R))) + 2.0 * np.eye(R), np.tril(rng.normal(size=(R, R))) + np.eye(R)
    y = np.repeat(rng.normal(size=(J, R)) @ root.T, n, axis=0) + rng.normal(size=(J * n, R)) @ mix.T
    data = pd.DataFrame(y, columns=[f"y{r}" for r in range(R)]).assign(id=np.repeat(np.arange(J), n))
    fit = mlmed.mixed([f"y{r} ~ 1 + (1 |c| id)" for r in range(R)], data, residual="unstructured")
    assert not fit.is_singular
    found = scaled_f(np.eye(R), corrected(fit))
    assert (found.df, found.scale) == pytest.approx((J - R, (J - R) / (J - 1)), rel=EXACT)
    means = data.groupby("id").mean().to_numpy()
    for ddf in ("kenward-roger", "satterthwaite"):
        table = fixed_rows(fit.tidy(ddf=ddf))
        np.testing.assert_allclose(table["df"], J - 1, rtol=EXACT)
        np.testing.assert_allclose(table["std_error"], means.std(axis=0, ddof=1) / np.sqrt(J), rtol=EXACT)


def test_one_response_is_the_single_equation():
    """Unstructured 1 x 1 is a variance."""
    data = simulated(12, 5, seed=8, R=1, missing=0.2).dropna()
    plain, own = (mlmed.mixed("y0 ~ x + (1 | id)", data, residual=kind) for kind in ("diagonal", "unstructured"))
    for ddf in ("kenward-roger", "satterthwaite", "residual"):
        columns = ["std_error", "df"]
        expected = fixed_rows(plain.tidy(ddf=ddf))[columns].to_numpy(dtype=float)
        np.testing.assert_allclose(fixed_rows(own.tidy(ddf=ddf))[columns].to_numpy(dtype=float), expected, rtol=EXACT)


@pytest.mark.parametrize("residual", ["diagonal", "unstructured"])
def test_residual_df_are_rows_less_fixed_effects_of_an_equation(residual):
    data = simulated(30, 6, seed=8, missing=0.2)
    with pytest.warns(DroppedRowsWarning):
        fit = mlmed.mixed(["y0 ~ x + (1 |c| id)", "y1 ~ x + w + (1 |c| id)"], data, residual=residual)
    rows = data[["y0", "y1"]].notna().sum()
    found = fixed_rows(fit.tidy(ddf="residual"))["df"].to_list()
    assert found == [rows["y0"] - 2.0] * 2 + [rows["y1"] - 3.0] * 3


def test_maximum_likelihood_has_no_kenward_roger():
    fit, _ = fitted(TWO, 0.0, method="ml")
    table = fixed_rows(fit.tidy(ddf="kenward-roger"))
    assert table["df"].isna().all()
    assert table["note"].str.contains("derived for REML").all()
    assert np.isfinite(fixed_rows(fit.tidy(ddf="satterthwaite"))["df"]).all()


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_units_and_order_of_responses_do_not_matter(missing):
    """Responses on other scales, equations exchanged: the same degrees of freedom."""
    data = simulated(25, 6, seed=6, R=2, missing=missing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        base = mlmed.mixed(list(TWO), data, residual="unstructured")
        moved = data.assign(y0=1e3 + 1e2 * data["y0"], y1=1e-3 * data["y1"])
        other = mlmed.mixed(list(TWO[::-1]), moved, residual="unstructured")
    for ddf in ("kenward-roger", "satterthwaite"):
        df = fixed_rows(base.tidy(ddf=ddf))["df"].to_numpy()
        np.testing.assert_allclose(fixed_rows(other.tidy(ddf=ddf))["df"], np.append(df[2:], df[:2]), rtol=EXACT)


def test_chunks_do_not_change_the_sums(monkeypatch):
    fit, _ = fitted(THREE, 0.2, J=40)
    working, optimum = fit.fit.working, fit.fit.optimum
    whole = kr.moments(working.problem, optimum.L, optimum.sigma2, jacobian(fit))
    monkeypatch.setattr(kr, "chunks", lambda problem: chunks(problem, 7))
    pieces = kr.moments(working.problem, optimum.L, optimum.sigma2, jacobian(fit))
    close(pieces.moved, whole.moved, SAME)
    close(pieces.twice, whole.twice, SAME)
