"""Families of responses: what their data must be, their mean as a function of the linear predictor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from mlmed.errors import DataError

__all__ = ["BINARY", "check_response_of", "mean_of", "normal_density", "slope_of"]

Array = NDArray[np.float64]
#: Families of a response that is 0 or 1.
BINARY = ("logit", "probit")


def check_response_of(family: str, y: Array, name: str) -> None:
    """Refuse data that the family cannot have made.

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
    with np.errstate(over="ignore"):  # infinity says just that
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
