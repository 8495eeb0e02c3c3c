"""Posterior means of ``brms`` beside likelihood estimates: names, sds and correlations, distances in posterior sds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from mlmed.names import labelled
from mlmed.reproduce.lme4 import BRMS, OURS
from mlmed.reproduce.pairs import Pair, by_term
from mlmed.results.results import MixedResults

__all__ = ["detailed_pairs", "our_term", "own_pairs", "posterior_pairs", "printed_rows", "sd_cor", "side_by_side"]

NAN = float("nan")
#: Blocks of a printed summary, in the order of the page.
BLOCKS = ("multilevel", "regression", "distributional", "residual_correlations")
#: (quantity, key) of what brms prints about its chains.
CHAINS = (("R-hat", "Rhat"), ("ESS", "bulk_ess"))


def our_term(term: str, responses: Mapping[str, str]) -> str:
    """Our name of what brms calls ``term``.

    Parameters
    ----------
    term : str
        As printed.
    responses : mapping
        brms' name of a response to ours, ``""`` where the model has only one. Empty for a location-scale model, in
        which ``sigma_`` marks what belongs to the scale.

    Examples
    --------
    >>> two = {"NAstd": "NA.std", "PAstd": "PA.std"}
    >>> [our_term(term, two) for term in ("sd(NAstd_NA_lag)", "sigma_PAstd", "rescor(NAstd,PAstd)")]
    ['sd(NA.std~NA_lag)', 'sd(PA.std~Residual)', 'cor(NA.std~Residual,PA.std~Residual)']
    >>> our_term("cor(Intercept,sigma_Intercept)", {})
    'cor(Intercept,sigma~Intercept)'
    """
    if not responses:
        return re.sub(r"\bsigma_", labelled("sigma", ""), term)
    term = re.sub(r"^sigma_(\w+)$", r"sd(\1_Residual)", term)
    term = re.sub(r"^rescor\((\w+),(\w+)\)$", r"cor(\1_Residual,\2_Residual)", term)
    for theirs, ours in responses.items():
        term = re.sub(rf"\b{theirs}_", labelled(ours, ""), term)
    return term


def printed_rows(asked: Mapping[str, Any], responses: Mapping[str, str]) -> list[dict[str, str]]:
    """All rows of a printed summary, under our names."""
    rows = [row for block in BLOCKS for row in asked.get(block, [])]
    return [{**row, "term": our_term(row["term"], responses)} for row in rows]


def sd_cor(fit: MixedResults) -> pd.DataFrame:
    """Fixed effects, then sds and correlations of random effects and residuals: term, estimate, std_error, ends."""
    return pd.concat([fit.fixef(), fit.sdcor().drop(columns="group")], ignore_index=True)


def posterior_pairs(rows: list[dict[str, str]], ours: pd.DataFrame) -> Iterator[Pair]:
    """Rows of a ``brms`` summary against a tidy table of ours with the same terms, in posterior standard deviations.

    Parameters
    ----------
    rows : list
        What was printed, from `printed_rows`.
    ours : DataFrame
        Our table.
    """
    own = by_term(ours)
    for row in rows:
        term, sd = row["term"], float(row["est_error"])
        for quantity, key in BRMS:
            found, error = own[term][OURS[key]], NAN if quantity else sd
            yield Pair(term, quantity, "brms", row[key], "ours", found, posterior_sd=error)
        yield from (Pair(term, quantity, "brms", row[key]) for quantity, key in CHAINS)


def side_by_side(rows: list[dict[str, str]], ours: pd.DataFrame) -> Iterator[Pair]:
    """Rows of a ``brms`` summary beside ours, without differences: for chains that did not mix."""
    own = by_term(ours)
    for row in rows:
        yield from (Pair(row["term"], quantity, "brms", row[key]) for quantity, key in (*BRMS, *CHAINS))
        yield from (Pair(row["term"], q, ours_by="ours", ours=own[row["term"]][OURS[key]]) for q, key in BRMS)


def own_pairs(terms: Iterable[str], ours: pd.DataFrame) -> Iterator[Pair]:
    """Ours alone, with more digits than were printed beside them."""
    own = by_term(ours)
    for term in terms:
        yield from (Pair(term, quantity, ours_by="ours", ours=own[term][OURS[key]]) for quantity, key in BRMS)


def detailed_pairs(
    details: list[dict[str, str]], rows: list[dict[str, str]], ours: pd.DataFrame, responses: Mapping[str, str]
) -> Iterator[Pair]:
    """Quantities that the page prints a second time, with more digits and without a posterior sd."""
    own, errors = by_term(ours), {row["term"]: float(row["est_error"]) for row in rows}
    for row in details:
        term = our_term(row["term"], responses)
        yield Pair(term, "", "brms", row["value"], "ours", own[term]["estimate"], posterior_sd=errors[term])
        for quantity, key in (("low", "conf_low"), ("high", "conf_high")):
            yield Pair(term, quantity, "brms", row[key], "ours", own[term][key])
