"""The evidence that a point is an optimum: named checks, each with its value and its bound.

One certificate serves every search. What is checked differs: each search gives the checks it can make, and the
explanations that its problem may have where one of them fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Names of checks, as they stand in tables and JSON, and what messages call them.
GRADIENT, DECREMENT = "gradient_norm", "newton_decrement"
CURVATURE, MULTIPLIER = "smallest_curvature", "multiplier"
NODE_CHANGE, OFF_CENTRE, STEP = "node_change", "off_centre", "largest_step"
WORDS = {
    GRADIENT: "gradient",
    DECREMENT: "Newton decrement",
    CURVATURE: "smallest curvature",
    MULTIPLIER: "multiplier",
    NODE_CHANGE: "change with twice the nodes",
    OFF_CENTRE: "clusters off centre",
    STEP: "largest step",
}
#: Share of the largest curvature below which that of a coordinate is rounding.
FLAT = 1e-9


@dataclass(frozen=True, slots=True)
class Check:
    """One number that was recomputed at the returned point.

    Attributes
    ----------
    name : str
        One of the names above.
    value : float
        What was found.
    low, high : float
        It has to lie strictly between them.
    """

    name: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the value is within its bounds; NaN is not."""
        return bool(self.low < self.value < self.high)


def below(name: str, value: float, high: float) -> Check:
    """A value that has to be less than ``high``."""
    return Check(name, float(value), -np.inf, high)


def above(name: str, value: float, low: float) -> Check:
    """A value that has to be more than ``low``."""
    return Check(name, float(value), low, np.inf)


def within(name: str, value: float, bound: float) -> Check:
    """A value whose size has to be less than ``bound``."""
    return Check(name, float(value), -bound, bound)


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was recomputed at the returned point; certified where every check passed.

    Attributes
    ----------
    checks : tuple of Check
        The evidence. ``gradient_norm`` is the largest entry of the gradient, ``newton_decrement`` g'H^-1 g, twice what
        a Newton step still promises, ``smallest_curvature`` the smallest eigenvalue of the Hessian, scaled to unit
        diagonal, on the face of the cone where the optimum lies, and ``multiplier`` the smallest slope into the
        interior of the cone at a singular optimum (0 otherwise). docs/math.md says in which units.
    reason : str
        Why a check failed, where that is known.
    advice : str
        What to do where it is not.

    Examples
    --------
    >>> found = Certificate((below(GRADIENT, 1e-9, 1e-5), above(CURVATURE, 0.2, 1e-6)))
    >>> found.converged, found.gradient_norm
    (True, 1e-09)
    >>> Certificate((below(GRADIENT, 1e-3, 1e-5),)).complaint
    'gradient 1.0e-03; simplify the model'
    """

    checks: tuple[Check, ...] = ()
    reason: str = field(default="", repr=False)
    advice: str = field(default="simplify the model", repr=False)

    @property
    def converged(self) -> bool:
        """Whether there is evidence, and all of it is within its bounds."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def complaint(self) -> str:
        """What is wrong, in words; empty if the optimum is certified."""
        if self.converged:
            return ""
        found = ", ".join(f"{WORDS[check.name]} {check.value:.1e}" for check in self.checks)
        return self.reason or f"{found}; {self.advice}"

    def value(self, name: str) -> float:
        """What a check found; NaN where it was not made."""
        return next((check.value for check in self.checks if check.name == name), float("nan"))

    def failed(self, *names: str) -> bool:
        """Whether one of the named checks failed."""
        return any(not check.passed for check in self.checks if check.name in names)

    @property
    def gradient_norm(self) -> float:
        """Largest entry of the gradient."""
        return self.value(GRADIENT)

    @property
    def newton_decrement(self) -> float:
        """Twice what a Newton step still promises."""
        return self.value(DECREMENT)

    @property
    def smallest_curvature(self) -> float:
        """Smallest scaled eigenvalue of the Hessian."""
        return self.value(CURVATURE)

    @property
    def multiplier(self) -> float:
        """Smallest slope into the interior of the cone."""
        return self.value(MULTIPLIER)


def scaled_curvature(hessian: Array, *, least: float = 0.0) -> float:
    """Smallest eigenvalue of a Hessian, (n, n), scaled to unit diagonal.

    Floor tiny diagonals, so that scaling does not amplify rounding; ``least`` is a curvature that counts as large.
    """
    diagonal = np.abs(np.diag(hessian))
    size = np.sqrt(np.maximum(diagonal, FLAT * max(float(diagonal.max()), least)))
    return float(np.linalg.eigvalsh(hessian / np.outer(size, size))[0])


def decrement_of(gradient: Array, hessian: Array) -> float:
    """g'H^-1 g along the directions in which a Hessian bends upwards, (n,), (n, n)."""
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    bent = values > 1e-10 * max(float(np.abs(values).max()), 1.0)
    return float((along[bent] ** 2 / values[bent]).sum())


def first_reason(reasons: Iterable[tuple[bool, str]]) -> str:
    """The first text whose condition holds; empty without one."""
    return next((text for holds, text in reasons if holds), "")
