"""Scores of clusters and cluster-robust covariances: against clubSandwich and against matrices of all rows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numdifftools as nd
import numpy as np
import pytest

import mlmed
from mlmed.errors import BoundaryWarning, EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.percluster import cluster_products, psi_basis, scores_at
from mlmed.lmm.sandwich import sandwich_vcov
from mlmed.lmm.start import natural_jacobian
from mlmed.options import ROBUST_KINDS
from mlmed.simulate import BPGTruth
from tests.models import MEDIATOR, OUTCOME, random_point, working
from tests.oracles import cluster_scores, joint_hessian
from tests.tolerances import DERIVATIVE, INVARIANT, SAME
from validation.checks import load_json

#: clubSandwich at lme4's optimum, which bobyqa leaves up to 1e-6 from ours (measured: 4e-8).
CLUB = 1e-6
#: The same matrix from rows and from pseudo-rows, two exact formulas (measured: 1e-14).
LITERAL = 1e-11
#: Sums over clusters of scores of size 1 to 100 at an optimum with a Newton decrement below 1e-12.
STATIONARY = 1e-4

ONE = "y ~ m + x + (1 + m | id)"
PAIR = ("m ~ x + (1 | id)", "y ~ m + x + (1 | id)")


def unbalanced(n_clusters=14, n_rows=9, seed=4):
    """Clusters of 1 to ``n_rows`` rows."""
    data = mlmed.simulate.bpg(n_clusters, n_rows, seed=seed).data
    return data[data.groupby("id").cumcount() < 1 + data["id"] * 5 % n_rows].reset_index(drop=True)


def fitted(data, *formulas, method="reml") -> LmmFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        if len(formulas) == 1:
            return mlmed.mixed(formulas[0], data, method=method).fit
        return mlmed.mediate(*formulas, data, method=method).fit


def robust(fit: LmmFit, kind):
    return sandwich_vcov(fit.working, fit.optimum, cluster_products(fit.working, fit.grams), kind, reml=fit.reml)


@dataclass(frozen=True)
class Rows:
    """A model in rows and in the user's units."""

    X: np.ndarray
    Z: np.ndarray
    y: np.ndarray
    equation: np.ndarray
    codes: np.ndarray
    basis: np.ndarray

    def V(self, j, tau, sigma2):
        mine = self.codes == j
        Z = self.Z[mine]
        return Z @ np.einsum("k,kab->ab", tau, self.basis) @ Z.T + np.diag(sigma2[self.equation[mine]])

    def split(self, psi):
        p, K = self.X.shape[1], len(self.basis)
        return psi[:p], psi[p : p + K], psi[p + K :]

    def precision(self, j, psi):
        """X_j'V_j^-1 X_j."""
        _, tau, sigma2 = self.split(psi)
        X = self.X[self.codes == j]
        return X.T @ np.linalg.solve(self.V(j, tau, sigma2), X)

    def density(self, j, psi):
        """-2 log of the density of cluster j, without its constant."""
        beta, tau, sigma2 = self.split(psi)
        mine = self.codes == j
        V, r = self.V(j, tau, sigma2), self.y[mine] - self.X[mine] @ beta
        return np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r)

    def criterion(self, psi, reml):
        J = range(self.codes.max() + 1)
        value = sum(self.density(j, psi) for j in J)
        return value + (np.linalg.slogdet(sum(self.precision(j, psi) for j in J))[1] if reml else 0.0)


def rows_of(data, fit: LmmFit) -> Rows:
    """Dense counterpart of the models ONE, PAIR and MEDIATOR with OUTCOME."""
    one, m, x, y = np.ones(len(data)), *(data[name].to_numpy() for name in "mxy")
    codes = np.unique(data["id"], return_inverse=True)[1]
    outcome, mediator = np.column_stack([one, m, x]), np.column_stack([one, x])
    basis = fit.estimates.tau_basis
    if len(fit.layout.equations) == 1:
        return Rows(outcome, outcome[:, :2], y, np.zeros(len(y), dtype=int), codes, basis)
    stack = _below(mediator, outcome)
    Z = stack if len(fit.estimates.G) == 5 else _below(one[:, None], one[:, None])
    return Rows(stack, Z, np.append(m, y), np.repeat([0, 1], len(y)), np.tile(codes, 2), basis)


