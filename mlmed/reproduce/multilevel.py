"""Without mediation: ``gpa``, ``sleepstudy``, ``affect-m1`` to ``affect-m5`` (two responses, location-scale)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlmed import datasets
from mlmed.api.location_scale import location_scale
from mlmed.api.mixed import mixed
from mlmed.reproduce.pairs import Pair, by_term
from mlmed.reproduce.summaries import (
    brms_pairs,
    detailed_pairs,
    lmer_name,
    lmer_pairs,
    own_pairs,
    posterior_pairs,
    printed_rows,
    sd_cor,
    side_by_side,
)
from mlmed.reproduce.tables import Compared, Reproduction, published, reference
from mlmed.results.results import Results

#: brms' names of the responses, and ours.
BOTH = {"NAstd": "NA.std", "PAstd": "PA.std"}
POSTERIOR = "brms: posterior mean, sd, 95% interval, R-hat and effective sample size (bulk)"
MEANS = (
    "brms averages over a posterior distribution whose priors are not flat; ours is an optimum. Distances are in "
    "published posterior standard deviations, '-' where that was printed as 0.00."
)
WALD = (
    "brms' intervals are quantiles. Ours of standard deviations are formed on the log scale, those of correlations by "
    "Fisher's z."
)


def gpa() -> Reproduction:
    """Grade point averages: a line per student, by lme4 and brms."""
    asked, data = published("gpa"), datasets.load("gpa")
    fit = mixed(asked["formula"], data, method=asked["method"])
    brms, theirs = asked["brms"], reference("gpa")
    rows = [*brms["population_level"], *brms["group_level"], *brms["family_specific"]]
    functions = {
        "sd(Intercept)": "sqrt(`var(Intercept)`)",
        "sd(occasion)": "sqrt(`var(occasion)`)",
        "cor(Intercept,occasion)": "`cov(Intercept,occasion)` / sqrt(`var(Intercept)` * `var(occasion)`)",
        "sigma": "sqrt(`var(Residual)`)",
    }
    ours = pd.concat([fit.fixef(), fit.nlcom(functions)], ignore_index=True)
    return Reproduction(
        "gpa",
        "growth of grade point averages, one equation",
        asked["source"],
        (
            Compared("lme4: every number of the printed summary", tuple(lmer_pairs(fit, asked["lmer"], data))),
            Compared("brms: posterior mean, sd and 95% interval", tuple(brms_pairs(rows, ours))),
            Compared("brms: the first ten random intercepts", tuple(_modes(fit, brms["random_effects"]))),
            Compared(f"reference: conditional modes, {theirs['software']}", tuple(_lme4_modes(fit, theirs["ranef"]))),
        ),
        (
            _farthest(fit, theirs["ranef"]),
            "lme4 prints a rounded optimum of the same criterion: differences are those of rounding.",
            "brms averages over a posterior distribution. Its intervals of standard deviations are quantiles; ours are "
            "estimate +- z standard errors of the delta method (fit.profile() has likelihood intervals).",
            "brms' errors of the random intercepts contain the uncertainty of the variances and differ from student to "
            "student because they are drawn; ours are standard deviations given the estimates, equal here for every "
            "student because all have the same six occasions. Its page does not say how many effective draws they "
            "rest on, so no Monte Carlo error is given.",
        ),
    )


def _modes(fit: Results, rows: list[dict[str, str]]) -> Iterator[Pair]:
    """The printed conditional means against the conditional modes."""
    table = fit.ranef()
    modes = by_term(table[table["effect"] == "Intercept"].rename(columns={"group": "term"}))
    for row in rows:
        own, term = modes[row["group"]], f"student {row['group']}"
        for quantity, key, column in (
            ("", "value", "estimate"),
            ("SE", "se", "std_error"),
            ("low", "conf_low", "conf_low"),
            ("high", "conf_high", "conf_high"),
        ):
            yield Pair(term, quantity, "brms", row[key], "ours", own[column])


def _lme4_modes(fit: Results, rows: list[dict[str, str]]) -> Iterator[Pair]:
    """Conditional modes and conditional standard deviations of lme4."""
    table = fit.ranef()
    own = by_term(table.assign(term=table["effect"] + " " + table["group"].astype(str)))
    for row in rows:
        term = f"{row['effect']} {row['group']}"
        yield Pair(term, "", "lme4", row["value"], "ours", own[term]["estimate"])
        yield Pair(term, "SE", "lme4", row["se"], "ours", own[term]["std_error"])


def _farthest(fit: Results, rows: list[dict[str, str]]) -> str:
    """The largest distance of our numbers from lme4's, in words."""
    pairs = list(_lme4_modes(fit, rows))
    sd = {name: float(np.sqrt(fit.G.loc[name, name])) for name in fit.G.index}
    modes = max(abs(p.difference) / sd[row["effect"]] for row, p in zip(rows, pairs[::2], strict=True))
    errors = max(abs(p.difference) / p.published for p in pairs if p.quantity)
    return (
        f"The conditional modes of lme4 ({len(rows)} of them) and ours are at most {modes:.1e} standard deviations of "
        f"the random effect apart, their errors {errors:.1e} of themselves."
    )


