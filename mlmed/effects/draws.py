"""Intervals from draws of an estimate: Monte Carlo and bootstrap (docs/math.md, eq. 43 to 47)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mlmed.errors import EffectError

__all__ = ["METHODS", "DrawInterval", "Method", "acceleration", "draw_interval", "normal_draws"]

Array = NDArray[np.float64]
Method = Literal["percentile", "bc", "bca", "basic", "normal"]
METHODS: tuple[str, ...] = get_args(Method)
#: Draws below which an interval is not given.
FEWEST = 20


@dataclass(frozen=True, slots=True)
class DrawInterval:
    """What draws say about one quantity.

    Attributes
    ----------
    std_error : float
        Standard deviation of the draws.
    p_value : float
        Level at which the interval of this method just touches 0; never below 2/(draws + 1), what draws can show.
    low, high : float
        Ends of the interval.
    note : str
        Why numbers are missing; usually empty.
    """

    std_error: float
    p_value: float
    low: float
    high: float
    note: str = ""


def normal_draws(mean: Array, covariance: Array, n: int, rng: np.random.Generator) -> Array:
    """Draws (n, k) from a normal distribution whose covariance may be singular.

    Raises
    ------
    EffectError
        If the covariance has a negative eigenvalue.
    """
    size = np.sqrt(np.abs(np.diag(covariance)))
    size = np.where(size > 0.0, size, 1.0)
    values, vectors = np.linalg.eigh(covariance / np.outer(size, size))
    if values[0] < -1e-8:
        raise EffectError(f"the covariance of the estimates has the negative eigenvalue {values[0]:.3g} (scaled)")
    root = size[:, None] * vectors * np.sqrt(np.clip(values, 0.0, None))  # rounding below zero is zero
    return mean + rng.standard_normal((n, len(mean))) @ root.T


def acceleration(jackknife: Array) -> float:
    """Efron's acceleration from leave-one-cluster-out estimates (eq. 46)."""
    kept = jackknife[np.isfinite(jackknife)]
    gap = kept.mean() - kept
    spread = float((gap**2).sum())
    return float((gap**3).sum() / (6.0 * spread**1.5)) if spread > 0.0 else 0.0


def draw_interval(
    draws: Array, estimate: float, *, level: float, method: str = "percentile", jackknife: Array | None = None
) -> DrawInterval:
    """Interval and p value from draws of one quantity.

    Parameters
    ----------
    draws : (n,) array
        Draws; NaN marks a replicate that failed and is left out (its count is the caller's to report).
    estimate : float
        The estimate itself.
    level : float
        Coverage, a proportion.
    method : {"percentile", "bc", "bca", "basic", "normal"}
        Percentile; bias-corrected; bias-corrected and accelerated; reflected percentile; estimate less bias,
        plus or minus z standard deviations.
    jackknife : (J,) array, optional
        Leave-one-cluster-out estimates, for ``bca``.

    Raises
    ------
    EffectError
        Unknown method, or ``bca`` without a jackknife.
    """
    if method not in METHODS:
        raise EffectError(f"method must be one of {', '.join(METHODS)}; found {method!r}")
    kept = np.sort(draws[np.isfinite(draws)])
    n = len(kept)
    if n < FEWEST:
        note = f"{n} usable draws are too few for an interval (at least {FEWEST}); raise n"
        return DrawInterval(np.nan, np.nan, np.nan, np.nan, note)
    spread, tail = float(kept.std(ddof=1)), 0.5 * (1.0 - level)
    if spread <= 1e-12 * abs(estimate):
        return DrawInterval(spread, np.nan, np.nan, np.nan, "all draws are the same value: nothing varies")
    if method == "normal":
        centre = 2.0 * estimate - float(kept.mean())
        z = float(ndtri(1.0 - tail))
        return DrawInterval(spread, float(2.0 * ndtr(-abs(centre) / spread)), centre - z * spread, centre + z * spread)
    if method == "basic":
        low, high = _quantiles(kept, [1.0 - tail, tail])
        return DrawInterval(spread, _two_sided(kept, 2.0 * estimate), 2 * estimate - low, 2 * estimate - high)
    if method == "percentile":
        low, high = _quantiles(kept, [tail, 1.0 - tail])
        return DrawInterval(spread, _two_sided(kept, 0.0), float(low), float(high))
    share = (float((kept < estimate).sum()) + 0.5 * float((kept == estimate).sum())) / n
    if not 0.0 < share < 1.0:
        note = "all draws lie on one side of the estimate, so there is no bias correction; use method='percentile'"
        return DrawInterval(spread, np.nan, np.nan, np.nan, note)
    z0, speed = float(ndtri(share)), 0.0
    if method == "bca":
        if jackknife is None:
            raise EffectError("method='bca' needs leave-one-cluster-out estimates")
        speed = acceleration(jackknife)
    return _corrected(kept, spread, z0, speed, tail)


def _quantiles(draws: Array, levels: Any) -> Array:
    """Quantiles at positions (n + 1) p: with few draws those at (n - 1) p + 1 make intervals too short."""
    return np.quantile(draws, levels, method="weibull")


def _corrected(kept: Array, spread: float, z0: float, speed: float, tail: float) -> DrawInterval:
    """Bias-corrected and accelerated percentiles (eq. 45)."""
    n = len(kept)
    ends = []
    for z in ndtri([tail, 1.0 - tail]):
        below = 1.0 - speed * (z0 + z)
        if below <= 0.0:
            note = f"the acceleration {speed:.3g} is too large for a corrected percentile; use method='percentile'"
            return DrawInterval(spread, np.nan, np.nan, np.nan, note)
        ends.append(float(_quantiles(kept, ndtr(z0 + (z0 + z) / below))))
    w = float(ndtri(np.clip((kept < 0.0).mean(), 0.5 / n, 1.0 - 0.5 / n))) - z0
    p = 2.0 * float(ndtr(-abs(w / (1.0 + speed * w) - z0))) if speed * w > -1.0 else 0.0
    return DrawInterval(spread, max(p, 2.0 / (n + 1.0)), ends[0], ends[1])


def _two_sided(draws: Array, value: float) -> float:
    """Twice the smaller share of draws beyond a value, counting the estimate itself as one draw."""
    n = len(draws)
    below, above = int((draws <= value).sum()), int((draws >= value).sum())
    return min(1.0, 2.0 * (min(below, above) + 1.0) / (n + 1.0))
