"""What follows a fit with correlated residuals: modes, robust covariances, influence, profiles, bootstraps."""

from __future__ import annotations

import warnings

import numdifftools as nd
import numpy as np
import pytest

import mlmed
from mlmed.data.design import build_design
from mlmed.lmm.percluster import ClusterProducts, cluster_products, scores_at
from mlmed.lmm.resample import case_resampler
from mlmed.lmm.rowwise import residual_resampler
from mlmed.lmm.simulation import at_optimum, parametric_resampler
from tests.multivariate.dense import Dense, made, simulated
from tests.oracles import cluster_scores
from tests.tolerances import DENSE, DERIVATIVE, SAME

FORMULAS = ["y0 ~ x + (1 + x |c| id)", "y1 ~ x + w + (1 |c| id)"]
#: Monte Carlo errors that the mean of independent draws may be away from its expectation.
ERRORS = 4.5
#: Correlation of one-step changes with those of refits, of every parameter: complete rows, and rows with gaps, where
#: one of the 25 clusters moves a variance by a third of its standard error more than the step says.
NEAR = {0: 0.99, 1: 0.9}


@pytest.fixture(scope="module", params=[0.0, 0.2], ids=["complete", "gaps"])
def setting(request):
    """A fit, its data, and the dense model at the estimates."""
    data = simulated(25, 6, seed=31, R=2, missing=request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlmed.errors.DroppedRowsWarning)
        fit = mlmed.mixed(FORMULAS, data, residual="unstructured")
        dense = made(data, *FORMULAS)[1]
    assert fit.converged
    assert not fit.is_singular
    return fit, data, dense


def _dense_parts(fit, dense: Dense):
    estimates = fit.fit.estimates
    V = dense.V(estimates.G, estimates.Sigma)
    Vi = np.linalg.inv(V)
    r = dense.y - dense.X @ estimates.beta
    return V, Vi, r


def test_estimates_against_dense_least_squares(setting):
    fit, _, dense = setting
    _, Vi, _ = _dense_parts(fit, dense)
    P_inv = np.linalg.inv(dense.X.T @ Vi @ dense.X)
    assert fit.params.to_numpy() == pytest.approx(P_inv @ dense.X.T @ Vi @ dense.y, rel=DENSE)
    assert fit.bse.to_numpy() == pytest.approx(np.sqrt(np.diag(P_inv)), rel=DENSE)


def test_conditional_modes_against_dense_regression(setting):
    """E(u_j | y) = G Z'V^-1 r and Var(u_j | y) = G - G Z'V^-1 Z G."""
    fit, _, dense = setting
    _, Vi, r = _dense_parts(fit, dense)
    G = fit.fit.estimates.G
    table = fit.ranef()
    J = fit.n_clusters
    value, se = (table[name].to_numpy().reshape(-1, J) for name in ("estimate", "std_error"))
    for j in range(J):
        own = dense.cluster == j
        Z = np.where(own[:, None], dense.Z, 0.0)
        assert value[:, j] == pytest.approx(G @ Z.T @ Vi @ r, rel=1e-8, abs=1e-10)
        spread = G - G @ Z.T @ Vi @ Z @ G
        assert se[:, j] == pytest.approx(np.sqrt(np.diag(spread)), rel=1e-8)


def test_scores_sum_to_the_gradient(setting):
    """Scores of clusters add up to zero at the optimum; away from it, to the numerical derivative of F."""
    fit, _, dense = setting
    fitted = fit.fit
    working, optimum = fitted.working, fitted.optimum
    products = cluster_products(working, fitted.grams)
    scores = cluster_scores(working, optimum, products, reml=True).scores
    size = np.abs(scores).sum(axis=0)
    assert np.abs(scores.sum(axis=0) / size).max() < 1e-8
    structure, problem = working.problem.residual, working.problem
    beta, sigma2, L = optimum.evaluation.beta + 0.1, optimum.sigma2 * 1.2, optimum.L * 0.9
    found = scores_at(problem, working.blocks, products, L, sigma2, beta, None).sum(axis=0)
    units = working.units
    root = units.Z_map @ L
    G, user_beta = root @ root.T, units.offset + units.X_map @ beta

    def F(values):
        Sigma = structure.matrix(values * units.sigma_scale(structure.at))
        V = dense.V(G, Sigma)
        r = dense.y - dense.X @ user_beta
        return np.linalg.slogdet(V)[1] + r @ np.linalg.solve(V, r)

    slope = nd.Gradient(F, step=1e-4, order=4)(sigma2)
    assert found[-structure.size :] == pytest.approx(slope, rel=DERIVATIVE)


