"""Examples with one equation: ``gpa`` (lme4 and brms of the page) and ``sleepstudy`` (lme4 as reference)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from mlmed import datasets
from mlmed.api.mixed import mixed
from mlmed.reproduce.lme4 import brms_pairs, lmer_name, lmer_pairs
from mlmed.reproduce.pairs import Pair, by_term
from mlmed.reproduce.sources import published, reference
from mlmed.reproduce.tables import Compared, Reproduction
from mlmed.results.results import MixedResults

__all__ = ["gpa", "sleepstudy"]


def gpa() -> Reproduction:
    """Grade point averages: a line a student, by lme4 and by brms."""
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


def _modes(fit: MixedResults, rows: list[dict[str, str]]) -> Iterator[Pair]:
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


def _lme4_modes(fit: MixedResults, rows: list[dict[str, str]]) -> Iterator[Pair]:
    """Conditional modes and conditional standard deviations of lme4."""
    table = fit.ranef()
    own = by_term(table.assign(term=table["effect"] + " " + table["group"].astype(str)))
    for row in rows:
        term = f"{row['effect']} {row['group']}"
        yield Pair(term, "", "lme4", row["value"], "ours", own[term]["estimate"])
        yield Pair(term, "SE", "lme4", row["se"], "ours", own[term]["std_error"])


def _farthest(fit: MixedResults, rows: list[dict[str, str]]) -> str:
    """Say how far ours are from lme4's, at most."""
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
            Compared(f"reference: {asked['software']}", tuple(_reference(fit, asked))),
            Compared("reference: conditional modes and their sds, lme4", tuple(_lme4_modes(fit, asked["ranef"]))),
        ),
        (
            _farthest(fit, asked["ranef"]),
            "The page shows the call of brms for this model and prints no result. What is compared is a reference run "
            "of lme4 at a tight tolerance, not a published number.",
        ),
    )


def _reference(fit: MixedResults, asked: dict[str, list[dict[str, str]]]) -> Iterator[Pair]:
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
