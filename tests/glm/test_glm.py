"""Ordinary regressions: references first, then definitions."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pytest

from mlmed.errors import NotIdentifiedError
from mlmed.glm.family import likelihood, mean_of, newton, slope_of
from mlmed.glm.fit import cluster_vcov, fit_glm, hc_vcov
from mlmed.options import FAMILIES, HC_KINDS
from tests.glm_models import CONVERGED, NAMES, design, fitted, response
from tests.tolerances import DERIVATIVE, INVARIANT, SAME
from validation import causal_checks as validation

# -- references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_reference_r(family, dataset):
    """R's coefficients, log-likelihood, vcov, HC0 to HC3 and clusters, on framing."""
    dataset("framing")
    missed = [check for check in validation.regression(family) if not check.ok]
    assert not missed


@pytest.mark.parametrize("kind", HC_KINDS)
def test_statsmodels_hc_of_least_squares(kind):
    from statsmodels.regression.linear_model import OLS

    fit = fitted("linear")
    X, eta = design()
    theirs = OLS(response("linear", eta), X).fit().get_robustcov_results(kind).cov_params()
    np.testing.assert_allclose(hc_vcov(fit, kind), theirs, rtol=CONVERGED)


@pytest.mark.parametrize("family", ["logit", "probit", "poisson"])
def test_statsmodels_glm(family):
    from statsmodels.genmod import families
    from statsmodels.genmod.generalized_linear_model import GLM

    X, eta = design()
    kind = {"logit": families.Binomial(), "probit": families.Binomial(families.links.Probit())}
    codes = np.arange(len(X)) % 20
    y = response(family, eta)
    theirs = GLM(y, X, family=kind.get(family, families.Poisson())).fit(
        tol=1e-12, cov_type="cluster", cov_kwds={"groups": codes, "use_correction": False}
    )
    fit = fitted(family)
    np.testing.assert_allclose(fit.beta, theirs.params, rtol=CONVERGED)
    assert fit.loglik == pytest.approx(theirs.llf, rel=CONVERGED)
    if family != "probit":  # its sandwich has the observed information there, the expected one here and in R
        np.testing.assert_allclose(cluster_vcov(fit, codes) * 19 / 20, theirs.cov_params(), rtol=1e-6)


# -- definitions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_slope_of_the_mean(family):
    eta = np.linspace(-3, 2, 7)
    numeric = np.array([float(nd.Derivative(lambda e: float(mean_of(family, np.array(e))))(e)) for e in eta])
    np.testing.assert_allclose(slope_of(family, eta), numeric, rtol=DERIVATIVE)


@pytest.mark.parametrize("family", FAMILIES)
def test_leverages_of_counted_rows_are_those_of_their_copies(family):
    """A row that counts twice has the leverage of both copies; all together have that of the columns."""
    X, eta = design()
    y, weights = response(family, eta), np.where(np.arange(len(eta)) < 10, 2.0, 1.0)
    counted = fit_glm(family, y, X, names=NAMES, response="y", weights=weights)
    rows = np.repeat(np.arange(len(y)), weights.astype(int))
    repeated = fit_glm(family, y[rows], X[rows], names=NAMES, response="y")
    np.testing.assert_allclose(counted.leverage, np.bincount(rows, weights=repeated.leverage), rtol=CONVERGED)
    assert counted.leverage.sum() == pytest.approx(X.shape[1], rel=CONVERGED)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_constant_need_not_be_one(family):
    """A column of fours in place of ones: a quarter of the intercept, the same slopes and fit."""
    X, eta = design()
    y, X = response(family, eta), X + np.where(np.arange(X.shape[1]) > 0, 2.0, 0.0)
    assert np.all(X[:, 0] == 1.0)
    ones, fours = (
        fit_glm(family, y, X * np.where(np.arange(X.shape[1]) > 0, 1.0, c), names=NAMES, response="y") for c in (1, 4)
    )
    np.testing.assert_allclose(fours.beta * [4.0, *[1.0] * (X.shape[1] - 1)], ones.beta, rtol=CONVERGED)
    assert fours.loglik == pytest.approx(ones.loglik, rel=CONVERGED)


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_repeated_rows(family):
    X, eta = design()
    y = response(family, eta)
    weights = np.random.default_rng(3).integers(0, 3, len(y)).astype(float)
    kept, rows = weights > 0, np.repeat(np.arange(len(y)), weights.astype(int))
    counted = fit_glm(family, y[kept], X[kept], names=NAMES, response="y", weights=weights[kept])
    repeated = fit_glm(family, y[rows], X[rows], names=NAMES, response="y")
    np.testing.assert_allclose(counted.beta, repeated.beta, rtol=0, atol=SAME)
    np.testing.assert_allclose(counted.vcov, repeated.vcov, rtol=1e-8)
    assert counted.loglik == pytest.approx(repeated.loglik, rel=SAME)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_start_changes_nothing(family):
    X, eta = design()
    first = fitted(family)
    again = fit_glm(family, response(family, eta), X, names=NAMES, response="y", start=first.beta)
    np.testing.assert_allclose(again.beta, first.beta, rtol=0, atol=SAME)


