"""Intervals from draws of an estimate: Monte Carlo and bootstrap (docs/math.md, eq. 43 to 47)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mlmed.errors import EffectError
from mlmed.lmm.covariance import normal_root
from mlmed.options import ENDS, one_of

Array = NDArray[np.float64]
#: Fewest draws for a normal interval, and fewest jackknife fits for an acceleration.
FEWEST, FEWEST_LEFT = 20, 3


@dataclass(frozen=True, slots=True)
class DrawInterval:
    """Interval and test of one quantity from draws.

    Attributes
    ----------
    std_error : float
        Standard deviation of the draws.
    statistic : float
        Estimate in standard deviations; for ``normal`` minus the bias, as its p value.
    p_value : float
        Level at which the interval with these ends just touches 0; at least 2/(draws + 1), the resolution of the
        draws, except for ``normal``.
    low, high : float
        Ends of the interval.
    note : str
        Reason for missing numbers, or how to read them; usually empty.
    """

    std_error: float
    statistic: float
    p_value: float
    low: float
    high: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Correction:
    """Shares of draws behind corrected percentiles (eq. 45).

    Attributes
    ----------
    bias : float
        z_0, the normal quantile of the share of draws below the estimate.
    speed : float
        The acceleration.
    """

    bias: float
    speed: float

    def share(self, z: float) -> float:
        """Share of draws below the corrected end for z; NaN if the acceleration is too large."""
        below = 1.0 - self.speed * (self.bias + z)
        return float(ndtr(self.bias + (self.bias + z) / below)) if below > 0.0 else float("nan")

    def tails(self, share: float) -> tuple[float, float]:
        """Normal tails, lower and upper, at the z with this corrected share."""
        w = float(ndtri(share)) - self.bias
        if self.speed * w <= -1.0:  # beyond any z
            return (0.0, 1.0) if w < 0.0 else (1.0, 0.0)
        z = w / (1.0 + self.speed * w) - self.bias
        return float(ndtr(z)), float(ndtr(-z))


def normal_draws(mean: Array, covariance: Array, n: int, rng: np.random.Generator) -> Array:
    """Draws (n, k) from a normal distribution whose covariance may be singular.

    Raises
    ------
    EffectError
        The covariance has a negative eigenvalue.
    """
    size = np.sqrt(np.abs(np.diag(covariance)))
    size = np.where(size > 0.0, size, 1.0)
    smallest = float(np.linalg.eigvalsh(covariance / np.outer(size, size))[0])
    if smallest < -1e-8:
        raise EffectError(f"the covariance of the estimates has the negative eigenvalue {smallest:.3g} (scaled)")
    return mean + rng.standard_normal((n, len(mean))) @ normal_root(covariance).T


def acceleration(jackknife: Array) -> float:
    """Efron's acceleration from leave-one-cluster-out estimates (eq. 46); NaN if there are fewer than three."""
    kept = jackknife[np.isfinite(jackknife)]
    if len(kept) < FEWEST_LEFT:
        return float("nan")
    gap = kept.mean() - kept
    spread = float((gap**2).sum())
    return float((gap**3).sum() / (6.0 * spread**1.5)) if spread > 0.0 else 0.0


def draws_needed(level: float, ends: str = "percentile") -> int:
    """Draws needed so that the interval is not their whole range: (n + 1) (1 - level) / 2 is at least 1."""
    return FEWEST if ends == "normal" else ceil(2.0 / (1.0 - level) * (1.0 - 1e-9)) - 1  # 1 - .9 is not .1


def draw_interval(
    draws: Array, estimate: float, *, level: float, ends: str = "percentile", jackknife: Array | None = None
) -> DrawInterval:
    """Interval and p value from draws of one quantity.

    Parameters
    ----------
    draws : (n,) array
        Draws; NaN marks a failed replicate, which is left out (the caller reports the number).
    estimate : float
        The estimate itself.
    level : float
        Coverage, a proportion.
    ends : {"percentile", "bc", "bca", "basic", "normal"}
        Percentile; bias-corrected; bias-corrected and accelerated; reflected percentile; estimate less bias,
        plus or minus z standard deviations.
    jackknife : (J,) array, optional
        Leave-one-cluster-out estimates, for ``bca``.

    Raises
    ------
    EffectError
        Unknown ends, or ``bca`` without a jackknife.
    """
    one_of(ends, ENDS, "ends")
    kept = np.sort(draws[np.isfinite(draws)])
    spread = float(kept.std(ddof=1)) if len(kept) > 1 else float("nan")
    nothing = DrawInterval(spread, np.nan, np.nan, np.nan, np.nan)
    needed = draws_needed(level, ends)
    if len(kept) < needed:
        few = f"{len(kept):,} usable draws are too few for an interval of level {level:.10g}"
        return replace(nothing, note=f"{few} (at least {needed:,}); raise n")
    if spread <= 1e-12 * abs(estimate):
        return replace(nothing, note="all draws are the same value: nothing varies")
    tail = 0.5 * (1.0 - level)
    plain = replace(nothing, statistic=estimate / spread)
    if ends == "normal":
        return _normal(kept, estimate, spread, tail)
    if ends in ("bc", "bca"):
        return _corrected(kept, estimate, plain, tail, jackknife, accelerated=ends == "bca")
    lower, upper = map(float, _quantiles(kept, [tail, 1.0 - tail]))
    if ends == "basic":
        p = _p_value(kept, 2.0 * estimate)
        return replace(plain, p_value=p, low=2.0 * estimate - upper, high=2.0 * estimate - lower)
    return replace(plain, p_value=_p_value(kept, 0.0), low=lower, high=upper)


