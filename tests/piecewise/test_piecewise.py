"""Separate equations: numbers of others first, then equivalences, effects and their errors."""

from __future__ import annotations

import warnings

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS

import mlmed
from mlmed.api.piecewise import piecewise
from mlmed.effects.delta import COLUMNS
from mlmed.effects.separate import EFFECTS
from mlmed.errors import (
    BoundaryWarning,
    EffectError,
)
from mlmed.fit.separate import UNKNOWN_COVARIANCE
from mlmed.fit.system import equation_of
from tests.package.test_validation import _assert_all
from tests.piecewise_models import LOWER, MEDIATOR, OUTCOME, REPEATED, UPPER, estimates, make
from tests.tolerances import DERIVATIVE, OPTIMUM, SAME
from validation import piecewise_checks as checks

# -- numbers of others ---------------------------------------------------------------------------------------------


def test_published_naive_indirect(yuan):
    """lmer's .1901 times -.17958 is -.0341 on the page; the joint fit has -.1276."""
    found = estimates(yuan)
    assert [f"{found[t]:.4f}" for t in ("a", "indirect")] == ["0.1901", "-0.0341"]
    assert f"{found['b']:.5f}" == "-0.17958"
    assert yuan.joint().effects().set_index("term").loc["indirect", "estimate"] == pytest.approx(-0.12762, abs=5e-6)


@pytest.mark.filterwarnings("ignore:the (mediator|outcome) .* has two values:mlmed.errors.FamilyWarning")
@pytest.mark.parametrize("name", checks.STUDENT)
def test_student_against_lme4(name, dataset):
    dataset("student")
    for which in checks.model_names(name):
        _assert_all(checks.student(name, which))


def test_simulated_data_sets(dataset):
    dataset("ml_sim")
    _assert_all(checks.known())


def test_products():
    _assert_all(checks.product())


def test_bias_without_the_covariance(dataset):
    """Population indirect effect .473: a*b misses cov(a_j, b_j) = .113, the joint fit does not."""
    fit = piecewise("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", dataset("ml_sim"), method="ml")
    joint = fit.joint().effects().set_index("term")["estimate"]
    assert estimates(fit)["indirect"] == pytest.approx(0.382353, abs=5e-7)
    assert joint["indirect"] == pytest.approx(0.4718, abs=5e-5)
    assert joint["indirect"] - joint["a"] * joint["b"] == pytest.approx(joint["cov_ab"], rel=SAME)
    assert "joint()" in fit.effects().set_index("term").loc["indirect", "note"]


# -- equivalences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["reml", "ml"])
def test_equations_are_mixed_models(data, method):
    """2-1-1: every equation is what mixed() fits, and path c needs no formula."""
    fit = piecewise("m ~ z + v + (1 | id)", "y ~ m*w + z + (1 + m | id)", data, treatment="z", method=method)
    alone = [mlmed.mixed(text, data, method=method) for text in ("m ~ z + v + (1 | id)", "y ~ m*w + z + (1 + m | id)")]
    alone.append(mlmed.mixed("y ~ w + z + (1 | id)", data, method=method))
    assert fit.design == "2-1-1"
    for one, other in zip((fit.mediator, fit.outcome, fit.reduced), alone, strict=True):
        assert one.llf == pytest.approx(other.llf, rel=SAME)
        pd.testing.assert_frame_equal(one.tidy(), other.tidy())


def test_labels_that_differ_keep_the_joint_fit_apart(data):
    """The same likelihood as a product of two."""
    both = mlmed.mediate("m ~ x + (1 |i| id)", "y ~ m + x + (1 |j| id)", data)
    apart = piecewise(MEDIATOR, OUTCOME, data)
    assert both.llf == pytest.approx(apart.mediator.llf + apart.outcome.llf, abs=OPTIMUM)
    joint = both.effects().set_index("term")
    for term in ("a", "b", "cprime", "indirect", "total"):
        assert joint.loc[term, "estimate"] == pytest.approx(estimates(apart)[term], abs=OPTIMUM)
    own, terms = apart.effects().set_index("term")["std_error"], ["a", "b", "indirect", "total"]
    np.testing.assert_allclose(joint.loc[terms, "std_error"], own[terms], rtol=1e-6)


