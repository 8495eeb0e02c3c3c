"""The published numbers against themselves."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from mlmed.reproduce.pairs import half_unit
from mlmed.reproduce.tables import published, reference
from tests.reproduce_models import MC_ERRORS
from validation.checks import load_json


def values(row: dict[str, str], *keys: str) -> list[float]:
    return [float(row[key]) for key in keys]


@pytest.mark.parametrize("table", ["plain", "interaction"])
def test_the_mediate_tables_agree_with_themselves(table):
    rows = {row["term"]: row for row in published("framing")["mediate"][table]["rows"]}
    for row in rows.values():
        low, estimate, high = values(row, "conf_low", "estimate", "conf_high")
        assert low < estimate < high
        assert (row["p_value"] == "<2e-16") == (low > 0.0)
    at = {term: float(row["estimate"]) for term, row in rows.items()}
    # means of draws: total = ACME(t) + ADE(1 - t) and averages of the two; the last digit is rounded
    digit = 1.01e-6 if table == "plain" else 1.01e-7
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=digit)
    close(at["ACME (treated)"] + at["ADE (control)"], at["Total Effect"])
    close(at["ACME (control)"] + at["ADE (treated)"], at["Total Effect"])
    close((at["ACME (control)"] + at["ACME (treated)"]) / 2.0, at["ACME (average)"])
    close((at["ADE (control)"] + at["ADE (treated)"]) / 2.0, at["ADE (average)"])


def test_the_test_of_the_interaction_is_the_difference_of_the_two_acmes():
    facts = published("framing")
    at = {row["term"]: float(row["estimate"]) for row in facts["mediate"]["interaction"]["rows"]}
    low, estimate, high = values(facts["test_interaction"], "conf_low", "estimate", "conf_high")
    assert low < estimate < high
    np.testing.assert_allclose(at["ACME (treated)"] - at["ACME (control)"], estimate, rtol=0, atol=6e-7)


def test_the_longer_run_agrees_with_the_page():
    """50,000 draws lie within four Monte Carlo errors of the page's 1,000."""
    facts = published("framing")
    for name in ("plain", "interaction"):
        rows = {row["term"]: row for row in facts["mediate"][name]["rows"]}
        for longer in facts["longer_run"][name]:
            if longer["term"].startswith("Prop"):
                continue  # a ratio of draws has no standard deviation
            low, estimate, high = values(rows[longer["term"]], "conf_low", "estimate", "conf_high")
            error = (high - low) / 3.92 / math.sqrt(1000)
            assert abs(float(longer["estimate"]) - estimate) <= MC_ERRORS * error + half_unit(longer["estimate"])


def test_the_sensitivity_tables_agree_with_themselves():
    facts = published("framing")["sensitivity"]
    for group in ("control", "treated"):
        for row in facts[group]["rows"]:
            low, estimate, high, rho, star = values(row, "conf_low", "estimate", "conf_high", "rho", "r2_star")
            assert low < 0.0 < high
            assert low < estimate < high
            np.testing.assert_allclose(rho**2, star, rtol=1e-12)
        shares = [float(row["r2_tilde"]) / float(row["r2_star"]) for row in facts[group]["rows"]]
        np.testing.assert_allclose(shares[0], shares[1], rtol=2e-3)  # (1 - R2_M)(1 - R2_Y), four printed digits
        first = facts[group]["rows"][0]
        assert facts[group]["zero"] == {key: first[key] for key in ("rho", "r2_star", "r2_tilde")}


def test_gpa_agrees_with_itself():
    facts = published("gpa")
    for row in facts["lmer"]["fixed_effects"]:
        estimate, error, t = values(row, "estimate", "std_error", "t")
        np.testing.assert_allclose(t, estimate / error, rtol=3e-4)
    for row in facts["lmer"]["random_effects"]:
        variance, sd = values(row, "variance", "std_dev")
        np.testing.assert_allclose(variance, sd**2, rtol=2e-4)
    brms = facts["brms"]
    for row in (*brms["population_level"], *brms["group_level"], *brms["family_specific"]):
        low, estimate, high = values(row, "conf_low", "estimate", "conf_high")
        assert low < estimate < high
    for row in brms["random_effects"]:
        low, value, high, se = values(row, "conf_low", "value", "conf_high", "se")
        np.testing.assert_allclose([low, high], [value - 1.96 * se, value + 1.96 * se], rtol=0, atol=0.02)


def test_the_mediation_run_of_the_page_adds_up():
    facts = published("yuan_mackinnon")
    rows = {row["term"]: row for row in facts["mediation_package"]["rows"]}
    for row in rows.values():
        low, estimate, high = values(row, "conf_low", "estimate", "conf_high")
        assert low < estimate < high
    acme, ade, total = (float(rows[term]["estimate"]) for term in ("ACME", "ADE", "Total Effect"))
    np.testing.assert_allclose(acme + ade, total, rtol=0, atol=1.01e-4)
    again = {row["term"]: float(row["estimate"]) for row in facts["mediation_package_again"]["rows"]}
    for term, value in again.items():
        low, high = values(rows[term], "conf_low", "conf_high")
        assert low < value < high


@pytest.mark.parametrize("example", ["full_mediation", "partial_mediation"])
def test_the_product_method_agrees_with_itself(example):
    facts = published("product_method")[example]
    for equation in (facts["mediator"], facts["outcome"]):
        for row in equation["coefficients"]:
            estimate, error, t = values(row, "estimate", "std_error", "t")
            np.testing.assert_allclose(t, estimate / error, rtol=2e-3)
        F, df1, df2, r2, adjusted = values(equation, "F", "F_df", "df", "r2", "adjusted_r2")
        assert df1 + df2 + 1 == int(facts["n"])
        np.testing.assert_allclose(r2, F * df1 / (F * df1 + df2), rtol=1e-3)
        np.testing.assert_allclose(adjusted, 1.0 - (1.0 - r2) * (df1 + df2) / df2, rtol=1e-3)
    t, F = float(facts["mediator"]["coefficients"][1]["t"]), float(facts["mediator"]["F"])
    np.testing.assert_allclose(t**2, F, rtol=1e-3)  # one regressor


def test_the_printed_product_is_the_product_of_the_printed_coefficients():
    facts = published("product_method")["partial_mediation"]
    a = float(facts["mediator"]["coefficients"][1]["estimate"])
    b = float(facts["outcome"]["coefficients"][2]["estimate"])
    rounding = 5e-6 * (a + b)  # half a unit of the fifth digit of either factor
    np.testing.assert_allclose(a * b, float(facts["indirect"]), rtol=0, atol=rounding)


def test_the_sleepstudy_reference_is_the_one_of_validation():
    short, full = reference("sleepstudy"), load_json("reference", "sleepstudy_reml")
    assert short["kind"] == "reference"
    theirs = [*full["fixef"].values(), *full["se"].values(), *(row["vcov"] for row in full["varcorr"]), full["logLik"]]
    fixed = short["fixed_effects"]
    ours = [row[key] for key in ("estimate", "std_error") for row in fixed]
    ours += [*(row["estimate"] for row in short["variances"]), short["loglik"]]
    np.testing.assert_allclose([float(value) for value in ours], theirs, rtol=1e-9)