@pytest.mark.parametrize("family", ["logit", "probit", "poisson"])
def test_newton_finds_what_statsmodels_finds(family):
    """Resampled rows, from the estimates of all rows: the bootstrap's fits."""
    X, eta = design()
    y, first = response(family, eta), fitted(family)
    for seed in range(5):
        weights = np.bincount(np.random.default_rng(seed).integers(0, 200, 200), minlength=200).astype(float)
        kept = weights > 0
        data = {"names": NAMES, "response": "y", "weights": weights[kept]}
        near = fit_glm(family, y[kept], X[kept], start=first.beta, **data)
        theirs = fit_glm(family, y[kept], X[kept], **data)
        np.testing.assert_allclose(near.beta, theirs.beta, rtol=0, atol=CONVERGED)
        np.testing.assert_allclose(near.vcov, theirs.vcov, rtol=1e-6, atol=1e-10)
        assert near.loglik == pytest.approx(theirs.loglik, rel=SAME)


def test_newton_gives_up_without_an_optimum_nearby():
    X, _ = design()
    separated = (X[:, 1] > 0).astype(float)
    assert newton("logit", separated, X, np.ones(200), np.zeros(4)) is None
    assert newton("poisson", np.zeros(200), X, np.ones(200), np.zeros(4)) is None
    with pytest.raises(NotIdentifiedError, match="separate 0 from 1"):
        fit_glm("logit", separated, X, names=NAMES, response="y", start=np.zeros(4))


@pytest.mark.parametrize("family", ["logit", "probit", "poisson"])
def test_derivatives_of_the_log_likelihood(family):
    """Row by row, far into the tails, and the expectation of the second one over both responses."""
    for eta in (-6.0, -0.4, 0.0, 1.3, 6.0):
        for y in (0.0, 1.0):

            def value(at: float, y: float = y) -> float:
                return float(likelihood(family, np.array([y]), np.array([at])).loglik[0])

            found = likelihood(family, np.array([y]), np.array([eta]))
            assert found.score[0] == pytest.approx(float(nd.Derivative(value)(eta)), rel=1e-6, abs=1e-8)
            assert found.observed[0] == pytest.approx(-float(nd.Derivative(value, n=2)(eta)), rel=1e-4, abs=1e-6)
        if family != "poisson":
            both = likelihood(family, np.array([0.0, 1.0]), np.array([eta, eta]))
            p = float(mean_of(family, np.array(eta)))
            assert both.expected[0] == pytest.approx((1 - p) * both.observed[0] + p * both.observed[1], rel=1e-6)
            assert both.expected[0] == pytest.approx(
                float(slope_of(family, np.array(eta))) ** 2 / (p * (1 - p)), rel=1e-6
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_units_do_not_matter(family):
    """x with mean 1e6 gives the same slopes, errors and leverages; the mean of 1e6 costs digits, not answers."""
    X, eta = design()
    y, first = response(family, eta), fitted(family)
    moved = X.copy()
    moved[:, 1] = 3.0 * X[:, 1] + 1e6
    second = fit_glm(family, y, moved, names=NAMES, response="y")
    np.testing.assert_allclose(second.beta[1:] * [3, 1, 1], first.beta[1:], rtol=INVARIANT)
    scaled = np.diag([3.0, 1.0, 1.0])
    np.testing.assert_allclose(scaled @ second.vcov[1:, 1:] @ scaled, first.vcov[1:, 1:], rtol=1e-6)
    np.testing.assert_allclose(second.leverage, first.leverage, rtol=1e-6)
    assert second.leverage.sum() == pytest.approx(4.0, rel=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_bread_and_score_are_the_first_order_change(family):
    """Counting one row a little more moves beta by bread x score (expected information for the probit)."""
    X, eta = design(2000)
    y = response(family, eta)
    fit = fit_glm(family, y, X, names=NAMES, response="y")
    weights = np.ones(len(y))
    weights[7] = 1.0 + 1e-4
    moved = fit_glm(family, y, X, names=NAMES, response="y", weights=weights)
    change = fit.bread @ X[7] * fit.score[7]
    np.testing.assert_allclose((moved.beta - fit.beta) / 1e-4, change, rtol=0.05, atol=0.05 * np.abs(change).max())
