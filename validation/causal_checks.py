"""Ordinary regressions against R's ``lm``, ``glm`` and ``sandwich``.

The tables of R's ``mediation`` are in ``comparison_checks``.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlmed.data.design import plain_design, read_columns
from mlmed.formula import parse_equation
from mlmed.glm.fit import GlmFit, cluster_vcov, fit_glm, hc_vcov
from mlmed.options import FAMILIES, HC_KINDS
from validation.checks import Check, load_data, load_json, relative

#: R iterates to a relative change of the deviance of 1e-15.
SAME_FIT = 1e-8


def causal_checks() -> list[Check]:
    return [check for family in FAMILIES for check in regression(family)]


def _plain_fit(formula: str, family: str, data: pd.DataFrame) -> GlmFit:
    equation = parse_equation(formula, data.columns)
    design = plain_design(equation, read_columns((equation,), data))
    return fit_glm(family, design.y, design.X, names=design.names, response=equation.name)


def regression(family: str) -> list[Check]:
    """Coefficients, relative to their standard errors, and covariances, relative to the two standard errors."""
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
