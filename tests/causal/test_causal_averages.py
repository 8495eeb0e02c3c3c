"""Averages of expected outcomes, their derivatives, and what must not change them."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

from mlmed.api.causal import causal
from mlmed.effects.average import Parameters, average_effects
from mlmed.effects.delta import COLUMNS
from mlmed.effects.potential import (
    CONTRASTS,
    EFFECTS,
    RATIOS,
    WEIGHTS,
    all_effects,
)
from mlmed.effects.uncertainty import Law, draw_contrasts, slopes_at
from mlmed.errors import (
    DroppedRowsWarning,
)
from mlmed.glm.family import mean_of
from mlmed.lmm.vcov import Vcov
from tests.causal_models import PAIRS, XM, YM, chain, column, effects_of, fitted, simulated, vcov_of
from tests.tolerances import DERIVATIVE, INVARIANT, SAME

# -- averages and their derivatives --------------------------------------------------------------------------------


@pytest.mark.parametrize(("mediator", "outcome"), [("linear", "probit"), ("logit", "poisson"), ("poisson", "linear")])
def test_averages_by_monte_carlo(mediator, outcome):
    """The algorithm of ``mediation`` with given coefficients: draw every row's mediator, many times."""
    fit = fitted(mediator, outcome)
    columns, rng, repeats = effects_of(fit).designs[0], np.random.default_rng(6), 4000
    eta = columns.mediator @ chain(fit).mediator.beta
    mean = np.empty((2, 2))
    error = np.empty((2, 2))
    for s in range(2):
        center = mean_of(mediator, eta[s])
        size = (repeats, len(center))
        if mediator == "linear":
            M = center + chain(fit).mediator.sigma * rng.normal(size=size)
        else:
            M = rng.poisson(center, size) if mediator == "poisson" else (rng.random(size) < center).astype(float)
        for t in range(2):
            base, slope = columns.outcome[t] @ chain(fit).outcome.beta, columns.slope[t] @ chain(fit).outcome.beta
            runs = mean_of(outcome, base + slope * M).mean(axis=1)
            mean[t, s], error[t, s] = runs.mean(), runs.std() / np.sqrt(repeats)
    found = column(fit.effects())[list(CONTRASTS)].to_numpy()
    spread = np.sqrt(np.einsum("ets,ts->e", WEIGHTS**2, error**2))
    assert np.all(np.abs(found - np.einsum("ets,ts->e", WEIGHTS, mean)) < 4.0 * spread)


