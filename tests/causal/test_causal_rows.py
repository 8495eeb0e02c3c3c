"""Rows that both equations use, robust errors, conditional effects, tests of differences."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.api.causal import causal
from mlmed.effects.uncertainty import draw_contrasts
from mlmed.errors import (
    DroppedRowsWarning,
    EffectError,
    LevelWarning,
)
from tests.causal_models import EXACT, MIXED, XM, YM, brute, chain, column, effects_of, fitted, simulated, vcov_of
from tests.tolerances import SAME

# -- rows, errors of the coefficients ------------------------------------------------------------------------------


def test_both_equations_use_the_same_rows():
    """A row that one equation cannot use is left out of both, counted once."""
    data = simulated()
    data.loc[:9, "w"] = np.nan
    data.loc[5:14, "y"] = np.nan
    with pytest.warns(DroppedRowsWarning) as found:
        fit = causal("m ~ x", "y ~ m + x + w", data)
    assert len(found) == 1
    assert found[0].filename == __file__
    assert "15 of 300 rows left out (missing w: 10, y: 10)" in str(found[0].message)
    assert "15 of 300 rows left out" in fit.summary()
    complete = causal("m ~ x", "y ~ m + x + w", data.dropna())
    pd.testing.assert_frame_equal(fit.effects(), complete.effects())
    assert fit.nobs == 285


def test_missing_clusters_are_left_out():
    data = simulated().assign(g=lambda d: d["g"].where(d.index > 9))
    with pytest.warns(DroppedRowsWarning, match="missing g: 10"):
        fit = causal(XM, YM, data, treatment="x", cluster="g")
    assert fit.glance().loc[0, "n_clusters"] == 15


@pytest.mark.parametrize("made", [lambda g: [f"school {k}" for k in g], lambda g: 10 * g])
def test_clusters_may_be_predictors(made):
    """Effects of the clusters and errors robust within them, from the same column."""
    data = simulated().assign(g=lambda d: made(d["g"] // 3), same=lambda d: d["g"].astype(object))
    formulas = "m ~ x + C(g)", "y ~ m + x + C(g)"
    one = causal(*formulas, data, treatment="x", cluster="g")
    two = causal(*formulas, data, treatment="x", cluster="same")
    pd.testing.assert_frame_equal(one.effects(), two.effects())
    assert one.groups()["g"].tolist() == two.groups()["same"].tolist()


def test_standard_errors_of_the_coefficients():
    from statsmodels.regression.linear_model import OLS

    data = simulated()
    for options in ({}, {"vcov": "iid"}, {"vcov": "HC3"}, {"cluster": "g"}):
        fit = causal(XM, YM, data, treatment="x", **options)
        X = chain(fit).mediator.fit.design.X
        model = OLS(data["m"], X).fit()
        if options.get("vcov") == "HC3":
            model = model.get_robustcov_results("HC3")
        if "cluster" in options:
            model = OLS(data["m"], X).fit(cov_type="cluster", cov_kwds={"groups": data["g"], "use_correction": False})
            np.testing.assert_allclose(vcov_of(fit, "mediator") * 14 / 15, model.cov_params(), rtol=1e-8)
        else:
            np.testing.assert_allclose(vcov_of(fit, "mediator"), model.cov_params(), rtol=1e-8)
            tidy = fit.tidy()
            tidy = tidy[tidy["equation"] == "m"]
            np.testing.assert_allclose(tidy["p_value"], model.pvalues, rtol=1e-7)
            np.testing.assert_allclose(tidy[["conf_low", "conf_high"]], model.conf_int(), rtol=1e-7)


def test_names_of_covariances_within_clusters():
    """CR0 and CR1 by statsmodels; cluster= alone is CR1, and so is vcov="cluster" of ordinary regressions."""
    from statsmodels.regression.linear_model import OLS

    data = simulated()
    fits = {
        kind: causal(XM, YM, data, treatment="x", cluster="g", vcov=kind) for kind in (None, "CR0", "CR1", "cluster")
    }
    asked = {"cov_type": "cluster", "cov_kwds": {"groups": data["g"], "use_correction": False}}
    expected = OLS(data["m"], chain(fits["CR0"]).mediator.fit.design.X).fit(**asked).cov_params()
    for kind, factor in ((None, 15 / 14), ("CR0", 1.0), ("CR1", 15 / 14), ("cluster", 15 / 14)):
        np.testing.assert_allclose(vcov_of(fits[kind], "mediator"), expected * factor, rtol=1e-8)
    assert fits[None].glance()["vcov"].item() == "CR1"
    assert "CR1 within g" in str(fits[None])


@pytest.mark.parametrize("kind", ["block", "joint", "CR0", "CR1", "CR2", "cluster"])
def test_names_of_covariances_of_mixed_models(kind):
    """Those of the same equation fitted by ``mixed``, which knows its clusters without cluster=."""
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    fit = causal(*MIXED, data, vcov=kind)
    for role, formula in zip(("mediator", "outcome"), MIXED, strict=True):
        expected = mlmed.mixed(formula, data).vcov(kind, which="fixed")
        np.testing.assert_allclose(vcov_of(fit, role), expected, rtol=1e-8)
    assert json.loads(fit.to_json())["vcov"] == kind
    if kind != "CR2":  # not of ordinary regressions
        beside = causal("Med ~ X", MIXED[1], data, vcov=kind)
        options = {} if kind in ("block", "joint") else {"cluster": "group", "vcov": kind}
        alone = causal("Med ~ X", "y ~ X + Med", data, **options)
        np.testing.assert_allclose(vcov_of(beside, "mediator"), vcov_of(alone, "mediator"))


def test_cluster_robust_mixed_models(mixed):
    fit = causal(*MIXED, mlmed.datasets.load("yuan_mackinnon_sim"), cluster="group")
    expected = mlmed.mixed(MIXED[0], mlmed.datasets.load("yuan_mackinnon_sim")).vcov("CR1", which="fixed")
    np.testing.assert_allclose(vcov_of(fit, "mediator"), expected, rtol=1e-8)
    np.testing.assert_allclose(column(fit.effects()), column(mixed.effects()), rtol=1e-12)


def test_a_mediator_of_the_clusters_is_noticed():
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    data = data.assign(Med=data.groupby("group")["Med"].transform("mean"))
    with pytest.warns(LevelWarning, match="does not vary within group.*Give cluster='group'") as found:
        causal("Med ~ X", "y ~ X + Med + (1 | group)", data)
    assert found[0].filename == __file__


# -- conditional effects, tests ------------------------------------------------------------------------------------


def test_conditional_effects_are_effects_of_changed_rows():
    """at= is the same as setting the column in every row, the coefficients kept."""
    data = simulated("linear", "probit").assign(k=lambda d: np.where(d["w"] > 0, "high", "low"))
    fit = causal("m ~ x * k + w", "y ~ m * x + k + w", data, treatment="x", family_y="probit")
    found = column(fit.effects(at={"w": 0.5, "k": "low"}))
    b, c = chain(fit).mediator.beta, chain(fit).outcome.beta
    eta = {t: dict(zip(chain(fit).mediator.layout.fixed, b, strict=True)) for t in (0, 1)}
    mu = [e["Intercept"] + t * e["x"] + e["k[T.low]"] + t * e["x:k[T.low]"] + 0.5 * e["w"] for t, e in eta.items()]
    names = dict(zip(chain(fit).outcome.layout.fixed, c, strict=True))
    s = chain(fit).mediator.sigma
    A = [names["Intercept"] + t * names["x"] + names["k[T.low]"] + 0.5 * names["w"] for t in (0, 1)]
    B = [names["m"] + t * names["m:x"] for t in (0, 1)]
    E = [[brute("linear", "probit", mu[k], A[t], B[t], s) for k in (0, 1)] for t in (0, 1)]
    assert found["acme_treated"] == pytest.approx(E[1][1] - E[1][0], rel=1e-8)
    assert found["ade_control"] == pytest.approx(E[1][0] - E[0][0], rel=1e-8)
    shape = effects_of(fit, {"w": 0.5, "k": "low"}).designs[0]
    assert np.all(shape.outcome == shape.outcome[:, :1])
    assert "At" in fit.summary(at={"w": 0.5})


def test_conditional_effects_reach_random_slopes():
    """at= sets columns of the random part, too; clusters may be named by two columns."""
    rng = np.random.default_rng(1)
    g, h = rng.integers(0, 6, 600), rng.integers(0, 5, 600)
    x, w, u = rng.normal(size=600), rng.normal(size=600), rng.normal(size=(30, 2))
    own = u[g * 5 + h]
    m = own[:, 0] + 0.4 * x + (0.3 + own[:, 1]) * x * w + rng.normal(size=600)
    data = pd.DataFrame({"g": g, "h": h, "x": x, "w": w, "m": m, "y": 0.5 * m + 0.2 * x + rng.normal(size=600)})
    fit = causal("m ~ x * w + (1 + x:w | g:h)", "y ~ m + x + w", data, treatment="x")
    names = dict(zip(chain(fit).mediator.layout.fixed, chain(fit).mediator.beta, strict=True))
    slopes = names["x"] + 0.5 * (names["x:w"] + chain(fit).mediator.fit.law().modes[chain(fit).grouping.codes, 1])
    b = dict(zip(chain(fit).outcome.layout.fixed, chain(fit).outcome.beta, strict=True))["m"]
    assert column(fit.effects(at={"w": 0.5}))["acme"] == pytest.approx(slopes.mean() * b, rel=1e-8)
    assert fit.groups().columns[0] == "g:h"


def test_any_dataframe():
    import polars as pl

    data = simulated("logit", "probit")
    options = {"treatment": "x", "family_m": "logit", "family_y": "probit"}
    pd.testing.assert_frame_equal(
        causal(XM, YM, pl.from_pandas(data), **options).effects(), causal(XM, YM, data, **options).effects()
    )


def test_moderation_uses_the_same_draws():
    fit = fitted("linear", "probit")
    table = fit.test_moderation({"w": 1}, {"w": -1}, 300, seed=4).set_index("term")
    prepared = [effects_of(fit, {"w": w}) for w in (1, -1)]
    draws = [draw_contrasts(one.rows.setting, *one.laws(), n=300, seed=4) for one in prepared]
    difference = (draws[0] - draws[1])[:, 0]
    row = table.loc["acme_control(at1) - acme_control(at2)"]
    assert row["estimate"] == pytest.approx(difference.mean(), rel=SAME)
    assert row["std_error"] == pytest.approx(difference.std(ddof=1), rel=SAME)
    assert row["note"] == "at1: w = 1; at2: w = -1"
    opposite = fit.test_moderation({"w": -1}, {"w": 1}, 300, seed=4)
    np.testing.assert_allclose(opposite["estimate"], -table["estimate"], rtol=1e-8)


def test_moderation_in_closed_form():
    data = simulated()
    fit = causal("m ~ x * w", "y ~ m + x + w", data, treatment="x")
    row = fit.test_moderation({"w": 2}, {"w": 1}, 200, seed=1).set_index("term").loc["acme(at1) - acme(at2)"]
    names = dict(zip(chain(fit).mediator.layout.fixed, chain(fit).mediator.beta, strict=True))
    b = dict(zip(chain(fit).outcome.layout.fixed, chain(fit).outcome.beta, strict=True))["m"]
    assert row["estimate"] == pytest.approx(names["x:w"] * b, rel=SAME)


def test_interaction_in_closed_form():
    """ACME(1) - ACME(0) = a k, and ADE differs by the same."""
    fit = fitted()
    table = fit.test_interaction(500, seed=1).set_index("term")
    a = dict(zip(chain(fit).mediator.layout.fixed, chain(fit).mediator.beta, strict=True))["x"]
    k = dict(zip(chain(fit).outcome.layout.fixed, chain(fit).outcome.beta, strict=True))["m:x"]
    assert table.loc["acme_treated - acme_control", "estimate"] == pytest.approx(a * k, abs=EXACT, rel=0)
    np.testing.assert_allclose(table.iloc[0, :6].astype(float), table.iloc[1, :6].astype(float), rtol=1e-8)
    effects = column(fit.effects())
    b = dict(zip(chain(fit).outcome.layout.fixed, chain(fit).outcome.beta, strict=True))["m"]
    assert effects["acme_control"] == pytest.approx(a * b, abs=EXACT, rel=0)
    assert effects["acme_treated"] == pytest.approx(a * (b + k), abs=EXACT, rel=0)


def test_interaction_without_one():
    with pytest.raises(EffectError, match=r"0 by construction.*Add one, as in 'y ~ m \* x'"):
        fitted(outcome="y ~ m + x + w").test_interaction(100, seed=1)
    assert not effects_of(fitted(outcome="y ~ m + x + w")).interaction
    assert len(fitted("linear", "probit", outcome="y ~ m + x + w").test_interaction(100, seed=1)) == 2


def test_effects_that_the_formula_fixes():
    """Without the treatment in the outcome equation everything is mediated, and nothing else is tested."""
    fit = causal("m ~ x", "y ~ m", simulated())
    for options in (
        {},
        {"interval": "monte-carlo", "n": 200, "seed": 1},
        {"interval": "bootstrap", "n": 50, "seed": 1},
    ):
        table = fit.effects(**options).set_index("term")
        assert table.loc["ade", "estimate"] == 0.0
        assert table.loc["prop_mediated", "estimate"] == 1.0
        assert table.loc[["ade", "prop_mediated"], "std_error"].isna().all()
        assert table.loc[["ade", "prop_mediated"], "note"].str.contains("treatment is not in the outcome").all()
        assert table.loc["acme", "conf_low"] < table.loc["acme", "estimate"]
