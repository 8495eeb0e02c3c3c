"""Separate equations: against lme4 and lm on the student data, and known numbers of two simulated data sets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

import mlmed
from mlmed.api.piecewise import piecewise
from mlmed.errors import BoundaryWarning, FamilyWarning, LevelWarning
from mlmed.fit.glm import PlainFit
from mlmed.intervals.product_normal import product_normal
from mlmed.results.results import Results
from validation.checks import (
    AT_THEIRS,
    ESTIMATES,
    NEVER_WORSE,
    SHORT,
    Check,
    absolute,
    load_data,
    load_json,
    printed,
    relative,
)

__all__ = ["STUDENT", "known", "model_names", "piecewise_checks", "product", "student"]

STUDENT = ("student_211", "student_221")
#: lm is exact up to rounding.
EXACT = 1e-10
#: One likelihood, fitted as one model and as two.
SAME_OPTIMUM = 1e-7


def model_names(name: str) -> list[str]:
    """Names of the models of one file."""
    return [model["name"] for model in load_json("reference", f"piecewise/{name}")["models"]]


def student(name: str, which: str) -> Iterator[Check]:
    """The three equations of one model, and the effects computed from lme4's numbers."""
    models = load_json("reference", f"piecewise/{name}")["models"]
    model = next(model for model in models if model["name"] == which)
    first, second, third = (model[part] for part in ("mediator", "outcome", "reduced"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        warnings.simplefilter("ignore", FamilyWarning)
        warnings.simplefilter("ignore", LevelWarning)
        fit = piecewise(
            first["formula"],
            second["formula"],
            load_data("student"),
            treatment=model["treatment"],
            total=third["formula"],
            method=second["method"].lower(),
        )
    table = f"{name} {which}"
    yield from _equation(f"{table}, mediator", fit.mediator, first)
    yield from _equation(f"{table}, outcome", fit.outcome, second)
    yield from _equation(f"{table}, without", fit.reduced, third)
    yield from _effects(f"{table}, effects", fit, model)


def _equation(table: str, fit: Any, reference: dict[str, Any]) -> Iterator[Check]:
    ols = isinstance(fit.fit, PlainFit)
    bound = EXACT if ols else ESTIMATES
    yield absolute(table, "rows", float(fit.nobs), float(reference["n_obs"]), 0.0)
    if ols:
        yield relative(table, "log-likelihood", fit.llf, reference["logLik"], EXACT)
        yield relative(table, "residual variance", float(fit.sigma2.iloc[0]), reference["sigma2"], EXACT)
    else:
        yield from _likelihood(table, fit, reference)
    errors = np.array(list(reference["se"].values()))
    for term, ours, theirs, error in zip(
        fit.params.index, fit.params, reference["fixef"].values(), errors, strict=True
    ):
        yield relative(table, term, float(ours), float(theirs), bound, max(abs(theirs), float(error)))
    matrices = {"block": reference["vcov"], **reference.get("robust", {})}
    for kind, theirs in matrices.items():
        V = fit.vcov(kind, which="fixed")
        gap = np.abs(V.to_numpy() - np.array(theirs)) / np.outer(errors, errors)
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        yield Check(table, f"vcov {kind}, worst entry", V.iloc[i, j], theirs[i][j], float(gap.max()), bound)


def _likelihood(table: str, fit: Any, reference: dict[str, Any]) -> Iterator[Check]:
    rows = reference["varcorr"]
    names = list(dict.fromkeys(row["var1"] for row in rows if row["grp"] != "Residual"))
    G = np.zeros((len(names), len(names)))
    for row in rows:
        if row["grp"] != "Residual":
            i, j = names.index(row["var1"]), names.index(row.get("var2") or row["var1"])
            G[i, j] = G[j, i] = row["vcov"]
    sigma2 = next(row["vcov"] for row in rows if row["grp"] == "Residual")
    theirs = reference["logLik"]
    yield relative(table, "our criterion at their parameters", fit.loglik_at(G, [sigma2]), theirs, AT_THEIRS)
    yield Check(table, "log-likelihood short of theirs", fit.llf, theirs, theirs - fit.llf, NEVER_WORSE)
    for i, name in enumerate(names):
        for j in range(i + 1):
            size = float(np.sqrt(G[i, i] * G[j, j]))
            yield relative(table, f"G[{name},{names[j]}]", fit.G.iloc[i, j], G[i, j], ESTIMATES, size)
    yield relative(table, "sigma2", float(fit.sigma2.iloc[0]), sigma2, ESTIMATES)


def _effects(table: str, fit: Results, model: dict[str, Any]) -> Iterator[Check]:
    x, m = model["treatment"], fit.fit.prefixes[0]
    first, second, third = (model[part] for part in ("mediator", "outcome", "reduced"))
    a, b, cprime, c = first["fixef"][x], second["fixef"][m], second["fixef"][x], third["fixef"][x]
    Va, Vb = first["se"][x] ** 2, second["se"][m] ** 2
    ours = fit.effects().set_index("term")["estimate"]
    size = abs(a * b) + abs(cprime)
    theirs = {"a": a, "b": b, "cprime": cprime, "c": c, "indirect": a * b, "total": a * b + cprime}
    for term, value in {**theirs, "c_minus_cprime": c - cprime}.items():
        yield relative(table, term, float(ours[term]), value, ESTIMATES, max(abs(value), size))
    sobel = fit.sobel().set_index("term")["std_error"]
    variance = a**2 * Vb + b**2 * Va
    for test, sign in (("sobel", 0.0), ("aroian", 1.0), ("goodman", -1.0)):
        value = float(np.sqrt(variance + sign * Va * Vb))
        yield relative(table, f"standard error, {test}", float(sobel[test]), value, 10.0 * ESTIMATES)


def known() -> Iterator[Check]:
    """Printed and stated numbers of the two simulated data sets; the joint fit with uncorrelated equations."""
    printed_fits = load_json("published", "yuan_mackinnon")["lmer"]
    yuan = piecewise(printed_fits["med"]["formula"], printed_fits["main"]["formula"], load_data("yuan_mackinnon_sim"))
    table, effects = "yuan-mackinnon piecewise", yuan.effects().set_index("term")
    for part, fit in (("med", yuan.mediator), ("main", yuan.outcome)):
        rows = {row["term"].replace("(Intercept)", "Intercept"): row for row in printed_fits[part]["fixed_effects"]}
        for term, row in rows.items():
            yield printed(table, f"{part} {term}", float(fit.params[term]), row["estimate"], short=SHORT)  # type: ignore[union-attr]
    yield printed(table, "naive indirect", float(effects.loc["indirect", "estimate"]), "-0.0341")
    sim = load_data("ml_sim")
    slopes = piecewise("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", sim, method="ml")
    indirect = float(slopes.effects().set_index("term").loc["indirect", "estimate"])
    yield absolute("ml_sim piecewise", "a b, random slopes, ML", indirect, 0.6114761 * 0.6252951, 2e-6)
    joint = slopes.joint().effects().set_index("term")["estimate"]
    yield printed("ml_sim piecewise", "joint indirect, ML", float(joint["indirect"]), "0.4718")
    plain = piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", sim)
    a_b = float(plain.effects().set_index("term").loc["indirect", "estimate"])
    yield printed("ml_sim piecewise", "a b, random intercepts", a_b, "0.4326")
    yield from _apart()


def _apart() -> Iterator[Check]:
    """A joint fit with different labels per equation: its likelihood is the sum of the separate ones."""
    data = load_data("ml_sim")
    for method in ("reml", "ml"):
        both = mlmed.mediate("m ~ x + (1 + x |i| id)", "y ~ m + x + (1 + m + x |j| id)", data, method=method)
        apart = piecewise("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data, method=method)
        table, total = f"joint without what joins, {method}", apart.mediator.llf + apart.outcome.llf
        yield absolute(table, "log-likelihood", both.llf, total, SAME_OPTIMUM)
        one, two = (fit.effects().set_index("term")["estimate"] for fit in (both, apart))
        for term in ("a", "b", "cprime", "indirect", "total"):
            yield absolute(table, term, float(one[term]), float(two[term]), SAME_OPTIMUM)


def product() -> Iterator[Check]:
    """The distribution of a product: RMediation's example, and MacKinnon's critical value."""
    found = product_normal([0.5, 0.6], [[0.08**2, 0.0], [0.0, 0.04**2]])
    low, high = found.interval(0.95)
    for quantity, ours, theirs in (("low", low, "0.201"), ("high", high, "0.405"), ("SE", found.sd, "0.0521")):
        yield printed("product of two normals", f"a .5 (.08), b .6 (.04): {quantity}", ours, theirs)
    critical = product_normal([0.0, 0.0], np.eye(2)).quantile(0.975)
    yield printed("product of two normals", "97.5th percentile, means 0", critical, "2.18")


def piecewise_checks() -> Iterator[Check]:
    """All checks of separate equations."""
    for name in STUDENT:
        for which in model_names(name):
            yield from student(name, which)
    yield from known()
    yield from product()
