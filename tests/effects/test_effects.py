"""Effects: derivatives, the delta method of the paper, and what a path means."""

from __future__ import annotations

import json

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.delta import Quantity, std_error
from mlmed.effects.paths import effect_quantities
from mlmed.effects.routes import find_routes
from mlmed.errors import EffectError
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import DERIVATIVE, SAME


@pytest.fixture(scope="module")
def data():
    made = mlmed.simulate.bpg(80, 8, seed=21).data
    rng = np.random.default_rng(0)
    return made.assign(w=rng.normal(size=len(made)), arm=np.where(rng.random(len(made)) < 0.5, "pill", "sugar"))


@pytest.fixture(scope="module")
def fit(data):
    return mlmed.mediate(MEDIATOR, OUTCOME, data)


def test_effects_are_the_paper_s_formulas(fit):
    """BPG 2006: Var(indirect) = b2 Va + a2 Vb + Va Vb + 2ab Cab + Cab2 + V(cov); total adds Vc + 2b Cac + 2a Cbc."""
    table = fit.effects().set_index("term")
    V = fit.vcov()
    a, b, c = "m~x", "y~m", "y~x"
    pa, pb = fit.params[a], fit.params[b]
    cov = fit.G.loc[a, b]
    Vcov = V.loc["cov(m~x,y~m)", "cov(m~x,y~m)"]
    indirect = pb**2 * V.loc[a, a] + pa**2 * V.loc[b, b] + V.loc[a, a] * V.loc[b, b]
    indirect += 2 * pa * pb * V.loc[a, b] + V.loc[a, b] ** 2 + Vcov
    total = indirect + V.loc[c, c] + 2 * pb * V.loc[a, c] + 2 * pa * V.loc[b, c]
    assert table.loc["indirect", "estimate"] == pytest.approx(pa * pb + cov, rel=SAME)
    assert table.loc["total", "estimate"] == pytest.approx(pa * pb + cov + fit.params[c], rel=SAME)
    assert table.loc["indirect", "std_error"] == pytest.approx(np.sqrt(indirect), rel=SAME)
    assert table.loc["total", "std_error"] == pytest.approx(np.sqrt(total), rel=SAME)
    assert list(table.index) == ["a", "b", "cprime", "cov_ab", "indirect", "direct", "total"]
    half = 1.959963984540054 * table["std_error"]
    np.testing.assert_allclose(table["conf_high"], table["estimate"] + half, rtol=SAME)


def test_gradients_of_every_effect(fit):
    routes = find_routes(fit.fit.layout, treatment="x")
    estimates = fit.fit.estimates
    at = np.concatenate([estimates.beta, estimates.tau, estimates.sigma2])

    def moved(psi):
        from dataclasses import replace

        p, t = len(estimates.beta), len(estimates.tau)
        return effect_quantities(routes, replace(estimates, beta=psi[:p], tau=psi[p : p + t], sigma2=psi[p + t :]))

    for term, quantity in moved(at).items():
        gradient = nd.Gradient(lambda psi, term=term: moved(psi)[term].estimate)(at)
        np.testing.assert_allclose(quantity.gradient, gradient, rtol=DERIVATIVE, atol=1e-9)
        if quantity.hessian is not None:
            hessian = nd.Jacobian(lambda psi, term=term: moved(psi)[term].gradient)(at)
            np.testing.assert_allclose(quantity.hessian, hessian, rtol=DERIVATIVE, atol=1e-9)


@pytest.mark.parametrize("vcov", ["block", "joint"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_nlcom_equals_the_built_in_effect(fit, vcov, order):
    built = fit.effects(vcov=vcov, order=order).set_index("term")
    asked = {"indirect": "a*b + cov_ab", "total": "a*b + cov_ab + cprime"}
    user = fit.nlcom(asked, vcov=vcov, order=order).set_index("term")
    spelled = fit.nlcom("`m~x` * `y~m` + `cov(m~x,y~m)`", vcov=vcov, order=order)
    for term in asked:
        np.testing.assert_allclose(
            user.loc[term, ["estimate", "std_error"]].astype(float),
            built.loc[term, ["estimate", "std_error"]].astype(float),
            rtol=1e-9,
        )
    assert spelled.loc[0, "std_error"] == pytest.approx(built.loc["indirect", "std_error"], rel=1e-9)
    function = fit.nlcom(lambda p: p["a"] * p["b"] + p["cov_ab"], vcov=vcov, order=order)
    assert function.loc[0, "std_error"] == pytest.approx(built.loc["indirect", "std_error"], rel=1e-6)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a * nothing", "names 'nothing'; known are a, b"),
        ("__import__('os')", "calls something other than"),
        ("a.real", "may only use"),
        ("a^2", r"a power is written a\*\*2"),
        ("a#b", "what follows # would be left out"),
        ("a +", "cannot read"),
        ("log(-1) + a", "cannot be evaluated"),
        ("3 + 4", "contains no parameter"),
        ("[a for a in (1,)]", "may only use"),
    ],
)
def test_nlcom_refuses(fit, text, match):
    with pytest.raises(EffectError, match=match.replace("(", r"\(")):
        fit.nlcom(text)


