"""Daily affect of 193 people: the page's numbers, references of lme4 and nlme, ours against both."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed import reproduce
from mlmed.reproduce.pairs import Pair, half_unit
from mlmed.reproduce.summaries import BLOCKS, our_term
from mlmed.reproduce.tables import Compared, published, reference
from tests.reproduce_models import DATA, NOT_COMPARED, run
from validation import affect_checks as checks
from validation.checks import Check, load_json

EXAMPLES = [name for name in DATA if name.startswith("affect-")]
#: A log-likelihood that no other program confirms: our own earlier output, which another optimum must not lower.
LOCKS = {"m4": -10715.733572, "m5": -8813.536084}
#: Another machine, and the doubling of the nodes.
LOCK = 1e-4


def _rows(model: str) -> list[dict[str, str]]:
    return [row for block in BLOCKS for row in published("williams")[model].get(block, [])]


# -- what was printed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "n"), [("m2", 8), ("m3", 30), ("m4", 5), ("m5", 28)])
def test_every_row_of_the_page_is_complete(model, n):
    rows = _rows(model)
    assert len(rows) == n == len({row["term"] for row in rows})
    for row in rows:
        assert list(row) == ["term", "estimate", "est_error", "conf_low", "conf_high", "Rhat", "bulk_ess", "tail_ess"]
        low, mean, high = (float(row[key]) for key in ("conf_low", "estimate", "conf_high"))
        assert low <= mean <= high


def test_what_is_printed_twice_is_the_same():
    """The 15 correlations and the two of between and within, which m3 prints again with more digits."""
    facts, rows = published("williams")["m3"], {row["term"]: row for row in _rows("m3")}
    again = facts["correlations_at_more_digits"]
    assert {row["term"] for row in again} == {term for term in rows if term.startswith("cor(")}
    assert len(again) == 15
    for row in [*again, *facts["between_and_within"]]:
        first = rows[row["term"]]
        for key, other in (("value", "estimate"), ("conf_low", "conf_low"), ("conf_high", "conf_high")):
            # both are rounded: -.00369 is printed as -.00
            assert abs(float(row[key]) - float(first[other])) <= half_unit(first[other]) + half_unit(row[key])
    for model in ("m4", "m5"):
        short = {row["term"]: row for row in _rows(model)}
        for row in published("williams")[model]["posterior_summary"]:
            assert row.items() <= short[row["term"]].items()


def test_the_page_says_that_m5_did_not_converge():
    facts = published("williams")["m5"]
    assert (facts["converged"], facts["minutes"]) == ("no", "80")
    assert facts["worst_Rhat"] == max(row["Rhat"] for row in _rows("m5")) == "1.60"
    assert facts["smallest_bulk_ess"] == min((row["bulk_ess"] for row in _rows("m5")), key=int) == "7"
    for model in ("m2", "m3", "m4"):
        assert max(float(row["Rhat"]) for row in _rows(model)) <= 1.03


def test_the_data_are_those_of_the_page(dataset):
    data, facts = dataset("williams"), published("williams")
    assert (str(len(data)), str(data["id"].nunique())) == (facts["nobs"], facts["n_groups"])
    sizes = data["id"].value_counts()
    found = {"median": f"{sizes.median():.0f}", "min": str(sizes.min()), "max": str(sizes.max())}
    assert found == facts["rows_per_person"]
    data = data.assign(day01=(data["day"] - 2) / (data["day"] - 2).max())
    for row in facts["variables"]:
        values = data[row["variable"]]
        for key, ours in (("mean", values.mean()), ("sd", values.std()), ("low_5.5", values.quantile(0.055))):
            assert abs(ours - float(row[key])) <= 1.001 * half_unit(row[key]), (row["variable"], key)


@pytest.mark.parametrize(
    ("term", "responses", "ours"),
    [
        ("PAstd_PA_lag", {"NAstd": "NA.std", "PAstd": "PA.std"}, "PA.std~PA_lag"),
        ("cor(NAstd_NA_lag,PAstd_NA_lag)", {"NAstd": "NA.std", "PAstd": "PA.std"}, "cor(NA.std~NA_lag,PA.std~NA_lag)"),
        ("sigma_NAstd", {"NAstd": ""}, "sd(Residual)"),
        ("sigma_steps.pm:steps.pmd", {}, "sigma~steps.pm:steps.pmd"),
        ("sd(sigma_Intercept)", {}, "sd(sigma~Intercept)"),
    ],
)
def test_names_of_brms(term, responses, ours):
    assert our_term(term, responses) == ours


# -- references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", checks.REFERENCES)
def test_the_references_that_travel_with_the_package_are_those_of_validation(model):
    short, full = reference("williams")[model], load_json("reference", checks.REFERENCES[model])
    assert full["kind"] == reference("williams")["kind"] == "reference"
    assert short["software"].startswith(full["software"])
    values = {row["term"]: float(row["estimate"]) for row in short["estimates"]}
    G, Sigma = np.array(full["G"]), np.array(full["Sigma"])
    ours = list(values.values())
    p, q = len(full["fixef"]), len(G)
    pairs, residual_pairs = q * (q - 1) // 2, len(Sigma) * (len(Sigma) - 1) // 2
    assert len(ours) == p + q + pairs + len(Sigma) + residual_pairs
    upper = (G / np.sqrt(np.outer(np.diag(G), np.diag(G))))[np.triu_indices(q, 1)]
    theirs = [*full["fixef"].values(), *np.sqrt(np.diag(G)), *upper, *np.sqrt(np.diag(Sigma))]
    np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=1e-9)
    errors = [float(row["std_error"]) for row in short["estimates"] if "std_error" in row]
    np.testing.assert_allclose(errors, list(full["se"].values()), rtol=1e-9)
    assert abs(float(short["loglik"]) - full["logLik"]) <= half_unit(short["loglik"])


def test_nlme_has_the_stated_numbers_of_m2():
    """REML of two intercepts: log-likelihood, variances, correlation, residuals, fixed effects with errors."""
    fit = load_json("reference", "williams_m2_nlme")
    printed = {
        "-25276.23390": fit["logLik"],
        ".51991": fit["G"][0][0],
        ".63899": fit["G"][1][1],
        "-.054": fit["correlations"][0][1],
        ".63448": fit["residual_sd"][0],
        ".60078": fit["residual_sd"][1],
        "-.046": fit["residual_correlation"],
        "-.030420": fit["fixef"]["na"],
        ".052307": fit["se"]["na"],
        ".004102": fit["fixef"]["pa"],
        ".057868": fit["se"]["pa"],
    }
    for text, value in printed.items():
        assert abs(value - float(text)) <= 1.001 * half_unit(text)


@pytest.mark.parametrize("model", ["m2", "m3"])
def test_nlme_and_the_criterion_written_out_agree_where_nlme_stopped(model):
    fit = load_json("reference", checks.REFERENCES[model])
    np.testing.assert_allclose(fit["tightened"]["criterion_at_nlme"], fit["logLik"], rtol=1e-12)
    assert 0.0 <= fit["tightened"]["logLik"] - fit["logLik"] < 1e-5


# -- ours ----------------------------------------------------------------------------------------------------------


def _assert_all(found: list[Check]) -> None:
    assert found
    missed = [(c.quantity, c.ours, c.theirs, c.difference, c.tolerance) for c in found if not c.ok]
    assert not missed


@pytest.mark.parametrize(("part", "argument"), checks.PARTS, ids=lambda value: getattr(value, "__name__", value))
def test_checks_of_validation(part, argument, dataset):
    dataset("williams")
    _assert_all(list(part(argument)))


def test_the_optimum_of_m5_is_certified(dataset):
    dataset("williams")
    found = list(checks.certificate())
    _assert_all(found)
    assert all("did not converge" in check.table for check in found)


@pytest.mark.parametrize(("example", "n"), [("affect-m1", 10), ("affect-m2", 8), ("affect-m3", 30 + 2 + 15)])
def test_every_posterior_mean_is_compared(example, n, dataset):
    dataset("williams")
    assert len(list(checks.posterior_means(example))) == n


def test_m1_is_the_first_equation_of_m3_alone(dataset):
    fit = mlmed.mixed(published("williams")["m1"]["formula"], dataset("williams"))
    # lme4 1.1-31, REML: log-likelihood; validation/reference/williams_m1_lme4.json
    assert fit.llf == pytest.approx(-12147.6431541574, abs=checks.NEVER_WORSE)
    assert fit.converged


@pytest.mark.parametrize("model", LOCKS)
def test_location_scale_log_likelihoods_are_not_lower_than_before(model, dataset):
    """Lock: our earlier output, as nobody else has these numbers."""
    asked = published("williams")[model]
    fit = mlmed.location_scale(asked["location"], asked["scale"], dataset("williams"))
    assert fit.converged
    assert fit.llf == pytest.approx(LOCKS[model], abs=LOCK)


# -- the reports ---------------------------------------------------------------------------------------------------


def test_the_models_are_listed():
    assert [f"affect-m{k}" for k in range(1, 6)] == EXAMPLES
    table = reproduce.describe().set_index("name").loc[EXAMPLES]
    assert (table["data"] == "williams").all()
    assert "did not converge" in table.loc[NOT_COMPARED, "published"]


def test_m5_claims_no_agreement(dataset):
    """The page's numbers stand beside ours; no difference is formed and no posterior sd is a yardstick."""
    dataset("williams")
    found = run(NOT_COMPARED)
    rows = found.to_frame()
    assert (rows["printed"] == "").sum() > 100
    assert rows["difference"].isna().all()
    assert rows["posterior_sd"].isna().all()
    assert not any("difference" in column for table in found.tables.values() for column in table)
    assert found.notes[0].startswith("No agreement is claimed: the page's chains had not met after 80 minutes")
    assert "R-hat up to 1.60, effective sample size 7" in found.notes[0]
    assert "is certified" in found.notes[1]
    table = found.tables["brms, chains that did not mix, beside ours: not to be compared"].set_index("term")
    assert table.loc["sd(Intercept)", ["brms", "brms SE", "brms R-hat", "brms ESS"]].tolist() == [0.61, 0.13, 1.6, 7.0]
    assert table["ours"].notna().all()


def test_m1_shows_lme4_and_m3_but_no_number_of_its_own(dataset):
    dataset("williams")
    found = run("affect-m1")
    assert list(found.to_frame()["published_by"].unique()) == ["lme4", "brms"]
    assert "The page prints nothing of m1" in found.notes[0]


def test_distances_are_in_posterior_sds():
    pairs = (
        Pair("b", "", "brms", "0.45", "ours", 0.46, posterior_sd=0.02),
        Pair("sd", "", "brms", "0.59", "ours", 0.594, posterior_sd=0.0),
        Pair("b", "low", "brms", "0.41", "ours", 0.42),
    )
    frame: pd.DataFrame = Compared("t", pairs).frame.set_index("term")
    np.testing.assert_allclose(frame.loc["b", "in posterior SDs"], 0.5, rtol=1e-12)
    assert np.isnan(frame.loc["sd", "in posterior SDs"])
    assert [name for name in frame if "posterior" in name] == ["in posterior SDs"]
    assert "0.50" in str(Compared("t", pairs))
