"""Potential outcomes: E[Y(t, M(t'))] of a row in closed form, whatever the two families (docs/math.md, section 18)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.quantity import Quantity
from mlmed.effects.smoothing import normal_mean, poisson_mean
from mlmed.glm.family import BINARY, mean_of, slope_of
from mlmed.text import Compact

Array = NDArray[np.float64]
T = TypeVar("T", Quantity, Array)

#: Effects that are differences of two of the four expected outcomes.
CONTRASTS = ("acme_control", "acme_treated", "ade_control", "ade_treated", "total")
#: Weights (5, 2, 2) of E[Y(t, M(t'))] in them, t first.
WEIGHTS = np.array(
    [
        [[-1.0, 1.0], [0.0, 0.0]],
        [[0.0, 0.0], [-1.0, 1.0]],
        [[-1.0, 0.0], [1.0, 0.0]],
        [[0.0, -1.0], [0.0, 1.0]],
        [[-1.0, 0.0], [0.0, 1.0]],
    ]
)
#: Ratios to the total effect.
RATIOS = ("prop_mediated_control", "prop_mediated_treated", "prop_mediated")
#: The rows of a table of effects, in order.
EFFECTS = (*CONTRASTS, *RATIOS[:2], "acme", "ade", "prop_mediated")


@dataclass(frozen=True, slots=True, repr=False)
class Counterfactual(Compact):
    """Columns of both equations under both treatment values.

    Attributes
    ----------
    mediator : (2, n, p_m) array
        X_m at control and at treated.
    outcome : (2, n, p_y) array
        X_y at (t, m = 0).
    slope : (2, n, p_y) array
        X_y(t, m = 1) - X_y(t, m = 0); the outcome is linear in m on the scale of its linear predictor.
    """

    mediator: Array
    outcome: Array
    slope: Array

    @property
    def interaction(self) -> bool:
        """Whether the slope of the mediator depends on the treatment."""
        return not np.array_equal(self.slope[0], self.slope[1])


def expected_outcome(mediator: str, outcome: str, eta: Array, A: Array, B: Array, noise: Array) -> Array:
    """E g(A + B M), elementwise (eq. 68 to 71).

    Parameters
    ----------
    mediator, outcome : str
        Families.
    eta : array
        Linear predictor of the mediator.
    A, B : arrays
        Linear predictor of the outcome at M = 0, and its slope in M.
    noise : array
        Standard deviation of a linear mediator around eta; not used by other families.

    Examples
    --------
    >>> half = np.array(0.5)
    >>> round(float(expected_outcome("linear", "probit", half, half, half, np.array(1.0))), 6)
    0.748833
    """
    return _expected(mediator, outcome, eta, A, B, noise, slopes=False)[0]


def expected_slopes(
    mediator: str, outcome: str, eta: Array, A: Array, B: Array, noise: Array
) -> tuple[Array, Array, Array, Array]:
    """E g(A + B M) and its derivatives in eta, A and B."""
    value, by_eta, by_A, by_B = _expected(mediator, outcome, eta, A, B, noise, slopes=True)
    return value, by_eta, by_A, by_B


def _expected(
    mediator: str, outcome: str, eta: Array, A: Array, B: Array, noise: Array, *, slopes: bool
) -> tuple[Array, ...]:
    if mediator == "poisson":
        return poisson_mean(outcome, eta, A, B, slopes=slopes)
    if mediator in BINARY:
        return _binary(mediator, outcome, eta, A, B, slopes=slopes)
    found = normal_mean(outcome, A + B * eta, B * noise, slopes=slopes)
    if not slopes:
        return found
    value, by_a, by_c = found
    return value, by_a * B, by_a, by_a * eta + by_c * noise


def _binary(mediator: str, outcome: str, eta: Array, A: Array, B: Array, *, slopes: bool) -> tuple[Array, ...]:
    """Eq. 68 for a binary mediator."""
    p = mean_of(mediator, eta)
    with np.errstate(over="ignore", invalid="ignore"):
        without, with_it = mean_of(outcome, A), mean_of(outcome, A + B)
        value = without + p * (with_it - without)
        if not slopes:
            return (value,)
        gain = p * slope_of(outcome, A + B)
        by_A = (1.0 - p) * slope_of(outcome, A) + gain
        return value, slope_of(mediator, eta) * (with_it - without), by_A, gain


def contrast_effects(acme_control: T, acme_treated: T, ade_control: T, ade_treated: T, total: T) -> dict[str, T]:
    """Every effect by name from the five contrasts; ratios to a total of 0 are missing."""
    acme, ade = 0.5 * (acme_control + acme_treated), 0.5 * (ade_control + ade_treated)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_control, of_treated, share = acme_control / total, acme_treated / total, acme / total
    made = (acme_control, acme_treated, ade_control, ade_treated, total, of_control, of_treated, acme, ade, share)
    return dict(zip(EFFECTS, made, strict=True))


def effect_weights() -> dict[str, Array]:
    """Weights (5,) of the contrasts in every effect that is linear in them."""
    return {term: weight for term, weight in all_effects(np.eye(5)).items() if term not in RATIOS}


def all_effects(contrasts: Array) -> dict[str, Array]:
    """Every effect by name from arrays (..., 5) of the contrasts, (...) each."""
    return contrast_effects(*np.moveaxis(contrasts, -1, 0))