def test_second_order_variance_against_monte_carlo():
    """The variance of a*b for normal a, b is the second-order formula exactly."""
    rng = np.random.default_rng(1)
    V = np.array([[0.04, 0.01], [0.01, 0.09]])
    a, b = Quantity("a", 0.3, np.array([1.0, 0.0])), Quantity("b", -0.2, np.array([0.0, 1.0]))
    draws = rng.multivariate_normal([0.3, -0.2], V, size=400_000).prod(axis=1)
    assert std_error((a * b), V) == pytest.approx(draws.std(), rel=0.01)
    assert std_error((a * b), V, order="first") < 0.9 * draws.std()


def test_nan_entries_that_are_not_used_do_not_spoil():
    V = np.array([[0.04, np.nan], [np.nan, np.nan]])
    assert std_error(Quantity("a", 1.0, np.array([1.0, 0.0])), V) == pytest.approx(0.2)
    assert np.isnan(std_error(Quantity("c", 1.0, np.array([0.0, 1.0])), V))


def test_moderated_paths(data):
    """a depends on w: effects at w are those of the model with w centred there."""
    fit = mlmed.mediate("m ~ x * w + (1 + x | id)", OUTCOME, data, treatment="x")
    moved = mlmed.mediate("m ~ x * v + (1 + x | id)", OUTCOME, data.assign(v=data["w"] - 0.7), treatment="x")
    at = fit.effects(at={"w": 0.7}).set_index("term")
    plain = moved.effects(at={"v": 0.0}).set_index("term")
    np.testing.assert_allclose(at["std_error"], plain["std_error"], rtol=1e-6)
    np.testing.assert_allclose(at["estimate"], plain["estimate"], rtol=1e-6)
    assert at.loc["a", "estimate"] == pytest.approx(fit.params["m~x"] + 0.7 * fit.params["m~x:w"], rel=SAME)
    assert at.loc["a", "note"] == "at w = 0.7"
    assert (
        "(mean)" in fit.effects().set_index("term").loc["indirect", "note"] or "(mean)" in fit.effects().loc[0, "note"]
    )


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
def test_moderated_random_slopes(data):
    """cov_ab at w picks up the covariance of the moderated random slope."""
    fit = mlmed.mediate("m ~ x * w + (1 + x + x:w | id)", "y ~ m + x + (1 + m | id)", data, treatment="x")
    G = fit.G
    value = fit.effects(at={"w": 2.0}).set_index("term").loc["cov_ab", "estimate"]
    assert value == pytest.approx(G.loc["m~x", "y~m"] + 2.0 * G.loc["m~x:w", "y~m"], rel=SAME)


def test_two_level_treatment(data):
    fit = mlmed.mediate("m ~ arm + (1 + arm | id)", "y ~ m + arm + (1 + m | id)", data)
    numeric = data.assign(t=(data["arm"] == "sugar").astype(float))
    same = mlmed.mediate("m ~ t + (1 + t | id)", "y ~ m + t + (1 + m | id)", numeric)
    np.testing.assert_allclose(fit.effects()["estimate"], same.effects()["estimate"], rtol=1e-6)
    swapped = mlmed.mediate("m ~ arm + (1 + arm | id)", "y ~ m + arm + (1 + m | id)", data, contrast=("sugar", "pill"))
    assert swapped.effects().loc[0, "estimate"] == pytest.approx(-fit.effects().loc[0, "estimate"], rel=SAME)


