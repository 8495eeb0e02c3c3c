"""Curves of sensitivity analyses as rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.confounding import Curve
from mlmed.effects.draws import draw_interval
from mlmed.effects.sensitivity import Pair
from mlmed.lmm.vcov import said_along

__all__ = ["delta_rows", "drawn_rows", "lost_cells", "root_of"]

Array = NDArray[np.float64]
COLUMNS = ("rho", "term", "estimate", "std_error", "conf_low", "conf_high", "note")
#: A curve that stays below this share of its size at its largest is zero everywhere.
NOTHING = 1e-12


def lost_cells(curve: Curve, pair: Pair, contrast: Array, rhos: Array) -> list[list[str]]:
    """Why effects have no standard error, by rho and effect; empty where they have one."""
    found = []
    for rho in map(float, rhos):
        cells = curve.slopes(rho)
        lost, slopes = pair.lost(cells.shape[1]), contrast @ cells
        slopes = np.where(np.abs(slopes) > NOTHING * (np.abs(contrast) @ np.abs(cells)), slopes, 0.0)
        found.append([said_along(lost, slope) for slope in slopes])
    return found


def delta_rows(
    curve: Curve,
    contrast: Array,
    rhos: Array,
    estimates: Array,
    missing: list[list[str]],
    level: float,
    terms: Sequence[str],
) -> pd.DataFrame:
    """Estimates with first-order standard errors and normal intervals (eq. 85); ``missing`` from ``lost_cells``."""
    z, rows = float(ndtri(0.5 + level / 2.0)), []
    for rho, effects, why in zip(map(float, rhos), estimates, missing, strict=True):
        G, V = curve.delta(rho)
        H = contrast @ G
        errors = np.where([not one for one in why], np.sqrt(np.einsum("ij,jk,ik->i", H, V, H)), np.nan)
        rows += [
            (rho, term, float(estimate), float(se), float(estimate - z * se), float(estimate + z * se), note)
            for term, estimate, se, note in zip(terms, effects, errors, why, strict=True)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def drawn_rows(
    draws: Array, rhos: Array, estimates: Array, missing: list[list[str]], level: float, terms: Sequence[str]
) -> pd.DataFrame:
    """Estimates with standard deviations and percentiles of draws (R, n, 3) (eq. 86); ``missing`` as above."""
    rows = []
    for r, rho in enumerate(map(float, rhos)):
        for k, (term, estimate) in enumerate(zip(terms, estimates[r], strict=True)):
            if missing[r][k]:
                rows.append((rho, term, float(estimate), *[np.nan] * 3, missing[r][k]))
                continue
            found = draw_interval(draws[r, :, k], float(estimate), level=level)
            rows.append((rho, term, float(estimate), found.std_error, found.low, found.high, found.note))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def root_of(effects: Callable[[Array], Array], term: int, at: Array, values: Array) -> tuple[float, str]:
    """The zero of a curve nearest to rho = 0, between points (k,) at which it is known; NaN and why, if none.

    Parameters
    ----------
    effects : function
        All curves, (R,) to (R, 3).
    term : int
        Which of them.
    at, values : (k,) arrays
        Increasing correlations, and the curve there.
    """
    from scipy.optimize import brentq

    if np.all(np.abs(values) <= NOTHING):
        return float("nan"), "the effect is zero at every rho"
    signs = np.sign(values)
    roots = [float(rho) for rho in at[signs == 0.0]]
    for k in np.flatnonzero(signs[:-1] * signs[1:] < 0.0):
        roots.append(float(brentq(lambda rho: effects(np.array([rho]))[0, term], at[k], at[k + 1], xtol=1e-13)))
    if not roots:
        return float("nan"), f"the estimated effect has one sign for every rho from {at[0]:.4f} to {at[-1]:.4f}"
    nearest = min(roots, key=abs)
    others = ", ".join(f"{rho:.4f}" for rho in sorted(roots) if rho != nearest)
    return nearest, f"the curve is zero at {others}, too" if others else ""
