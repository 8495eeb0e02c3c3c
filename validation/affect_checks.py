"""Daily affect of 193 people: reference fits of lme4 and nlme, and the page's posterior means.

Posterior means are not likelihood estimates, so the tolerance is in published posterior standard deviations. The page's
m5 did not converge and is not compared; only our certificate is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

import mlmed
from mlmed.reproduce.pairs import half_unit
from mlmed.reproduce.tables import published
from mlmed.results.results import Results
from validation.checks import AT_THEIRS, ESTIMATES, NEVER_WORSE, Check, absolute, load_data, load_json, relative
from validation.comparison_checks import numbers

__all__ = ["PARTS", "affect_checks", "certificate", "fit_affect", "posterior_means", "reference_fit"]

#: Largest distance of our estimate from a posterior mean, in published posterior standard deviations.
POSTERIOR_SDS = {"affect-m1": 1.0, "affect-m2": 1.0, "affect-m3": 1.0, "affect-m4": 0.5}
#: Reference fits by model.
REFERENCES = {"m1": "williams_m1_lme4", "m2": "williams_m2_nlme", "m3": "williams_m3_nlme"}
#: Against nlme after Newton steps on the same criterion with numerical derivatives, absolute.
SAME_OPTIMUM = 1e-6
#: Change when the nodes of the quadrature are doubled, absolute.
NODES = 1e-4


@cache
def fit_affect(model: str) -> Results:
    """One of m1, m2, m3 by REML."""
    asked = published("williams")[model]
    formula, residual = asked.get("formulas", asked.get("formula")), asked.get("residual", "diagonal")
    return mlmed.mixed(formula, load_data("williams"), method="reml", residual=residual)


def reference_fit(model: str) -> Iterator[Check]:
    """Log-likelihood, fixed effects with errors, covariances of random effects and residuals.

    nlme stops short by up to 1e-5, so estimates are compared after further Newton steps.
    """
    table, theirs, fit = f"affect-{model}, reference", load_json("reference", REFERENCES[model]), fit_affect(model)
    short = theirs["logLik"] - fit.llf
    yield Check(table, "log-likelihood short of theirs", fit.llf, theirs["logLik"], short, NEVER_WORSE)
    i, j = fit.fit.estimates.sigma_at.T
    at = fit.loglik_at(np.array(theirs["G"]), np.array(theirs["Sigma"])[i, j])
    yield relative(table, "our criterion at their parameters", at, theirs["logLik"], AT_THEIRS)
    if model == "m1":
        theirs = {**theirs, **{key: list(theirs[key].values()) for key in ("fixef", "se")}}
    else:
        theirs = theirs["tightened"]
    yield absolute(table, "log-likelihood", fit.llf, theirs["logLik"], SAME_OPTIMUM)
    for name, ours, other, error in zip(fit.params.index, fit.params, theirs["fixef"], theirs["se"], strict=True):
        yield relative(table, str(name), float(ours), other, ESTIMATES, size=error)
        yield relative(table, f"SE {name}", float(fit.bse[name]), error, ESTIMATES)
    yield from _covariances(table, "G", fit.G.to_numpy(), np.array(theirs["G"]), list(fit.G.index))
    responses = [equation.name for equation in fit.fit.layout.equations]
    yield from _covariances(table, "Sigma", fit.fit.estimates.Sigma, np.array(theirs["Sigma"]), responses)


def _covariances(table: str, name: str, ours: np.ndarray, theirs: np.ndarray, labels: list[str]) -> Iterator[Check]:
    """Covariances, relative to the product of the two standard deviations, because they can be zero."""
    sd = np.sqrt(np.diag(theirs))
    for i, first in enumerate(labels):
        for j, second in enumerate(labels[: i + 1]):
            size = float(sd[i] * sd[j])
            yield relative(table, f"{name}[{first},{second}]", float(ours[i, j]), theirs[i, j], ESTIMATES, size)


def posterior_means(example: str) -> Iterator[Check]:
    """Every posterior mean on the page; if its sd was printed as 0.00, to half a unit of the last digit."""
    rows = numbers(example, "brms")
    rows = rows[(rows["quantity"] == "estimate") & rows["posterior_sd"].notna()]
    table = f"{example}, posterior means"
    assert len(rows), f"no rows for {table}"
    for row in rows.itertuples():
        bound = max(POSTERIOR_SDS[example] * row.posterior_sd, half_unit(row.printed))
        yield Check(table, row.term, row.ours, row.published, abs(row.difference), bound)


def certificate() -> Iterator[Check]:
    """Our certificate for m5, whose published chains did not mix."""
    table, asked = "affect-m5, our own certificate (the page did not converge)", published("williams")["m5"]
    fit = mlmed.location_scale(asked["location"], asked["scale"], load_data("williams"))
    row = fit.glance().iloc[0]
    yield absolute(table, "certified", float(row["converged"]), 1.0, 0.0)
    change = float(row["node_change"])
    yield Check(table, "twice the nodes", fit.llf + change, fit.llf, abs(change), NODES)


#: The checks: function and its argument.
PARTS = (
    *((reference_fit, model) for model in REFERENCES),
    *((posterior_means, example) for example in POSTERIOR_SDS),
)


def affect_checks() -> Iterator[Check]:
    """All checks of the data set ``williams``."""
    for part, argument in PARTS:
        yield from part(argument)
    yield from certificate()
