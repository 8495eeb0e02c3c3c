"""Published numbers against ours, example by example, and the published numbers against each other."""

from __future__ import annotations

import functools
import math

import numpy as np
import pandas as pd
import pytest

from mlmed import reproduce
from mlmed.errors import DatasetError
from mlmed.reproduce.montecarlo import drawn_errors
from mlmed.reproduce.pairs import Pair, half_unit
from mlmed.reproduce.sources import published, reference
from mlmed.reproduce.tables import Compared
from validation import comparison_checks as comparisons
from validation.checks import Check, load_json

DATA = {
    "stata-bpg": "ml_sim",
    "yuan-mackinnon": "yuan_mackinnon_sim",
    "framing": "framing",
    "gpa": "gpa",
    "sleepstudy": "sleepstudy",
}

#: Stata stops up to 1e-6 short of the optimum and prints seven digits.
STATA = 2e-6
#: lme4's default optimizer stops short as well: allowed beyond half a unit of the last printed digit.
LME4_SHORT = 2e-6
#: lme4 at tight tolerance, relative: what its derivative-free optimizer leaves in flat directions.
LME4_TIGHT = 1e-6
#: Two independent draws of the same quantity, in Monte Carlo standard errors of their difference.
MC_ERRORS = 4.0


run = comparisons.reproduction


@pytest.fixture
def numbers(dataset):
    """Rows of ``to_frame`` of an example, skipped where its data cannot be had."""

    def rows(name: str, *tables: str) -> pd.DataFrame:
        dataset(DATA[name])
        found = comparisons.numbers(name, *tables)
        assert len(found), f"no table of {name} is called {tables}"
        return found

    return rows


def assert_printed(rows: pd.DataFrame, *, beyond: float) -> None:
    """Ours round to what was printed, up to ``beyond`` half a unit of the last digit."""
    bound = rows["printed"].map(half_unit) * (1.0 + 1e-9) + beyond
    missed = rows[~(rows["difference"].abs() <= bound)]
    assert missed.empty, missed[["term", "quantity", "printed", "ours", "difference"]].to_string()


# -- what is listed ----------------------------------------------------------------------------------------


def test_every_example_is_listed():
    assert reproduce.names() == list(DATA)
    table = reproduce.describe()
    assert list(table.columns) == ["name", "data", "published", "ours"]
    assert dict(zip(table["name"], table["data"], strict=True)) == DATA


@pytest.mark.parametrize(
    ("asked", "meant"), [("gpaa", "did you mean 'gpa'"), ("stata", "did you mean 'stata-bpg'"), (3, "no example 3")]
)
def test_an_unknown_example_is_refused_with_the_nearest_name(asked, meant):
    with pytest.raises(DatasetError, match=meant):
        reproduce.run(asked)


@pytest.mark.parametrize("name", DATA)
def test_an_example_prints_and_tabulates(name, dataset):
    dataset(DATA[name])
    found, table = run(name), reproduce.describe().set_index("name")
    text, long = str(found), found.to_frame()
    assert found.name == name
    assert table.loc[name, "data"] == DATA[name]
    assert text.startswith(f"{name}: {found.title}\n=")
    assert all(title in text for title in found.tables)
    assert max(map(len, text.split("\n"))) <= 115
    assert found._repr_html_().startswith("<pre>")
    for title, frame in found.tables.items():
        own = long[long["table"] == title]
        assert list(frame["term"]) == list(dict.fromkeys(own["term"]))
        assert frame.columns.is_unique
        assert any(column.startswith(("difference", *own["ours_by"])) for column in frame.columns)
    both = long[(long["printed"] != "") & (long["ours_by"] != "")]
    assert len(both) > 10
    assert both["ours"].notna().all()
    np.testing.assert_array_equal(both["difference"], both["ours"] - both["published"])


# -- ours against theirs -----------------------------------------------------------------------------------


def test_stata_tables(numbers):
    rows = numbers("stata-bpg")
    fit = rows["term"].str.contains("log-likelihood|chi2", regex=True) | (rows["quantity"] == "z")
    assert_printed(rows[fit & (rows["table"] != "Effects of the stacked model")], beyond=0.0)
    others = rows[~fit | (rows["table"] == "Effects of the stacked model")]
    assert len(others) > 150
    assert others["difference"].abs().max() <= STATA


@pytest.mark.parametrize(
    ("name", "tables"),
    [("gpa", ["lme4"]), ("yuan-mackinnon", ["lme4"])],
)
def test_lme4_tables_to_every_printed_digit(name, tables, numbers):
    assert_printed(numbers(name, *tables), beyond=LME4_SHORT)


def test_lme4_covariances_of_the_page(numbers):
    rows = numbers("yuan-mackinnon", "Covariance of the random effects")
    assert_printed(rows[rows["published_by"] == "lme4"], beyond=0.0)


