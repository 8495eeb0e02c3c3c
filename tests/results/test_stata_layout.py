"""The xtmixed layout against published tables, and the published numbers against each other."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlmed.report.stata import (
    StataBlock,
    StataEffect,
    StataGroup,
    StataReport,
    StataRow,
    format_g,
    render,
)

GOLDEN = Path(__file__).parents[1] / "golden"
PUBLISHED = Path(__file__).parents[2] / "mlmed" / "reproduce" / "published"
FITS = ["stata_y_x_ml", "stata_m_x_ml", "stata_y_mx_ml", "stata_bpg_reml"]
NAN = float("nan")
Z95 = 1.959963984540054


def published(name: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((PUBLISHED / f"{name}.json").read_text(encoding="utf-8"))
    return facts


def golden(name: str) -> str:
    return (GOLDEN / f"{name}.txt").read_text(encoding="utf-8").removesuffix("\n")


def row(entry: dict[str, str]) -> StataRow:
    estimate, std_error = float(entry["estimate"]), float(entry["std_error"])
    z, p = (float(entry[key]) if key in entry else None for key in ("z", "p"))
    return StataRow(entry["term"], estimate, std_error, z, p, float(entry["conf_low"]), float(entry["conf_high"]))


def blocks(entries: list[dict[str, str]]) -> tuple[StataBlock, ...]:
    titles = dict.fromkeys(entry["block"] for entry in entries)
    return tuple(StataBlock(*t.split(": "), tuple(row(e) for e in entries if e["block"] == t)) for t in titles)


def report(name: str) -> StataReport:
    facts = published(name)
    wald, lr = facts["wald"], facts["lr"]
    groups = tuple(
        StataGroup(g["name"], int(g["n_groups"]), int(g["minimum"]), float(g["average"]), int(g["maximum"]))
        for g in facts["groups"]
    )
    return StataReport(
        method=facts["method"],
        response=facts["response"],
        nobs=int(facts["nobs"]),
        groups=groups,
        llf=float(facts["loglik"]),
        wald_df=int(wald["df"]),
        wald_chi2=float(wald["chi2"]),
        wald_p=float(wald["p"]),
        coefficients=tuple(row(entry) for entry in facts["coefficients"]),
        blocks=blocks(facts["varcorr"]),
        residual=(row(facts["residual"]),),
        lr_df=int(lr["df"]),
        lr_chi2=float(lr["chi2"]),
        lr_p=float(lr["p"]),
        level=float(facts["level"]) / 100,
        iterations=tuple(float(value) for value in facts["iterations"]),
    )


def effect(label: str, entry: dict[str, str]) -> StataEffect:
    return StataEffect(label, *(float(entry[k]) for k in ("estimate", "std_error", "z", "conf_low", "conf_high")))


def printed_numbers() -> list[tuple[str, int]]:
    """Every %9.0g and %10.0g number of the published output, with its width."""
    pairs = []
    for name in FITS:
        facts = published(name)
        rows = [*facts["coefficients"], *facts["varcorr"], facts["residual"]]
        pairs += [(r[k], 9) for r in rows for k in ("estimate", "std_error", "conf_low", "conf_high")]
        pairs += [(value, 10) for value in [facts["loglik"], *facts["iterations"]]]
    effects = published("stata_bpg_reml")["effects"]
    pairs += [(effects[key], 10) for key in ("a", "b", "cprime", "cov_ab")]
    pairs += [(value, 10) for key in ("indirect", "total") for value in effects[key].values()]
    listing = published("stata_listing")
    pairs += [(r[key], 10) for part in ("wide", "long") for r in listing[part] for key in ("x", "m")]
    pairs += [(r["z"], 9) for r in listing["long"]]
    pairs += [(r[key], 9) for r in listing["summarize"] for key in ("mean", "std_dev", "min", "max")]
    return pairs


@pytest.mark.parametrize("name", FITS)
def test_render_reproduces_the_published_output(name: str) -> None:
    assert render(report(name)).split("\n") == golden(name).split("\n")


def test_without_iterations_the_output_starts_at_the_header() -> None:
    text = render(replace(report("stata_bpg_reml"), iterations=()))
    expected = golden("stata_bpg_reml")
    assert text == expected[expected.index("Mixed-effects") :]


def test_effects_follow_the_tables() -> None:
    effects = published("stata_bpg_reml")["effects"]
    shown = (
        effect("average indirect effect", effects["indirect"]),
        effect("average total effect", effects["total"]),
    )
    text = render(replace(report("stata_bpg_reml"), effects=shown))
    # the page has one "Ratio:" where the command it lists says "ratio: "
    assert text == golden("stata_bpg_reml") + "\n\n" + golden("stata_bpg_effects")


def test_notes_come_last_and_are_wrapped() -> None:
    text = render(replace(report("stata_y_x_ml"), notes=("Note: " + "boundary " * 20, "second")))
    lines = text.removeprefix(golden("stata_y_x_ml")).split("\n")
    assert lines[:2] == ["", ""]
    assert lines[2].startswith("Note: boundary")
    assert lines[3].startswith("      boundary")
    assert lines[-2:] == ["", "second"]
    assert max(map(len, lines)) <= 78


def test_missing_numbers_are_dots_in_their_columns() -> None:
    fit = report("stata_y_x_ml")
    blank = StataRow("x", 0.5, NAN, NAN, NAN, NAN, NAN)
    variance = StataRow("var(x)", 6.22e-12, NAN, None, None, NAN, NAN)
    fit = replace(
        fit,
        coefficients=(blank,),
        blocks=(StataBlock("id", "Identity", (variance,)),),
        wald_df=0,
        wald_chi2=NAN,
        wald_p=NAN,
    )
    lines = render(fit).split("\n")
    assert "           x |         .5          .        .       .            .           ." in lines
    assert "                      var(x) |   6.22e-12          .             .           ." in lines
    assert "                                                Wald chi2(0)       =         ." in lines
    assert "Log likelihood = -1214.1952                     Prob > chi2        =         ." in lines


def test_one_variance_is_tested_against_the_mixture() -> None:
    text = render(replace(report("stata_y_x_ml"), lr_df=1, lr_chi2=4.576, lr_p=0.0162))
    assert text.endswith("\nLR test vs. linear regression: chibar2(01) =     4.58 Prob >= chibar2 = 0.0162")


@pytest.mark.parametrize("df", [None, 0])
def test_no_likelihood_ratio_line_without_a_test(df: int | None) -> None:
    assert render(replace(report("stata_y_x_ml"), lr_df=df, lr_chi2=NAN, lr_p=NAN)).endswith("-" * 78)


@pytest.mark.parametrize(
    ("level", "heading"),
    [
        (0.9, "     [90% Conf. Interval]"),
        (0.95, "     [95% Conf. Interval]"),
        (0.999, "   [99.9% Conf. Interval]"),
    ],
)
def test_level_is_in_both_headings(level: float, heading: str) -> None:
    lines = render(replace(report("stata_m_x_ml"), level=level)).split("\n")
    assert [len(line) for line in lines if line.endswith(heading)] == [78, 78]


def test_long_names_are_abbreviated_and_keep_the_columns() -> None:
    fit = report("stata_y_x_ml")
    slope, other = "an_exceedingly_long_slope", "another_long_one"
    names = [
        ("videorelevant", "", ()),
        (f"var({slope})", "var", (slope,)),
        (f"cov({slope},{other})", "cov", (slope, other)),
    ]
    rows = [StataRow(name, 1.0, 1.0, None, None, 1.0, 1.0, kind, of) for name, kind, of in names]
    block = StataBlock("a_long_cluster_name", "Unstructured", tuple(rows[1:]))
    group = StataGroup("a_long_cluster_name", 100, 8, 8.0, 8)
    fit = replace(fit, response="achievement_2", coefficients=(rows[0],), blocks=(block,), groups=(group, group))
    text = render(fit)
    for shown in (
        "videorelev~t |",
        "achievemen~2 |",
        "   a_long_clu~e |",
        "a_long_clu~e: Unstructured   |",
        "var(an_exceedingly_long_s~e) |",
        "cov(an_exceed~e,another_l~e) |",
    ):
        assert shown in text
    assert max(map(len, text.split("\n"))) == 78


def test_a_name_without_parentheses_is_abbreviated_as_a_whole() -> None:
    residual = StataRow("residual_variance_of_the_outcome", 1.0, 0.1, None, None, 0.8, 1.2)
    assert "residual_variance_of_the_o~e |" in render(replace(report("stata_y_x_ml"), residual=(residual,)))


def test_numbers_too_wide_for_their_column_fall_back_on_e_notation() -> None:
    wide = StataRow("x", 1e9, 1.0, -1e9, 0.0, 1e9, 1e9)
    lines = render(replace(report("stata_y_x_ml"), coefficients=(wide,))).split("\n")
    assert "           x |   1.00e+09          1 -1.0e+09   0.000     1.00e+09    1.00e+09" in lines


@pytest.mark.parametrize(("field", "value"), [("method", "REML"), ("level", 95.0), ("level", 0.0)])
def test_what_cannot_be_printed_is_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{field} is"):
        replace(report("stata_y_x_ml"), **{field: value})


@pytest.mark.parametrize(("text", "width"), sorted(set(printed_numbers())))
def test_format_g_returns_what_was_published(text: str, width: int) -> None:
    assert format_g(float(text), width) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (-0.0, "0"),
        (7, "7"),
        (-1600, "-1600"),
        (1234567, "1234567"),
        (9999999.4, "9999999"),
        (9999999.6, "1.00e+07"),
        (12345678.9, "1.23e+07"),
        (-12345678.9, "-1.23e+07"),
        (123456.789, "123456.8"),
        (311.46, "311.46"),
        (-1214.19521, "-1214.195"),
        (1.034313, "1.034313"),
        (9.99999996, "10"),
        (0.99999996, "1"),
        (0.04657, ".04657"),
        (-0.096852, "-.096852"),
        (1e-3 / 3, ".0003333"),
        (math.pi * 1e-4, ".0003142"),
        (math.pi * 1e-5, ".0000314"),
        (math.pi * 1e-6, "3.14e-06"),
        (-math.pi * 1e-6, "-3.14e-06"),
        (1e-8, "1.00e-08"),
        (1e-100, "1.0e-100"),
        (-2.5e200, "-2.5e+200"),
        (NAN, "."),
        (math.inf, "."),
        (-math.inf, "."),
        (None, "."),
    ],
)
def test_format_g_over_the_magnitudes(value: float | None, text: str) -> None:
    assert format_g(value) == text
    assert len(text) <= 9


@pytest.mark.parametrize(
    ("power", "text"),
    [
        (0, "3.141592654"),
        (1, "31.41592654"),
        (5, "314159.2654"),
        (8, "314159265.4"),
        (9, "3141592654"),
        (10, "3.14159e+10"),
        (-1, ".3141592654"),
        (-4, ".0003141593"),
        (-5, ".0000314159"),
        (-6, "3.14159e-06"),
    ],
)
def test_format_g_on_the_example_of_its_makers(power: int, text: str) -> None:
    """The multiples of pi with which Stata's developers explained %12.0g (Statalist, 7 April 2003)."""
    assert format_g(math.pi * 10.0**power, width=12) == text


