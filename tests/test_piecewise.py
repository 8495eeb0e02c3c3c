"""Separate equations (Krull and MacKinnon): levels, fits, effects, intervals, refusals."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS

import mlmed
from mlmed.data.levels import cluster_table, levels_of
from mlmed.effects.delta import COLUMNS
from mlmed.effects.separate import EFFECTS, UNKNOWN_COVARIANCE, effect_draws
from mlmed.errors import (
    BoundaryWarning,
    DataError,
    DroppedRowsWarning,
    EffectError,
    FormulaError,
    LevelWarning,
    NotIdentifiedError,
)
from mlmed.modes.piecewise import PIECEWISE_INTERVALS, piecewise
from mlmed.modes.tables import parameter_names
from tests.test_validation import _assert_all
from tests.tolerances import DERIVATIVE, OPTIMUM, SAME
from validation import piecewise_checks as checks

#: The same replicate fitted twice, from rows and from cross-products.
SAME_REPLICATE = 1e-8
#: A weighted regression of distinct clusters, and one of repeated rows.
REPEATED = 1e-10
MEDIATOR, OUTCOME = "m ~ x + (1 | id)", "y ~ m + x + (1 | id)"
UPPER, LOWER = "q ~ z", "y ~ q + z + (1 | id)"


def make(J=40, n=6, *, seed=1, sd=1.0):
    """Rows in clusters: x, m, y, v vary within; z (0/1), w, q, g, arm do not. a = .4 (z on q: .5), b = .6 (q: .4)."""
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(J), n)
    z, w, g = rng.integers(0, 2, J).astype(float), rng.normal(size=J), rng.choice(["ctl", "hi", "lo"], J)
    q = 0.5 * z + 0.3 * w + rng.normal(size=J)
    x, v = rng.normal(size=J * n), rng.normal(size=J * n)
    m = 0.4 * x + 0.5 * z[at] + sd * rng.normal(size=J)[at] + rng.normal(size=J * n)
    y = 0.6 * m + 0.2 * x + 0.3 * z[at] + 0.4 * q[at] + sd * rng.normal(size=J)[at] + rng.normal(size=J * n)
    rows = {"id": at, "x": x, "v": v, "m": m, "y": y, "z": z[at], "w": w[at], "q": q[at], "g": g[at]}
    return pd.DataFrame({**rows, "arm": np.where(z[at] > 0, "new", "old")})


@pytest.fixture(scope="module")
def data():
    return make()


@pytest.fixture(scope="module")
def fit(data):
    return piecewise(MEDIATOR, OUTCOME, data)


@pytest.fixture(scope="module")
def upper(data):
    return piecewise(UPPER, LOWER, data)


@pytest.fixture(scope="module")
def yuan():
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    return piecewise("Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)", data)


def estimates(fit, **options):
    return fit.effects(**options).set_index("term")["estimate"]


# -- numbers of others ---------------------------------------------------------------------------------------


def test_published_naive_indirect(yuan):
    """lmer's .1901 times -.17958 is -.0341 on the page; the joint fit has -.1276."""
    found = estimates(yuan)
    assert [f"{found[t]:.4f}" for t in ("a", "indirect")] == ["0.1901", "-0.0341"]
    assert f"{found['b']:.5f}" == "-0.17958"
    assert yuan.joint().effects().set_index("term").loc["indirect", "estimate"] == pytest.approx(-0.12762, abs=5e-6)


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


# -- equivalences --------------------------------------------------------------------------------------------


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
    assert again.nobs.to_dict() == {"mediator": 40, "outcome": 236, "reduced": 236}


# -- effects and their errors ----------------------------------------------------------------------------------


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
    weights = yuan._slopes(None).weights
    for term, quantity in yuan.effect_quantities().items():

        def value(psi, term=term):
            return effect_draws((weights @ psi)[None])[term][0]

        gradient = nd.Gradient(value)(yuan._psi)
        np.testing.assert_allclose(quantity.gradient, gradient, rtol=DERIVATIVE, atol=1e-8)
        if term in ("indirect", "prop_mediated", "ratio"):
            part = np.flatnonzero(quantity.gradient)

            def along(step, part=part, value=value):
                psi = yuan._psi.copy()
                psi[part] += step
                return value(psi)

            hessian = nd.Hessian(along)(np.zeros(len(part)))
            np.testing.assert_allclose(quantity.hessian[np.ix_(part, part)], hessian, rtol=1e-5, atol=1e-6)


def test_nlcom_is_the_built_in_effect(fit):
    table = fit.nlcom({"share": "a*b / (a*b + cprime)", "gap": "c - cprime", "own": "`reduced:x` - 2*`m:x`"})
    row = fit.effects().set_index("term").loc["prop_mediated"]
    np.testing.assert_allclose(
        table.loc[0, ["estimate", "std_error"]].astype(float), row[["estimate", "std_error"]].astype(float), rtol=1e-6
    )
    assert table.loc[1, "estimate"] == pytest.approx(estimates(fit)["c_minus_cprime"], rel=1e-9)
    assert np.isnan(table.loc[1, "std_error"])
    assert UNKNOWN_COVARIANCE in table.loc[1, "note"]
    assert np.isnan(table.loc[2, "std_error"])
    assert UNKNOWN_COVARIANCE in table.loc[2, "note"]
    alone = fit.nlcom("exp(`reduced:x`)").loc[0]
    assert alone["std_error"] == pytest.approx(np.exp(fit.reduced.params["x"]) * fit.reduced.bse["x"], rel=1e-2)
    root = fit.nlcom("sqrt(`var(m:Intercept)`)").loc[0]
    assert root["estimate"] == pytest.approx(np.sqrt(fit.mediator.G.iloc[0, 0]), rel=SAME)
    assert root["std_error"] > 0
    with pytest.raises(EffectError, match="known are a, b, cprime, c, indirect"):
        fit.nlcom("cov_ab")