def _quantiles(draws: Array, levels: Any) -> Array:
    """Quantiles at positions (n + 1) p; those at (n - 1) p + 1 make intervals too short with few draws."""
    return np.quantile(draws, levels, method="weibull")


def _normal(kept: Array, estimate: float, spread: float, tail: float) -> DrawInterval:
    """Estimate less bias, plus or minus z standard deviations (eq. 44)."""
    centre, z = 2.0 * estimate - float(kept.mean()), float(ndtri(1.0 - tail))
    statistic = centre / spread
    p = float(2.0 * ndtr(-abs(statistic)))
    return DrawInterval(spread, statistic, p, centre - z * spread, centre + z * spread)


def _corrected(
    kept: Array, estimate: float, plain: DrawInterval, tail: float, jackknife: Array | None, *, accelerated: bool
) -> DrawInterval:
    """Bias-corrected and accelerated percentiles (eq. 45)."""
    n = len(kept)
    if accelerated and jackknife is None:
        raise EffectError("ends='bca' needs leave-one-cluster-out estimates")
    below = (float((kept < estimate).sum()) + 0.5 * float((kept == estimate).sum())) / n
    if not 0.0 < below < 1.0:
        note = "all draws lie on one side of the estimate, so there is no bias correction; use ends='percentile'"
        return replace(plain, note=note)
    speed, note = (0.0, "") if jackknife is None or not accelerated else _speed(jackknife)
    if np.isnan(speed):
        return replace(plain, note=note)
    correction = _Correction(float(ndtri(below)), speed)
    shares = [correction.share(float(z)) for z in ndtri([tail, 1.0 - tail])]
    if np.isnan(shares).any():
        note = f"the acceleration {speed:.3g} is too large for a corrected percentile; use ends='percentile'"
        return replace(plain, note=note)
    low, high = map(float, _quantiles(kept, shares))
    notes = filter(None, [note, _beyond(n, min(shares[0], 1.0 - shares[1]))])
    return replace(plain, p_value=_p_value(kept, 0.0, correction), low=low, high=high, note="; ".join(notes))


def _speed(jackknife: Array) -> tuple[float, str]:
    """The acceleration, NaN with too few fits, and a note on failed ones."""
    J, failed = len(jackknife), int((~np.isfinite(jackknife)).sum())
    found = acceleration(jackknife)
    if np.isnan(found):
        return found, (
            f"{failed} of {J} jackknife fits failed and the {J - failed} left give no acceleration; use ends='bc' or "
            "'percentile'"
        )
    return found, f"{failed} of {J} jackknife fits failed" if failed else ""


def _beyond(n: int, share: float) -> str:
    """Note on a corrected percentile beyond the draws."""
    if (n + 1.0) * share >= 1.0 - 1e-9:
        return ""
    return f"an end is the most extreme draw: its corrected percentile ({100.0 * share:.2g}%) needs more draws; raise n"


def _positions(kept: Array, value: float) -> tuple[float, float]:
    """First and last position of a value among n sorted draws, 1 to n, interpolated as quantiles are."""
    n = len(kept)
    first, last = int(np.searchsorted(kept, value, "left")), int(np.searchsorted(kept, value, "right"))
    if last > first:
        return first + 1.0, float(last)
    if first in (0, n):
        return (1.0, 1.0) if first == 0 else (float(n), float(n))
    at = first + (value - kept[first - 1]) / (kept[first] - kept[first - 1])
    return float(at), float(at)


def _p_value(kept: Array, value: float, correction: _Correction | None = None) -> float:
    """Largest 1 - level at which the interval contains the value: the dual of the quantiles, at least 2/(n + 1)."""
    n = len(kept)
    first, last = (position / (n + 1.0) for position in _positions(kept, value))
    tails = (last, 1.0 - first) if correction is None else (correction.tails(last)[0], correction.tails(first)[1])
    return min(1.0, max(2.0 * min(tails), 2.0 / (n + 1.0)))
