"""Log-likelihood of generalized linear models row by row, and Newton's method near an optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, log_expit, log_ndtr

from mlmed.glm.families import mean_of

__all__ = ["RowLikelihood", "likelihood", "newton"]

Array = NDArray[np.float64]

#: Newton's method has settled when the linear predictor of no row moves further; from a step of this size it is exact.
SETTLED = 1e-8
#: A step this long is not near an optimum, and neither is a search of so many steps.
FAR, MOST_STEPS = 5.0, 15


@dataclass(frozen=True, slots=True)
class RowLikelihood:
    """What every row says of its linear predictor.

    Attributes
    ----------
    loglik, score : (n,) arrays
        Log-likelihood and its derivative.
    observed, expected : (n,) arrays
        Minus the second derivative, and its expectation (they differ for the probit only).
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
    """Maximum-likelihood estimate (p,) from a point near it; None where the steps do not settle.

    Parameters
    ----------
    family : {"logit", "probit", "poisson"}
        Of the response; their log-likelihoods are concave.
    y, X, counts : (n,), (n, p), (n,) arrays
        Data, and how often each row counts.
    beta : (p,) array
        Where to start.
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
