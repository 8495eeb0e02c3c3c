"""Which interval: one place that turns the options of ``effects()`` into a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from mlmed.reml.vcov import ParameterVcov

__all__ = ["OPTIONS", "Effects", "effects_table"]

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


@dataclass(frozen=True, slots=True)
class Effects:
    """What a table of effects is made of.

    Attributes
    ----------
    fitted : Fitted
        The fit.
    known : dict of str to Quantity
        The effects at its estimates.
    named_at : callable
        They and the parameters of the fit, as a function of the estimates.
    draws_of : callable
        The effects of many parameter vectors (n, n_psi).
    """

    fitted: Fitted
    known: dict[str, Quantity]
    named_at: QuantitiesAt
    draws_of: Callable[[Array], dict[str, Array]]


def effects_table(asked: Effects, interval: str, options: dict[str, Any], *, level: float) -> pd.DataFrame:
    """The effects with the asked kind of interval."""
    fitted = asked.fitted
    if interval == "bootstrap":
        method = options.pop("method")
        boot = bootstrap_fit(fitted, asked.named_at(fitted.estimates), asked.draws_of, Plan(**options))
        return boot.tidy(method=method, level=level, terms=list(asked.known))
    if interval == "monte-carlo":
        V = covariance(fitted, options["vcov"])
        return _monte_carlo(asked.known, V, n=options["n"], seed=options["seed"], level=level)
    if interval == "profile":
        V = covariance(fitted, options["vcov"])
        moving = {term: quantity_of(term, asked.named_at, fitted.estimates) for term in asked.known}
        return profile_table(fitted, {term: (asked.known[term], at) for term, at in moving.items()}, V, level=level)
    return delta_with_df(fitted, asked.known, asked.named_at, level=level, **options)


def _monte_carlo(
    quantities: Mapping[str, Quantity], V: ParameterVcov, *, n: int, seed: int | None, level: float
) -> pd.DataFrame:
    draws = monte_carlo_draws(quantities, V, n=n, rng=np.random.default_rng(seed))
    estimates = pd.Series({term: quantity.estimate for term, quantity in quantities.items()})
    missing = {
        term: _joined(quantity.note, "" if quantity.is_fixed else V.reason_for(quantity.gradient, quantity.hessian))
        for term, quantity in quantities.items()
        if quantity.is_fixed or np.isnan(draws[term]).any()
    }
    notes = {term: _joined(q.note, V.note_for(q.gradient, q.hessian)) for term, q in quantities.items()}
    return draws_table(pd.DataFrame(draws), estimates, level=level, notes=notes, missing=missing)


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))
