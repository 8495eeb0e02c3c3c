"""Published examples: what is listed, ours against theirs, the text."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from mlmed import reproduce
from mlmed.errors import DatasetError
from mlmed.reproduce.pairs import Pair, drawn_errors
from mlmed.reproduce.tables import Compared
from tests.reproduce_models import DATA, LME4_SHORT, LME4_TIGHT, MC_ERRORS, NOT_COMPARED, STATA, assert_printed, run
from validation import comparison_checks as comparisons
from validation.checks import Check


@pytest.fixture
def numbers(dataset):
    """Rows of ``to_frame`` of an example, skipped where its data cannot be had."""

    def rows(name: str, *tables: str) -> pd.DataFrame:
        dataset(DATA[name])
        found = comparisons.numbers(name, *tables)
        assert len(found), f"no table of {name} is called {tables}"
        return found

    return rows


# -- what is listed ------------------------------------------------------------------------------------------------


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
    assert both.empty if name == NOT_COMPARED else len(both) > 10
    assert both["ours"].notna().all()
    np.testing.assert_array_equal(both["difference"], both["ours"] - both["published"])


# -- ours against theirs -------------------------------------------------------------------------------------------


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
    rows = numbers("sleepstudy", "reference: lme4")
    relative = (rows["difference"] / rows["published"]).abs()
    df = rows["quantity"] == "Satterthwaite df"
    assert relative[~df].max() <= LME4_TIGHT
    np.testing.assert_allclose(rows.loc[df, "ours"], 17.0, rtol=1e-9)
    assert_printed(rows[rows["term"] == "log-likelihood"], beyond=1e-7)


@pytest.mark.parametrize(("name", "modes"), [("gpa", 20), ("sleepstudy", 36)])
def test_conditional_modes_and_their_sds_are_lme4s(name, modes, numbers):
    """As stored in the references; modes pass through zero, so they are measured in their conditional sds."""
    rows = numbers(name, "reference: conditional modes")
    errors = rows[rows["quantity"] == "SE"]
    values = rows[rows["quantity"] == "estimate"]
    assert len(values) == len(errors) == modes
    np.testing.assert_allclose(errors["ours"], errors["published"], rtol=LME4_TIGHT)
    apart = values["difference"].to_numpy() / errors["published"].to_numpy()
    np.testing.assert_allclose(apart, 0.0, rtol=0, atol=LME4_TIGHT)
    assert f"({modes} of them)" in run(name).notes[0]


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
    assert 0.455 < frame.loc["control: rho of the curve", "exact"] < 0.46


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


# -- the table and its text ----------------------------------------------------------------------------------------


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
