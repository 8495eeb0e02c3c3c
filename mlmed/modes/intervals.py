"""Which interval: one place that turns the options of ``effects()`` into a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity
from mlmed.effects.montecarlo import monte_carlo_draws
from mlmed.modes.bootstrap import draws_table
from mlmed.modes.covariance import covariance
from mlmed.modes.fitting import Fitted
from mlmed.modes.functions import QuantitiesAt, quantity_of
from mlmed.modes.profiles import profile_table
from mlmed.modes.resampling import Plan, bootstrap_fit
from mlmed.modes.smallsample import delta_with_df
from mlmed.notes import joined
from mlmed.reml.vcov import ParameterVcov

__all__ = ["OPTIONS", "effects_table"]

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
    fitted: Fitted,
    effects: Mapping[str, Quantity],
    named_at: QuantitiesAt,
    draws_of: Callable[[Array], dict[str, Array]],
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
    draws_of : callable
        They as a function of many parameter vectors (n, n_psi).
    interval, options
        The kind of interval and what it uses, checked.
    level : float
        Coverage, a proportion.
    """
    if interval == "bootstrap":
        method = options.pop("method")
        boot = bootstrap_fit(fitted, named_at(fitted.estimates), draws_of, Plan(**options))
        return boot.tidy(method=method, level=level, terms=list(effects))
    if interval == "monte-carlo":
        V = covariance(fitted, options["vcov"])
        return _monte_carlo(effects, V, n=options["n"], seed=options["seed"], level=level)
    if interval == "profile":
        V = covariance(fitted, options["vcov"])
        moving = {term: (effect, quantity_of(term, named_at, fitted.estimates)) for term, effect in effects.items()}
        return profile_table(fitted, moving, V, level=level)
    return delta_with_df(fitted, effects, named_at, level=level, **options)


def _monte_carlo(
    quantities: Mapping[str, Quantity], V: ParameterVcov, *, n: int, seed: int | None, level: float
) -> pd.DataFrame:
    draws = monte_carlo_draws(quantities, V, n=n, rng=np.random.default_rng(seed))
    estimates = pd.Series({term: quantity.estimate for term, quantity in quantities.items()})
    missing = {
        term: joined(quantity.note, "" if quantity.is_fixed else V.reason_for(quantity.gradient, quantity.hessian))
        for term, quantity in quantities.items()
        if quantity.is_fixed or np.isnan(draws[term]).any()
    }
    notes = {term: joined(q.note, V.note_for(q.gradient, q.hessian)) for term, q in quantities.items()}
    return draws_table(pd.DataFrame(draws), estimates, level=level, notes=notes, missing=missing)
