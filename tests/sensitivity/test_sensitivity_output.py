"""What sensitivity analyses accept and show: grids, zeros, refusals, text, pictures."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.confounding import Factored
from mlmed.errors import EffectError
from mlmed.results.rho import SUPPORTED, grid_of
from mlmed.results.sensitivity import root_of
from tests.causal_models import PAIRS, simulated
from tests.sensitivity_models import (
    COVARIATES,
    probit_fit,
)


@pytest.fixture(scope="module")
def framing(dataset):
    return dataset("framing")


@pytest.fixture(scope="module")
def probit(framing):
    return probit_fit(framing)


@pytest.mark.parametrize(
    ("values", "rho", "note"),
    [
        ([3.0, 2.0, 1.0], np.nan, "one sign for every rho from -0.5000 to 0.5000"),
        ([0.0, 0.0, 0.0], np.nan, "zero at every rho"),
        ([0.2, -0.1, 0.3], 0.125, "zero at -0.1667, too"),
        ([-1.0, 0.0, 1.0], 0.0, ""),
    ],
)
def test_zeros_of_curves(values, rho, note):
    at = np.array([-0.5, 0.0, 0.5])
    found, said = root_of(lambda rhos: np.interp(rhos, at, values)[:, None], 0, at, np.array(values))
    assert found == pytest.approx(rho, nan_ok=True)
    assert note in said


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (None, np.arange(-9, 10) / 10),
        (0.25, np.arange(-3, 4) / 4),
        (0.3, [-0.9, -0.6, -0.3, 0.0, 0.3, 0.6, 0.9]),
        ([0.4, -0.1, 0.4], [-0.1, 0.4]),
        (np.array([0.99]), [0.99]),
    ],
)
def test_grids(rho, expected):
    assert grid_of(rho) == pytest.approx(np.array(expected), abs=1e-15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": [0.3, 1.0]}, "between -1 and 1 .both excluded.; found 1.0"),
        ({"rho": [float("nan")]}, "found nan"),
        ({"rho": [True]}, "found True"),
        ({"rho": ["0.3"]}, "found '0.3'"),
        ({"rho": []}, "empty sequence"),
        ({"rho": 1.5}, "distance between its values, between 0 and 1, as in rho=0.05; found 1.5"),
        ({"rho": -0.3}, "For one correlation give a list"),
        ({"rho": 1e-8}, "asks for about 200000000 correlations; take steps of 0.001 or more"),
        ({"rho": "all"}, "rho is a list of correlations, or one number; found 'all'"),
        ({"effect": "total"}, "effect must be one of indirect, direct; found 'total'"),
        ({"formula": "r"}, "formula must be one of exact, medsens"),
        ({"interval": "profile"}, "interval must be one of delta, monte-carlo"),
        ({"interval": "delta", "seed": 1}, "does not use seed"),
        ({"interval": "delta", "n": 10, "seed": 1}, "does not use n and seed"),
        ({"n": 100}, "give a seed"),
        ({"interval": "monte-carlo"}, "give a seed"),
        ({"seed": 1, "n": 0}, "number of draws"),
        ({"seed": -1}, "seed is a whole number"),
        ({"level": 95}, "proportion"),
        ({"formula": "medsens"}, "formula='medsens' draws random numbers: give a seed"),
        ({"formula": "medsens", "interval": "delta"}, "use interval='monte-carlo' and a seed"),
    ],
)
def test_options_that_make_no_sense_are_refused(probit, options, message):
    with pytest.raises(EffectError, match=message):
        probit.sensitivity(**options)


def test_unsupported_pairs_are_refused(framing, dataset):
    supported = "linear and linear or linear and probit or probit and linear"
    outcome = f"cong_mesg ~ emo + {COVARIATES}"
    logit = mlmed.causal(f"emo ~ {COVARIATES}", outcome, framing, treatment="treat", family_y="logit")
    with pytest.raises(EffectError, match=f"linear .mediator. and logit .outcome.; it needs {supported}"):
        logit.sensitivity()
    both = mlmed.causal(
        "anti_info ~ treat", "cong_mesg ~ anti_info + treat", framing, family_m="probit", family_y="probit"
    )
    with pytest.raises(EffectError, match=f"probit .mediator. and probit .outcome.; it needs {supported}"):
        both.sensitivity()
    data = dataset("yuan_mackinnon_sim")
    mixed = mlmed.causal("Med ~ X + (1 | group)", "y ~ Med + X + (1 | group)", data)
    with pytest.raises(EffectError, match="not supported for mixed models, and the equation of Med and y has random"):
        mixed.sensitivity()


@pytest.mark.parametrize(("family_m", "family_y"), PAIRS)
def test_the_families_that_are_advised_have_an_analysis(family_m, family_y):
    """Doing what the message says is not refused again, also where the response was text."""
    data = simulated(family_m, family_y)
    data = data.assign(**{name: data[name].map({0.0: "no", 1.0: "yes"}) for name in "my" if _is_binary(data[name])})
    families = {"family_m": family_m, "family_y": family_y}
    fit = mlmed.causal("m ~ x + w", "y ~ m + x + w", data, treatment="x", **families)
    try:
        fit.sensitivity(rho=[0.1])
    except EffectError as error:
        advised = dict(re.findall(r"(family_[my])='(\w+)'", str(error)))
        assert advised
        for name, zero, one in re.findall(r"code (\w) as 0 \((\w+)\) and 1 \((\w+)\)", str(error)):
            data = data.assign(**{name: data[name].map({zero: 0.0, one: 1.0})})
        again = mlmed.causal("m ~ x + w", "y ~ m + x + w", data, treatment="x", **(families | advised))
        assert np.isfinite(again.sensitivity(rho=[0.1]).table["estimate"]).all()
    else:
        assert (family_m, family_y) in SUPPORTED


def _is_binary(column):
    return set(column.unique()) == {0.0, 1.0}


def test_medsens_is_refused_where_r_has_none(framing):
    mediator = f"emo ~ {COVARIATES}"
    linear = mlmed.causal(mediator, f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    with pytest.raises(EffectError, match="linear mediator and a probit outcome; here they are linear and linear"):
        linear.sensitivity(formula="medsens", seed=1)
    for outcome, why in (
        ("emo * treat + age + educ + gender + income", "slope of the mediator differs"),
        ("emo * age + treat + educ + gender + income", "slope of the mediator differs"),
        ("emo + treat + age", "columns that the outcome's lacks"),
    ):
        fit = mlmed.causal(mediator, f"cong_mesg ~ {outcome}", framing, treatment="treat", family_y="probit")
        with pytest.raises(EffectError, match=why):
            fit.sensitivity(formula="medsens", seed=1)


def test_what_results_are_asked_wrongly(probit):
    result = probit.sensitivity(rho=[0.1, 0.2], formula="medsens", seed=1)
    for call, message in (
        (lambda: result.rows("ade"), "no term 'ade'; there are acme_control, acme_treated, acme"),
        (lambda: result.at(2), "found 2"),
        (lambda: result.coefficients(0.1), "no model with coefficients"),
        (lambda: result.plot("bars"), "kind must be one of rho, r2"),
        (lambda: result.plot(shares="total"), "belong to kind='r2'"),
        (lambda: result.plot("r2", shares="some"), "shares must be one of residual, total"),
        (lambda: result.plot("r2", sign="+"), "sign must be one of positive, negative"),
    ):
        with pytest.raises(EffectError, match=message):
            call()
    with pytest.raises(EffectError, match="belongs to the exact formula"):
        Factored(result._curve.pair, result._curve.C, medsens=True).delta(0.1)


def test_text(probit):
    text = str(probit.sensitivity(n=200, seed=3))
    for piece in (
        "Sensitivity of the indirect effect (ACME) to correlated errors",
        "linear, probit",
        "95%, percentiles of 200 draws, seed 3",
        "Where the estimate is zero",
        "Where the interval contains zero",
        "acme_treated",
    ):
        assert piece in text
    narrow = str(probit.sensitivity(rho=[0.0]))
    assert "No interval contains zero at any of the 1 values of rho" in narrow
    assert "R's formula" in str(probit.sensitivity(rho=[0.3], formula="medsens", n=50, seed=1))
    assert repr(probit.sensitivity(effect="direct")).startswith("SensitivityResults(direct, 19 values of rho from -0.9")


def test_control_and_treated_are_shown_once_where_they_are_the_same(framing):
    fit = mlmed.causal(f"emo ~ {COVARIATES}", f"immigr ~ emo + {COVARIATES}", framing, treatment="treat")
    text = str(fit.sensitivity())
    assert "acme_treated" not in text
    assert "control and treated are the same" in text


def test_an_effect_that_the_treatment_cannot_have():
    """A treatment without any effect on the mediator: no zero to speak of, or one of rounding, and no failure."""
    t = np.tile([0.0, 0.0, 1.0, 1.0], 25)
    m = np.tile([-1.0, 1.0, -1.0, 1.0], 25)
    y = 0.5 * m + np.random.default_rng(1).normal(size=100)
    result = mlmed.causal("m ~ t", "y ~ m + t", pd.DataFrame({"t": t, "m": m, "y": y})).sensitivity()
    assert result.zero["rho"].isna().all()
    assert (result.zero["note"] == "the effect is zero at every rho").all()
    assert str(result)


@pytest.mark.parametrize("options", [
    {}, {"term": "acme_control"}, {"kind": "r2"}, {"kind": "r2", "shares": "total", "sign": "negative"},
])  # fmt: skip
def test_pictures(probit, options):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    axes = probit.sensitivity().plot(**options)
    assert axes.get_xlabel().startswith("share" if options.get("kind") == "r2" else "rho")
    axes.figure.canvas.draw()
    plt.close(axes.figure)
    single = probit.sensitivity(rho=[0.2]).plot(**options)
    single.figure.canvas.draw()
    plt.close(single.figure)


def test_a_direct_effect_that_the_formula_fixes_has_no_curve(framing):
    fit = mlmed.causal("emo ~ treat", "immigr ~ emo", framing)
    with pytest.raises(EffectError, match="fixed at 0 at every rho: the treatment treat is not in the outcome"):
        fit.sensitivity(effect="direct")