def test_without_cluster_effects_it_is_least_squares():
    """Intercept variances of exactly 0: OLS three times, where c - c' = a b to the last digit."""
    rng = np.random.default_rng(4)
    data = make(30, 8, sd=0.0)
    x = data["x"] - data["x"].groupby(data["id"]).transform("mean")
    m = 0.4 * x + rng.normal(size=len(x))
    m = m - m.groupby(data["id"]).transform("mean")
    y = 0.5 * m + 0.2 * x + rng.normal(size=len(x))
    data = data.assign(x=x, m=m, y=y - y.groupby(data["id"]).transform("mean"))
    with pytest.warns(BoundaryWarning) as caught:
        fit = piecewise(MEDIATOR, OUTCOME, data)
    said = [str(one.message).partition(":")[0] for one in caught]
    assert said == ["equation m", "equation y", "equation y without m"]
    X = np.column_stack([np.ones(len(x)), data[["m", "x"]]])
    ols = OLS(data["y"], X).fit()
    np.testing.assert_allclose(fit.outcome.params[["Intercept", "m", "x"]], ols.params, rtol=1e-9, atol=1e-12)
    found = estimates(fit)
    assert found["c_minus_cprime"] == pytest.approx(found["indirect"], rel=1e-9)
    assert "boundary" in fit.summary()


def test_where_weights_do_not_matter_c_minus_cprime_is_a_b(data, fit):
    """Clusters of one size, and x only within or only between them; otherwise it is not."""
    centred = data.assign(x=data["x"] - data["x"].groupby(data["id"]).transform("mean"))
    for formulas, rows in (((MEDIATOR, OUTCOME), centred), (("m ~ z + (1 | id)", "y ~ m + z + (1 | id)"), data)):
        found = estimates(piecewise(*formulas, rows))
        assert found["c_minus_cprime"] == pytest.approx(found["indirect"], rel=1e-8)
        unequal = estimates(piecewise(*formulas, rows.drop(index=rows.index[:40:3])))
        assert abs(unequal["c_minus_cprime"] / unequal["indirect"] - 1.0) > 1e-4
    assert abs(estimates(fit)["c_minus_cprime"] / estimates(fit)["indirect"] - 1.0) > 1e-4


def test_why_c_minus_cprime_is_not_a_b(fit, data):
    """Eq. 62, from dense matrices: the weights of the third fit stand in for those of the first two."""
    X = np.column_stack([np.ones(len(data)), data["x"]])
    same = data["id"].to_numpy()[:, None] == data["id"].to_numpy()

    def solver(of):
        V = np.eye(len(data)) * of.sigma2.iloc[0] + same * of.G.iloc[0, 0]
        return np.linalg.solve(X.T @ np.linalg.solve(V, X), X.T @ np.linalg.inv(V))

    beta, found = fit.outcome.params, estimates(fit)
    r = data["y"] - beta["m"] * data["m"] - X @ beta[["Intercept", "x"]].to_numpy()
    other = solver(fit.reduced)
    assert (other @ data["y"])[1] == pytest.approx(found["c"], rel=OPTIMUM)
    right = beta["m"] * (other @ data["m"])[1] + (other @ r)[1]
    assert found["c_minus_cprime"] == pytest.approx(right, rel=1e-6)
    assert (solver(fit.mediator) @ data["m"])[1] == pytest.approx(found["a"], rel=OPTIMUM)


