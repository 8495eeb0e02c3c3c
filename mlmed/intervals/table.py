"""Which interval: one place that turns the options of ``effects()`` into a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.forms import Effects
from mlmed.effects.quantity import Quantity
from mlmed.fit.lmm import Fitted
from mlmed.fit.names import psi as psi_of
from mlmed.fit.vcov import covariance
from mlmed.intervals.bootstrap import draws_table
from mlmed.intervals.functions import QuantitiesAt, quantity_of
from mlmed.intervals.profile import profile_table
from mlmed.intervals.resampling import Plan, bootstrap_fit
from mlmed.intervals.smallsample import delta_with_df
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined

__all__ = ["OPTIONS", "effects_table", "monte_carlo_table"]

Array = NDArray[np.float64]

#: The options each kind of interval uses, with their defaults; the others are refused, not ignored.
OPTIONS: dict[str, dict[str, Any]] = {
    "delta": {"vcov": "block", "order": "second", "ddf": "none"},
    "monte-carlo": {"vcov": "block", "n": 20_000, "seed": None},
    "profile": {"vcov": "block"},
    "bootstrap": {
        "n": 1000, "kind": "case", "within": False, "ends": "percentile", "seed": None, "n_jobs": None,
        "progress": False,
    },
}  # fmt: skip


def effects_table(
    fitted: Fitted,
    effects: Mapping[str, Quantity],
    named_at: QuantitiesAt,
    functions: Effects,
    interval: str,
    options: dict[str, Any],
    *,
    level: float,
) -> pd.DataFrame:
    """The effects with the asked kind of interval.

    Parameters
    ----------
    fitted : Fitted
        The fit.
    effects : mapping
        The effects at its estimates.
    named_at : callable
        They and the parameters, as a function of the estimates.
    functions : Effects
        They as functions of many parameter vectors (n, n_psi).
    interval, options
        The kind of interval and what it uses, checked.
    level : float
        Coverage, a proportion.
    """
    if interval == "bootstrap":
        ends = options.pop("ends")
        boot = bootstrap_fit(fitted, named_at(fitted.estimates), functions.draws, Plan(**options))
        return boot.tidy(ends=ends, level=level, terms=list(effects))
    if interval == "monte-carlo":
        V, psi = covariance(fitted, options["vcov"]), psi_of(fitted)
        draws = functions.monte_carlo(psi, V, n=options["n"], rng=np.random.default_rng(options["seed"]))
        return monte_carlo_table(effects, draws, V, level=level)
    if interval == "profile":
        V = covariance(fitted, options["vcov"])
        moving = {term: (effect, quantity_of(term, named_at, fitted.estimates)) for term, effect in effects.items()}
        return profile_table(fitted, moving, V, level=level)
    return delta_with_df(fitted, effects, named_at, level=level, **options)


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
        term: joined(quantity.note, "" if quantity.is_fixed else V.reason_for(quantity.gradient, quantity.hessian))
        for term, quantity in quantities.items()
        if quantity.is_fixed or np.isnan(draws[term]).any()
    }
    notes = {term: joined(q.note, V.note_for(q.gradient, q.hessian)) for term, q in quantities.items()}
    return draws_table(pd.DataFrame(draws), estimates, level=level, notes=notes, missing=missing, unspread=unspread)
