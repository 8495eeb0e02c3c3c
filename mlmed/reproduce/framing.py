"""``framing``: R ``mediation`` on the framing experiment: effects, test of the interaction, sensitivity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd

from mlmed import datasets
from mlmed.api.causal import causal
from mlmed.reproduce.montecarlo import drawn_errors, drawn_pairs
from mlmed.reproduce.pairs import Pair, by_term
from mlmed.reproduce.sources import published
from mlmed.reproduce.tables import Compared, Reproduction
from mlmed.results.causal.results import CausalResults

__all__ = ["framing"]

#: R's names of the effects, and ours.
TERMS = {
    "ACME (control)": "acme_control",
    "ACME (treated)": "acme_treated",
    "ADE (control)": "ade_control",
    "ADE (treated)": "ade_treated",
    "Total Effect": "total",
    "Prop. Mediated (control)": "prop_mediated_control",
    "Prop. Mediated (treated)": "prop_mediated_treated",
    "ACME (average)": "acme",
    "ADE (average)": "ade",
    "Prop. Mediated (average)": "prop_mediated",
    "ACME(1) - ACME(0)": "acme_treated - acme_control",
}
#: Our draws and their seed; draws that Monte Carlo errors are estimated from; draws of the sensitivity analysis.
DRAWS, SEED, ERROR_DRAWS, SENSITIVITY_DRAWS = 20_000, 20250828, 5_000, 1_000
At = Callable[[float, int], pd.DataFrame]


def framing() -> Reproduction:
    """Anxiety between the framing of a story and writing to Congress."""
    asked, data = published("framing"), datasets.load("framing")

    def fit(outcome: str) -> CausalResults:
        return causal(
            asked["mediator_formula"],
            outcome,
            data,
            treatment=asked["treatment"],
            family_y=asked["outcome_family"],
            vcov=asked["robust"],
        )

    plain, crossed = (fit(asked["mediate"][name]["formula"]) for name in ("plain", "interaction"))
    return Reproduction(
        "framing",
        "R mediation: effects, test of the interaction, sensitivity",
        asked["source"],
        (
            *_effects(plain, asked, "plain"),
            *_effects(crossed, asked, "interaction"),
            *_interaction(crossed, asked),
            Compared("medsens: where the interval of ACME contains zero", tuple(_sensitivity(plain, asked))),
            Compared("medsens: where ACME is zero", tuple(_zero(plain, asked))),
            Compared("Product method of the page: a*b of the printed coefficients", (_product(),)),
        ),
        _notes(plain),
    )


def _effects(fit: CausalResults, asked: dict[str, Any], name: str) -> Iterator[Compared]:
    """R's 1,000 draws of the page, and the longer run."""

    def table_at(level: float, n: int) -> pd.DataFrame:
        return fit.effects("monte-carlo", n=n, seed=SEED, level=level)

    rows = asked["mediate"][name]["rows"], asked["longer_run"][name]
    yield from _runs(table_at, rows, f"mediate, {name}", int(asked["longer_run"]["simulations"]))


def _interaction(fit: CausalResults, asked: dict[str, Any]) -> Iterator[Compared]:
    def table_at(level: float, n: int) -> pd.DataFrame:
        return fit.test_interaction(n, seed=SEED, level=level)

    rows = [asked["test_interaction"]], [asked["longer_run"]["test_interaction"]]
    yield from _runs(table_at, rows, "test.TMint", int(asked["longer_run"]["simulations"]))


def _runs(table_at: At, rows: tuple[list[dict[str, str]], ...], what: str, longer: int) -> Iterator[Compared]:
    """A table for each of R's two runs."""
    ours = table_at(0.95, DRAWS)
    errors = drawn_errors(lambda level: table_at(level, ERROR_DRAWS), ours)
    for printed, n in zip(rows, (1000, longer), strict=True):
        pairs = drawn_pairs(printed, ours, errors, TERMS, by="R", draws=(n, DRAWS))
        yield Compared(f"{what}: R with {n:,} draws", tuple(pairs))


