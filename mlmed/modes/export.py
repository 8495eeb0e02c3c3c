"""A fit as JSON or as one flat table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mlmed.effects.delta import COLUMNS

if TYPE_CHECKING:
    from mlmed.modes.results import MixedResults

__all__ = ["SCHEMA", "flat_table", "sections", "to_json"]

#: Name and version of the JSON layout; a change of meaning changes the number.
SCHEMA = "mlmed.fit/1"


def sections(results: MixedResults, *, vcov: str, level: float) -> dict[str, pd.DataFrame]:
    """The tables of a fit by name: fixef, varcorr, residual, and effects of a mediation model."""
    varcorr = results.varcorr(level=level)
    residual = varcorr["group"] == "Residual"
    return {
        "fixef": results.fixef(vcov=vcov, level=level),
        "varcorr": varcorr[~residual],
        "residual": varcorr[residual],
        **results.effect_sections(vcov=vcov, level=level),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def to_json(results: MixedResults, *, vcov: str = "block", level: float = 0.95) -> str:
    """JSON text; a number that does not exist is null and its row's ``note`` says why."""
    certificate = results.fitted.optimum.certificate
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "equations": [equation.text for equation in results.fitted.spec.equations],
        "method": results.method,
        "vcov": vcov,
        "level": level,
        "nobs": results.nobs,
        "n_clusters": results.n_clusters,
        "cluster": results.group_name,
        "loglik": results.llf,
        "converged": results.converged,
        "is_singular": results.is_singular,
        "gradient_norm": certificate.gradient_norm,
        "newton_decrement": certificate.newton_decrement,
        "evaluations": len(results.fitted.optimum.steps),
        "dropped": [str(dropped) for dropped in results.fitted.layout.dropped],
    }
    if results.effects_reason:
        document["effects_reason"] = results.effects_reason
    for name, table in sections(results, vcov=vcov, level=level).items():
        rows = table[list(COLUMNS)].to_dict("records")
        document[name] = [{str(key): _plain(value) for key, value in row.items()} for row in rows]
    return json.dumps(document, indent=2, allow_nan=False)


def flat_table(results: MixedResults, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
    """All sections below each other, told apart by the column ``section``."""
    tables = sections(results, vcov=vcov, level=level)
    parts = [table[list(COLUMNS)].assign(section=name) for name, table in tables.items()]
    return pd.concat(parts, ignore_index=True)[["section", *COLUMNS]]