def test_a_level_2_mediator_is_the_between_regression(upper, data):
    """One row per cluster, each counting once; on balanced data the regression of cluster means, as ``xtreg, be``."""
    means = data.groupby("id")[["q", "z"]].mean()
    ols = OLS(means["q"], np.column_stack([np.ones(len(means)), means["z"]])).fit()
    assert upper.design == "2-2-1"
    np.testing.assert_allclose(upper.mediator.params, ols.params, rtol=REPEATED)
    np.testing.assert_allclose(upper.mediator.bse, ols.bse, rtol=REPEATED)
    np.testing.assert_allclose(upper.mediator.fixef()["p_value"], ols.pvalues, rtol=1e-9)
    assert upper.mediator.llf == pytest.approx(ols.llf, rel=SAME)
    for kind, hc in (("CR0", "HC0"), ("CR2", "HC2")):
        np.testing.assert_allclose(
            upper.mediator.vcov(kind), OLS(ols.model.endog, ols.model.exog).fit(cov_type=hc).cov_params(), rtol=1e-9
        )
    unbalanced = data.drop(index=data.index[:4])
    again = piecewise(UPPER, LOWER, unbalanced)
    np.testing.assert_allclose(again.mediator.params, upper.mediator.params, rtol=SAME)
    assert [one.nobs for one in (again.mediator, again.outcome, again.reduced)] == [40, 236, 236]
    assert again.nobs == 40 + 236


# -- effects and their errors --------------------------------------------------------------------------------------


def test_effects_by_hand(fit):
    table = fit.effects()
    assert tuple(table.columns) == COLUMNS
    assert tuple(table["term"]) == EFFECTS
    found, se = estimates(fit), table.set_index("term")["std_error"]
    a, b, cprime, c = (
        fit.mediator.params["x"],
        fit.outcome.params["m"],
        fit.outcome.params["x"],
        fit.reduced.params["x"],
    )
    expected = [a, b, cprime, c, a * b, cprime, a * b + cprime, c - cprime, a * b / (a * b + cprime), a * b / cprime]
    np.testing.assert_allclose(found, expected, rtol=SAME)
    V = fit.outcome.vcov(which="fixed")
    Va, Vb = fit.mediator.bse["x"] ** 2, V.loc["m", "m"]
    assert se["indirect"] ** 2 == pytest.approx(a**2 * Vb + b**2 * Va + Va * Vb, rel=SAME)
    total = se["indirect"] ** 2 + V.loc["x", "x"] + 2 * a * V.loc["m", "x"]
    assert se["total"] ** 2 == pytest.approx(total, rel=SAME)
    assert np.isnan(se["c_minus_cprime"])
    note = table.set_index("term").loc["c_minus_cprime", "note"]
    assert "need not equal a*b" in note
    assert UNKNOWN_COVARIANCE in note


def test_sobel_aroian_goodman(fit):
    a, b = fit.mediator.params["x"], fit.outcome.params["m"]
    Va, Vb = fit.mediator.bse["x"] ** 2, fit.outcome.bse["m"] ** 2
    first = a**2 * Vb + b**2 * Va
    table = fit.sobel()
    assert list(table["term"]) == ["sobel", "aroian", "goodman"]
    np.testing.assert_allclose(table["std_error"] ** 2, [first, first + Va * Vb, first - Va * Vb], rtol=SAME)
    for test, order in (("sobel", "first"), ("aroian", "second"), ("goodman", "unbiased")):
        row = fit.effects(order=order).set_index("term").loc["indirect"]
        np.testing.assert_allclose(
            table.set_index("term").loc[test].drop("note").astype(float), row.drop("note").astype(float)
        )
    np.testing.assert_allclose(fit.effects()["std_error"], fit.effects(order="second")["std_error"])


def test_goodman_may_not_exist():
    """Small paths: the unbiased variance is negative, which is said and not hidden, in every mode."""
    rng = np.random.default_rng(4)
    data = make(12, 4).assign(m=rng.normal(size=48), y=rng.normal(size=48))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = piecewise(MEDIATOR, OUTCOME, data)
        joint = fit.joint()
    row = fit.sobel().set_index("term").loc["goodman"]
    assert np.isnan(row["std_error"])
    assert np.isnan(row["conf_low"])
    assert "is negative" in row["note"]
    for options in ({}, {"ddf": "satterthwaite"}):
        table = joint.effects(order="unbiased", **options).set_index("term")
        assert np.isnan(table.loc["indirect", "std_error"])
        assert "variance is negative" in table.loc["indirect", "note"]
        assert np.isfinite(table.loc["a", "std_error"])