def _below(top, bottom):
    return np.block([[top, np.zeros((len(top), bottom.shape[1]))], [np.zeros((len(bottom), top.shape[1])), bottom]])


def to_user(fit: LmmFit):
    """dpsi / dpsi_w."""
    p, n = len(fit.estimates.beta), len(fit.estimates.tau_map)
    M = np.zeros((p + n, p + n))
    M[:p, :p], M[p:, p:] = fit.working.units.X_map, fit.estimates.tau_map
    return M


def psi_of(fit: LmmFit):
    return np.concatenate([fit.estimates.beta, fit.estimates.tau, fit.estimates.sigma2])


def near(found, expected, tolerance):
    """Entries of a covariance matrix, as correlations."""
    size = np.sqrt(np.diag(expected))
    assert np.abs((found - expected) / np.outer(size, size)).max() < tolerance


# -- per-cluster cross-products ----------------------------------------------------------------------------


@pytest.mark.parametrize("formulas", [(ONE,), ("y ~ 0 + m + x + (0 + m || id)",), (MEDIATOR, OUTCOME)])
def test_products_by_cluster_sum_to_the_problem(formulas):
    data = unbalanced()
    data.loc[3:30:4, "y"] = np.nan  # rows of the first equation only
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        fit = fitted(data, *formulas)
    found = cluster_products(fit.working, fit.grams)
    assert found.C.sum(axis=-1) == pytest.approx(fit.working.problem.C, rel=SAME, abs=SAME)
    assert found.nobs.sum(axis=1).tolist() == fit.working.problem.nobs.tolist()
    used = data.dropna() if len(formulas) == 1 else data
    assert found.nobs[0].tolist() == used.groupby("id").size().tolist()


# -- scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("formulas", [(ONE,), (MEDIATOR, OUTCOME)])
def test_scores_against_numdifftools_of_each_density(formulas, reml):
    """Any point, not the optimum; the part of a cluster in log|P| is what its own V does to it."""
    data = unbalanced(5)
    fit = fitted(data, *formulas)
    rows, M, problem = rows_of(data, fit), to_user(fit), fit.working.problem
    rng = np.random.default_rng(1)
    G, sigma2 = random_point(rng, problem.n_random, problem.n_strata)
    beta = rng.normal(size=problem.n_fixed)
    tau = np.linalg.lstsq(psi_basis(problem, fit.working.blocks).reshape(-1, G.size).T, G.ravel(), rcond=None)[0]
    psi = np.append(fit.working.units.offset, np.zeros(len(M) - len(beta))) + M @ np.concatenate([beta, tau, sigma2])
    L = np.linalg.cholesky(G)
    P_inv = evaluate(problem, L, sigma2, order=0).P_inv if reml else None
    products = cluster_products(fit.working, fit.grams)
    found = scores_at(problem, fit.working.blocks, products, L, sigma2, beta, P_inv)
    P = sum(rows.precision(j, psi) for j in range(5))
    for j in range(5):
        rest = P - rows.precision(j, psi)

        def value(v, j=j, rest=rest):
            return rows.density(j, v) + (np.linalg.slogdet(rest + rows.precision(j, v))[1] if reml else 0.0)

        expected = M.T @ nd.Gradient(value, step=1e-3, order=4)(psi)
        assert found[j] == pytest.approx(expected, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(expected).max())


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("formulas", [(ONE,), (MEDIATOR, OUTCOME)])
def test_scores_sum_to_zero_and_hessian_is_that_of_the_criterion(formulas, method):
    fit = fitted(mlmed.simulate.bpg(60, 12, seed=2).data, *formulas, method=method)
    assert fit.optimum.rank == fit.working.problem.n_random
    found = cluster_scores(fit.working, fit.optimum, cluster_products(fit.working, fit.grams), reml=fit.reml)
    assert np.abs(found.scores.sum(axis=0)).max() < STATIONARY
    problem, o, J = fit.working.problem, fit.optimum, natural_jacobian(fit.working.problem, fit.working.blocks)
    p, K = problem.n_fixed, J.shape[1]
    chain = np.zeros((len(J) + p, p + K))  # evaluate() has beta last
    chain[: len(J), p:], chain[len(J) :, :p] = J, np.eye(p)
    free = evaluate(problem, o.L, o.sigma2, reml=fit.reml, beta=o.evaluation.beta)
    expected = chain.T @ free.hessian @ chain
    assert found.hessian == pytest.approx(expected, rel=SAME, abs=SAME * np.abs(expected).max())
    profile = J.T @ o.evaluation.hessian @ J
    H = found.hessian
    schur = H[p:, p:] - H[p:, :p] @ np.linalg.solve(H[:p, :p], H[:p, p:])
    assert schur == pytest.approx(profile, rel=SAME, abs=SAME * np.abs(profile).max())


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("formulas", [(ONE,), PAIR])
def test_everything_against_a_literal_sandwich(formulas, method):
    """Scores and Hessian by numdifftools of the dense density in the user's units, put together by hand."""
    data = unbalanced(16, 8, seed=1)
    fit = fitted(data, *formulas, method=method)
    assert fit.optimum.rank == len(fit.estimates.G)
    rows, psi, J, p = rows_of(data, fit), psi_of(fit), 16, len(fit.estimates.beta)
    slope = nd.Gradient(lambda v: rows.criterion(v, fit.reml), step=1e-3, order=4)
    H = nd.Jacobian(slope, step=1e-3, order=4)(psi)
    ours = joint_hessian(fit.optimum.evaluation, natural_jacobian(fit.working.problem, fit.working.blocks))
    M = to_user(fit)
    assert ours == pytest.approx(M.T @ H @ M, rel=DERIVATIVE, abs=DERIVATIVE * np.abs(ours).max())
    P = sum(rows.precision(j, psi) for j in range(J))
    scores = []
    for j in range(J):
        rest = P - rows.precision(j, psi)

        def value(v, j=j, rest=rest):
            return rows.density(j, v) + (np.linalg.slogdet(rest + rows.precision(j, v))[1] if fit.reml else 0.0)

        scores.append(nd.Gradient(value, step=1e-3, order=4)(psi))
    meat = np.array(scores).T @ np.array(scores)
    inverse = np.linalg.inv(H)
    near(robust(fit, "cluster").matrix, J / (J - 1) * inverse @ meat @ inverse, DERIVATIVE)
    bread = np.zeros_like(H)
    bread[:p, :p] = np.linalg.inv(H[:p, :p])
    bread[p:, p:] = np.linalg.inv(H[p:, p:] - H[p:, :p] @ bread[:p, :p] @ H[:p, p:])
    near(robust(fit, "CR0").matrix, bread @ meat @ bread, DERIVATIVE)
    near(robust(fit, "CR1").matrix, J / (J - 1) * bread @ meat @ bread, DERIVATIVE)


