"""Arithmetic that carries derivatives: an effect is one plain function, of quantities and of arrays of draws alike.

DESIGN: a slope is a linear form of psi, an effect a function of slopes written with + - * / and **. Given ``Quantity``
it returns value, gradient and Hessian; given arrays of draws it returns draws (docs/math.md, eq. 26 to 31).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlmed.fit.protocol import Kind

Array = NDArray[np.float64]
#: Values that effects take: numbers with derivatives, or draws.
T = TypeVar("T", "Quantity", Array)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A function of psi at the estimates.

    Attributes
    ----------
    term : str
        Its name; arithmetic leaves it empty.
    estimate : float
        Its value.
    gradient : (n,) array
        First derivatives in psi.
    hessian : (n, n) array or None
        Second derivatives; None if it is linear.
    note : str
        Note for the reader; a note with a zero gradient marks a fixed quantity.
    kind : Kind
        Decides the interval: log scale without a test for variances and standard deviations, Fisher's z for
        correlations. Not read off the name: a column may be called ``var(x)``.
    carried : tuple of str
        Notes inherited by every function of it, such as values of moderators.

    Notes
    -----
    A function of a missing quantity is missing, for the same reason.

    Examples
    --------
    >>> a, b = Quantity("a", 2.0, np.array([1.0, 0.0])), Quantity("b", 3.0, np.array([0.0, 1.0]))
    >>> product = a * b + 1.0
    >>> product.estimate, product.gradient.tolist(), product.hessian.tolist()
    (7.0, [3.0, 2.0], [[0.0, 1.0], [1.0, 0.0]])
    """

    __array_ufunc__: ClassVar[None] = None  # NumPy numbers on the left defer to this class

    term: str
    estimate: float
    gradient: Array
    hessian: Array | None = None
    note: str = ""
    kind: Kind = ""
    carried: tuple[str, ...] = ()

    @property
    def is_fixed(self) -> bool:
        """Whether the model fixes the value (nothing to estimate, no standard error)."""
        return not np.any(self.gradient) and (self.hessian is None or not np.any(self.hessian))

    @property
    def is_missing(self) -> bool:
        """Whether the number does not exist at any psi."""
        return math.isnan(self.estimate) and self.is_fixed

    def named(self, term: str) -> Quantity:
        """The same quantity under another name."""
        return replace(self, term=term)

    def among(self, n: int, part: slice) -> Quantity:
        """The same function of ``part`` of n parameters."""
        gradient, hessian = np.zeros(n), None if self.hessian is None else np.zeros((n, n))
        gradient[part] = self.gradient
        if hessian is not None:
            hessian[part, part] = self.hessian
        return replace(self, gradient=gradient, hessian=hessian)

    def __add__(self, other: Quantity | float) -> Quantity:
        if isinstance(other, Quantity):
            return chained(self.estimate + other.estimate, (self, other), (1.0, 1.0))
        return chained(self.estimate + other, (self,), (1.0,))

    def __sub__(self, other: Quantity | float) -> Quantity:
        if isinstance(other, Quantity):
            return chained(self.estimate - other.estimate, (self, other), (1.0, -1.0))
        return chained(self.estimate - other, (self,), (1.0,))

    def __mul__(self, other: Quantity | float) -> Quantity:
        if isinstance(other, Quantity):
            u, v = self.estimate, other.estimate
            return chained(u * v, (self, other), (v, u), ((0.0, 1.0), (1.0, 0.0)))
        return chained(self.estimate * other, (self,), (other,))

    def __truediv__(self, other: Quantity | float) -> Quantity:
        """Quotient; missing where the denominator is exactly 0."""
        if not isinstance(other, Quantity):
            return chained(self.estimate / other, (self,), (1.0 / other,))
        u, v = self.estimate, other.estimate
        if v == 0.0:
            return Quantity("", math.nan, np.zeros_like(self.gradient))
        f = u / v
        found = chained(f, (self - f * other,), (1.0 / v,))  # equal relative changes cancel exactly
        if found.is_missing:
            return found
        cross = np.outer(found.gradient, other.gradient) / v
        bent = -(cross + cross.T)
        return replace(found, hessian=bent if found.hessian is None else found.hessian + bent)

    def __pow__(self, other: Quantity | float) -> Quantity:
        u, p = self.estimate, other.estimate if isinstance(other, Quantity) else float(other)
        f, slope = u**p, p * u ** (p - 1.0) if p else 0.0
        bend = p * (p - 1.0) * u ** (p - 2.0) if p not in (0.0, 1.0) else 0.0
        if not isinstance(other, Quantity):
            return chained(f, (self,), (slope,), ((bend,),))
        log = math.log(u)
        cross = u ** (p - 1.0) * (1.0 + p * log)
        return chained(f, (self, other), (slope, f * log), ((bend, cross), (cross, f * log**2)))

    def __neg__(self) -> Quantity:
        return chained(-self.estimate, (self,), (-1.0,))

    def __pos__(self) -> Quantity:
        return chained(self.estimate, (self,), (1.0,))

    __radd__ = __add__

    def __rsub__(self, other: float) -> Quantity:
        return chained(other - self.estimate, (self,), (-1.0,))

    __rmul__ = __mul__

    def __rtruediv__(self, other: float) -> Quantity:
        return other * self**-1.0

    def __rpow__(self, other: float) -> Quantity:
        f, log = other**self.estimate, math.log(other)
        return chained(f, (self,), (f * log,), ((f * log**2,),))