def test_derivatives(yuan):
    """Gradients and Hessians of every effect, the quotients among them."""
    found = yuan.catalogue.effects(yuan.fit)
    effects, psi = found.forms, yuan.fit.psi
    for term, quantity in found.quantities.items():

        def value(psi, term=term):
            return effects.draws(psi[None])[term][0]

        gradient = nd.Gradient(value)(psi)
        np.testing.assert_allclose(quantity.gradient, gradient, rtol=DERIVATIVE, atol=1e-8)
        if term in ("indirect", "prop_mediated", "ratio"):
            part = np.flatnonzero(quantity.gradient)

            def along(step, part=part, value=value):
                moved = psi.copy()
                moved[part] += step
                return value(moved)

            hessian = nd.Hessian(along)(np.zeros(len(part)))
            np.testing.assert_allclose(quantity.hessian[np.ix_(part, part)], hessian, rtol=1e-5, atol=1e-6)


def test_nlcom_is_the_built_in_effect(fit):
    table = fit.nlcom({"share": "a*b / (a*b + cprime)", "gap": "c - cprime", "own": "`reduced~x` - 2*`m~x`"})
    row = fit.effects().set_index("term").loc["prop_mediated"]
    np.testing.assert_allclose(
        table.loc[0, ["estimate", "std_error"]].astype(float), row[["estimate", "std_error"]].astype(float), rtol=1e-6
    )
    assert table.loc[1, "estimate"] == pytest.approx(estimates(fit)["c_minus_cprime"], rel=1e-9)
    assert np.isnan(table.loc[1, "std_error"])
    assert UNKNOWN_COVARIANCE in table.loc[1, "note"]
    assert np.isnan(table.loc[2, "std_error"])
    assert UNKNOWN_COVARIANCE in table.loc[2, "note"]
    alone = fit.nlcom("exp(`reduced~x`)", order="first").loc[0]
    assert alone["std_error"] == pytest.approx(np.exp(fit.reduced.params["x"]) * fit.reduced.bse["x"], rel=1e-7)
    root = fit.nlcom("sqrt(`var(m~Intercept)`)").loc[0]
    assert root["estimate"] == pytest.approx(np.sqrt(fit.mediator.G.iloc[0, 0]), rel=SAME)
    assert root["std_error"] > 0
    with pytest.raises(EffectError, match="known are a, b, cprime, c, indirect"):
        fit.nlcom("cov_ab")


@pytest.mark.parametrize("kind", ["block", "joint", "CR0", "CR1", "CR2", "cluster"])
def test_every_covariance(fit, upper, kind):
    """Each path has the error of its own fit, and a b that of two independent ones."""
    for one in (fit, upper):
        x, m = one.treatment, equation_of(one.mediator.fit).name
        se = one.effects(vcov=kind).set_index("term")["std_error"]
        own = [one.mediator.vcov(kind).loc[x, x], one.outcome.vcov(kind).loc[m, m], one.reduced.vcov(kind).loc[x, x]]
        np.testing.assert_allclose(se[["a", "b", "c"]] ** 2, own, rtol=SAME)
        found = estimates(one)
        assert se["indirect"] ** 2 == pytest.approx(
            found["b"] ** 2 * own[0] + found["a"] ** 2 * own[1] + own[0] * own[1], rel=1e-9
        )
    factor = {"CR1": 40 / 39, "cluster": 40 / 39}.get(kind)
    if factor:
        np.testing.assert_allclose(upper.mediator.vcov(kind), factor * upper.mediator.vcov("CR0"), rtol=SAME)


def test_robust_covariance_from_few_clusters_is_flagged():
    data = make(5, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = piecewise("m ~ x + v + (1 | id)", "y ~ m + x + v + (1 | id)", data, treatment="x")
    table = fit.effects(vcov="CR0").set_index("term")
    assert "do not trust it" in table.loc["indirect", "note"]
    assert not fit.effects().set_index("term").loc["a", "note"]
