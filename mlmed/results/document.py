"""A fit as JSON or as one flat table."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd

from mlmed.effects.delta import COLUMNS
from mlmed.errors import EffectError
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import LmmFit
from mlmed.fit.protocol import Fit
from mlmed.fit.quadrature import QuadratureFit
from mlmed.fit.same_rows import SameRowsFit, family_of
from mlmed.fit.system import SystemFit, equation_of
from mlmed.results.tables import about

#: Name and version of the JSON layout; a changed meaning raises the number.
SCHEMA = "mlmed/1"
#: Options that do not change a number.
WORKING = ("n_jobs", "progress")


def plain(value: Any) -> Any:
    """Convert to JSON values: no NumPy types, lists for tuples, null for a number that is not finite."""
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert the rows of a tidy table to JSON values."""
    return rows_of(table.reindex(columns=list(COLUMNS)))


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert the rows of a table, with all its columns, to JSON values."""
    return [{str(key): plain(value) for key, value in row.items()} for row in table.to_dict("records")]


def interval_entry(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Record the kind of interval and the options given.

    Examples
    --------
    >>> interval_entry({"interval": "bootstrap", "n": 100, "order": None, "n_jobs": 2, "seed": 1})
    {'interval': 'bootstrap', 'options': {'n': 100, 'seed': 1}}
    """
    given = {name: value for name, value in asked.items() if value is not None and name not in WORKING}
    kind = given.pop("interval", "delta")
    if "at" in given:
        given["at"] = {name: plain(value) for name, value in given["at"].items()}
    return {"interval": kind, "options": {name: plain(value) for name, value in given.items()}}


@singledispatch
def document_of(fit: Any) -> dict[str, Any]:
    """Facts of a fit besides its tables."""
    raise EffectError(f"{fit.kind} has no document of its own")


@document_of.register
def _(fitted: LmmFit) -> dict[str, Any]:
    certificate = fitted.optimum.certificate
    return {
        "schema": SCHEMA,
        "equations": [equation.text for equation in fitted.spec.equations],
        "method": fitted.spec.method,
        "structures": {
            "random": {block.label: block.structure for block in fitted.spec.blocks},
            "residual": "unstructured" if fitted.spec.correlated else "diagonal",
        },
        "nobs": fitted.nobs,
        "n_clusters": len(fitted.clusters),
        "cluster": fitted.group_name,
        **_likelihood(fitted),
        "converged": fitted.converged,
        "is_singular": fitted.is_singular,
        "gradient_norm": certificate.gradient_norm,
        "newton_decrement": certificate.newton_decrement,
        "evaluations": len(fitted.optimum.steps),
        "n_starts": fitted.optimum.searched.starts,
        "n_optima": fitted.optimum.searched.n_optima,
        "optima": fitted.optima,
        "dropped": [str(dropped) for dropped in fitted.layout.dropped],
    }


@document_of.register
def _(fit: QuadratureFit) -> dict[str, Any]:
    found = {name: plain(value) for name, value in about(fit).items()}
    dropped = [] if fit.rows.dropped is None else [str(fit.rows.dropped)]
    return {"schema": SCHEMA, "equations": list(fit.equations), **found, "cluster": fit.group_name, "dropped": dropped}


@document_of.register
def _(fit: SystemFit) -> dict[str, Any]:
    levels = {} if fit.levels is None else {"design": fit.design, "levels": fit.levels.to_dict("records")}
    return {
        "schema": SCHEMA,
        "equations": [equation_of(one).text for one in fit.components.values()],
        **_of_whole(fit),
        **levels,
        "components": {
            role: {"equation": equation_of(one).text, "prefix": prefix, "kind": one.kind, **_of_whole(one)}
            for (role, one), prefix in zip(fit.components.items(), fit.prefixes, strict=True)
        },
    }


@document_of.register
def _(fit: SameRowsFit) -> dict[str, Any]:
    found: dict[str, Any] = document_of.dispatch(SystemFit)(fit)
    for one, own in zip(fit.components.values(), found["components"].values(), strict=True):
        own["family"] = family_of(one)
    return found


@document_of.register
def _(fit: PlainFit) -> dict[str, Any]:
    return {"schema": SCHEMA, "equations": [fit.equation.text], "family": fit.family, **_of_whole(fit)}


def _likelihood(fit: Fit) -> dict[str, Any]:
    found = about(fit)
    return {name: plain(found[name]) for name in ("llf", "aic", "bic")}


def _of_whole(fit: Fit) -> dict[str, Any]:
    return {
        "method": fit.method,
        "nobs": fit.nobs,
        "n_clusters": len(fit.clusters) if fit.group_name else None,
        "cluster": fit.group_name,
        **_likelihood(fit),
        "converged": fit.converged,
        "is_singular": fit.is_singular,
        "dropped": [note.text for note in fit.notes if note.code == "rows-left-out"],
    }


def flat_table(sections: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Stack all sections; the column ``section`` names each."""
    parts = [
        table.reindex(columns=list(COLUMNS)).assign(section=name) for name, table in sections.items() if len(table)
    ]
    return pd.concat(parts, ignore_index=True)[["section", *COLUMNS]]
