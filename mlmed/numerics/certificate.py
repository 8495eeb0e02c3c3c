"""The evidence that a point is an optimum: named checks, each with its value and its bound.

All searches share one kind of certificate; each supplies its own checks and explanations of failures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: Names of checks in tables and JSON, and their names in messages.
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
#: Share of the largest curvature below which a coordinate's curvature is rounding.
FLAT = 1e-9


@dataclass(frozen=True, slots=True)
class Check:
    """One number recomputed at the returned point.

    Attributes
    ----------
    name : str
        One of the names above.
    value : float
        The number.
    low, high : float
        Strict bounds.
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
    """Check that a value is less than ``high``."""
    return Check(name, float(value), -np.inf, high)


def above(name: str, value: float, low: float) -> Check:
    """Check that a value is more than ``low``."""
    return Check(name, float(value), low, np.inf)


def within(name: str, value: float, bound: float) -> Check:
    """Check that the absolute value is less than ``bound``."""
    return Check(name, float(value), -bound, bound)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Checks of the returned point; it is certified if all pass.

    Attributes
    ----------
    checks : tuple of Check
        The evidence. ``gradient_norm`` is the largest entry of the gradient, ``newton_decrement`` g'H^-1 g, twice the
        predicted gain of a Newton step, ``smallest_curvature`` the smallest eigenvalue of the Hessian, scaled to unit
        diagonal, on the face of the cone where the optimum lies, and ``multiplier`` the smallest slope into the
        interior of the cone at a singular optimum (0 otherwise). Units: docs/math.md.
    reason : str
        Why a check failed, if known.
    advice : str
        What to do if the reason is not known.

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
        """Whether there are checks and all pass."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def complaint(self) -> str:
        """Description of the failed checks; empty if the optimum is certified."""
        if self.converged:
            return ""
        found = ", ".join(f"{WORDS[check.name]} {check.value:.1e}" for check in self.checks)
        return self.reason or f"{found}; {self.advice}"

    def value(self, name: str) -> float:
        """Value of a check; NaN if it was not made."""
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
        """Twice the predicted gain of a Newton step."""
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

    Floor tiny diagonals, so that scaling does not amplify rounding; the largest counts as at least ``least``.
    """
    diagonal = np.abs(np.diag(hessian))
    size = np.sqrt(np.maximum(diagonal, FLAT * max(float(diagonal.max()), least)))
    return float(np.linalg.eigvalsh(hessian / np.outer(size, size))[0])


def decrement_of(gradient: Array, hessian: Array) -> float:
    """g'H^-1 g over the directions of positive curvature; gradient (n,), Hessian (n, n)."""
    values, vectors = np.linalg.eigh(hessian)
    along = vectors.T @ gradient
    bent = values > 1e-10 * max(float(np.abs(values).max()), 1.0)
    return float((along[bent] ** 2 / values[bent]).sum())


def first_reason(reasons: Iterable[tuple[bool, str]]) -> str:
    """The first text whose condition holds; empty without one."""
    return next((text for holds, text in reasons if holds), "")