@pytest.mark.parametrize("width", [8, 9, 10, 12])
def test_format_g_fits_and_reads_back(width: int) -> None:
    rng = np.random.default_rng(7)
    values = rng.choice([-1.0, 1.0], 500) * 10.0 ** rng.uniform(-12, 12, 500)
    texts = [format_g(value, width) for value in values]
    assert max(map(len, texts)) <= width
    # the fewest digits shown are those of e-notation, width - 6
    np.testing.assert_allclose([float(text) for text in texts], values, rtol=0.5 * 10.0 ** (7 - width))


def test_format_g_refuses_a_width_that_cannot_hold_a_number() -> None:
    with pytest.raises(ValueError, match="width is 7"):
        format_g(1.0, width=7)


@pytest.mark.parametrize("name", FITS)
def test_published_rows_agree_with_themselves(name: str) -> None:
    """A digit transcribed wrongly shows as a z ratio or a limit that its estimate cannot have."""
    fit = report(name)
    for entry in fit.coefficients:
        limits = np.array([-Z95, Z95]) * entry.std_error + entry.estimate
        np.testing.assert_allclose([entry.conf_low, entry.conf_high], limits, rtol=1e-6, atol=3e-7)
        np.testing.assert_allclose(entry.statistic, entry.estimate / entry.std_error, rtol=0, atol=0.0051)
    for entry in [*(e for block in fit.blocks for e in block.rows), *fit.residual]:
        reach = np.array([-Z95, Z95]) * entry.std_error
        # Stata takes variances to the log scale and covariances as they are
        is_variance = entry.name.startswith("var")
        limits = entry.estimate * np.exp(reach / entry.estimate) if is_variance else entry.estimate + reach
        np.testing.assert_allclose([entry.conf_low, entry.conf_high], limits, rtol=2e-5, atol=3e-7)