def sleepstudy() -> Reproduction:
    """Reaction times over days without sleep, against lme4."""
    asked, data = reference("sleepstudy"), datasets.load("sleepstudy")
    fit = mixed(asked["formula"], data, method=asked["method"])
    return Reproduction(
        "sleepstudy",
        "reaction times over days without sleep, one equation",
        asked["source"],
        (
            Compared(f"reference: {asked['software']}", tuple(_sleepstudy(fit, asked))),
            Compared("reference: conditional modes and their sds, lme4", tuple(_lme4_modes(fit, asked["ranef"]))),
        ),
        (
            _farthest(fit, asked["ranef"]),
            "The page shows the call of brms for this model and prints no result. What is compared is a reference run "
            "of lme4 at a tight tolerance, not a published number.",
        ),
    )


def _sleepstudy(fit: Results, asked: dict[str, list[dict[str, str]]]) -> Iterator[Pair]:
    """Estimates, errors, degrees of freedom and variances of lme4, lmerTest and pbkrtest."""
    plain, adjusted = (by_term(fit.tidy(ddf=ddf)) for ddf in ("satterthwaite", "kenward-roger"))
    names = {lmer_name(name): name for name in fit.params.index}
    for row in asked["fixed_effects"]:
        name = names[row["term"]]
        for quantity, key, ours in (
            ("", "estimate", plain[name]["estimate"]),
            ("SE", "std_error", plain[name]["std_error"]),
            ("Satterthwaite df", "satterthwaite_df", plain[name]["df"]),
            ("Kenward-Roger df", "kr_df", adjusted[name]["df"]),
            ("Kenward-Roger SE", "kr_std_error", adjusted[name]["std_error"]),
        ):
            yield Pair(row["term"], quantity, "lme4", row[key], "ours", ours)
    for row in asked["variances"]:
        yield Pair(row["term"], "", "lme4", row["estimate"], "ours", plain[row["term"]]["estimate"])
    yield Pair("log-likelihood", "", "lme4", str(asked["loglik"]), "ours", fit.llf)


def affect_m1() -> Reproduction:
    """Negative affect on both lags: a line per person, against lme4 and the same equation of ``affect-m3``."""
    asked, theirs = published("williams"), reference("williams")["m1"]
    fit = mixed(asked["m1"]["formula"], datasets.load("williams"), method="reml")
    ours = sd_cor(fit)
    rows = [row for row in asked["m3"]["multilevel"] + asked["m3"]["regression"] if "PAstd_" not in row["term"]]
    rows += asked["m3"]["distributional"][:1]
    printed = printed_rows({"multilevel": rows}, {"NAstd": ""})
    return Reproduction(
        "affect-m1",
        "negative affect on both lagged affects, one equation",
        asked["source"],
        (
            Compared(f"reference: {theirs['software']}", tuple(_others(fit, ours, theirs, "lme4"))),
            Compared("brms, the same equation in m3", tuple(posterior_pairs(printed, ours))),
        ),
        (
            "The page prints nothing of m1. Beside ours stand a reference run of lme4, which is not a published "
            "number, and the page's m3, which fits this equation together with a second one.",
            MEANS,
            WALD,
        ),
    )


def affect_m2() -> Reproduction:
    """Both affects, intercepts only, correlated between and within people."""
    asked = published("williams")
    fit = _two_responses(asked["m2"])
    return _multivariate("affect-m2", "two responses, intercepts only, correlated residuals", fit, asked["m2"])


def affect_m3() -> Reproduction:
    """Both affects on both lags, six correlated random effects, correlated residuals."""
    asked = published("williams")
    fit, facts = _two_responses(asked["m3"]), asked["m3"]
    rows, ours = printed_rows(facts, BOTH), sd_cor(fit)
    titles = {
        "brms: between and within people, more digits": facts["between_and_within"],
        "brms: the 15 correlations of random effects, more digits": facts["correlations_at_more_digits"],
    }
    more = [Compared(title, tuple(detailed_pairs(part, rows, ours, BOTH))) for title, part in titles.items()]
    return _multivariate("affect-m3", "two responses on both lags, six random effects", fit, facts, more)