@pytest.mark.parametrize("kind", ["block", "joint", "CR0", "CR1", "CR2", "cluster"])
def test_every_covariance(fit, upper, kind):
    """Each path has the error of its own fit, and a b that of two independent ones."""
    for one in (fit, upper):
        x, m = one.treatment, one.asked.mediator.name
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


# -- intervals -------------------------------------------------------------------------------------------------


def test_monte_carlo_and_product_agree(yuan):
    """The ends within four standard errors of a quantile of n draws, by its density in the product's distribution."""
    from mlmed.effects.product import product_normal

    n = 200_000
    drawn = yuan.effects(interval="monte-carlo", n=n, seed=2).set_index("term")
    exact = yuan.effects(interval="product").set_index("term")
    Va, Vb = yuan.mediator.bse["X"] ** 2, yuan.outcome.bse["Med"] ** 2
    ab = product_normal(exact.loc[["a", "b"], "estimate"], np.diag([Va, Vb]))
    for end, share in (("conf_low", 0.025), ("conf_high", 0.975)):
        assert exact.loc["indirect", end] == pytest.approx(ab.quantile(share), rel=1e-9)
    for term in ("a", "b", "cprime", "c", "indirect", "direct", "total"):
        for end in ("conf_low", "conf_high"):
            bound = (
                4.0 * 3.0 * exact.loc[term, "std_error"] / np.sqrt(n)
            )  # sqrt(p(1-p))/density is below 3 sd at both ends
            assert drawn.loc[term, end] == pytest.approx(exact.loc[term, end], abs=bound), (term, end)
        assert drawn.loc[term, "std_error"] == pytest.approx(
            exact.loc[term, "std_error"], rel=4 * np.sqrt(14 / (4 * n))
        )
        assert drawn.loc[term, "p_value"] == pytest.approx(exact.loc[term, "p_value"], abs=4 / np.sqrt(n))
    assert exact.loc["indirect", "conf_low"] < yuan.effects().set_index("term").loc["indirect", "conf_low"]
    for table in (drawn, exact):
        assert UNKNOWN_COVARIANCE in table.loc["c_minus_cprime", "note"]
        assert np.isnan(table.loc["c_minus_cprime", "conf_low"])
    assert "no product interval" in exact.loc["ratio", "note"]
    assert np.isnan(exact.loc["ratio", "conf_low"])
    assert np.isnan(drawn.loc["ratio", "std_error"])
    assert np.isfinite(drawn.loc["ratio", "conf_low"])