def test_sleepstudy_against_the_reference(numbers):
    rows = numbers("sleepstudy")
    relative = (rows["difference"] / rows["published"]).abs()
    df = rows["quantity"] == "Satterthwaite df"
    assert relative[~df].max() <= LME4_TIGHT
    np.testing.assert_allclose(rows.loc[df, "ours"], 17.0, rtol=1e-9)
    assert_printed(rows[rows["term"] == "log-likelihood"], beyond=1e-7)


def test_brms_of_gpa_within_monte_carlo_error(numbers):
    rows = numbers("gpa", "brms: posterior")
    estimates = rows[rows["quantity"] == "estimate"]
    assert estimates["in_mc_errors"].abs().max() <= MC_ERRORS
    modes = numbers("gpa", "brms: the first ten")
    means = modes[modes["quantity"] == "estimate"]
    # a posterior mean of 4,000 draws with posterior sd 0.117
    assert_printed(means, beyond=MC_ERRORS * 0.117 / math.sqrt(4000))


def test_fixed_effects_and_hypothesis_of_brms_within_monte_carlo_error(numbers):
    rows = numbers("yuan-mackinnon", "Parameters", "Effects: Stan")
    fixed = ["alpha_Med", "beta_Med", "alpha_Main", "beta1_Main", "beta2_Main", "hypothesis"]
    own = rows[(rows["published_by"] == "brms") & rows["term"].isin(fixed) & (rows["quantity"] == "estimate")]
    assert len(own) == 6
    assert own["in_mc_errors"].abs().max() <= MC_ERRORS


def test_stans_priors_are_not_noise(numbers):
    """The note says so: the slopes and the indirect effect differ by more than Monte Carlo error."""
    rows = numbers("yuan-mackinnon", "Parameters", "Effects: Stan")
    own = rows[(rows["published_by"] == "Stan") & (rows["quantity"] == "estimate")].set_index("term")
    assert (own.loc[["beta_Med", "beta2_Main", "avg_ind_effect"], "in_mc_errors"].abs() > MC_ERRORS).all()
    said = "Stan's indirect effect is -0.115, the joint REML fit has -0.1276"
    assert said in run("yuan-mackinnon").notes[0]


def test_indirect_effects_of_the_page(numbers):
    rows = numbers("yuan-mackinnon", "Indirect effect").set_index("term")
    assert_printed(rows.loc[["naive_lmer"]].reset_index(), beyond=0.0)
    np.testing.assert_allclose(rows.loc["brms", "ours"], -0.12762, rtol=0, atol=5e-6)
    np.testing.assert_allclose(rows.loc["naive_lmer", "ours"], -0.0341, rtol=0, atol=5e-5)


@pytest.mark.parametrize("part", comparisons.PARTS, ids=lambda part: part.__name__)
def test_comparisons_of_validation_hold(part, dataset):
    dataset(comparisons.PARTS[part])
    checks: list[Check] = list(part())
    assert len(checks) > 1
    missed = [(c.quantity, c.ours, c.theirs, c.difference, c.tolerance) for c in checks if not c.ok]
    assert not missed


def test_r_mediation_on_framing_is_within_monte_carlo_error(numbers):
    """Every number that R drew, and the figures that must be reached, by name."""
    rows = numbers("framing", "mediate", "test.TMint")
    assert len(rows) == 2 * 40 + 11 + 2 + 4 + 2
    assert rows["in_mc_errors"].abs().max() <= MC_ERRORS
    longer = rows[rows["table"].str.endswith("plain: R with 50,000 draws")].set_index(["term", "quantity"])["ours"]
    np.testing.assert_allclose(longer["ACME (control)", "estimate"], 0.0821, rtol=0, atol=0.0008)
    np.testing.assert_allclose(longer["Total Effect", "estimate"], 0.0956, rtol=0, atol=0.0022)
    np.testing.assert_allclose(longer["ACME (control)", "low"], 0.0330, rtol=0, atol=0.0020)


def test_medsens_on_framing(numbers, dataset):
    """Estimates and intervals within the errors of R's 100 draws; where the curve is zero on R's grid, exactly."""
    rows = numbers("framing", "medsens")
    drawn = rows["mc_error"].notna()
    assert drawn.sum() == 12
    assert rows.loc[drawn, "in_mc_errors"].abs().max() <= MC_ERRORS
    assert_printed(rows[~drawn], beyond=0.0)
    frame = run("framing").tables["medsens: where ACME is zero"].set_index("term")
    assert frame.loc["control: rho on the grid", "medsens"] == 0.3
    assert 0.46 < frame.loc["control: rho of the curve", "exact"] < 0.47