@pytest.mark.parametrize(("mediator", "outcome"), PAIRS)
def test_derivatives_of_averages(mediator, outcome):
    """Analytic gradients of the five contrasts, and the covariance made of them, against numdifftools."""
    fit = fitted(mediator, outcome, vcov="HC1")
    prepared = effects_of(fit)
    p = len(chain(fit).mediator.beta)
    start = np.concatenate([chain(fit).mediator.beta, chain(fit).outcome.beta])

    def contrasts(at: np.ndarray) -> np.ndarray:
        none = np.empty((1, 1, 0))
        return average_effects(prepared.rows.setting, Parameters(at[None, :p], at[None, p:], none, none))[0]

    J = nd.Jacobian(contrasts)(start)
    slopes = slopes_at(prepared.rows.setting, *prepared.laws())
    analytic = np.concatenate([slopes.mediator[:, 0], slopes.outcome[:, 0]], axis=1)
    np.testing.assert_allclose(analytic, J, rtol=DERIVATIVE, atol=DERIVATIVE)
    V = np.zeros((len(start), len(start)))
    V[:p, :p], V[p:, p:] = vcov_of(fit, "mediator"), vcov_of(fit, "outcome")
    found = prepared.contrasts()
    np.testing.assert_allclose(found.values[:5], contrasts(start), rtol=SAME, atol=SAME)
    np.testing.assert_allclose(found.vcov.matrix[:5, :5], J @ V @ J.T, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(found.vcov.matrix[:5, 5:], J @ V, rtol=1e-5, atol=1e-10)


def test_table_is_made_of_the_contrasts():
    """Means, ratios and their delta-method errors."""
    table = fitted("linear", "probit").effects().set_index("term")
    estimate, error = table["estimate"], table["std_error"]
    assert list(table.index) == list(EFFECTS)
    assert list(fitted().effects().columns) == list(COLUMNS)
    assert estimate["total"] == pytest.approx(estimate["acme_control"] + estimate["ade_treated"], rel=SAME)
    assert estimate["acme"] == pytest.approx(estimate[["acme_control", "acme_treated"]].mean(), rel=SAME)
    assert estimate["prop_mediated"] == pytest.approx(estimate["acme"] / estimate["total"], rel=SAME)
    fit = fitted("linear", "probit")
    for name, expression in {
        "prop_mediated_control": "acme_control / total",
        "ade": "(ade_control+ade_treated)/2",
    }.items():
        row = fit.combined(expression).iloc[0]
        assert row["estimate"] == pytest.approx(estimate[name], rel=1e-8)
        assert row["std_error"] == pytest.approx(error[name], rel=1e-6)


def test_delta_and_draws_agree_in_large_samples():
    data = simulated("linear", "probit", n=3000)
    fit = causal(XM, YM, data, treatment="x", family_y="probit")
    delta, draws = fit.effects().set_index("term"), fit.effects("monte-carlo", n=2000, seed=1).set_index("term")
    terms = [term for term in EFFECTS if term not in RATIOS]
    np.testing.assert_allclose(draws.loc[terms, "std_error"], delta.loc[terms, "std_error"], rtol=0.06)
    gap = (draws.loc[terms, "estimate"] - delta.loc[terms, "estimate"]) / delta.loc[terms, "std_error"]
    assert np.abs(gap).max() < 0.1


def test_ratios_have_no_standard_error_in_draws():
    table = fitted("linear", "probit").effects("monte-carlo", n=500, seed=1).set_index("term")
    assert table.loc[list(RATIOS), ["std_error", "statistic"]].isna().all(axis=None)
    assert table.loc[list(RATIOS), "note"].str.contains("no variance").all()
    assert table.loc[list(RATIOS), ["conf_low", "p_value"]].notna().all(axis=None)
    assert table["std_error"].drop(list(RATIOS)).notna().all()


def test_an_unstable_share_says_so():
    data = simulated().assign(y=lambda d: d["m"] * 0.5 - d["x"] * 0.3 + np.random.default_rng(11).normal(size=300))
    note = column(causal(XM, "y ~ m + x + w", data, treatment="x").effects(), "note")
    assert "standard errors from 0" in note["prop_mediated"]
    assert note["acme"] == ""


def test_draws_do_not_depend_on_how_many_are_made_at_once(monkeypatch):
    fit = fitted("linear", "probit")
    prepared = effects_of(fit)
    whole = draw_contrasts(prepared.rows.setting, *prepared.laws(), n=50, seed=3)
    monkeypatch.setattr("mlmed.effects.average.ENTRIES", 700)
    parts = draw_contrasts(prepared.rows.setting, *prepared.laws(), n=50, seed=3)
    np.testing.assert_allclose(parts, whole, rtol=SAME)


def test_draws_that_overflow_are_counted():
    fit = fitted("poisson", "poisson")
    outcome = Law(chain(fit).outcome.beta, Vcov.one(900.0 * np.eye(len(chain(fit).outcome.beta))))
    prepared = effects_of(fit)
    draws = draw_contrasts(prepared.rows.setting, prepared.laws()[0], outcome, n=200, seed=1)
    assert not np.isfinite(draws).all()
    known, missing = prepared.centred(all_effects(draws), prepared.vcov())
    assert all("of 200 draws give an expected outcome too large for a number" in missing[term] for term in known)
    assert all(np.isnan(one.estimate) for one in known.values())


# -- invariances ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mediator", "outcome"), [("linear", "linear"), ("probit", "logit"), ("poisson", "poisson")])
def test_control_and_treated_swapped(mediator, outcome):
    forward = column(fitted(mediator, outcome).effects())
    back = column(fitted(mediator, outcome, contrast=(1, 0)).effects())
    for kind in ("acme", "ade"):
        for one, other in (("control", "treated"), ("treated", "control")):
            assert back[f"{kind}_{one}"] == pytest.approx(-forward[f"{kind}_{other}"], rel=1e-8)
    assert back["total"] == pytest.approx(-forward["total"], rel=1e-8)
    assert back["prop_mediated"] == pytest.approx(forward["prop_mediated"], rel=1e-8)


@pytest.mark.parametrize(("mediator", "outcome"), [("linear", "linear"), ("linear", "logit"), ("logit", "probit")])
def test_units_of_covariates_and_order_of_rows(mediator, outcome):
    data = simulated(mediator, outcome)
    options = {"treatment": "x", "family_m": mediator, "family_y": outcome, "vcov": "HC3"}
    first = causal(XM, YM, data, **options).effects()
    other = data.assign(w=1000.0 + 7.0 * data["w"]).sample(frac=1.0, random_state=1)
    second = causal(XM, YM, other, **options).effects()
    np.testing.assert_allclose(
        second.iloc[:, 1:7].astype(float), first.iloc[:, 1:7].astype(float), rtol=1e-6, atol=1e-9
    )


def test_scale_of_a_linear_mediator():
    """In other units of m nothing changes, also not the integral over its spread."""
    data = simulated("linear", "logit")
    first = causal(XM, YM, data, treatment="x", family_y="logit").effects()
    second = causal(XM, YM, data.assign(m=5.0 - 100.0 * data["m"]), treatment="x", family_y="logit").effects()
    np.testing.assert_allclose(second["estimate"], first["estimate"], rtol=INVARIANT, atol=1e-10)
    np.testing.assert_allclose(second["std_error"], first["std_error"], rtol=1e-6)


def test_codings_of_the_same_treatment_and_mediator():
    """Numbers, truth values and factors; the levels of a binary mediator as text."""
    data = simulated("logit", "probit")
    options = {"family_m": "logit", "family_y": "probit"}
    first = causal(XM, YM, data, treatment="x", **options).effects()
    other = data.assign(
        x=data["x"].map({0.0: "no drug", 1.0: "drug"}), m=data["m"].map({0.0: "calm", 1.0: "excited"}),
        y=data["y"].astype(bool),
    )  # fmt: skip
    fit = causal(XM, YM, other, treatment="x", contrast=("no drug", "drug"), **options)
    np.testing.assert_allclose(fit.effects()["estimate"], first["estimate"], rtol=1e-8)
    np.testing.assert_allclose(fit.effects()["std_error"], first["std_error"], rtol=1e-6)
    assert "m: calm is 0, excited is 1" in str(fit)
    truth = causal(XM, YM, data.assign(x=data["x"] == 1), treatment="x", **options).effects()
    np.testing.assert_allclose(truth["estimate"], first["estimate"], rtol=1e-8)


def test_data_are_not_modified():
    data = simulated("logit", "probit").assign(w=lambda d: d["w"].where(d.index > 4))
    before = data.copy(deep=True)
    with pytest.warns(DroppedRowsWarning):
        fit = causal(XM, YM, data, treatment="x", family_m="logit", family_y="probit")
    fit.effects("bootstrap", n=50, seed=1)
    pd.testing.assert_frame_equal(data, before)
