"""What one cluster does to the estimates: formulas against refits, refits against the same model without its rows."""

from __future__ import annotations

import numpy as np
import pytest

import mlmed
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.influence import ALONE, FEW, SINGULAR, fixed_variance_changes, one_step_changes, refit_changes
from mlmed.lmm.percluster import cluster_products
from mlmed.lmm.resample import case_resampler
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.vcov import parameter_vcov
from tests.lmm.test_sandwich import ONE, fitted, psi_of, singular_fit, to_user, unbalanced
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import INVARIANT, SAME

#: Two searches for the same optimum, from different starts and in different working units: in standard errors.
REFIT = 1e-6
#: One step against the optimum where it is exact in theory: the refit's distance from its optimum (measured: 2e-10).
EXACT = 1e-8
#: One step against refits on ml_sim, as measured and rounded: correlations, errors as a share of the largest change.
BETA_CORRELATION, CORRELATION, BETA_ERROR, ERROR, COOK_CORRELATION = 0.997, 0.97, 0.17, 0.48, 0.98


def model(fit):
    """What every function takes."""
    return fit.working, fit.optimum, cluster_products(fit.working, fit.grams)


def agreement(approximate, exact):
    """Correlation over clusters and largest error as a share of the largest change, per parameter."""
    columns = range(exact.shape[1])
    correlation = np.array([np.corrcoef(approximate[:, k], exact[:, k])[0, 1] for k in columns])
    return correlation, np.abs(approximate - exact).max(axis=0) / np.abs(exact).max(axis=0)


@pytest.fixture(scope="module")
def pair():
    fit = fitted(mlmed.simulate.bpg(60, 12, seed=2).data, MEDIATOR, OUTCOME)
    assert fit.optimum.rank == 5
    return fit


@pytest.mark.parametrize("method", ["reml", "ml"])
@pytest.mark.parametrize("formulas", [(ONE,), (MEDIATOR, OUTCOME)])
def test_steps_against_the_deleted_problem_itself(formulas, method):
    """No sums are reused: the criterion without the cluster is evaluated from its own cross-products."""
    fit = fitted(mlmed.simulate.bpg(60, 12, seed=2).data, *formulas, method=method)
    working, o, products = model(fit)
    at, J, M, p = o.evaluation, natural_jacobian(working.problem, working.blocks), to_user(fit), len(fit.estimates.beta)
    fixed = fixed_variance_changes(working, o, products, reml=fit.reml)
    step = one_step_changes(working, o, products, reml=fit.reml)
    cases = case_resampler(fit.spec, fit.grams)
    for j in range(0, 60, 7):
        deleted = evaluate(cases.without(j), o.L, o.sigma2, reml=fit.reml)
        beta = deleted.beta - at.beta
        information = at.information - deleted.information
        variances = -np.linalg.solve(J.T @ (at.hessian - information) @ J, J.T @ deleted.gradient)
        expected = M @ np.append(beta + deleted.beta_gradient @ J @ variances, variances)
        size = np.abs(step.changes).max(axis=0)
        assert fixed.changes[j] == pytest.approx(M[:p, :p] @ beta, rel=0, abs=SAME * size[:p].max())
        assert np.abs((step.changes[j] - expected) / size).max() < INVARIANT
        P = np.linalg.inv(fit.estimates.P_inv)
        assert step.cooks[j] == pytest.approx(step.changes[j, :p] @ P @ step.changes[j, :p] / p, rel=SAME)


@pytest.mark.parametrize("formulas", [(ONE,), (MEDIATOR, OUTCOME)])
def test_refits_are_fits_of_the_remaining_rows(formulas):
    data = unbalanced(40, 14, seed=2)
    fit = fitted(data, *formulas)
    found = refit_changes(*model(fit), reml=True, clusters=[0, 17, 39])
    error = np.sqrt(np.diag(parameter_vcov(fit.estimates).matrix))
    for row, j in zip(found.changes, [0, 17, 39], strict=True):
        expected = psi_of(fitted(data[data["id"] != fit.clusters[j]], *formulas)) - psi_of(fit)
        assert np.abs((row - expected) / error).max() < REFIT
    assert found.failures == (None, None, None)