def _sensitivity(fit: CausalResults, asked: dict[str, Any]) -> Iterator[Pair]:
    """R's regions, by R's formula and by ours."""
    facts = asked["sensitivity"]
    rhos = [float(row["rho"]) for row in facts["control"]["rows"]]

    def table_at(level: float) -> pd.DataFrame:
        found = fit.sensitivity(rhos, n=SENSITIVITY_DRAWS, seed=SEED, level=level, formula="medsens")
        return _named(found.table)

    ours = table_at(0.95)
    errors = drawn_errors(table_at, ours)
    exact = by_term(_named(fit.sensitivity(rhos).table))
    for group in ("control", "treated"):
        for row in facts[group]["rows"]:
            term = f"{group}, rho {row['rho']}"
            draws = (int(facts["simulations"]), SENSITIVITY_DRAWS)
            printed = [{**row, "term": term}]
            yield from drawn_pairs(printed, ours, errors, {term: term}, by="R", ours_by="medsens", draws=draws)
            for quantity, key in (("", "estimate"), ("low", "conf_low"), ("high", "conf_high")):
                yield Pair(term, quantity, ours_by="exact", ours=exact[term][key])
            for quantity, key in (("R2*", "r2_star"), ("R2~", "r2_tilde")):
                own = exact[term][{"r2_star": "R2_star", "r2_tilde": "R2_tilde"}[key]]
                yield Pair(term, quantity, "R", row[key], "ours", own)


def _named(table: pd.DataFrame) -> pd.DataFrame:
    """Terms that say the correlation, ``control, rho 0.3``."""
    groups = {"acme_control": "control", "acme_treated": "treated", "acme": ""}
    pairs = zip(table["term"], table["rho"], strict=True)
    return table.assign(term=[f"{groups[term]}, rho {rho:g}" for term, rho in pairs])


def _zero(fit: CausalResults, asked: dict[str, Any]) -> Iterator[Pair]:
    """R prints the nearest point of its grid; the curve is zero elsewhere."""
    facts = asked["sensitivity"]
    step = float(facts["rho_by"])
    medsens = by_term(fit.sensitivity(step, n=SENSITIVITY_DRAWS, seed=SEED, formula="medsens").zero)
    exact = by_term(fit.sensitivity(step).zero)
    for group in ("control", "treated"):
        own, ours = medsens[f"acme_{group}"], exact[f"acme_{group}"]
        for what, key, name in (("rho", "rho", "rho"), ("R2*", "r2_star", "R2_star"), ("R2~", "r2_tilde", "R2_tilde")):
            term = f"{group}: {what}"
            yield Pair(f"{term} on the grid", "", "R", facts[group]["zero"][key], "medsens", own[f"{name}_on_grid"])
            yield Pair(f"{term} of the curve", "", ours_by="medsens", ours=own[name])
            yield Pair(f"{term} on the grid", "", ours_by="exact", ours=ours[f"{name}_on_grid"])
            yield Pair(f"{term} of the curve", "", ours_by="exact", ours=ours[name])


def _product() -> Pair:
    """The product of the printed coefficients; the simulated data cannot be had."""
    facts = published("product_method")["partial_mediation"]
    a = float(facts["mediator"]["coefficients"][1]["estimate"])
    b = float(facts["outcome"]["coefficients"][2]["estimate"])
    return Pair("X -> M -> Y", "", "R", facts["indirect"], "a*b of five digits", a * b)


def _notes(plain: CausalResults) -> tuple[str, ...]:
    exact, drawn = by_term(plain.effects()), by_term(plain.effects("monte-carlo", n=DRAWS, seed=SEED))
    return (
        f"R draws coefficients from their normal distribution; ours are {DRAWS:,} draws with seed {SEED}. Differences "
        "in MC errors are those beyond the rounding of what was printed, over the Monte Carlo standard error of the "
        "difference of the two runs: sd / sqrt(draws) for means, order statistics for medians (shares) and ends of "
        "intervals. Up to four of them are chance.",
        "The runs with 50,000 draws are not on the page; they are the same calls, known to the digits given.",
        "The mean of the draws is not the effect at the estimates: ACME (control) is "
        f"{exact['acme_control']['estimate']:.4f} there and {drawn['acme_control']['estimate']:.4f} as a mean of "
        "draws, because a probability bends in the coefficients.",
        "The total effect is 1.4 standard errors from zero, so shares of it have intervals that say nothing.",
        f"medsens: the column of that name is R's computation (formula='medsens', {SENSITIVITY_DRAWS:,} draws). It "
        "shrinks the coefficient of the mediator already at rho = 0; exact is maximum likelihood at each rho, and its "
        "curve reaches zero later. R prints the point of its grid with the smallest effect, not the zero of the curve.",
        "The data of the page's product method were simulated without a seed and cannot be made again.",
    )
