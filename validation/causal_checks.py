"""Regressions against R's ``lm``, ``glm`` and ``sandwich``; effects against the tables of R's ``mediation``.

``mediation`` prints numbers of random draws, so differences are measured in Monte Carlo standard errors of both runs
(what half a printed digit explains is taken off first) and may be 4. The error of a mean is sd / sqrt(draws), that of a
quantile sqrt(p (1 - p) / draws) over the density there, of a p value 2 sqrt(s (1 - s) / draws) with s the smaller tail.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.plain import plain_design, read_columns
from mlmed.effects.potential import RATIOS, all_effects
from mlmed.formula import parse_equation
from mlmed.glm.families import FAMILIES
from mlmed.glm.fit import GlmFit, fit_glm
from mlmed.glm.robust import HC_KINDS, cluster_vcov, hc_vcov
from mlmed.modes.causal import causal
from mlmed.modes.causal_effects import CausalEffects
from mlmed.modes.causal_tables import draw_effects
from validation.checks import Check, load_data, load_json, relative

#: R iterated to a relative change of the deviance of 1e-15.
SAME_FIT = 1e-8
#: Monte Carlo standard errors.
STANDARD_ERRORS = 4.0
DRAWS = 50_000
MEDIATOR = "emo ~ treat + age + educ + gender + income"
OUTCOME = "cong_mesg ~ emo {} treat + age + educ + gender + income"
#: The rows of R's tables.
TERMS = {
    "ACME (control)": "acme_control", "ACME (treated)": "acme_treated", "ADE (control)": "ade_control",
    "ADE (treated)": "ade_treated", "Total Effect": "total", "Prop. Mediated (control)": "prop_mediated_control",
    "Prop. Mediated (treated)": "prop_mediated_treated", "ACME (average)": "acme", "ADE (average)": "ade",
    "Prop. Mediated (average)": "prop_mediated", "ACME": "acme", "ADE": "ade", "Prop. Mediated": "prop_mediated",
}  # fmt: skip


def causal_checks() -> list[Check]:
    return [*(c for family in FAMILIES for c in regression(family)), *framing(), *interaction(), *yuan()]


# -- regressions ----------------------------------------------------------------------------------------------


def _plain_fit(formula: str, family: str, data: pd.DataFrame) -> GlmFit:
    equation = parse_equation(formula, data.columns)
    design = plain_design(equation, read_columns((equation,), data))
    return fit_glm(family, design.y, design.X, names=design.names, response=equation.name)


def regression(family: str) -> list[Check]:
    """Coefficients, relative to their standard errors, and every covariance, to the two standard errors."""
    stored, data = load_json("reference", "glm/framing"), load_data("framing")
    theirs, table = stored["fits"][family], f"{family} regression (R)"
    fit = _plain_fit(theirs["formula"], family, data)
    found = [relative(table, "log-likelihood", fit.loglik, theirs["logLik"], SAME_FIT)]
    size = np.sqrt(np.diag(theirs["vcov"]))
    for name, ours, other, error in zip(fit.names, fit.beta, theirs["coef"], size, strict=True):
        found.append(relative(table, name, float(ours), other, SAME_FIT, size=float(error)))
    codes = pd.factorize(data[stored["cluster"]])[0].astype(np.intp)
    versions = {"vcov": fit.vcov, **{kind: hc_vcov(fit, kind) for kind in HC_KINDS}}
    for kind, ours in {**versions, "cluster": cluster_vcov(fit, codes)}.items():
        other = np.array(theirs[kind])
        scaled = np.abs(ours - other) / np.sqrt(np.outer(np.diag(other), np.diag(other)))
        i, j = np.unravel_index(int(scaled.argmax()), scaled.shape)
        worst = float(scaled[i, j])
        found.append(Check(table, f"{kind}, worst entry", float(ours[i, j]), float(other[i, j]), worst, SAME_FIT))
    return found


# -- draws ----------------------------------------------------------------------------------------------------


def _quantile_error(draws: np.ndarray, p: float, n: int) -> float:
    """Standard error of a quantile of n draws, the density taken from 5% of ours around it."""
    low, high = np.quantile(draws, [max(p - 0.025, 0.002), min(p + 0.025, 0.998)])
    share = min(p + 0.025, 0.998) - max(p - 0.025, 0.002)
    return float(np.sqrt(p * (1.0 - p) / n) * (high - low) / share)


def _both(one: float, n_ours: int, n_theirs: int) -> float:
    """Standard error of a difference, from that of one run of one draw."""
    return one * float(np.sqrt(1.0 / n_ours + 1.0 / n_theirs))


def monte_carlo(table: str, quantity: str, ours: float, printed: str, error: float) -> Check:
    """Difference in standard errors, less what the printed digits leave open."""
    half = 0.5 * 10.0 ** -len(printed.partition(".")[2])
    gap = max(abs(ours - float(printed)) - half, 0.0)
    return Check(table, quantity, ours, float(printed), gap / error, STANDARD_ERRORS)


def row_checks(table: str, row: dict[str, Any], draws: np.ndarray, n: int, *, ratio: bool) -> list[Check]:
    """Estimate, interval and p value of one printed row against draws of ours."""
    term, m = row["term"], len(draws)
    spread = _quantile_error(draws, 0.5, 1) if ratio else float(draws.std())
    centre = float(np.median(draws) if ratio else draws.mean())
    found = [monte_carlo(table, f"{term}: estimate", centre, row["estimate"], _both(spread, m, n))]
    for name, p in (("conf_low", 0.025), ("conf_high", 0.975)):
        if name in row:
            error = _both(_quantile_error(draws, p, 1), m, n)
            found.append(monte_carlo(table, f"{term}: {name}", float(np.quantile(draws, p)), row[name], error))
    p_value = row.get("p_value", "<")
    if not p_value.startswith("<"):
        share = min((draws > 0.0).mean(), (draws < 0.0).mean())
        error = _both(2.0 * float(np.sqrt(share * (1.0 - share))), m, n)
        found.append(monte_carlo(table, f"{term}: p", 2.0 * float(share), p_value, error))
    return found


@cache
def framing_fit(interaction: bool = False) -> CausalEffects:
    """The page's model."""
    formula = OUTCOME.format("*" if interaction else "+")
    return causal(MEDIATOR, formula, load_data("framing"), treatment="treat", family_y="probit", robust="HC3")