def test_one_step_is_exact_for_balanced_data(dataset):
    """sleepstudy: the same days for everybody, Z = X."""
    fit = fitted(dataset("sleepstudy"), "Reaction ~ Days + (1 + Days | Subject)")
    step, exact = one_step_changes(*model(fit), reml=True), refit_changes(*model(fit), reml=True)
    correlation, error = agreement(step.changes, exact.changes)
    assert correlation.min() > 1.0 - EXACT
    assert error.max() < EXACT
    assert step.cooks == pytest.approx(exact.cooks, rel=EXACT)


def test_one_step_against_refits_on_ml_sim(dataset):
    """Measured: correlations of beta 0.998 to 1, of (tau, sigma2) 0.971 to 0.999; Cook's distances 0.989.

    The largest errors are those of the variance of c', which is nearly zero: some refits reach the boundary.
    """
    fit = fitted(dataset("ml_sim"), MEDIATOR, OUTCOME)
    step, exact = one_step_changes(*model(fit), reml=True), refit_changes(*model(fit), reml=True)
    assert set(exact.failures) == {None}
    correlation, error = agreement(step.changes, exact.changes)
    assert correlation[:5].min() > BETA_CORRELATION
    assert correlation.min() > CORRELATION
    assert error[:5].max() < BETA_ERROR
    assert error.max() < ERROR
    assert np.corrcoef(step.cooks, exact.cooks)[0, 1] > COOK_CORRELATION
    assert set(np.argsort(step.cooks)[-4:]) == set(np.argsort(exact.cooks)[-4:])
    fixed = fixed_variance_changes(*model(fit), reml=True)
    worst = agreement(fixed.changes, exact.changes[:, :5])[1].max()
    assert worst > error[:5].max()  # the variances matter for beta where m is response and regressor


def test_a_planted_cluster_is_found():
    data = mlmed.simulate.bpg(40, 10, seed=3).data
    data.loc[data["id"] == data["id"].unique()[11], "y"] += 6.0
    fit = fitted(data, ONE)
    for changes in (one_step_changes, refit_changes):
        found = changes(*model(fit), reml=True)
        assert found.cooks.argmax() == 11
        assert found.changes[:, 3].argmin() == 11  # the variance of intercepts falls without it


def test_distances_do_not_depend_on_units(pair):
    data = mlmed.simulate.bpg(60, 12, seed=2).data
    moved = fitted(data.assign(x=1000.0 + 50.0 * data["x"], y=0.1 * data["y"]), MEDIATOR, OUTCOME)
    for changes in (fixed_variance_changes, one_step_changes):
        plain, other = changes(*model(pair), reml=True), changes(*model(moved), reml=True)
        assert other.cooks == pytest.approx(plain.cooks, rel=1e-5, abs=INVARIANT * plain.cooks.max())
        assert other.changes[:, 3] == pytest.approx(0.1 * plain.changes[:, 3], abs=INVARIANT)


def test_a_cluster_that_alone_identifies_an_effect():
    data = unbalanced(30, 9, seed=1).assign(d=lambda t: (t["id"] == 4).astype(float))
    fit = fitted(data, "y ~ m + x + d + (1 | id)")
    at = list(fit.clusters).index(4)
    for changes in (fixed_variance_changes, one_step_changes, refit_changes):
        found = changes(*model(fit), reml=True)
        assert found.failures[at] == ALONE
        assert np.isnan(found.changes[at]).all()
        assert np.isnan(found.cooks[at])
        rest = np.arange(30) != at
        assert np.isfinite(found.changes[rest]).all()
        assert np.isfinite(found.cooks[rest]).all()
        assert {failure for failure, other in zip(found.failures, rest, strict=True) if other} == {None}


def test_two_clusters_leave_nothing_to_refit():
    fit = fitted(mlmed.simulate.bpg(2, 20, seed=1).data, "y ~ m + x + (1 | id)")
    found = refit_changes(*model(fit), reml=True)
    assert found.failures == (FEW, FEW)
    assert np.isnan(found.changes).all()


@pytest.mark.parametrize("seed", [2, 3])
def test_singular_optima_are_refitted_or_explained(seed):
    fit = singular_fit(seed)
    step = one_step_changes(*model(fit), reml=True)
    assert set(step.failures) == {SINGULAR}
    assert np.isnan(step.changes).all()
    assert np.isfinite(fixed_variance_changes(*model(fit), reml=True).changes).all()
    found = refit_changes(*model(fit), reml=True)
    for row, failure in zip(found.changes, found.failures, strict=True):
        assert np.isnan(row).all() == (failure is not None)
        assert np.isfinite(row).all() == (failure is None)
    assert found.failures.count(None) >= 28
