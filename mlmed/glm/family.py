"""Families of responses: checks of data, mean, row-wise log-likelihood, Newton's method near an optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaln, log_expit, log_ndtr, ndtr

from mlmed.errors import DataError

Array = NDArray[np.float64]

#: Families for 0/1 responses.
BINARY = ("logit", "probit")
#: Largest move of a linear predictor at which Newton's method has converged: after such a step it is exact.
SETTLED = 1e-8
#: Length of a step, and number of steps, beyond which the start was not near an optimum.
FAR, MOST_STEPS = 5.0, 15


def check_response_of(family: str, y: Array, name: str) -> None:
    """Refuse data outside the family's support.

    Raises
    ------
    DataError
        Something other than 0 and 1, or only one of them, for ``logit`` and ``probit``; negative numbers or fractions
        for ``poisson``.
    """
    if family in BINARY:
        values = np.unique(y)
        if len(values) != 2 or not np.array_equal(values, [0.0, 1.0]):
            shown = ", ".join(f"{value:g}" for value in values[:5]) + (", ..." if len(values) > 5 else "")
            raise DataError(
                f"family {family!r} needs a response that is 0 or 1, and both; {name} has {len(values)} different "
                f"value(s) ({shown}). Recode it, or choose another family"
            )
    if family == "poisson" and (np.any(y < 0.0) or np.any(y != np.floor(y))):
        bad = y[(y < 0.0) | (y != np.floor(y))]
        raise DataError(
            f"family 'poisson' needs counts; {name} has {len(bad)} value(s) that are negative or fractions, the first "
            f"{bad[0]:g}. Choose another family"
        )


def mean_of(family: str, eta: Array) -> Array:
    """Expected response at the linear predictor, elementwise.

    Examples
    --------
    >>> [round(float(mean_of(family, np.array(0.5))), 4) for family in ("linear", "logit", "probit", "poisson")]
    [0.5, 0.6225, 0.6915, 1.6487]
    """
    if family == "linear":
        return eta
    if family == "logit":
        return np.asarray(expit(eta))
    with np.errstate(over="ignore"):  # an infinite mean is right there
        return np.asarray(ndtr(eta)) if family == "probit" else np.exp(eta)


def slope_of(family: str, eta: Array) -> Array:
    """Derivative of ``mean_of`` in the linear predictor, elementwise.

    Examples
    --------
    >>> [round(float(slope_of(family, np.array(0.5))), 4) for family in ("linear", "logit", "probit", "poisson")]
    [1.0, 0.235, 0.3521, 1.6487]
    """
    if family == "linear":
        return np.ones_like(eta)
    if family == "logit":
        return np.asarray(expit(eta) * expit(-eta))
    with np.errstate(over="ignore"):
        return normal_density(eta) if family == "probit" else np.exp(eta)


def normal_density(z: Array) -> Array:
    """Density of the standard normal distribution, elementwise."""
    return np.asarray(np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi))


@dataclass(frozen=True, slots=True)
class RowLikelihood:
    """Row-wise log-likelihood and its derivatives in the linear predictor.

    Attributes
    ----------
    loglik, score : (n,) arrays
        Log-likelihood and its derivative.
    observed, expected : (n,) arrays
        Minus the second derivative, and its expectation (different for the probit only).
    """

    loglik: Array
    score: Array
    observed: Array
    expected: Array


def likelihood(family: str, y: Array, eta: Array) -> RowLikelihood:
    """Log-likelihood and derivatives at linear predictors; ``family`` is logit, probit or poisson.

    Examples
    --------
    >>> at = likelihood("probit", np.array([1.0, 0.0]), np.array([0.3, 0.3]))
    >>> at.score.round(4).tolist(), at.expected.round(4).tolist()
    ([0.6172, -0.9982], [0.6161, 0.6161])
    """
    if family == "poisson":
        mean = mean_of(family, eta)
        return RowLikelihood(y * eta - mean - gammaln(y + 1.0), y - mean, mean, mean)
    side = 2.0 * y - 1.0
    if family == "logit":
        mean = mean_of(family, eta)
        weight = mean * mean_of(family, -eta)
        return RowLikelihood(np.asarray(log_expit(side * eta)), y - mean, weight, weight)
    log_right, log_other = np.asarray(log_ndtr(side * eta)), np.asarray(log_ndtr(-side * eta))
    log_density = -0.5 * eta * eta - 0.5 * np.log(2.0 * np.pi)
    score = side * np.exp(log_density - log_right)
    expected = np.exp(2.0 * log_density - log_right - log_other)
    return RowLikelihood(log_right, score, score * (score + eta), expected)


def newton(family: str, y: Array, X: Array, counts: Array, beta: Array) -> Array | None:
    """Maximum-likelihood estimate (p,) from a point near it; None if the steps do not converge.

    Parameters
    ----------
    family : {"logit", "probit", "poisson"}
        Family of the response, with a concave log-likelihood.
    y, X, counts : (n,), (n, p), (n,) arrays
        Response, columns, frequency weights.
    beta : (p,) array
        Start values.
    """
    for _ in range(MOST_STEPS):
        at = likelihood(family, y, X @ beta)
        try:
            step = np.linalg.solve((X * (counts * at.observed)[:, None]).T @ X, X.T @ (counts * at.score))
        except np.linalg.LinAlgError:
            return None
        moved = float(np.abs(X @ step).max())
        if not moved <= FAR:
            return None
        beta = beta + step
        if moved <= SETTLED:
            return np.asarray(beta)
    return None