def _two_responses(facts: Mapping[str, Any]) -> Results:
    data = datasets.load("williams")
    return mixed(facts["formulas"], data, method="reml", residual=facts["residual"])


def _multivariate(
    name: str, title: str, fit: Results, facts: Mapping[str, Any], more: list[Compared] | None = None
) -> Reproduction:
    """The page's summary and other printed numbers, and nlme."""
    theirs, ours = reference("williams")[name.removeprefix("affect-")], sd_cor(fit)
    return Reproduction(
        name,
        title,
        published("williams")["source"],
        (
            Compared(POSTERIOR, tuple(posterior_pairs(printed_rows(facts, BOTH), ours))),
            *(more or ()),
            Compared(f"reference: {theirs['software']}", tuple(_others(fit, ours, theirs, "nlme"))),
        ),
        (
            MEANS,
            WALD,
            "nlme is a reference run of the same model by REML, not a published number. It stops up to 1e-5 of the "
            "log-likelihood short of the optimum.",
        ),
    )


def _others(fit: Results, ours: pd.DataFrame, asked: Mapping[str, Any], by: str) -> Iterator[Pair]:
    """Estimates and errors of other software, and its log-likelihood."""
    own = by_term(ours)
    for row in asked["estimates"]:
        found = own[row["term"]]
        yield Pair(row["term"], "", by, row["estimate"], "ours", found["estimate"])
        if "std_error" in row:
            yield Pair(row["term"], "SE", by, row["std_error"], "ours", found["std_error"])
    yield Pair("log-likelihood", "", by, asked["loglik"], "ours", fit.llf)


def affect_m4() -> Reproduction:
    """Location and scale of positive affect: a mean and a log sd for each person."""
    asked = published("williams")
    fit, facts = _location_scale(asked["m4"]), asked["m4"]
    return Reproduction(
        "affect-m4",
        "location-scale model, a mean and a log residual sd for each person",
        asked["source"],
        (
            Compared(POSTERIOR, tuple(posterior_pairs(printed_rows(facts, {}), sd_cor(fit)))),
            Compared("brms: the log sd exponentiated", tuple(_exponentiated(fit, facts["exponentiated"][0]))),
        ),
        (
            MEANS,
            "brms' intervals are quantiles. Ours of standard deviations are formed on the log scale, those of "
            "correlations by Fisher's z. The exponential of a standard error is what the page prints.",
        ),
    )


def _exponentiated(fit: Results, row: Mapping[str, str]) -> Iterator[Pair]:
    """The scale intercept on the sd scale."""
    term = "exp(sigma~Intercept)"
    own = by_term(fit.effects())[term]
    error = float(np.exp(fit.bse["sigma~Intercept"]))
    for quantity, key, ours in (
        ("", "estimate", own["estimate"]),
        ("exp(SE)", "est_error", error),
        ("low", "conf_low", own["conf_low"]),
        ("high", "conf_high", own["conf_high"]),
    ):
        yield Pair(term, quantity, "brms", row[key], "ours", ours)


def affect_m5() -> Reproduction:
    """Location and scale of positive affect with predictors; the page's chains did not mix."""
    asked = published("williams")
    fit, facts = _location_scale(asked["m5"]), asked["m5"]
    rows, ours = printed_rows(facts, {}), sd_cor(fit)
    row = fit.glance().iloc[0]
    certified = "is certified" if row["converged"] else "is NOT certified"
    return Reproduction(
        "affect-m5",
        "location-scale model with predictors: the page did not converge, no agreement is claimed",
        asked["source"],
        (
            Compared("brms, chains that did not mix, beside ours: not to be compared", tuple(side_by_side(rows, ours))),
            Compared("ours, more digits", tuple(own_pairs((row["term"] for row in rows), ours))),
        ),
        (
            f"No agreement is claimed: the page's chains had not met after {facts['minutes']} minutes (R-hat up to "
            f"{facts['worst_Rhat']}, effective sample size {facts['smallest_bulk_ess']}), so their averages estimate "
            "nothing.",
            f"Our optimum {certified}: log-likelihood {fit.llf:.5f} with {fit.fit.nodes} nodes for each scale effect; "
            f"twice as many move it by {abs(row['node_change']):.1g}.",
        ),
    )


def _location_scale(facts: Mapping[str, Any]) -> Results:
    return location_scale(facts["location"], facts["scale"], datasets.load("williams"))