def test_cr0_and_cr2_against_dense_sandwich(setting):
    """CR0 by hand; CR2 with rows made independent by a factor of Sigma."""
    fit, _, dense = setting
    V, Vi, r = _dense_parts(fit, dense)
    P_inv = np.linalg.inv(dense.X.T @ Vi @ dense.X)
    residual = dense.V(np.zeros((dense.Z.shape[1],) * 2), fit.fit.estimates.Sigma)
    white = np.linalg.inv(np.linalg.cholesky(residual))
    scores, adjusted = [], []
    for j in range(fit.n_clusters):
        own = dense.cluster == j
        X, Vj, T = dense.X[own], V[np.ix_(own, own)], white[np.ix_(own, own)]
        scores.append(X.T @ np.linalg.solve(Vj, r[own]))
        X, Vj, rj = T @ X, T @ Vj @ T.T, T @ r[own]
        D = np.linalg.cholesky(Vj).T
        values, vectors = np.linalg.eigh(D @ (Vj - X @ P_inv @ X.T) @ D.T)
        A = D.T @ (vectors / np.sqrt(values)) @ vectors.T @ D
        adjusted.append(X.T @ np.linalg.solve(Vj, A @ rj))
    p = len(fit.params)
    for kind, rows in (("CR0", scores), ("CR2", adjusted)):
        expected = P_inv @ np.array(rows).T @ np.array(rows) @ P_inv
        found = fit.fit.vcov(kind).matrix[:p, :p]
        assert found == pytest.approx(expected, rel=1e-7, abs=1e-9 * np.abs(expected).max()), kind


def test_influence_one_step_is_near_the_refit(setting):
    fit, data, _ = setting
    names, near = fit.names, NEAR[int(data["y0"].isna().any())]
    step, refit = (fit.influence(refit=asked).changes[names] for asked in (False, True))
    for name in names:
        assert np.corrcoef(step[name], refit[name])[0, 1] > near, name


def test_leaving_out_a_cluster_is_the_fit_without_it(setting):
    fit, data, _ = setting
    changes = fit.influence(refit=True).changes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = mlmed.mixed(FORMULAS, data[data["id"] != 3], residual="unstructured")
    expected = other.tidy()["estimate"].to_numpy() - fit.tidy()["estimate"].to_numpy()
    assert changes.loc[3, fit.names].to_numpy(dtype=float) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_all_clusters_once_is_the_problem(setting):
    """The case resampler at the identity gives the problem itself back, crossed products included."""
    fit, _, _ = setting
    fitted = fit.fit
    same = case_resampler(fitted.spec, fitted.grams).at(np.arange(fit.n_clusters))
    cross, expected = same.cross, fitted.working.problem.cross
    for name in ("A", "B", "C", "nobs"):
        assert getattr(cross, name) == pytest.approx(getattr(expected, name), rel=SAME, abs=SAME), name


def test_profile_and_test_of_a_residual_covariance(setting):
    """The likelihood-ratio test of no residual covariance is the comparison with the diagonal fit."""
    fit, data, _ = setting
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = mlmed.mixed(FORMULAS, data)
    name = "cov(y0~Residual,y1~Residual)"
    found = fit.test(f"{name} = 0")
    assert found.chi2 == pytest.approx(2.0 * (fit.llf - plain.llf), rel=1e-6)
    low, high = fit.profile(name, points=4).interval
    estimate = fit.tidy().set_index("term").loc[name, "estimate"]
    assert low < estimate < high
    table = fit.compare(plain)
    assert table["chi2"].iloc[1] == pytest.approx(found.chi2, rel=1e-6)
    assert table["df"].iloc[1] == 1


@pytest.mark.parametrize("kind", ["case", "parametric", "residual"])
def test_bootstraps_run_and_do_not_depend_on_workers(setting, kind):
    fit, _, _ = setting
    boot = fit.bootstrap(6, seed=5, kind=kind)
    again = fit.bootstrap(6, seed=5, kind=kind, n_jobs=2)
    assert boot.draws.equals(again.draws)
    assert boot.draws[fit.names].notna().all().all()