def test_published_effects_agree_with_themselves() -> None:
    facts = published("stata_bpg_reml")["effects"]
    a, b, cprime, cov_ab, critical = (float(facts[k]) for k in ("a", "b", "cprime", "cov_ab", "critical"))
    for key, expected in {"indirect": a * b + cov_ab, "total": a * b + cov_ab + cprime}.items():
        shown = effect(key, facts[key])
        np.testing.assert_allclose(shown.estimate, expected, rtol=5e-8)
        np.testing.assert_allclose(shown.statistic, expected / shown.std_error, rtol=2e-7)
        limits = expected + np.array([-critical, critical]) * shown.std_error
        np.testing.assert_allclose([shown.conf_low, shown.conf_high], limits, rtol=1e-7)


@pytest.mark.parametrize("equation", ["med", "main"])
def test_published_lmer_fits_agree_with_themselves(equation: str) -> None:
    facts = published("yuan_mackinnon")
    fit, shown = facts["lmer"][equation], facts["random_effect_covariances"][f"{equation}_lme4"]
    for entry in fit["fixed_effects"]:
        ratio = float(entry["estimate"]) / float(entry["std_error"])
        np.testing.assert_allclose(float(entry["t"]), ratio, rtol=1e-3)
    sds = [float(entry["std_dev"]) for entry in fit["random_effects"]]
    np.testing.assert_allclose([float(e["variance"]) for e in fit["random_effects"]], np.square(sds), rtol=3e-4)
    q = len(sds) - 1
    corr = np.eye(q)
    for i, entry in enumerate(fit["random_effects"][:q]):
        corr[i, :i] = corr[:i, i] = [float(value) for value in entry["corr"]]
    # correlations have two printed decimals and so have the covariances
    np.testing.assert_allclose(
        np.array(shown["matrix"], dtype=float), corr * np.outer(sds[:q], sds[:q]), rtol=0, atol=0.0101
    )


