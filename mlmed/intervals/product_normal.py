"""Distribution of a product of two normal variables, alone or plus a third (docs/math.md, eq. 65).

With (a, b, c) jointly normal, ``a b + c`` is normal given b, so its distribution function is one integral over b, by
Gauss-Legendre panels that shrink towards the points where the integrand turns: where the conditional variance is
smallest (b = 0 for a plain product) and where the conditional mean passes the argument.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from mlmed.errors import EffectError
from mlmed.text import shown

Array = NDArray[np.float64]
#: Nodes per panel, standard deviations of b covered, width of plain panels, halvings towards a turning point.
NODES, REACH, WIDTH, HALVINGS = 16, 9.0, 0.5, 50
#: Rounding error of a zero eigenvalue of a scaled covariance.
ROUNDING = 1e-10


@dataclass(frozen=True, slots=True)
class ProductNormal:
    """``a b + c`` for jointly normal (a, b, c).

    Attributes
    ----------
    mean : (3,) array
        Means of a, b, c.
    covariance : (3, 3) array
        Their covariance; may be singular.
    """

    mean: Array
    covariance: Array

    @property
    def expectation(self) -> float:
        """``a b + Cov(a, b) + c``."""
        a, b, c = self.mean
        return float(a * b + self.covariance[0, 1] + c)

    @property
    def sd(self) -> float:
        """Standard deviation, exact: the second-order delta method (eq. 29)."""
        a, b, _ = self.mean
        V = self.covariance
        slope = np.array([b, a, 1.0])
        variance = slope @ V @ slope + V[0, 0] * V[1, 1] + V[0, 1] ** 2
        return float(np.sqrt(np.maximum(variance, 0.0)))  # rounding below zero is zero

    def cdf(self, value: float) -> float:
        """P(a b + c <= value)."""
        if not np.isfinite(value):
            return float(np.isposinf(value)) if not np.isnan(value) else float("nan")
        given = self._given_b()
        z, weight = _nodes(given.turning_points(value))
        mean, variance = np.polyval(given.mean, z), np.maximum(np.polyval(given.variance, z), 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(variance > 0.0, ndtr((value - mean) / np.sqrt(variance)), mean <= value)
        return float(np.minimum(weight @ share, 1.0))

    def quantile(self, probability: float) -> float:
        """Quantile by root finding.

        Raises
        ------
        EffectError
            ``probability`` is not between 0 and 1.
        """
        from scipy.optimize import brentq

        if not 0.0 < probability < 1.0:
            raise EffectError(f"a quantile belongs to a proportion between 0 and 1; found {shown(probability)}")
        centre, sd = self.expectation, self.sd
        if sd <= 0.0:
            return centre
        low, high = centre - 2.0 * sd, centre + 2.0 * sd
        while self.cdf(low) > probability:
            low -= 2.0 * (centre - low)
        while self.cdf(high) < probability:
            high += 2.0 * (high - centre)
        return float(brentq(lambda value: self.cdf(value) - probability, low, high, xtol=1e-13 * sd, rtol=1e-13))

    def interval(self, level: float) -> tuple[float, float]:
        """Equal-tailed interval."""
        tail = 0.5 * (1.0 - level)
        return self.quantile(tail), self.quantile(1.0 - tail)

    def p_value(self) -> float:
        """Largest 1 - level at which the interval contains 0: twice the smaller tail at 0."""
        turned = np.array([-1.0, 1.0, -1.0])
        above = ProductNormal(turned * self.mean, np.outer(turned, turned) * self.covariance).cdf(0.0)
        return float(min(1.0, 2.0 * min(self.cdf(0.0), above)))

    def _given_b(self) -> _GivenB:
        (a, b, c), V = self.mean, self.covariance
        root = float(np.sqrt(V[1, 1]))
        on_a, on_c = (V[0, 1] / root, V[2, 1] / root) if root > 0.0 else (0.0, 0.0)
        V_a, V_c, V_ac = V[0, 0] - on_a**2, V[2, 2] - on_c**2, V[0, 2] - on_a * on_c
        line = np.array([root, b])  # b as a polynomial of z
        mean = np.polyadd(np.polymul([on_a, a], line), [on_c, c])
        variance = np.polyadd(np.polymul(line, line) * V_a, np.polyadd(2.0 * V_ac * line, [V_c]))
        return _GivenB(np.atleast_1d(mean), np.atleast_1d(variance))


@dataclass(frozen=True, slots=True)
class _GivenB:
    """Mean and variance of ``a b + c`` given b as polynomials of z, the standardized b; highest power first."""

    mean: Array
    variance: Array

    def turning_points(self, value: float) -> list[float]:
        """Values of z near which the integrand may change fast."""
        gap = np.polysub(self.mean, [value])
        roots = np.roots(gap) if np.any(gap[:-1]) else np.empty(0)
        found = [float(root.real) for root in roots]  # real parts of complex roots: where the mean comes closest
        for parabola in (self.mean, self.variance):
            if len(parabola) == 3 and parabola[0] != 0.0:
                found.append(float(-0.5 * parabola[1] / parabola[0]))
        return [z for z in found if abs(z) <= REACH]


@cache
def _rule() -> tuple[Array, Array]:
    return np.polynomial.legendre.leggauss(NODES)


def _nodes(points: list[float]) -> tuple[Array, Array]:
    """Nodes and weights, the normal density among them, with panels graded towards the points."""
    steps = 2.0 ** (1.0 - np.arange(HALVINGS))
    edges = [np.arange(-REACH, REACH + WIDTH / 2.0, WIDTH)]
    for point in points:
        edges.append(np.concatenate([point - steps, [point], point + steps]))
    edge = np.unique(np.clip(np.concatenate(edges), -REACH, REACH))
    x, w = _rule()
    half, middle = 0.5 * np.diff(edge), 0.5 * (edge[1:] + edge[:-1])
    z = (middle[:, None] + half[:, None] * x).ravel()
    weight = (half[:, None] * w).ravel() * np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return z, weight


def product_normal(mean: ArrayLike, covariance: ArrayLike) -> ProductNormal:
    """The distribution of ``a b`` (two means) or ``a b + c`` (three).

    Parameters
    ----------
    mean : (2,) or (3,) array
        Means of a, b and, if given, c.
    covariance : (2, 2) or (3, 3) array
        Their covariance.

    Raises
    ------
    EffectError
        Shapes that do not fit, a number that is not finite, or a covariance with a negative eigenvalue.

    Examples
    --------
    >>> ab = product_normal([0.5, 0.6], [[0.08**2, 0.0], [0.0, 0.04**2]])
    >>> [round(end, 3) for end in ab.interval(0.95)], round(ab.sd, 4)
    ([0.201, 0.405], 0.0521)
    """
    centre, V = np.asarray(mean, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    k = len(centre) if centre.ndim == 1 else 0
    if k not in (2, 3) or V.shape != (k, k):
        raise EffectError(f"two or three means and their covariance are needed; found shapes {centre.shape}, {V.shape}")
    if not (np.isfinite(centre).all() and np.isfinite(V).all()) or not np.allclose(V, V.T):
        raise EffectError("means and covariance must be finite, and the covariance symmetric")
    size = np.sqrt(np.abs(np.diag(V)))
    size = np.where(size > 0.0, size, 1.0)
    lowest = float(np.linalg.eigvalsh(V / np.outer(size, size))[0])
    if lowest < -ROUNDING:
        raise EffectError(
            f"the covariance has the negative eigenvalue {lowest:.3g} (scaled), so there is no such normal"
        )
    full, whole = np.zeros(3), np.zeros((3, 3))
    full[:k], whole[:k, :k] = centre, V
    return ProductNormal(full, whole)
