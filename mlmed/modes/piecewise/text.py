"""Separate fits as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from mlmed.modes.export import plain, records
from mlmed.modes.piecewise.cluster_ols import ClusterRegression
from mlmed.modes.piecewise.parts import Part
from mlmed.options import check_level
from mlmed.report.ml_mediation import MlMediation, render_ml_mediation
from mlmed.report.text import render_pairs, render_table

if TYPE_CHECKING:
    from mlmed.modes.piecewise import PiecewiseResults

__all__ = ["SCHEMA", "as_json", "native_text", "stata_text"]

#: Name and version of the JSON layout; a change of meaning changes the number.
SCHEMA = "mlmed.piecewise/1"
ROLES = {"treatment": "iv", "mediator": "mv", "outcome": "dv"}


def _formula(fit: Part) -> str:
    return fit.formula if isinstance(fit, ClusterRegression) else fit.fitted.spec.equations[0].text


def _how(fit: Part) -> str:
    """Engine, criterion and size of one fit, and what is unusual about it."""
    if isinstance(fit, ClusterRegression):
        return f"least squares on one row per cluster, {fit.nobs} clusters"
    words = (
        f"mixed model, {fit.method.upper()}, {fit.nobs} rows in {fit.n_clusters} clusters, log-likelihood {fit.llf:.5f}"
    )
    if fit.is_singular:
        words += ", boundary (singular) fit"
    return words if fit.converged else f"{words}, NOT CERTIFIED (see docs/convergence.md)"


def _left_out(fit: Part) -> list[str]:
    if isinstance(fit, ClusterRegression):
        return [fit.left_out] if fit.left_out else []
    return [str(dropped) for dropped in fit.fitted.layout.dropped]


def native_text(results: PiecewiseResults, *, vcov: str, level: float) -> str:
    """Equations, levels, coefficients, effects."""
    m, y = results.asked.mediator.name, results.asked.outcome.name
    title = f"Multilevel mediation, separate equations: {results.treatment} -> {m} -> {y}"
    fits = {"Mediator": results.mediator, "Outcome": results.outcome, "Path c": results.reduced}
    pairs = [("Design", f"{results.design} (levels of treatment, mediator, outcome; clusters: {results.group_name})")]
    for name, fit in fits.items():
        pairs += [(name, _formula(fit)), ("", _how(fit))]
    left_out = dict.fromkeys(text for fit in fits.values() for text in _left_out(fit))
    pairs += [("Left out", text) for text in left_out]
    lines = [title, "=" * len(title), render_pairs(pairs), "", "Levels", render_table(results.levels)]
    for name, fit in fits.items():
        table = fit.fixef(vcov=vcov, level=level)
        letter = "z"
        if isinstance(fit, ClusterRegression):
            table, letter = table.drop(columns="note"), "t"
        lines += ["", f"{name}: fixed effects ({100 * level:g}% intervals; {vcov} standard errors)"]
        lines.append(render_table(table, statistic=letter))
    if results.effects_reason:
        return "\n".join([*lines, "", "No effects", textwrap.fill(results.effects_reason, 92)])
    heading = f"Effects (indirect = a*b; delta method, second order; {vcov} standard errors)"
    return "\n".join([*lines, "", heading, render_table(results.effects(vcov=vcov, level=level))])


def stata_text(results: PiecewiseResults) -> str:
    """The numbers of ``ml_mediation``."""
    if results.effects_reason:
        return f"No effects\n{textwrap.fill(results.effects_reason, 78)}"
    quantities = results.effect_quantities()
    value = {term: quantity.estimate for term, quantity in quantities.items()}
    total, first, second = ((_formula(fit), _how(fit)) for fit in (results.reduced, results.mediator, results.outcome))
    known = results.levels
    levels = [
        (ROLES[role], str(name), int(level))
        for name, role, level in zip(known["variable"], known["role"], known["level"], strict=True)
        if role in ROLES
    ]
    notes = [f"Note: {text}" for text in (quantities["indirect"].note, quantities["c"].note) if text]
    return render_ml_mediation(
        MlMediation(
            c_path=total,
            a_path=first,
            b_path=second,
            levels=tuple(levels),
            c=value["c"],
            a=value["a"],
            b=value["b"],
            cprime=value["cprime"],
            indirect=value["indirect"],
            total=value["total"],
            share=value["prop_mediated"],
            ratio=value["ratio"],
            total_ratio=value["total"] / value["direct"] if value["direct"] != 0.0 else np.nan,
            notes=tuple(notes),
        )
    )


def as_json(results: PiecewiseResults, *, vcov: str, level: float) -> str:
    """All tables as JSON text; a number that does not exist is null and its row's ``note`` says why."""
    fits: dict[str, Part] = {"mediator": results.mediator, "outcome": results.outcome, "reduced": results.reduced}
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "treatment": results.treatment,
        "design": results.design,
        "levels": results.levels.to_dict("records"),
        "cluster": results.group_name,
        "method": results.asked.method,
        "vcov": vcov,
        "level": check_level(level),
        "equations": {name: _equation(fit, vcov, level) for name, fit in fits.items()},
        "effects": [],
    }
    if results.effects_reason:
        document["effects_reason"] = results.effects_reason
    else:
        document["effects"] = records(results.effects(vcov=vcov, level=level))
    return json.dumps(document, indent=2, allow_nan=False)


def _equation(fit: Part, vcov: str, level: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "formula": _formula(fit),
        "engine": "ols" if isinstance(fit, ClusterRegression) else "mixed",
        "nobs": fit.nobs,
        "n_clusters": fit.n_clusters,
        "loglik": plain(fit.llf),
        "left_out": _left_out(fit),
        "fixef": records(fit.fixef(vcov=vcov, level=level)),
    }
    if isinstance(fit, ClusterRegression):
        return found | {"sigma2": plain(fit.sigma2)}
    varcorr = records(fit.varcorr(vcov=vcov, level=level))
    return found | {"converged": fit.converged, "is_singular": fit.is_singular, "varcorr": varcorr}