def test_published_comparison_agrees_with_its_parts() -> None:
    facts = published("yuan_mackinnon")
    compared = {key: float(value) for key, value in facts["indirect_effect"].items()}
    stan = {entry["term"]: float(entry["mean"]) for entry in facts["stan"]["rows"]}
    true, names = facts["true"], facts["true"]["covariance"]["names"]
    cov = np.array(true["covariance"]["matrix"], dtype=float)
    cov_ab = cov[names.index("beta_Med"), names.index("beta2_Main")]
    a, b = (float(facts["lmer"][eq]["fixed_effects"][i]["estimate"]) for eq, i in (("med", 1), ("main", 2)))
    acme = float(facts["mediation_package"]["rows"][0]["estimate"])
    expected = {
        "true": float(true["beta_Med"]) * float(true["beta2_Main"]) + cov_ab,
        "est_bayes": stan["avg_ind_effect"],
        "naive_bayes": stan["naive_ind_effect"],
        "naive_lmer": a * b,
        "mediation_pack": acme,
    }
    assert list(compared) == list(expected)
    np.testing.assert_allclose(list(compared.values()), list(expected.values()), rtol=0, atol=0.00051)
    sd = np.sqrt(np.diag(cov))
    np.testing.assert_allclose(np.array(true["correlation"]["matrix"], dtype=float), cov / np.outer(sd, sd), rtol=1e-6)


def test_both_listings_hold_the_same_numbers() -> None:
    listing = published("stata_listing")
    assert len(listing["wide"]) == len(listing["long"]) == 16
    for entry in listing["long"]:
        wide = listing["wide"][int(entry["fid"]) - 1]
        assert (entry["id"], entry["x"], entry["m"]) == (wide["id"], wide["x"], wide["m"])
        assert int(entry["sy"]) == 1 - int(entry["sm"])
        stacked = wide["m"] if entry["sm"] == "1" else wide["y"]
        np.testing.assert_allclose(float(entry["z"]), float(stacked), rtol=0, atol=6e-7)
