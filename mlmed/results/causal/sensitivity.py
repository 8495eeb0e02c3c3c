"""Sensitivity analysis: potential-outcome effects as functions of the correlation of the two errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.confounding import Curve
from mlmed.effects.sensitivity import CONTRASTS, explained
from mlmed.options import SENSITIVE, SENSITIVITY_FORMULAS, check_level, one_of
from mlmed.results.causal.fitted import CausalFit
from mlmed.results.causal.sensitivity_results import TERMS, SensitivityResults
from mlmed.results.causal.sensitivity_setup import (
    check_direct,
    curve_of,
    grid_of,
    interval_of,
    pair_of,
)
from mlmed.results.causal.sensitivity_tables import delta_rows, drawn_rows, lost_cells

__all__ = ["SensitivityResults", "sensitivity_of"]

Array = NDArray[np.float64]


def sensitivity_of(
    results: CausalFit,
    *,
    rho: float | Sequence[float] | None = None,
    n: int | None = None,
    seed: int | None = None,
    level: float = 0.95,
    effect: str = "indirect",
    formula: str = "exact",
    interval: str | None = None,
) -> SensitivityResults:
    """How effects change if the errors of mediator and outcome are correlated, as an omitted cause of both makes them.

    Parameters
    ----------
    results : CausalFit
        The fit; mediator and outcome linear and linear, linear and probit, or probit and linear.
    rho : float or sequence of float, optional
        Correlations, or the distance between them; without it -.9 to .9 in steps of .1.
    n, seed : int, optional
        Draws (1,000) and their seed, for ``monte-carlo``.
    level : float
        Coverage of the intervals, a proportion.
    effect : {"indirect", "direct"}
        ACME or ADE.
    formula : {"exact", "medsens"}
        Maximum likelihood at each rho; or what R's ``medsens`` computes for a linear mediator and a probit outcome, to
        reproduce its numbers (docs/sensitivity.md says why not to use it).
    interval : {"delta", "monte-carlo"}, optional
        Without it ``monte-carlo`` if a seed is given, otherwise ``delta``.

    Raises
    ------
    EffectError
        Families without an error correlation, correlations outside (-1, 1), unknown or idle options.

    Notes
    -----
    Imai, K., Keele, L. and Yamamoto, T. (2010). Identification, inference and sensitivity analysis for causal mediation
    effects. *Statistical Science*, 25, 51-71.
    """
    one_of(effect, SENSITIVE, "effect")
    one_of(formula, SENSITIVITY_FORMULAS, "formula")
    level = check_level(level)
    chosen, count = interval_of(formula, interval, n, seed)
    rhos = grid_of(rho)
    if effect == "direct":
        check_direct(results)
    pair = pair_of(results)
    curve, notes = curve_of(results, pair, formula)
    draws = _Draws(curve, CONTRASTS[effect], count, seed)
    effects = draws.means if formula == "medsens" else _Estimates(curve, CONTRASTS[effect])
    missing = lost_cells(curve, pair, CONTRASTS[effect], rhos)
    if chosen == "delta":
        table = delta_rows(curve, CONTRASTS[effect], rhos, effects(rhos), missing, level, TERMS[effect])
    else:
        drawn = draws(rhos)
        estimates = drawn.mean(axis=1) if formula == "medsens" else effects(rhos)
        table = drawn_rows(drawn, rhos, estimates, missing, level, TERMS[effect])
    unexplained = (1.0 - explained(pair.mediator), 1.0 - explained(pair.outcome))
    return SensitivityResults(
        table=_with_shares(table, unexplained),
        effect=effect,
        formula=formula,
        interval=chosen,
        level=float(level),
        n=count if chosen == "monte-carlo" else None,
        seed=seed,
        families=pair.families,
        unexplained=unexplained,
        notes=notes,
        _effects=effects,
        _curve=curve,
        _names=results.outcome.names,
    )


@dataclass(frozen=True, slots=True)
class _Estimates:
    """Effects (R, 3) at the estimates."""

    curve: Curve
    contrast: Array

    def __call__(self, rhos: Array) -> Array:
        return np.array([self.contrast @ self.curve.cells(float(rho)) for rho in rhos])


@dataclass(frozen=True, slots=True)
class _Draws:
    """Effects of draws, the same draws whenever it is asked."""

    curve: Curve
    contrast: Array
    n: int
    seed: int | None

    def __call__(self, rhos: Array) -> Array:
        """(R, n, 3)."""
        return self.curve.draws(rhos, self.n, np.random.default_rng(self.seed)) @ self.contrast.T

    def means(self, rhos: Array) -> Array:
        """What R calls the estimate, (R, 3)."""
        return np.asarray(self(rhos).mean(axis=1))


def _with_shares(table: pd.DataFrame, unexplained: tuple[float, float]) -> pd.DataFrame:
    """The table with both products of R2 (eq. 88), in the order in which columns are shown."""
    star = table["rho"] ** 2
    table = table.assign(R2_star=star, R2_tilde=star * unexplained[0] * unexplained[1])
    return table[["rho", "term", "estimate", "std_error", "conf_low", "conf_high", "R2_star", "R2_tilde", "note"]]
