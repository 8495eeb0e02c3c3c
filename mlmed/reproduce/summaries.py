"""Our fits beside printed summaries of ``lmer`` and ``brm``: names, sds, correlations, distances in posterior sds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlmed.names import labelled
from mlmed.reproduce.pairs import Pair, by_term, mean_error
from mlmed.results.results import Results

#: (quantity, key) of the columns that brms prints.
BRMS = (("", "estimate"), ("SE", "est_error"), ("low", "conf_low"), ("high", "conf_high"))
OURS = {"estimate": "estimate", "est_error": "std_error", "conf_low": "conf_low", "conf_high": "conf_high"}
NAN = float("nan")
#: Blocks of a printed summary, in the order of the page.
BLOCKS = ("multilevel", "regression", "distributional", "residual_correlations")
#: (quantity, key) of what brms prints about its chains.
CHAINS = (("R-hat", "Rhat"), ("ESS", "bulk_ess"))


def lmer_name(name: str) -> str:
    """R's name of a coefficient."""
    return "(Intercept)" if name == "Intercept" else name


def lmer_pairs(fit: Results, asked: Mapping[str, Any], data: pd.DataFrame) -> Iterator[Pair]:
    """Every number of a printed ``summary`` of ``lmer``."""

    def pair(term: str, printed: str, ours: float, quantity: str = "") -> Pair:
        return Pair(term, quantity, "lme4", printed, "ours", float(ours))

    fixed = {lmer_name(name): row for name, row in by_term(fit.fixef()).items()}
    for row in asked["fixed_effects"]:
        own = fixed[row["term"]]
        yield pair(row["term"], row["estimate"], own["estimate"])
        yield pair(row["term"], row["std_error"], own["std_error"], "SE")
        yield pair(row["term"], row["t"], own["statistic"], "t")
    yield from _random(fit, asked["random_effects"], pair)
    V = fit.vcov(which="fixed").rename(index=lmer_name, columns=lmer_name)
    for left, others in asked.get("correlation_of_fixed_effects", {}).items():
        for right, printed in others.items():
            ours = V.loc[left, right] / np.sqrt(V.loc[left, left] * V.loc[right, right])
            yield pair(f"corr of estimates {right}, {left}", printed, ours)
    yield pair("REML criterion", asked["reml_criterion"], fit.reml_criterion)
    quantiles = np.quantile(scaled_residuals(fit, data), [0.0, 0.25, 0.5, 0.75, 1.0])
    for name, ours in zip(("min", "1q", "median", "3q", "max"), quantiles, strict=True):
        yield pair(f"scaled residuals, {name}", asked["scaled_residuals"][name], ours)


def _random(fit: Results, asked: list[dict[str, Any]], pair: Any) -> Iterator[Pair]:
    """Variances, standard deviations and correlations of the random effects."""
    names, G = [lmer_name(name) for name in fit.G.index], fit.G.to_numpy()
    sd, sigma2 = np.sqrt(np.diag(G)), float(fit.sigma2.iloc[0])
    for row in asked:
        residual = row["group"] == "Residual"
        k = None if residual else names.index(row["name"])
        name = "Residual" if k is None else row["name"]
        yield pair(f"var {name}", row["variance"], sigma2 if k is None else G[k, k])
        yield pair(f"sd {name}", row["std_dev"], np.sqrt(sigma2) if k is None else sd[k])
        for j, printed in enumerate(row.get("corr", [])):
            yield pair(f"corr {names[j]}, {name}", printed, G[k, j] / (sd[k] * sd[j]))


def scaled_residuals(fit: Results, data: pd.DataFrame) -> np.ndarray:
    """Residuals of the conditional fit over the residual standard deviation, (nobs,)."""
    response = fit.fit.layout.equations[0].name
    residuals = data[response] - np.asarray(fit.predict(data, of="cluster"))
    return np.asarray(residuals / np.sqrt(fit.sigma2.iloc[0]), dtype=np.float64)


def brms_pairs(rows: list[dict[str, str]], ours: pd.DataFrame, *, ours_by: str = "ours") -> Iterator[Pair]:
    """Rows of a ``brms`` summary against a tidy table of ours with the same terms.

    The Monte Carlo standard error of a posterior mean is est_error / sqrt(bulk_ess).
    """
    own = by_term(ours)
    for row in rows:
        found = own[row["term"]]
        error = mean_error(float(row["est_error"]), float(row["bulk_ess"]))
        for quantity, key in BRMS:
            mc_error = error if not quantity else float("nan")
            yield Pair(row["term"], quantity, "brms", row[key], ours_by, found[OURS[key]], mc_error)


def our_term(term: str, responses: Mapping[str, str]) -> str:
    """Our name of brms' ``term``.

    Parameters
    ----------
    term : str
        As printed.
    responses : mapping
        brms' name of a response to ours, ``""`` for a model with one. Empty for a location-scale model, in which
        ``sigma_`` marks terms of the scale.

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


def sd_cor(fit: Results) -> pd.DataFrame:
    """Fixed effects, then sds and correlations of random effects and residuals: term, estimate, std_error, ends."""
    return pd.concat([fit.fixef(), fit.sdcor().drop(columns="group")], ignore_index=True)


def posterior_pairs(rows: list[dict[str, str]], ours: pd.DataFrame) -> Iterator[Pair]:
    """Rows of a ``brms`` summary against a tidy table of ours with the same terms, in posterior standard deviations.

    Parameters
    ----------
    rows : list
        Printed rows, from `printed_rows`.
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
    """Our numbers alone, to more digits than the printed ones."""
    own = by_term(ours)
    for term in terms:
        yield from (Pair(term, quantity, ours_by="ours", ours=own[term][OURS[key]]) for quantity, key in BRMS)


def detailed_pairs(
    details: list[dict[str, str]], rows: list[dict[str, str]], ours: pd.DataFrame, responses: Mapping[str, str]
) -> Iterator[Pair]:
    """Quantities that the page prints again, to more digits and without a posterior sd."""
    own, errors = by_term(ours), {row["term"]: float(row["est_error"]) for row in rows}
    for row in details:
        term = our_term(row["term"], responses)
        yield Pair(term, "", "brms", row["value"], "ours", own[term]["estimate"], posterior_sd=errors[term])
        for quantity, key in (("low", "conf_low"), ("high", "conf_high")):
            yield Pair(term, quantity, "brms", row[key], "ours", own[term][key])
