"""Fits of one equation against the printed output of ``lmer`` and ``brm``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlmed.reproduce.pairs import Pair, by_term, mean_error
from mlmed.results.results import MixedResults

__all__ = ["brms_pairs", "lmer_name", "lmer_pairs", "scaled_residuals"]

#: (quantity, key) of the columns that brms prints.
BRMS = (("", "estimate"), ("SE", "est_error"), ("low", "conf_low"), ("high", "conf_high"))
OURS = {"estimate": "estimate", "est_error": "std_error", "conf_low": "conf_low", "conf_high": "conf_high"}


def lmer_name(name: str) -> str:
    """R's name of a coefficient."""
    return "(Intercept)" if name == "Intercept" else name


def lmer_pairs(
    fit: MixedResults, asked: Mapping[str, Any], data: pd.DataFrame, *, ours_by: str = "ours"
) -> Iterator[Pair]:
    """Every number of a printed ``summary`` of ``lmer``."""

    def pair(term: str, printed: str, ours: float, quantity: str = "") -> Pair:
        return Pair(term, quantity, "lme4", printed, ours_by, float(ours))

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


def _random(fit: MixedResults, asked: list[dict[str, Any]], pair: Any) -> Iterator[Pair]:
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


def scaled_residuals(fit: MixedResults, data: pd.DataFrame) -> np.ndarray:
    """Residuals of the conditional fit over the residual standard deviation, (nobs,)."""
    response = fit.fitted.layout.equations[0].name
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