# -- CR0, CR1, CR2 -----------------------------------------------------------------------------------------


def club_fits():
    return load_json("reference", "robust/clubsandwich")["fits"]


@pytest.mark.parametrize("number", range(3))
def test_against_clubsandwich(number, dataset):
    reference = club_fits()[number]
    fit = fitted(dataset(reference["data"]), reference["formula"])
    for kind, theirs in reference["robust"].items():
        expected = np.array(theirs)
        p = len(expected)
        assert robust(fit, kind).matrix[:p, :p] == pytest.approx(expected, rel=CLUB, abs=0), kind


def literal_cr2(rows: Rows, psi):
    """Pustejovsky and Tipton's formulas with a row and a column for every row of the data."""
    beta, tau, sigma2 = rows.split(psi)
    J = range(rows.codes.max() + 1)
    P_inv = np.linalg.inv(sum(rows.precision(j, psi) for j in J))
    # one equation: rows as they are; two: in units of their residual sd
    unit = np.sqrt(sigma2[rows.equation]) if len(sigma2) > 1 else np.ones(len(rows.y))
    out = np.zeros_like(P_inv)
    for j in J:
        mine = rows.codes == j
        X, r = rows.X[mine] / unit[mine, None], (rows.y[mine] - rows.X[mine] @ beta) / unit[mine]
        V = rows.V(j, tau, sigma2) / np.outer(unit[mine], unit[mine])
        D = np.linalg.cholesky(V).T
        values, vectors = np.linalg.eigh(D @ (V - X @ P_inv @ X.T) @ D.T)
        power = np.where(values > 1e-10 * values.max(), np.abs(values) ** -0.5, 0.0)
        A = D.T @ (vectors * power) @ vectors.T @ D
        score = P_inv @ X.T @ np.linalg.solve(V, A @ r)
        out += np.outer(score, score)
    return out