def _covariances(problem) -> np.ndarray:
    """Total cross-products of all responses and columns of [X Y]."""
    return problem.cross.C.sum(axis=0)


@pytest.mark.parametrize("kind", ["parametric", "residual"])
def test_replicates_have_the_moments_of_the_model(setting, kind):
    """Mean of the cross-products over replicates: X beta and V, residual covariances included."""
    fit, data, dense = setting
    fitted = fit.fit
    point = at_optimum(fitted.optimum)
    if kind == "parametric":
        resampler = parametric_resampler(fitted.spec, fitted.grams, point)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            design = build_design(fitted.spec, data)
        resampler = residual_resampler(fitted.spec, fitted.grams, point, design, data)
    rng = np.random.default_rng(3)
    draws = np.array([_covariances(resampler.draw(rng))[-2:, -2:] for _ in range(1500)])
    estimates, units = fitted.estimates, fitted.working.units
    mean, V = dense.X @ estimates.beta, dense.V(estimates.G, estimates.Sigma)
    shift = fitted.grams.shift[[e.response_at for e in fitted.layout.equations]]
    same_row = dense.row[:, None] == dense.row
    for r in range(2):
        for s in range(2):
            pairs = same_row & (dense.equation[:, None] == r) & (dense.equation == s)
            product = np.outer(mean - shift[dense.equation], mean - shift[dense.equation]) + V
            expected = product[pairs].sum() / (units.y_scale[r] * units.y_scale[s])
            own = draws[:, r, s]
            assert abs(own.mean() - expected) < ERRORS * own.std() / np.sqrt(len(own)), (kind, r, s)


def test_simulated_rows_have_correlated_residuals(setting):
    """Residuals of simulated rows around their own predictor: the correlation of the model."""
    fit, _, _ = setting
    sets = fit.simulate(200, seed=1)
    assert sets.shape[1] == 400
    complete = fit.simulate(1, seed=1).notna().all(axis=1)
    a, b = (sets.xs(name, axis=1, level="response")[complete].to_numpy() for name in ("y0", "y1"))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    dense = made(fit.fit.table, *FORMULAS)[1]
    V = dense.V(fit.fit.estimates.G, fit.fit.estimates.Sigma)
    used = fit.simulate(1, seed=1).notna().any(axis=1)
    place = (np.cumsum(used) - 1)[complete]  # rows of the dense model are those that some equation uses
    both = [[np.flatnonzero((dense.row == k) & (dense.equation == r))[0] for k in place] for r in range(2)]
    expected = V[both[0], both[1]].mean()
    products = (a * b).mean(axis=0) * 200 / 199
    assert abs(products.mean() - expected) < ERRORS * products.std() / np.sqrt(200)


def test_cluster_products_add_up(setting):
    fit, _, _ = setting
    products = cluster_products(fit.fit.working, fit.fit.grams)
    assert isinstance(products, ClusterProducts)
    assert products.cross.C.sum(axis=1) == pytest.approx(fit.fit.working.problem.cross.C, rel=SAME, abs=SAME)


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
def test_compare_knows_residuals_and_which_values_stand_together():
    """Correlated residuals are not nested in independent ones; permuted responses are other data."""
    data = simulated(30, 6, seed=8, R=2)
    short = mlmed.mixed(["y0 ~ x + (1 | id)", "y1 ~ x + (1 | id)"], data, residual="unstructured")
    other = mlmed.mixed(["y0 ~ x + (1 + x |c| id)", "y1 ~ x + (1 + x |c| id)"], data)
    table = short.compare(other)
    assert table["chi2"].isna().all()
    assert "not nested" in table["note"].iloc[1]
    assert table["model"].str.contains("residuals correlated").sum() == 1
    plain = mlmed.mixed(["y0 ~ x + (1 | id)", "y1 ~ x + (1 | id)"], data)
    assert plain.compare(short)["chi2"].iloc[1] == pytest.approx(2.0 * (short.llf - plain.llf), rel=1e-9)
    rng = np.random.default_rng(1)
    moved = data.assign(y1=data.groupby("id")["y1"].transform(lambda own: rng.permutation(own.to_numpy())))
    with pytest.raises(mlmed.errors.EffectError, match="not of the same rows"):
        plain.compare(mlmed.mixed(["y0 ~ x + (1 | id)", "y1 ~ x + (1 | id)"], moved, residual="unstructured"))
