"""Expected responses when the linear predictor is normal, or linear in a count (docs/math.md, eq. 69 to 71).

Functions return their value, and with ``slopes`` also derivatives. A rate beyond double precision gives inf or NaN,
which the caller reports.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr

from mlmed.glm.family import mean_of, normal_density, slope_of

Array = NDArray[np.float64]

#: Nodes reach this far: the normal tails beyond weigh 6e-14.
REACH = 7.5
#: Minus the logarithm of the discretization error of the trapezoidal rule, exp(-30) = 1e-13.
DIGITS = 30.0
#: Deviations in a Poisson distribution beyond which the tails weigh less than 1e-13 (Chernoff).
LOWER, UPPER = 8.0, 60.0


def normal_mean(family: str, a: Array, c: Array, *, slopes: bool = False) -> tuple[Array, ...]:
    """E g(a + c Z) with Z standard normal; with ``slopes`` also its derivatives in a and c (eq. 69).

    Parameters
    ----------
    family : {"linear", "logit", "probit", "poisson"}
        Whose inverse link is g.
    a, c : arrays that broadcast
        Centre and (signed) standard deviation of the linear predictor.
    slopes : bool
        Whether to return derivatives.

    Examples
    --------
    >>> a, c = np.array(1.0), np.array(2.0)
    >>> [round(float(normal_mean(family, a, c)[0]), 6) for family in ("linear", "logit", "probit", "poisson")]
    [1.0, 0.647726, 0.67264, 20.085537]
    """
    if family == "linear":
        return (a, np.ones_like(a), np.zeros_like(a)) if slopes else (a,)
    if family == "logit":
        return _logistic_normal(a, c, slopes=slopes)
    if family == "probit":
        shrink = 1.0 / np.sqrt(1.0 + c * c)
        z = a * shrink
        if not slopes:
            return (np.asarray(ndtr(z)),)
        density = normal_density(z) * shrink
        return np.asarray(ndtr(z)), density, -density * a * c * shrink * shrink
    with np.errstate(over="ignore"):
        value = np.exp(a + 0.5 * c * c)
        return (value, value, c * value) if slopes else (value,)


def node_distance(widest: float) -> float:
    """Distance of the nodes of the trapezoidal rule for a logistic function of standard deviation ``widest``.

    The integrand is analytic in the strip up to the poles of the logistic function, at d = pi / widest. Shifting the
    contour by y gives the error exp(y^2/2 - 2 pi y/h); the best y is 2 pi/h, or d where that is less (eq. 70).
    """
    free = np.pi * np.sqrt(2.0 / DIGITS)
    if widest == 0.0:
        return float(free)
    pole = np.pi / widest
    return float(free if pole >= 2.0 * np.pi / free else 2.0 * np.pi * pole / (DIGITS + 0.5 * pole**2))


def _logistic_normal(a: Array, c: Array, *, slopes: bool) -> tuple[Array, ...]:
    """Integrate by the trapezoidal rule, which needs fewer nodes than Gauss-Hermite (eq. 70)."""
    a, c = np.broadcast_arrays(a, c)
    sizes = np.abs(c[np.isfinite(c)])
    h = node_distance(float(sizes.max(initial=0.0)))
    count = int(np.ceil(REACH / h))
    nodes = h * np.arange(-count, count + 1, dtype=np.float64)
    weights = normal_density(nodes)
    weights /= weights.sum()
    mean, by_a, by_c = np.zeros(a.shape), np.zeros(a.shape), np.zeros(a.shape)
    half, width = 0.5 * a, 0.5 * c
    for z, weight in zip(nodes, weights, strict=True):
        t = np.tanh(half + width * z)  # 2 * logistic - 1, several times faster than expit
        mean += weight * t
        if slopes:
            bend = weight * (1.0 - t * t)
            by_a += bend
            by_c += z * bend
    value = 0.5 + 0.5 * mean
    return (value, 0.25 * by_a, 0.25 * by_c) if slopes else (value,)


def poisson_mean(family: str, eta: Array, A: Array, B: Array, *, slopes: bool = False) -> tuple[Array, ...]:
    """E g(A + B K), K Poisson with log rate eta; with ``slopes`` also its derivatives in eta, A and B (eq. 71).

    Closed for ``linear`` and ``poisson``; otherwise a sum over counts until both tails weigh less than 1e-12.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rate = np.exp(eta)
        if family == "linear":
            value = A + B * rate
            return (value, B * rate, np.ones_like(value), rate) if slopes else (value,)
        if family == "poisson":
            gain = np.expm1(B)
            value = np.exp(A + rate * gain)
            return (value, value * rate * gain, value, value * rate * np.exp(B)) if slopes else (value,)
    return _sum_over_counts(family, rate, A, B, slopes=slopes)


def _sum_over_counts(family: str, rate: Array, A: Array, B: Array, *, slopes: bool) -> tuple[Array, ...]:
    rate, A, B = np.broadcast_arrays(np.where(np.isfinite(rate), rate, np.nan), A, B)
    first = np.maximum(np.floor(rate - LOWER * np.sqrt(rate)), 0.0)
    reach = 10.0 + np.sqrt(100.0 + UPPER * rate)
    known = np.isfinite(rate)
    most = int(np.ceil((rate + reach - first)[known].max(initial=0.0))) + 1
    with np.errstate(divide="ignore", invalid="ignore"):
        log_rate = np.where(rate > 0.0, np.log(rate), 0.0)
        share = np.exp(first * log_rate - rate - gammaln(first + 1.0))
    totals = [np.zeros(rate.shape) for _ in range(4 if slopes else 1)]
    here = mean_of(family, A + B * first)
    for step in range(most):
        count = first + step
        totals[0] += share * here
        beyond = mean_of(family, A + B * (count + 1.0))
        if slopes:
            slope = share * slope_of(family, A + B * count)
            totals[1] += share * (beyond - here) * rate  # d/d rate of E f(K) is E f(K + 1) - f(K)
            totals[2] += slope
            totals[3] += slope * count
        here = beyond
        share = share * rate / (count + 1.0)
    return tuple(totals)
