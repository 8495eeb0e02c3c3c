"""Separate fits as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from mlmed.effects.delta import Quantity
from mlmed.options import check_level
from mlmed.report.ml_mediation import MlMediation, render_ml_mediation
from mlmed.report.text import render_pairs, render_table
from mlmed.results.document import interval_entry, plain, records
from mlmed.results.piecewise.cluster_ols import ClusterRegression
from mlmed.results.piecewise.fit import Asked, Fits
from mlmed.results.piecewise.parts import Part
from mlmed.results.summary import effects_text

__all__ = ["SCHEMA", "as_json", "native_text", "stata_text"]

#: Name and version of the JSON layout; a change of meaning changes the number.
SCHEMA = "mlmed.piecewise/1"
ROLES = {"treatment": "iv", "mediator": "mv", "outcome": "dv"}


def _formula(fit: Part) -> str:
    return fit.formula if isinstance(fit, ClusterRegression) else fit.fit.spec.equations[0].text


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
    return [str(dropped) for dropped in fit.fit.layout.dropped]


def native_text(
    asked: Asked, fits: Fits, effects: pd.DataFrame | str, options: Mapping[str, Any], *, level: float
) -> str:
    """Equations, levels, coefficients, effects (or why there are none); options are those of the effects."""
    vcov = _vcov(options)
    m, y, group = asked.mediator.name, asked.outcome.name, ":".join(asked.group)
    title = f"Multilevel mediation, separate equations: {asked.treatment} -> {m} -> {y}"
    parts = {"Mediator": fits.mediator, "Outcome": fits.outcome, "Path c": fits.reduced}
    pairs = [("Design", f"{fits.design} (levels of treatment, mediator, outcome; clusters: {group})")]
    for name, fit in parts.items():
        pairs += [(name, _formula(fit)), ("", _how(fit))]
    left_out = dict.fromkeys(text for fit in parts.values() for text in _left_out(fit))
    pairs += [("Left out", text) for text in left_out]
    lines = [title, "=" * len(title), render_pairs(pairs), "", "Levels", render_table(fits.levels)]
    for name, fit in parts.items():
        table = fit.fixef(vcov=vcov, level=level)
        letter = "z"
        if isinstance(fit, ClusterRegression):
            table, letter = table.drop(columns=["df", "note"]), "t"
        lines += ["", f"{name}: fixed effects ({100 * level:g}% intervals; {vcov} standard errors)"]
        lines.append(render_table(table, statistic=letter))
    if isinstance(effects, str):
        return "\n".join([*lines, "", "No effects", textwrap.fill(effects, 92)])
    return "\n".join([*lines, "", effects_text(effects, "indirect = a*b", level=level, **options)])


def _vcov(options: Mapping[str, Any]) -> str:
    given: str | None = options.get("vcov")
    return "block" if given is None else given


def stata_text(fits: Fits, quantities: dict[str, Quantity] | str) -> str:
    """The numbers of ``ml_mediation``, or why there are no effects."""
    if isinstance(quantities, str):
        return f"No effects\n{textwrap.fill(quantities, 78)}"
    value = {term: quantity.estimate for term, quantity in quantities.items()}
    total, first, second = ((_formula(fit), _how(fit)) for fit in (fits.reduced, fits.mediator, fits.outcome))
    known = fits.levels
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


def as_json(asked: Asked, fits: Fits, effects: pd.DataFrame | str, options: Mapping[str, Any], *, level: float) -> str:
    """All tables as JSON text; a number that does not exist is null and its row's ``note`` says why."""
    vcov = _vcov(options)
    parts: dict[str, Part] = {"mediator": fits.mediator, "outcome": fits.outcome, "reduced": fits.reduced}
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "treatment": asked.treatment,
        "design": fits.design,
        "levels": fits.levels.to_dict("records"),
        "cluster": ":".join(asked.group),
        "method": asked.method,
        "vcov": vcov,
        "level": check_level(level),
        **interval_entry({name: value for name, value in options.items() if name != "vcov"}),
        "equations": {name: _equation(fit, vcov, level) for name, fit in parts.items()},
        "effects": [],
    }
    if isinstance(effects, str):
        document["effects_reason"] = effects
    else:
        document["effects"] = records(effects)
    return json.dumps(document, indent=2, allow_nan=False)


def _equation(fit: Part, vcov: str, level: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "formula": _formula(fit),
        "engine": "ols" if isinstance(fit, ClusterRegression) else "mixed",
        "nobs": fit.nobs,
        "n_clusters": fit.n_clusters,
        "llf": plain(fit.llf),
        "left_out": _left_out(fit),
        "fixef": records(fit.fixef(vcov=vcov, level=level)),
    }
    if isinstance(fit, ClusterRegression):
        return found | {"sigma2": plain(fit.sigma2)}
    varcorr = records(fit.varcorr(vcov=vcov, level=level))
    return found | {"converged": fit.converged, "is_singular": fit.is_singular, "varcorr": varcorr}
