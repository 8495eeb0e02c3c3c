"""Monte Carlo intervals of effects: draws of a, b, cprime and cov_ab (docs/math.md, eq. 43)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity
from mlmed.effects.draws import normal_draws
from mlmed.effects.paths import effect_draws

__all__ = ["LINEAR", "monte_carlo_draws"]

Array = NDArray[np.float64]
#: The effects that are linear in psi; the others are functions of them.
LINEAR = ("a", "b", "cprime", "cov_ab")


def monte_carlo_draws(
    quantities: Mapping[str, Quantity], V: Array, *, n: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Draws (n,) of every effect from the joint normal distribution of the linear ones.

    A quantity whose variance does not exist (NaN in V) is NaN in every draw, and so is what is made of it.

    Parameters
    ----------
    quantities : mapping
        At least a, b, cprime and cov_ab, each with its gradient in psi.
    V : (n_psi, n_psi) array
        Covariance of psi.
    """
    linear = [quantities[name] for name in LINEAR]
    mean = np.array([quantity.estimate for quantity in linear])
    J = np.stack([quantity.gradient for quantity in linear])
    covariance = np.full((len(linear), len(linear)), np.nan)
    for i, left in enumerate(J):
        for k, right in enumerate(J):
            rows, columns = left != 0.0, right != 0.0
            covariance[i, k] = left[rows] @ V[np.ix_(rows, columns)] @ right[columns]
    known = np.isfinite(np.diag(covariance))
    draws = np.full((n, len(linear)), np.nan)
    if known.any():
        draws[:, known] = normal_draws(mean[known], covariance[np.ix_(known, known)], n, rng)
    return effect_draws(draws)
