"""Which interval: one place that turns the options of ``effects()`` into a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.quantity import Quantity, joined_notes
from mlmed.modes.bootstrap import draws_table
from mlmed.modes.profiles import profile_table
from mlmed.modes.smallsample import delta_with_df
from mlmed.modes.tables import psi as psi_of
from mlmed.options import check_level

if TYPE_CHECKING:
    from mlmed.modes.mediation import MediationResults
from mlmed.reml.vcov import Vcov

__all__ = ["OPTIONS", "effects_table", "monte_carlo_table"]

Array = NDArray[np.float64]

#: The options each kind of interval uses, with their defaults; the others are refused, not ignored.
OPTIONS: dict[str, dict[str, Any]] = {
    "delta": {"vcov": "block", "order": "second", "ddf": "none"},
    "monte-carlo": {"vcov": "block", "n": 20_000, "seed": None},
    "profile": {"vcov": "block"},
    "bootstrap": {
        "n": 1000, "kind": "case", "within": False, "method": "percentile", "seed": None, "n_jobs": None,
        "progress": False,
    },
}  # fmt: skip


def effects_table(
    results: MediationResults, interval: str, options: dict[str, Any], *, level: float, at: Mapping[str, Any] | None
) -> pd.DataFrame:
    """The effects with the asked kind of interval."""
    level = check_level(level)
    if interval == "bootstrap":
        method = options.pop("method")
        boot = results.bootstrap(options.pop("n"), at=at, **options)
        return boot.tidy(method=method, level=level, terms=list(results.effect_quantities(at)))
    quantities = results.effect_quantities(at)
    if interval == "monte-carlo":
        V, psi = results.parameter_vcov(options["vcov"]), psi_of(results.fitted)
        rng = np.random.default_rng(options["seed"])
        return monte_carlo_table(
            quantities, results.effect_functions(at).monte_carlo(psi, V, n=options["n"], rng=rng), V, level=level
        )
    if interval == "profile":
        V = results.parameter_vcov(options["vcov"])
        asked = {term: (quantity, results.quantity_at(term, at)) for term, quantity in quantities.items()}
        return profile_table(results.fitted, asked, V, level=level)
    return delta_with_df(results, quantities, at=at, level=level, **options)


def monte_carlo_table(
    quantities: Mapping[str, Quantity],
    draws: Mapping[str, Array],
    V: Vcov,
    *,
    level: float,
    unspread: Mapping[str, str] = {},
) -> pd.DataFrame:
    """Quantiles of draws of effects; a row without them says why. ``unspread`` as in ``draws_table``."""
    estimates = pd.Series({term: quantity.estimate for term, quantity in quantities.items()})
    missing = {
        term: joined_notes(
            quantity.note, "" if quantity.is_fixed else V.reason_for(quantity.gradient, quantity.hessian)
        )
        for term, quantity in quantities.items()
        if quantity.is_fixed or np.isnan(draws[term]).any()
    }
    notes = {term: joined_notes(q.note, V.note_for(q.gradient, q.hessian)) for term, q in quantities.items()}
    return draws_table(pd.DataFrame(draws), estimates, level=level, notes=notes, missing=missing, unspread=unspread)