def test_r_mediation_on_mixed_models_is_within_monte_carlo_error(numbers):
    rows = numbers("yuan-mackinnon", "R mediation")
    assert len(rows) == 16 + 2
    assert rows["in_mc_errors"].abs().max() <= MC_ERRORS
    ours = rows.set_index(["published_by", "term", "quantity"])["ours"]
    for by, acme, ade in (("R", -0.1144, 0.2877), ("R again", -0.1153, 0.2758)):
        np.testing.assert_allclose(ours[by, "ACME", "estimate"], acme, rtol=0, atol=MC_ERRORS * 0.031 / math.sqrt(1000))
        np.testing.assert_allclose(ours[by, "ADE", "estimate"], ade, rtol=0, atol=MC_ERRORS * 0.107 / math.sqrt(1000))


def test_the_errors_of_drawn_quantities_are_those_of_repeated_runs():
    """Simulation: sd of means, medians, quantiles and p values over 400 runs of 1,000 draws of known effects."""
    rng = np.random.default_rng(5)

    def table(draws: np.ndarray, level: float) -> pd.DataFrame:
        share = draws[0] / draws[1]
        low, high = (np.quantile([draws[0], share], q, axis=1) for q in ((1 - level) / 2, (1 + level) / 2))
        p = 2.0 * min((draws[0] < 0).mean(), (draws[0] > 0).mean())
        return pd.DataFrame(
            {
                "term": ["acme", "prop_mediated"],
                "estimate": [draws[0].mean(), np.median(share)],
                "std_error": [draws[0].std(ddof=1), np.nan],
                "p_value": [p, p],
                "conf_low": low,
                "conf_high": high,
            }
        )

    def drawn(n: int) -> np.ndarray:
        return np.array([rng.normal(0.5, 0.4, n), rng.normal(1.5, 1.0, n)])

    long = drawn(20_000)
    errors = drawn_errors(lambda level: table(long, level), table(long, 0.95))
    runs = [table(drawn(1000), 0.95).set_index("term") for _ in range(400)]
    for term in ("acme", "prop_mediated"):
        for column in ("estimate", "conf_low", "conf_high", "p_value"):
            spread = np.std([run.loc[term, column] for run in runs], ddof=1)
            # 400 runs know a standard deviation to 4%, 20,000 draws a density in a far tail to 10 or 20%
            np.testing.assert_allclose(errors[term][column], spread, rtol=0.35)


# -- the table and its text --------------------------------------------------------------------------------


def test_a_table_shows_printed_digits_and_ours_beside_them():
    pairs = (
        Pair("x", "", "R", ".6114", "ours", 0.611476),
        Pair("x", "SE", "R", ".046", "ours", 0.0461973),
        Pair("cov", "", "R", "-.0010", "ours", -0.001, mc_error=0.001),
        Pair("cov", "", ours_by="ML", ours=-0.0009),
        Pair("p", "", "R", "<2e-16"),
    )
    table = Compared("a title", pairs)
    assert str(table).split("\n") == [
        "a title",
        "term       R     ours       ML  difference  in MC errors",
        "x      .6114   0.6115        -     7.6e-05             -",
        "cov   -.0010  -0.0010  -0.0009           0           0.0",
        "p     <2e-16        -        -           -             -",
        "",
        "term  R SE  ours SE  difference SE",
        "x     .046    0.046         0.0002",
    ]
    frame = table.frame.set_index("term")
    assert list(frame.columns) == [
        "R", "ours", "ML", "difference", "in MC errors", "R SE", "ours SE", "difference SE",
    ]  # fmt: skip
    assert frame["R"].to_dict() == {"x": 0.6114, "cov": -0.001, "p": 0.0}
    assert frame.loc["p", ["ours", "ML", "difference"]].isna().all()


def test_several_published_columns_are_named_in_the_differences():
    pairs = (
        Pair("x", "", "true", "0.20"),
        Pair("x", "", "Stan", "0.142", "REML", 0.1899, mc_error=0.008),
        Pair("x", "", "brms", "0.19", "REML", 0.1899, note="a slope"),
    )
    frame = Compared("t", pairs).frame
    assert list(frame) == [
        "term", "true", "Stan", "brms", "REML", "REML - Stan", "Stan MC errors", "REML - brms", "ours is",
    ]  # fmt: skip
    assert frame.loc[0, "ours is"] == "a slope"
    np.testing.assert_allclose(frame.loc[0, "REML - Stan"], 0.0479, rtol=1e-10)
    # half a unit of the third digit is rounding, the rest is in Monte Carlo errors
    np.testing.assert_allclose(frame.loc[0, "Stan MC errors"], (0.0479 - 0.0005) / 0.008, rtol=1e-10)


# -- the published numbers against themselves --------------------------------------------------------------


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