@pytest.mark.parametrize("seed", [1, 2])
def test_monte_carlo_is_reproducible(fit, seed):
    one, two = (fit.effects(interval="monte-carlo", n=500, seed=seed) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_a_quotient_of_almost_nothing_is_not_clamped(data):
    """c' near 0: the ratio is what it is, and the note says what to make of it."""
    direct = piecewise(MEDIATOR, OUTCOME, data).outcome.params["x"]
    shifted = data.assign(y=data["y"] - (direct - 1e-3) * data["x"])
    table = piecewise(MEDIATOR, OUTCOME, shifted).effects().set_index("term")
    row = table.loc["ratio"]
    assert row["estimate"] == pytest.approx(
        table.loc["indirect", "estimate"] / table.loc["direct", "estimate"], rel=SAME
    )
    assert abs(row["estimate"]) > 50
    assert "direct is within two standard errors of 0" in row["note"]


def rows_of(data, index):
    groups = [rows for _, rows in data.groupby("id", sort=True)]
    return pd.concat([groups[j].assign(id=new) for new, j in enumerate(index)], ignore_index=True)


@pytest.mark.parametrize("formulas", [(MEDIATOR, OUTCOME), (UPPER, LOWER)], ids=["1-1-1", "2-2-1"])
def test_a_replicate_is_the_fit_of_those_clusters(data, formulas):
    """The same drawn clusters in every equation, also where one lacks rows of some; refitted from rows."""
    gaps = data.copy()
    gaps.loc[gaps["id"] == 3, ["m", "q"]] = np.nan
    gaps.loc[gaps.index[30:34], "y"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        boot = piecewise(*formulas, gaps).bootstrap(4, seed=3)
        for k, child in enumerate(np.random.SeedSequence(3).spawn(3)):
            used = np.delete(np.arange(40), 3)  # cluster 3 is in no equation
            index = used[np.random.default_rng(child).integers(39, size=39)]
            again = piecewise(*formulas, rows_of(gaps, index))
            expected = pd.concat([estimates(again), again.params])
            np.testing.assert_allclose(
                boot.draws.loc[k, expected.index], expected, rtol=SAME_REPLICATE, atol=SAME_REPLICATE
            )


def test_replicates_are_those_of_each_equation(fit):
    """With the same seed the same clusters as the bootstrap of one equation alone."""
    boot = fit.bootstrap(5, seed=8).draws
    alone = fit.outcome.bootstrap(5, seed=8).draws
    np.testing.assert_allclose(boot[["y:m", "y:x", "var(y:Intercept)"]], alone[["m", "x", "var(Intercept)"]], rtol=1e-9)
    np.testing.assert_allclose(boot["indirect"], boot["a"] * boot["b"], rtol=SAME)
    np.testing.assert_allclose(boot["c_minus_cprime"], boot["c"] - boot["cprime"], rtol=SAME)
    assert list(boot.columns) == [*EFFECTS, *fit.names]


def test_any_number_of_workers(upper):
    results = upper
    one, two = (results.bootstrap(8, seed=5, strata="arm", n_jobs=n).draws for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    pd.testing.assert_frame_equal(one[:3], results.bootstrap(3, seed=5, strata="arm").draws, check_exact=True)
    assert not one.equals(results.bootstrap(8, seed=5).draws)


def test_strata_keep_their_clusters(upper, data):
    """As many clusters of each arm in every replicate as in the data."""
    from mlmed.modes.piecewise.bootstrap import refit_of, strata_of

    groups = strata_of(data, "g", ("id",), upper.fits.clusters)
    task = refit_of((upper.mediator, upper.outcome, upper.reduced), ("m", "y", "c"), upper.fits.clusters, groups)
    arm = data.groupby("id")["g"].first().to_numpy()
    whole = pd.Series(arm).value_counts()
    for seed in range(5):
        index = task.draw_index(np.random.default_rng(seed))
        pd.testing.assert_series_equal(pd.Series(arm[index]).value_counts().sort_index(), whole.sort_index())
    boot = upper.bootstrap(40, seed=1, strata="g")
    assert "case within g" in repr(boot)


def test_bootstrap_intervals(fit):
    boot = fit.bootstrap(60, seed=3)
    asked = fit.effects(interval="bootstrap", n=60, seed=3, method="basic")
    pd.testing.assert_frame_equal(asked, boot.tidy(method="basic", terms=list(EFFECTS)))
    for method in ("percentile", "bc", "bca", "basic", "normal"):
        table = boot.tidy(method=method, terms=list(EFFECTS))
        row = table.set_index("term").loc["c_minus_cprime"]
        assert row["conf_low"] < row["conf_high"]
        assert UNKNOWN_COVARIANCE not in row["note"]


def test_bootstrap_spreads_as_the_errors_say():
    """Normal data from the model: the standard deviation of the draws is the standard error, within four of its own."""
    data = make(120, 6, seed=9)
    fit = piecewise("m ~ z + (1 | id)", "y ~ m + z + (1 | id)", data)
    n = 200
    drawn = fit.effects(interval="bootstrap", n=n, seed=1).set_index("term")["std_error"]
    robust = fit.effects(vcov="CR0").set_index("term")["std_error"]
    for term in ("a", "b", "c", "indirect"):
        # beside the error of a spread of n draws: the sandwich and the bootstrap differ by terms of order 1/J
        assert drawn[term] == pytest.approx(robust[term], rel=4 / np.sqrt(2 * n) + 4 / 120)


@pytest.mark.parametrize("which", ["fit", "upper"])
def test_the_jackknife_is_leaving_out_clusters(which, request, data):
    results = request.getfixturevalue(which)
    left = results.bootstrap(20, seed=1).jackknife
    assert len(left) == 40
    formulas = results.asked.mediator.text, results.asked.outcome.text
    again = piecewise(*formulas, data[data["id"] != 7])
    np.testing.assert_allclose(left.loc[7, list(EFFECTS)], estimates(again), rtol=SAME_REPLICATE)


def test_failed_replicates_are_counted():
    """A treatment of two clusters out of twelve is often not drawn."""
    data = make(12, 5)
    data["z"] = (data["id"] < 2).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = piecewise(UPPER, LOWER, data)
    boot = fit.bootstrap(60, seed=1)
    assert boot.n_failed > 0
    assert boot.draws["a"].isna().sum() == boot.n_failed
    assert boot.draws.isna().any(axis=1).equals(boot.draws.isna().all(axis=1))
    assert list(boot.failures) == ["equation q, the coefficients cannot be told apart in the replicate"]
    assert f"{boot.n_failed} failed" in boot.tidy(terms="a").loc[0, "note"]


# -- levels and designs ----------------------------------------------------------------------------------------


def test_levels_are_found_and_printed(data):
    fit = piecewise(
        "q ~ z + w + g",
        "y ~ q + z + w + v + arm + (1 | id)",
        data.drop(columns="arm").assign(arm=data["g"] == "hi"),
        treatment="z",
    )
    table = fit.levels
    assert list(table.columns) == ["variable", "role", "level"]
    assert table.set_index("variable")["level"].to_dict() == {"z": 2, "q": 2, "y": 1, "arm": 2, "g": 2, "v": 1, "w": 2}
    assert list(table["role"][:3]) == ["treatment", "mediator", "outcome"]
    assert set(table["role"][3:]) == {"covariate"}
    table.loc[0, "level"] = 9
    assert fit.levels.loc[0, "level"] == 2
    text = fit.summary()
    assert "2-2-1" in text
    assert "q          mediator      2" in text


@pytest.mark.parametrize(
    ("values", "level"),
    [
        ([1.0, 1.0, 2.0, 2.0], 2),
        ([1.0, np.nan, 2.0, np.nan], 2),
        ([1.0, 1.0, 2.0, 2.0 + 1e-3], 1),
        ([1e9, 1e9, 1e9 + 1, 1e9 + 1], 2),
        ([0.1 + 0.2, 0.3, 2.0, 2.0], 2),  # rounding is not variation
        ([np.nan] * 4, 2),
        ([5.0] * 4, 2),
        (pd.Categorical(["a", "a", "b", "b"]), 2),
        (pd.Categorical(["a", None, "b", "a"]), 1),
        (pd.array([True, None, False, False], dtype="boolean"), 2),
        (pd.array([True, True, False, True], dtype="boolean"), 1),
    ],
)
def test_levels_of_columns(values, level):
    table = pd.DataFrame({"v": values})
    codes = np.array([0, 0, 1, 1])
    assert levels_of(table, codes, ["v"]) == {"v": level}
    more = pd.concat([table, table.iloc[[0]]], ignore_index=True)
    assert levels_of(more, np.append(codes, -1), ["v"]) == {"v": level}  # a row without a cluster


def test_the_table_of_clusters_skips_missing_values():
    table = pd.DataFrame({"z": [np.nan, 1.5, 2.5, np.nan, 9.0], "g": pd.Categorical(["a", None, "b", "b", "a"])})
    found = cluster_table(table, np.array([0, 0, 2, 1, -1]), ["z", "g"])
    assert found["z"].tolist()[0] == 1.5
    assert np.isnan(found["z"][1])
    assert found["z"][2] == 2.5
    assert found["g"].tolist() == ["a", "b", "b"]


def test_a_random_intercept_that_is_not_used(data, upper):
    with pytest.warns(LevelWarning, match="random intercept of 'q ~ z .* is not used") as caught:
        fit = piecewise("q ~ z + (1 | id)", LOWER, data)
    assert len(caught) == 1
    pd.testing.assert_frame_equal(fit.effects(), upper.effects())


def test_a_slope_between_clusters_is_said_once(data):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        piecewise("m ~ x + (1 | id)", "y ~ m + x + w + (1 + w | id)", data)
    said = [str(one.message) for one in caught if one.category is LevelWarning]
    assert len(said) == 1
    assert "y:w, which does not vary within clusters" in said[0]


REFUSED = {
    "upward": ("q ~ x", "y ~ q + x + (1 | id)", {}, DataError, "treatment x varies within clusters.*upward effect"),
    "upward covariate": ("q ~ z + v", LOWER, {"treatment": "z"}, DataError, r"predictor\(s\) v vary within clusters"),
    "upper outcome": (MEDIATOR, "w ~ m + x + (1 | id)", {}, DataError, "outcome w is the same.*x and m vary.*upward"),
    "upper outcome, upper x": ("m ~ z + (1 | id)", "w ~ m + z + (1 | id)", {}, DataError, "but m varies within"),
    "nothing nested": (UPPER, "w ~ q + z + (1 | id)", {}, DataError, "nothing is nested.*mlmed.causal"),
    "upper slope": ("q ~ z + (1 + z | id)", LOWER, {}, FormulaError, "random effects 1 \\+ z.*Write 'q ~ z'"),
    "upper slope alone": ("q ~ z + (0 + z | id)", LOWER, {}, FormulaError, "random effects 0 \\+ z"),
    "no random term": ("m ~ x", OUTCOME, {}, FormulaError, "has no random term"),
    "no random term in y": (UPPER, "y ~ q + z", {}, FormulaError, "has no random term"),
    "other clusters": ("m ~ x + (1 | g)", OUTCOME, {}, FormulaError, "different cluster variables"),
    "other clusters above": ("q ~ z + (1 | g)", LOWER, {}, FormulaError, "different cluster variables"),
    "no mediator": (MEDIATOR, "y ~ x + (1 | id)", {}, FormulaError, "mediator m is not in the fixed part"),
    "feedback": ("m ~ x + y + (1 | id)", OUTCOME, {"treatment": "x"}, FormulaError, "feed back"),
    "which treatment": ("m ~ x + v + (1 | id)", OUTCOME, {}, FormulaError, "which variable is the treatment"),
    "no such treatment": (MEDIATOR, OUTCOME, {"treatment": "v"}, FormulaError, "'v' is not in the mediator equation"),
    "shared label": ("m ~ x + (1 |i| id)", "y ~ m + x + (1 |i| id)", {}, FormulaError, "label 'i'.*mlmed.mediate"),
    "only the mediator varies": (MEDIATOR, "y ~ m + x + (0 + m | id)", {}, FormulaError, "no random term left.*total="),
    "total, response": (MEDIATOR, OUTCOME, {"total": "w ~ x + (1 | id)"}, FormulaError, "the response w, not y"),
    "total, mediator": (MEDIATOR, OUTCOME, {"total": "y ~ x + m + (1 | id)"}, FormulaError, "has the mediator m"),
    "total, treatment": (MEDIATOR, OUTCOME, {"total": "y ~ v + (1 | id)"}, FormulaError, "not have the treatment x"),
    "total, random": (MEDIATOR, OUTCOME, {"total": "y ~ x"}, FormulaError, "must have random terms"),
    "total, clusters": (MEDIATOR, OUTCOME, {"total": "y ~ x + (1 | g)"}, FormulaError, "the cluster variable of"),
    "method": (MEDIATOR, OUTCOME, {"method": "mle"}, FormulaError, "method must be one of"),
    "structure": (MEDIATOR, OUTCOME, {"covariance": "toeplitz"}, FormulaError, "unknown covariance structure"),
    "structure, type": (MEDIATOR, OUTCOME, {"covariance": 3}, FormulaError, "covariance must be one of"),
    "structure, label": (MEDIATOR, OUTCOME, {"covariance": {"k": "diagonal"}}, FormulaError, "names the block k"),
    "contrast": (MEDIATOR, OUTCOME, {"contrast": (1, 1)}, FormulaError, "two different values"),
    "unknown column": ("m ~ xx + (1 | id)", OUTCOME, {}, DataError, "column 'xx' is not in the data"),
    "text outcome": (MEDIATOR, "g ~ m + x + (1 | id)", {}, DataError, "outcome g is the same"),
    "text mediator": ("g ~ z", "y ~ g + z + (1 | id)", {}, DataError, "response 'g' is not numeric"),
    "collinear": ("q ~ z + I(2*z)", LOWER, {"treatment": "z"}, NotIdentifiedError, "linear combination"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, data):
    mediator, outcome, options, error, said = REFUSED[case]
    before = data.copy()
    with pytest.raises(error, match=said):
        piecewise(mediator, outcome, data, **options)
    pd.testing.assert_frame_equal(data, before)


def test_refused_data(data):
    with pytest.raises(DataError, match="stored Grams have none"):
        piecewise(MEDIATOR, OUTCOME, mlmed.grams([MEDIATOR, OUTCOME], data))
    with pytest.raises(DataError, match="'q' is constant"):
        piecewise(UPPER, LOWER, data.assign(q=1.0))
    with pytest.raises(DataError, match=r"no cluster with all its values \(missing q: 40\)"):
        piecewise(UPPER, LOWER, data.assign(q=np.nan))
    with pytest.raises(NotIdentifiedError, match="2 rows for 2 fixed effects"):
        piecewise(UPPER, LOWER, data[data["id"].isin([0, 1 + int(data["z"][0] == data["z"][6])])])
    one_each = data.groupby("id").head(1)
    with pytest.raises(DataError, match="nothing is nested"):
        piecewise(MEDIATOR, OUTCOME, one_each)


BAD_OPTIONS = [
    ({"interval": "profile"}, "interval must be one of delta, monte-carlo, product, bootstrap"),
    ({"n": 10}, "interval='delta' does not use n; n belongs to interval='monte-carlo' and interval='bootstrap'"),
    ({"strata": "z"}, "does not use strata"),
    ({"interval": "product", "order": "first"}, "does not use order"),
    ({"interval": "product", "seed": 1}, "does not use seed"),
    ({"interval": "monte-carlo"}, "give a seed"),
    ({"interval": "monte-carlo", "seed": 1, "method": "bca"}, "does not use method"),
    ({"interval": "bootstrap", "n": 40}, "give a seed"),
    ({"interval": "bootstrap", "seed": 1, "n": 0}, "a whole number from 1"),
    ({"interval": "bootstrap", "seed": 1, "vcov": "joint"}, "does not use vcov"),
    ({"interval": "bootstrap", "seed": 1, "method": "t"}, "method must be one of"),
    ({"interval": "bootstrap", "seed": 1, "n_jobs": 0}, "n_jobs is a number of workers"),
    ({"order": "third"}, "order must be one of first, second, unbiased"),
    ({"vcov": "HC3"}, "vcov must be one of block, joint"),
    ({"level": 95}, "level must be a proportion"),
    ({"at": {"v": 1.0}}, "at names v, which no equation uses"),
]


@pytest.mark.parametrize(("options", "said"), BAD_OPTIONS)
def test_refused_options(fit, upper, options, said):
    for one in (fit, upper):
        with pytest.raises(EffectError, match=said):
            one.effects(**options)


def test_refused_strata(fit, data):
    with pytest.raises(DataError, match="strata='v' varies within clusters"):
        fit.bootstrap(5, seed=1, strata="v")
    with pytest.raises(DataError, match="is the cluster variable"):
        fit.bootstrap(5, seed=1, strata="id")
    with pytest.raises(DataError, match="column 'nope' is not in the data"):
        fit.bootstrap(5, seed=1, strata="nope")
    with pytest.raises(EffectError, match="name of a column"):
        fit.bootstrap(5, seed=1, strata=3)
    holes = data.assign(s=data["z"].where(data["id"] != 4))
    with pytest.raises(DataError, match="no value for 1 of 40 clusters, the first id 4"):
        piecewise(MEDIATOR, OUTCOME, holes).bootstrap(5, seed=1, strata="s")
    changed = data.copy()
    again = piecewise(MEDIATOR, OUTCOME, changed)
    changed["id"] += 1
    with pytest.raises(EffectError, match="changed after the fit"):
        again.bootstrap(5, seed=1, strata="z")


# -- rows, moderators, contrasts ---------------------------------------------------------------------------------


def test_left_out_rows_are_said_once(data):
    gaps = data.copy()
    gaps.loc[gaps.index[::17], "m"] = np.nan
    gaps.loc[gaps.index[5:9], "y"] = np.nan
    gaps = gaps.astype({"id": float})
    gaps.loc[gaps.index[-3:], "id"] = np.nan
    with pytest.warns(DroppedRowsWarning) as caught:
        fit = piecewise(MEDIATOR, OUTCOME, gaps)
    said = str(caught[0].message)
    assert len(caught) == 1
    assert said.count("equation m:") == 1
    assert said.count("equation y:") == 1
    assert caught[0].filename == __file__
    complete = gaps.dropna(subset=["id", "m", "x", "y"])
    assert fit.nobs.to_dict() == {
        "mediator": gaps.dropna(subset=["id", "m"]).shape[0],
        "outcome": len(complete),
        "reduced": len(complete),
    }
    reduced = mlmed.mixed("y ~ x + (1 | id)", complete)
    assert fit.reduced.llf == pytest.approx(reduced.llf, rel=SAME)  # like with like: the rows of the outcome equation
    assert "Left out" in fit.summary()
    assert "left_out" in fit.to_json()
    with pytest.warns(
        DroppedRowsWarning, match="equation q: 1 of 40 clusters left out.*missing q: 1.*equation y"
    ) as caught:
        fit = piecewise(UPPER, LOWER, data.assign(q=data["q"].where(data["id"] != 4)))
    assert len(caught) == 1
    assert fit.nobs["mediator"] == 39
    assert 4 not in fit.mediator.clusters
    assert "39 clusters" in fit.summary()
    assert "1 of 40" in str(fit.mediator)


def test_more_covariates_in_path_c(data):
    gaps = data.assign(v=data["v"].where(data.index > 9))
    with pytest.warns(DroppedRowsWarning, match="equation y without m: 10 of 240 rows left out"):
        fit = piecewise(MEDIATOR, OUTCOME, gaps, total="y ~ x + v + (1 | id)")
    note = fit.effects().set_index("term").loc["c_minus_cprime", "note"]
    assert "c comes from 230 rows, c' from 240" in note


@pytest.mark.parametrize(("m", "x"), [("m", "x"), ("q", "z")])
def test_moderators(data, m, x):
    """m:w and x:w in both designs: the slopes at a value of w are sums of coefficients."""
    random = "+ (1 | id)"
    first = f"{m} ~ {x}*w" + ("" if m == "q" else f" {random}")
    fit = piecewise(first, f"y ~ {m}*w + {x}*w {random}", data, treatment=x)
    assert fit.reduced.fitted.spec.equations[0].text == f"y ~ 1 + w + {x} + {x}:w + (1 | id)"
    found = estimates(fit, at={"w": 2.0})
    p, r = fit.params, fit.reduced.params
    inter = next(name for name in r.index if ":" in name)
    assert found["a"] == pytest.approx(p[f"{m}:{x}"] + 2 * p[f"{m}:{x}:w"], rel=SAME)
    assert found["b"] == pytest.approx(p[f"y:{m}"] + 2 * p[f"y:{m}:w"], rel=SAME)
    assert found["c"] == pytest.approx(r[x] + 2 * r[inter], rel=SAME)
    assert "at w = 2" in fit.effects(at={"w": 2.0}).set_index("term").loc["indirect", "note"]
    boot = fit.effects(interval="bootstrap", n=40, seed=1, at={"w": 2.0}).set_index("term")
    assert boot.loc["indirect", "estimate"] == pytest.approx(found["indirect"], rel=SAME)
    for interval in ("monte-carlo", "product"):
        seed = {"seed": 1} if interval == "monte-carlo" else {}
        table = fit.effects(interval=interval, at={"w": 2.0}, **seed).set_index("term")
        assert table.loc["indirect", "estimate"] == pytest.approx(found["indirect"], rel=SAME)


def test_default_moderators_have_one_value(data):
    """Means over clusters, rows, and fewer rows differ; a*b is taken at one of them, that of the outcome equation."""
    uneven = data[(data["w"] > 0.0) | (data.groupby("id").cumcount() < 2)]
    assert uneven.groupby("id")["w"].first().mean() != pytest.approx(uneven["w"].mean(), abs=0.01)
    above = piecewise("q ~ z*w", "y ~ q*w + z*w + (1 | id)", uneven, treatment="z")
    pd.testing.assert_series_equal(estimates(above), estimates(above, at={"w": uneven["w"].mean()}), rtol=SAME)
    gaps = data.assign(y=data["y"].where(data["w"] < 0.5))
    with pytest.warns(DroppedRowsWarning):
        fewer = piecewise("m ~ x*w + (1 | id)", "y ~ m*w + x + (1 | id)", gaps, treatment="x")
    used = gaps.loc[gaps["y"].notna(), "w"].mean()
    pd.testing.assert_series_equal(estimates(fewer), estimates(fewer, at={"w": used}), rtol=SAME)
    assert fewer.effects().set_index("term").loc["indirect", "note"] == f"at w = {used:.6g} (mean)"


def test_a_moderator_of_path_c_only(data):
    fit = piecewise(MEDIATOR, OUTCOME, data, total="y ~ x*w + (1 | id)")
    found, r = estimates(fit, at={"w": 2.0}), fit.reduced.params
    assert found["c"] == pytest.approx(r["x"] + 2.0 * r["x:w"], rel=SAME)
    assert found["indirect"] == pytest.approx(estimates(fit)["indirect"], rel=SAME)
    with pytest.raises(EffectError, match="at names v, which no equation uses"):
        fit.effects(at={"v": 1.0})


def test_a_moderator_of_one_path_only(data):
    fit = piecewise("m ~ x + (1 | id)", "y ~ m + m:w + x + (1 | id)", data)
    found = estimates(fit, at={"w": 1.0})
    assert found["b"] == pytest.approx(fit.params["y:m"] + fit.params["y:m:w"], rel=SAME)
    assert found["c"] == pytest.approx(fit.reduced.params["x"], rel=SAME)


def test_factor_treatments(data):
    for formulas in (("q ~ g", "y ~ q + g + (1 | id)"), ("m ~ g + (1 | id)", "y ~ m + g + (1 | id)")):
        open_question = piecewise(*formulas, data)
        with pytest.raises(EffectError, match="g has 3 levels"):
            open_question.effects()
        assert "No effects" in open_question.summary()
        fit = piecewise(*formulas, data, contrast=("hi", "lo"))
        m = fit.asked.mediator.name
        found = estimates(fit)
        assert found["a"] == pytest.approx(fit.params[f"{m}:g[T.lo]"] - fit.params[f"{m}:g[T.hi]"], rel=SAME)
        assert found["c"] == pytest.approx(fit.reduced.params["g[T.lo]"] - fit.reduced.params["g[T.hi]"], rel=SAME)


def test_treatment_without_a_direct_path(data):
    """Nothing is made up: direct is 0 by construction, its ratio does not exist, and c was not asked for."""
    table = piecewise(MEDIATOR, "y ~ m + (1 | id)", data).effects().set_index("term")
    assert table.loc["direct", "estimate"] == 0.0
    assert table.loc["total", "estimate"] == table.loc["indirect", "estimate"]
    for term, said in (
        ("ratio", "direct is 0"),
        ("c", "total="),
        ("c_minus_cprime", "total="),
        ("cprime", "fixed at 0"),
    ):
        assert said in table.loc[term, "note"]
        assert np.isnan(table.loc[term, "std_error"])
    fit = piecewise(MEDIATOR, "y ~ m + (1 | id)", data, total="y ~ x + (1 | id)")
    assert np.isfinite(estimates(fit)["c"])
    for options in (
        {"interval": "monte-carlo", "seed": 1},
        {"interval": "product"},
        {"interval": "bootstrap", "n": 40, "seed": 1},
    ):
        row = piecewise(MEDIATOR, "y ~ m + (1 | id)", data).effects(**options).set_index("term")
        assert np.isfinite(row.loc["indirect", "conf_low"])
        assert np.isnan(row.loc["ratio", "conf_low"])


def test_interaction_of_treatment_and_mediator_has_no_single_effect(data):
    fit = piecewise(MEDIATOR, "y ~ m*x + (1 | id)", data)
    with pytest.raises(EffectError, match="the effect of m depends on x"):
        fit.effects()
    assert "No effects" in fit.summary()
    assert "No effects" in fit.summary("stata")
    document = json.loads(fit.to_json())
    assert document["effects"] == []
    assert "depends on x" in document["effects_reason"]
    assert fit.reduced.fitted.spec.equations[0].text == "y ~ 1 + x + (1 | id)"
    assert fit.nlcom("`m:x` * `y:m`").loc[0, "std_error"] > 0
    assert "indirect" not in fit.bootstrap(3, seed=1).draws


def test_structures_and_labels(data):
    """A mapping of structures gives each equation the labels it has; a double bar stays one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = piecewise("m ~ x + (1 + x |k| id)", "y ~ m + x + (1 + m || id)", data, covariance={"k": "diagonal"})
        same = piecewise("m ~ x + (1 + x | id)", OUTCOME, data, covariance="diagonal")
    assert fit.mediator.G.iloc[0, 1] == 0.0
    assert fit.outcome.G.iloc[0, 1] == 0.0
    assert fit.reduced.fitted.spec.equations[0].text == "y ~ 1 + x + (1 || id)"
    assert same.mediator.llf == pytest.approx(fit.mediator.llf, rel=SAME)


def test_odd_names_and_ids(data):
    """Names with blanks, ids of text, a combined id, a transformed mediator."""
    odd = data.rename(columns={"m": "m one", "id": "school id"}).assign(half=data["id"] // 20)
    odd["school id"] = [f"s{k}" for k in odd["school id"]]
    fit = piecewise("`m one` ~ x + (1 | `school id`)", "y ~ `m one` + x + (1 + `m one` | `school id`)", odd)
    plain = piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 + m | id)", data)
    np.testing.assert_allclose(estimates(fit), estimates(plain), rtol=1e-8)
    assert fit.reduced.fitted.spec.equations[0].text == "y ~ 1 + x + (1 | school id)"
    combined = piecewise("q ~ z", "y ~ q + z + (1 | half:id)", odd.assign(id=data["id"]))
    np.testing.assert_allclose(estimates(combined), estimates(piecewise(UPPER, LOWER, data)), rtol=1e-8)
    assert combined.bootstrap(3, seed=1, strata="z").n_failed == 0
    logs = data.assign(pos=np.exp(data["m"] / 5), lp=data["m"] / 5)
    one = piecewise("np.log(pos) ~ x + (1 | id)", "y ~ np.log(pos) + x + (1 | id)", logs)
    two = piecewise("lp ~ x + (1 | id)", "y ~ lp + x + (1 | id)", logs)
    np.testing.assert_allclose(estimates(one), estimates(two), rtol=1e-8)


def test_other_data_frames(data, fit, upper):
    polars = pytest.importorskip("polars")
    for formulas, expected in (((MEDIATOR, OUTCOME), fit), ((UPPER, LOWER), upper)):
        for other in (polars.from_pandas(data), polars.from_pandas(data).lazy()):
            found = piecewise(*formulas, other)
            np.testing.assert_allclose(estimates(found), estimates(expected), rtol=1e-8)
            draws = found.bootstrap(3, seed=2, strata="g").draws
            np.testing.assert_allclose(draws, expected.bootstrap(3, seed=2, strata="g").draws, rtol=1e-6, atol=1e-9)


# -- joint, text, export -----------------------------------------------------------------------------------------


def test_joint_is_mediate(data, fit, upper):
    joint = mlmed.mediate(MEDIATOR, OUTCOME, data)
    assert fit.joint().llf == pytest.approx(joint.llf, rel=SAME)
    with pytest.raises(EffectError, match="mediator q is a variable of the clusters"):
        upper.joint()


def test_remarks(data, yuan, fit):
    """What a*b leaves out is said where it matters, and only there."""
    note = {
        name: one.effects().set_index("term").loc["indirect", "note"] for name, one in (("both", yuan), ("none", fit))
    }
    assert "cov(a_j, b_j)" in note["both"]
    assert note["none"] == ""
    assert "cov(a_j, b_j)" in yuan.summary()
    assert "cov(a_j," in yuan.summary("stata")
    blend = piecewise("m ~ z + (1 | id)", "y ~ m + z + (1 | id)", data)
    assert "blends its effects" in blend.effects().set_index("term").loc["indirect", "note"]


@pytest.mark.parametrize(
    ("mediator", "outcome", "covariance", "tied"),
    [
        ("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m | id)", "unstructured", True),
        ("m ~ x + (1 + x || id)", "y ~ m + x + (1 + m | id)", "unstructured", False),
        ("m ~ x + (1 + x |p| id)", "y ~ m + x + (1 + m |q| id)", "unstructured", False),
        ("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m | id)", "diagonal", False),
        ("m ~ x + (1 | id) + (0 + x |p| id)", "y ~ m + x + (1 + m | id)", "unstructured", False),
    ],
)
def test_the_joint_fit_is_offered_where_it_helps(data, mediator, outcome, covariance, tied):
    """joint() estimates cov(a_j, b_j) exactly where the note says so."""
    varied = data.assign(m=data["m"] + data["w"] * data["x"], y=data["y"] + data["q"] * data["m"])
    fit = piecewise(mediator, outcome, varied, covariance=covariance)
    said = fit.effects().set_index("term").loc["indirect", "note"]
    cov_ab = fit.joint().effects().set_index("term").loc["cov_ab"]
    assert ("joint() has it" in said) == tied
    assert ("joint() would hold it at 0" in said) != tied
    assert (cov_ab["estimate"] != 0.0) == tied


def test_a_response_with_the_name_reduced(data):
    """The parameters of the third equation keep names of their own."""
    fit = piecewise(MEDIATOR, "reduced ~ m + x + (1 | id)", data.rename(columns={"y": "reduced"}))
    assert len(set(fit.names)) == len(fit.names)
    assert fit.nlcom("`reduced:x`").iloc[0]["estimate"] == pytest.approx(fit.outcome.params["x"], rel=SAME)
    assert fit.nlcom("`reduced_:x`").iloc[0]["estimate"] == pytest.approx(fit.reduced.params["x"], rel=SAME)


def test_one_cluster_alone_gives_a_coefficient(upper, data):
    fit = piecewise("q ~ z + k", "y ~ q + z + k + (1 | id)", data.assign(k=1.0 * (data["id"] == 3)), treatment="z")
    with pytest.raises(NotIdentifiedError, match=r"cluster 3 \(id\) has leverage 1.*Use 'CR0' or 'CR1'"):
        fit.effects(vcov="CR2")
    assert fit.effects(vcov="CR1")["std_error"].notna().sum() == upper.effects()["std_error"].notna().sum()


def test_stata_names(yuan, upper):
    """The seven numbers under the names of ml_mediation, and its quotients."""
    lines = dict(line.split(" = ") for line in yuan.summary("stata").splitlines() if " = " in line)
    shown = {name.strip(): value for name, value in lines.items()}
    names = ["c_path", "a_path", "b_path", "c_prime", "ind_eff", "dir_eff", "tot_eff"]
    assert list(shown)[:7] == names
    found = estimates(yuan)
    for name, term in zip(names, ("c", "a", "b", "cprime", "indirect", "direct", "total"), strict=True):
        assert float(shown[name].split()[0]) == pytest.approx(found[term], abs=5e-8)
    assert shown["c_prime"].endswith("same as dir_eff")
    assert float(shown["proportion of total effect mediated"]) == pytest.approx(found["prop_mediated"], abs=5e-8)
    assert float(shown["ratio of indirect to direct effect"]) == pytest.approx(found["ratio"], abs=5e-8)
    text = upper.summary("stata")
    assert "mv q: level 2" in text
    assert "dv y: level 1" in text
    assert "least squares on one row per cluster" in text
    assert max(map(len, text.splitlines())) <= 78
    with pytest.raises(EffectError, match="style must be"):
        yuan.summary("spss")
    with pytest.raises(EffectError, match="leave out vcov and level"):
        yuan.summary("stata", vcov="CR2")


def test_text(upper):
    text = str(upper)
    assert text == upper.summary()
    assert upper._repr_html_() == f"<pre>{text}</pre>"
    assert "Multilevel mediation, separate equations: z -> q -> y" in text
    assert "delta method, second order" in text
    assert "90% intervals; CR2" in upper.summary(vcov="CR2", level=0.9)
    assert max(map(len, text.splitlines())) <= 100
    own = str(upper.mediator)
    assert own.startswith("Least squares on one row per cluster: q")
    assert upper.mediator._repr_html_() == f"<pre>{own}</pre>"


def test_export(fit, upper):
    for one in (fit, upper):
        document = json.loads(one.to_json(vcov="CR0", level=0.9))
        assert document["schema"] == "mlmed.piecewise/1"
        assert document["design"] == one.design
        row = next(row for row in document["effects"] if row["term"] == "c_minus_cprime")
        assert row["std_error"] is None
        assert "bootstrap" in row["note"]
        assert len(document["equations"]["mediator"]["fixef"]) == len(one.mediator.params)
        tidy = one.tidy()
        assert list(tidy["fit"].unique()) == ["mediator", "outcome", "reduced"]
        assert list(tidy.columns[1:]) == list(fit.outcome.tidy().columns)
    assert list(fit.names[:5]) == [*parameter_names(fit.mediator.fitted, always=True)[:4], "y:Intercept"]


def test_comparable(fit, upper):
    shared = mlmed.mediate(MEDIATOR, OUTCOME, fit.data)
    for one in (fit, upper):
        table = one.comparable(level=0.9)
        assert tuple(table.columns) == COLUMNS
        assert table["term"].is_unique
    both = set(fit.comparable()["term"]) & set(shared.comparable()["term"])
    assert {"a", "b", "cprime", "indirect", "direct", "total", "m:x", "y:m", "var(m:Intercept)"} <= both
    assert (fit.label, upper.label) == ("piecewise REML", "piecewise REML")
    row = fit.combined("`m:x` * `y:m`").iloc[0]
    assert row["std_error"] == pytest.approx(fit.effects().set_index("term").loc["indirect", "std_error"], rel=1e-9)


def test_pickle_has_no_rows(fit, upper):
    for one in (fit, upper):
        again = pickle.loads(pickle.dumps(one))
        assert again.data is None
        pd.testing.assert_frame_equal(again.effects(), one.effects())
        pd.testing.assert_frame_equal(again.bootstrap(2, seed=1).draws, one.bootstrap(2, seed=1).draws)
        with pytest.raises(EffectError, match="has no rows"):
            again.bootstrap(2, seed=1, strata="z")
    with pytest.raises(EffectError, match="has no rows"):
        pickle.loads(pickle.dumps(fit)).joint()


def test_results_are_frozen(fit):
    with pytest.raises(AttributeError):
        fit.data = None
    assert replace(fit, data=None).effects().equals(fit.effects())
    assert PIECEWISE_INTERVALS == ("delta", "monte-carlo", "product", "bootstrap")


def test_joint_refuses_rows_that_were_changed() -> None:
    """The same equations on other rows would be another analysis."""
    changed = mlmed.simulate.bpg(30, 6, seed=4).data
    found = mlmed.piecewise(MEDIATOR, OUTCOME, changed)
    changed.loc[0, "m"] += 1.0
    with pytest.raises(EffectError, match="changed after the fit"):
        found.joint()


def test_quotients_of_draws_with_both_signs_say_so() -> None:
    """The total effect is close to 0, so shares of it have no spread to speak of."""
    truth = mlmed.simulate.BPGTruth(cprime=-0.36).with_cov_ab(0.0)
    found = mlmed.piecewise(MEDIATOR, OUTCOME, mlmed.simulate.bpg(30, 6, truth=truth, seed=4).data)
    table = found.bootstrap(60, seed=1).tidy().set_index("term")["note"]
    assert "both signs" in table["prop_mediated"]
    assert "look at total itself" in table["prop_mediated"]
    assert "both signs" not in table["indirect"]