def draws_of(fit: CausalEffects, *, n: int = DRAWS, seed: int = 1, **question: Any) -> dict[str, np.ndarray]:
    """Draws of every effect."""
    return all_effects(draw_effects(fit.prepared(fit.question(None, None, **question)), n=n, seed=seed))


def _table_checks(name: str, rows: list[dict[str, Any]], draws: dict[str, np.ndarray], n: int) -> list[Check]:
    found: list[Check] = []
    for row in rows:
        term = TERMS[row["term"]]
        found += row_checks(name, row, draws[term], n, ratio=term in RATIOS)
    return found


def framing() -> list[Check]:
    """The page's model without an interaction, and the same with more draws."""
    page = load_json("published", "framing")
    draws, longer = draws_of(framing_fit()), page["longer_run"]
    printed, n = page["mediate"]["plain"], int(page["mediate"]["plain"]["simulations"])
    return [
        *_table_checks("mediation: framing, 50,000 draws", longer["plain"], draws, int(longer["simulations"])),
        *_table_checks("mediation: framing, 1,000 draws", printed["rows"], draws, n),
    ]


def interaction() -> list[Check]:
    """With an interaction, and the test of it."""
    page = load_json("published", "framing")
    draws, printed = draws_of(framing_fit(True)), page["mediate"]["interaction"]
    name, n = "mediation: framing, interaction", int(printed["simulations"])
    again = page["longer_run"]["interaction"]
    difference = draws["acme_treated"] - draws["acme_control"]
    return [
        *_table_checks(name, printed["rows"], draws, n),
        *_table_checks(f"{name}, again", again, draws, n),
        *row_checks(name, page["test_interaction"], difference, n, ratio=False),
    ]


def yuan() -> list[Check]:
    """Two mixed models, random effects drawn as ``mediation`` does."""
    page, data = load_json("published", "yuan_mackinnon"), load_data("yuan_mackinnon_sim")
    fit = causal("Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)", data)
    draws = draws_of(fit, n=20_000, ranef_draws="independent")
    found: list[Check] = []
    for key in ("mediation_package", "mediation_package_again"):
        printed = page[key]
        name = "mediation: yuan_mackinnon_sim" + (", again" if key.endswith("again") else "")
        found += _table_checks(name, printed["rows"], draws, int(printed["simulations"]))
    return found