@pytest.mark.parametrize("formulas", [(ONE,), PAIR, (MEDIATOR, OUTCOME)])
def test_cr2_against_matrices_of_all_rows(formulas):
    """Unbalanced, down to clusters of one row; with two equations the rows of a cluster are stacked."""
    data = unbalanced(seed=1)
    assert data.groupby("id").size().agg(["min", "max"]).tolist() == [1, 9]
    fit = fitted(data, *formulas)
    rows, p = rows_of(data, fit), len(fit.estimates.beta)
    near(robust(fit, "CR2").matrix[:p, :p], literal_cr2(rows, psi_of(fit)), LITERAL)


def test_cr2_where_one_cluster_alone_has_a_predictor():
    """B_j is singular: the pseudo-inverse is taken, as in clubSandwich."""
    data = unbalanced().assign(d=lambda t: (t["id"] == 3).astype(float))
    fit = fitted(data, "y ~ m + x + d + (1 + m | id)")
    rows = rows_of(data, fit)
    rows = Rows(np.column_stack([rows.X, data["d"]]), rows.Z, rows.y, rows.equation, rows.codes, rows.basis)
    found, expected = robust(fit, "CR2").matrix[:4, :4], literal_cr2(rows, psi_of(fit))
    near(found[:3, :3], expected[:3, :3], LITERAL)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7 * np.abs(expected).max())


def test_kinds_differ_as_documented():
    data = unbalanced(30, 9, seed=1)
    fit = fitted(data, ONE)
    p, factor = 3, 30 / 29
    kinds = {kind: robust(fit, kind).matrix for kind in ROBUST_KINDS}
    assert kinds["CR1"] == pytest.approx(factor * kinds["CR0"], rel=SAME)
    assert kinds["CR2"][p:, p:] == pytest.approx(kinds["CR1"][p:, p:], rel=SAME)
    for matrix in kinds.values():
        assert matrix == pytest.approx(matrix.T, rel=SAME, abs=0)
        assert np.linalg.eigvalsh(matrix)[0] > -SAME
    with pytest.raises(EffectError, match="CR3"):
        robust(fit, "CR3")


@pytest.mark.parametrize("kind", ROBUST_KINDS)
def test_shifted_and_scaled_columns(kind):
    data = mlmed.simulate.bpg(60, 12, seed=2).data
    plain = robust(fitted(data, MEDIATOR, OUTCOME), kind).matrix
    moved = robust(fitted(data.assign(x=1000.0 + 50.0 * data["x"], y=0.1 * data["y"]), MEDIATOR, OUTCOME), kind).matrix
    unit = {1: 1 / 50, 3: 0.1, 4: 0.1 / 50, 6: 1 / 50**2, 8: 0.01, 20: 1.0, 21: 0.01}  # a, b, c', variances
    at, scale = list(unit), np.array(list(unit.values()))
    near(moved[np.ix_(at, at)], plain[np.ix_(at, at)] * np.outer(scale, scale), INVARIANT)


def singular_fit(seed):
    G = np.array(BPGTruth().G)
    G[4, :] = G[:, 4] = 0.0
    fit = fitted(mlmed.simulate.bpg(30, 8, truth=BPGTruth(G=G), seed=seed).data, MEDIATOR, OUTCOME)
    assert fit.optimum.rank < 5
    return fit


@pytest.mark.parametrize("seed", [2, 3, 5])
@pytest.mark.parametrize("kind", ROBUST_KINDS)
def test_boundary_fits_give_numbers_or_a_reason(kind, seed):
    fit = singular_fit(seed)
    found = robust(fit, kind)
    missing = np.isnan(found.matrix)
    assert missing.any() == bool(found.reason)
    if kind != "cluster":
        assert not missing[:5, :5].any()
    if missing.any():
        assert "not positive definite" in found.reason
        assert missing[5:, :].all()


def test_products_of_a_working_problem_need_no_fit():
    """The entry point takes what ``build_working`` made."""
    data = unbalanced()
    fit = fitted(data, ONE)
    again = working(data, ONE)
    assert np.array_equal(cluster_products(again, fit.grams).C, cluster_products(fit.working, fit.grams).C)
