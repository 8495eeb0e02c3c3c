"""Data centred within clusters: BLch9 of the R package bmlm against the Mplus fit printed on its page."""

from __future__ import annotations

import warnings

import mlmed
from validation.checks import Check, absolute, load_data

FORMULAS = "m ~ x + time + (1 + x | id)", "y ~ m + x + time + (1 + m + x | id)"
#: Printed by Mplus: estimates and (joint) standard errors.
EFFECTS = {
    "a": (".190", ".035"), "b": (".149", ".029"), "cprime": (".105", ".024"), "total": (".164", ".027"),
    "indirect": (".059", ".014"), "cov_ab": (".031", ".011"),
}  # fmt: skip
VARIANCES = {
    "var(m~x)": ".067", "var(y~m)": ".046", "var(y~x)": ".008", "var(m~Residual)": "1.187", "var(y~Residual)": ".855",
}  # fmt: skip
#: One unit of the last digit: the optimum is singular, and Mplus does not keep the covariance of the slopes positive
#: semidefinite.
UNIT = 1.001e-3


def centred_checks() -> list[Check]:
    """Effects and standard errors; we drop the random intercepts, and Mplus had none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mlmed.errors.MlmedWarning)
        fit = mlmed.mediate(*FORMULAS, load_data("blch9"), method="ml", treatment="x")
    table, effects = "blch9, Mplus", fit.effects(vcov="joint").set_index("term")
    checks = []
    for term, printed in EFFECTS.items():
        for column, number in zip(("estimate", "std_error"), printed, strict=True):
            checks.append(absolute(table, f"{column} {term}", float(effects.loc[term, column]), number, UNIT))
    variances = fit.varcorr().set_index("term")["estimate"]
    return [
        *checks,
        *(absolute(table, name, float(variances[name]), number, UNIT) for name, number in VARIANCES.items()),
    ]