def chained(estimate: float, parts: Sequence[Quantity], slopes: ArrayLike, bends: ArrayLike | None = None) -> Quantity:
    """A function of quantities from its derivatives in them: the chain rule (eq. 31).

    Parameters
    ----------
    estimate : float
        Its value.
    parts : sequence of k Quantity
        Its arguments.
    slopes : (k,) array
        First derivatives in them.
    bends : (k, k) array, optional
        Second derivatives; None if it is linear.
    """
    missing = next((part for part in parts if part.is_missing), None)
    if missing is not None:
        return replace(missing, term="", hessian=None)
    J, slope = np.stack([part.gradient for part in parts]), np.asarray(slopes, dtype=np.float64)
    curved = [weight * part.hessian for weight, part in zip(slope, parts, strict=True) if part.hessian is not None]
    if bends is not None:
        curved.insert(0, J.T @ np.asarray(bends, dtype=np.float64) @ J)
    carried = tuple(dict.fromkeys(text for part in parts for text in part.carried if text))
    hessian = sum(curved[1:], curved[0]) if curved else None
    return Quantity("", estimate, slope @ J, hessian, "; ".join(carried), "", carried)


#: Functions that an expression may call: the function, and its two derivatives at x with value f.
FUNCTIONS: dict[str, tuple[Callable[[float], float], Callable[[float, float], tuple[float, float]]]] = {
    "exp": (math.exp, lambda x, f: (f, f)),
    "log": (math.log, lambda x, f: (1.0 / x, -1.0 / x**2)),
    "sqrt": (math.sqrt, lambda x, f: (0.5 / f, -0.25 / f**3)),
    "tanh": (math.tanh, lambda x, f: (1.0 - f**2, -2.0 * f * (1.0 - f**2))),
    "atanh": (math.atanh, lambda x, f: (1.0 / (1.0 - x**2), 2.0 * x / (1.0 - x**2) ** 2)),
    "abs": (abs, lambda x, f: (math.copysign(1.0, x) if x else 0.0, 0.0)),
}


def applied(name: str, value: Any) -> Any:
    """One of ``FUNCTIONS`` of a number or of a quantity."""
    function, derivatives = FUNCTIONS[name]
    if not isinstance(value, Quantity):
        return function(value)
    found = function(value.estimate)
    slope, bend = (0.0, 0.0) if value.is_fixed else derivatives(value.estimate, found)
    return chained(found, (value,), (slope,), ((bend,),))


def mean_product(slopes: Sequence[T], covariances: Mapping[tuple[int, int], T]) -> T:
    """``E[prod (s_k + r_k'u)]``: the mean of a product of slopes that vary over clusters (eq. 27).

    With normal deviations it is the sum over all partial pairings, a covariance per pair and a mean per single
    (Isserlis): ``a b + cov_ab`` of two slopes, ``a b c + a cov_bc + b cov_ac + c cov_ab`` of three.

    Parameters
    ----------
    slopes : sequence of k values
        The means s_k.
    covariances : mapping of (i, j), i < j, to values
        ``r_i'G r_j``; omitted pairs do not covary.

    Examples
    --------
    >>> two, three = np.array([2.0]), np.array([3.0])
    >>> mean_product([two, three], {(0, 1): np.array([0.5])})
    array([6.5])
    """

    def over(left: tuple[int, ...]) -> T:
        first, *others = left
        if not others:
            return slopes[first]
        found = slopes[first] * over(tuple(others))
        for k in others:
            if (first, k) in covariances:
                rest = tuple(other for other in others if other != k)
                pair = covariances[first, k]
                found = found + (pair * over(rest) if rest else pair)
        return found

    return over(tuple(range(len(slopes))))