def test_many_levels_and_curves_need_a_contrast(data):
    three = data.assign(dose=pd.Categorical(["low", "mid", "high"][k % 3] for k in range(len(data))))
    fit = mlmed.mediate("m ~ dose + (1 | id)", "y ~ m + dose + (1 | id)", three)
    with pytest.raises(EffectError, match=r"dose has 3 levels .*contrast="):
        fit.effects()
    assert "contrast=" in fit.summary()
    fit = mlmed.mediate("m ~ dose + (1 | id)", "y ~ m + dose + (1 | id)", three, contrast=("low", "mid"))
    assert fit.effects().loc[0, "estimate"] == pytest.approx(fit.params["m~dose[T.mid]"] - fit.params["m~dose[T.low]"])
    curved = mlmed.mediate("m ~ x + I(x**2) + (1 | id)", "y ~ m + x + (1 | id)", data)
    with pytest.raises(EffectError, match="not a single slope"):
        curved.effects()


def test_interaction_of_treatment_and_mediator_is_refused(data):
    fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m * x + (1 + m | id)", data)
    with pytest.raises(EffectError, match="m:x"):
        fit.effects()
    assert "m:x" in fit.summary()
    assert "m:x" in fit.summary("stata")
    document = json.loads(fit.to_json())
    assert document["effects"] == []
    assert "m:x" in document["effects_reason"]
    assert np.isfinite(fit.nlcom("`y~m` + `y~m:x`").loc[0, "std_error"])


def test_treatment_absent_from_the_outcome(data):
    table = mlmed.mediate(MEDIATOR, "y ~ m + (1 + m | id)", data).effects().set_index("term")
    assert table.loc["cprime", "estimate"] == 0.0
    assert np.isnan(table.loc["cprime", "std_error"])
    assert "fixed at 0" in table.loc["cprime", "note"]
    assert table.loc["total", "estimate"] == pytest.approx(table.loc["indirect", "estimate"])
    assert table.loc["total", "std_error"] == pytest.approx(table.loc["indirect", "std_error"])


def test_slopes_that_do_not_vary(data):
    table = mlmed.mediate("m ~ x + (1 | id)", OUTCOME, data).effects().set_index("term")
    assert table.loc["cov_ab", "estimate"] == 0.0
    assert "do not both vary" in table.loc["cov_ab", "note"]
    assert np.isfinite(table.loc["indirect", "std_error"])


def test_transformed_mediator(data):
    positive = data.assign(m=np.exp(data["m"]))
    logged = mlmed.mediate("np.log(m) ~ x + (1 + x | id)", "y ~ np.log(m) + x + (1 + np.log(m) + x | id)", positive)
    plain = mlmed.mediate(MEDIATOR, OUTCOME, data)
    np.testing.assert_allclose(logged.effects()["estimate"], plain.effects()["estimate"], rtol=1e-6)


def test_options_are_checked(fit):
    for options, match in (
        ({"vcov": "robust"}, "vcov must be one of block, joint"),
        ({"order": "third"}, "order must be one of first, second"),
        ({"level": 95}, "level must be a proportion"),
        ({"at": {"q": 1}}, "at names q"),
    ):
        with pytest.raises(EffectError, match=match):
            fit.effects(**options)


def test_moderators_are_held_at_one_value_in_both_equations() -> None:
    """Where equations use different rows, a and b are still taken at one value: that of the outcome equation."""
    data = mlmed.simulate.bpg(60, 8, seed=2).data
    data["w"] = np.random.default_rng(1).normal(size=len(data))
    data.loc[data["w"] > 0.2, "y"] = np.nan
    equations = "m ~ x * w + (1 + x | id)", "y ~ m * w + x + (1 + m + x | id)"
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        fit = mlmed.mediate(*equations, data, treatment="x")
    mean = data.loc[data["y"].notna(), "w"].mean()
    table, held = (found.set_index("term") for found in (fit.effects(), fit.effects(at={"w": mean})))
    np.testing.assert_allclose(table["estimate"], held["estimate"], rtol=SAME)
    assert table.loc["a", "note"] == table.loc["b", "note"]


def test_a_constant_expression_says_so() -> None:
    """No standard error, and the reason."""
    fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    row = fit.nlcom("X - X").iloc[0]
    assert row["estimate"] == 0.0
    assert np.isnan(row["std_error"])
    assert "whatever the parameters are" in row["note"]
