"""Potential-outcome effects: published numbers first, then expected outcomes by brute force."""

from __future__ import annotations

import pickle

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest
from scipy.stats import poisson

import mlmed
from mlmed.api.causal import causal
from mlmed.effects.potential import (
    expected_outcome,
    expected_slopes,
)
from mlmed.effects.smoothing import normal_mean
from mlmed.glm.family import BINARY, mean_of
from mlmed.results.results import Results
from tests.causal_models import EXACT, INTEGRAL, PAIRS, brute, column
from tests.tolerances import DERIVATIVE, SAME

# -- published -----------------------------------------------------------------------------------------------------


def framing_fit(data: pd.DataFrame, by: str) -> Results:
    covariates = "age + educ + gender + income"
    outcome = f"cong_mesg ~ emo {by} treat + {covariates}"
    return causal(f"emo ~ treat + {covariates}", outcome, data, treatment="treat", family_y="probit", vcov="HC3")


def test_published_framing_through_the_table(dataset):
    """R's numbers from ``effects``; in Monte Carlo errors they are in ``validation/comparison_checks.py``."""
    table = framing_fit(dataset("framing"), "+").effects("monte-carlo", n=10_000, seed=1).set_index("term")
    found = table.loc[["acme_control", "acme_treated", "total"], "estimate"]
    errors = table.loc[found.index, "std_error"] * np.sqrt(1 / 10_000 + 1 / 50_000)  # of means of both runs
    assert (np.abs(found - [0.0821, 0.0825, 0.0956]) < 4.0 * errors + 0.00005).all()
    assert abs(table.loc["prop_mediated_control", "estimate"] - 0.771) < 0.02
    assert abs(table.loc["total", "conf_low"] + 0.0304) < 0.005
    difference = framing_fit(dataset("framing"), "*").test_interaction(10_000, seed=1).iloc[0]
    assert abs(difference["estimate"] - 0.022) < 0.001
    assert abs(difference["p_value"] - 0.36) < 0.03


@pytest.mark.parametrize(("n", "a", "b", "direct"), [(200, 1.0, 1.0, 0.0), (2000, 0.4, 0.5, 0.0)])
def test_product_method(n, a, b, direct):
    """The page's two simulations (seeds of our own): closed form = product of least-squares coefficients."""
    rng = np.random.default_rng(n)
    x = np.tile([0.0, 1.0], n // 2)
    m = a * x + rng.normal(size=n)
    data = pd.DataFrame({"x": x, "m": m, "y": b * m + direct * x + rng.normal(size=n)})
    one = np.linalg.lstsq(np.column_stack([np.ones(n), x]), m, rcond=None)[0]
    two = np.linalg.lstsq(np.column_stack([np.ones(n), x, m]), data["y"], rcond=None)[0]
    fit = causal("m ~ x", "y ~ x + m", data)
    asked = {"delta": {}, "monte-carlo": {"n": 200, "seed": 1}, "bootstrap": {"n": 50, "seed": 1}}
    for interval, options in asked.items():
        found = column(fit.effects(interval, **options))
        assert found["acme"] == pytest.approx(one[1] * two[2], abs=EXACT, rel=0)
        assert found["ade"] == pytest.approx(two[1], abs=EXACT, rel=0)
        assert found["total"] == pytest.approx(one[1] * two[2] + two[1], abs=EXACT, rel=0)
    assert "closed form" in str(fit)
    assert fit.effects("monte-carlo", n=200, seed=1)["note"].str.contains("closed form").all()


# -- expected outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mediator", "outcome"), PAIRS)
def test_expected_outcomes_by_brute_force(mediator, outcome):
    rng = np.random.default_rng(4)
    eta, A, B = rng.normal(size=(3, 25)) * [[1.0], [1.0], [0.5]]
    s = rng.uniform(0.1, 3.0, 25)
    theirs = [brute(mediator, outcome, *point) for point in zip(eta, A, B, s, strict=True)]
    found = expected_outcome(mediator, outcome, eta, A, B, s)
    np.testing.assert_allclose(found, theirs, rtol=INTEGRAL, atol=INTEGRAL)


@pytest.mark.parametrize(("mediator", "outcome"), PAIRS)
def test_slopes_of_expected_outcomes(mediator, outcome):
    for point in np.random.default_rng(5).normal(size=(4, 3)) * [1.0, 1.0, 0.5]:
        noise = np.array(1.3)

        def value(at: np.ndarray, noise: np.ndarray = noise) -> float:
            return float(expected_outcome(mediator, outcome, *map(np.asarray, at), noise))

        found = np.array(expected_slopes(mediator, outcome, *map(np.asarray, point), noise)).astype(float)
        assert found[0] == pytest.approx(value(point), rel=SAME)
        np.testing.assert_allclose(found[1:], nd.Gradient(value)(point), rtol=DERIVATIVE, atol=DERIVATIVE)


@pytest.mark.parametrize("width", [0.0, 0.1, 0.5, 1.0, 1.7, 3.0, 8.0, 30.0])
def test_logistic_normal_integral(width):
    """To 1e-10 for any width, derivatives too: against a sum of 1e5 terms."""
    a = np.array([0.0, 0.3, -1.0, 2.5, -6.0, 12.0])
    z = np.arange(-14.0, 14.0, 2.8e-4)
    weight = np.exp(-0.5 * z * z)
    weight /= weight.sum()
    p = mean_of("logit", a[:, None] + width * z)
    found = normal_mean("logit", a, np.full(6, width), slopes=True)
    for ours, theirs in zip(found, (p @ weight, (p * (1 - p)) @ weight, (p * (1 - p) * z) @ weight), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=INTEGRAL)


@pytest.mark.parametrize("rate", [1e-9, 0.02, 1.0, 7.5, 120.0, 4000.0])
def test_sums_over_counts(rate):
    k = np.arange(8000.0)
    for outcome in BINARY:
        theirs = poisson.pmf(k, rate) @ mean_of(outcome, 0.4 - 0.01 * k)
        found = expected_outcome(
            "poisson", outcome, np.log(np.array(rate)), np.array(0.4), np.array(-0.01), np.array(0)
        )
        assert float(found) == pytest.approx(theirs, abs=EXACT, rel=0)


def test_what_is_too_large_for_a_number():
    """An expected count beyond double precision is infinite, not cut off."""
    found = expected_outcome("poisson", "poisson", np.array([8.0]), np.zeros(1), np.array([2.0]), np.zeros(1))
    assert np.isinf(found[0])
    assert np.isnan(expected_outcome("poisson", "logit", np.array([800.0]), *np.zeros((3, 1)))[0])


def test_the_equations_have_the_errors_that_the_fit_was_asked_for():
    """A mixed and an ordinary part alike; also from a pickle."""
    data = mlmed.datasets.load("yuan_mackinnon_sim").assign(high=lambda frame: (frame["y"] > 1.0).astype(int))
    fit = mlmed.causal("Med ~ X + (1 + X | group)", "high ~ Med + X", data, family_y="logit", vcov="CR1")
    for one in (fit, pickle.loads(pickle.dumps(fit))):
        assert one.mediator.bse["X"] == pytest.approx(fit.bse["Med~X"], rel=SAME)
        assert one.outcome.bse["Med"] == pytest.approx(fit.bse["high~Med"], rel=SAME)
    assert fit.mediator.bse["X"] != fit.mediator.fixef(vcov="block").set_index("term").loc["X", "std_error"]
