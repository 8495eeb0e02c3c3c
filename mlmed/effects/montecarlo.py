"""Draws of effects from draws of a, b, cprime and cov_ab, and these from their normal distribution (eq. 43)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.delta import Covariance, Quantity
from mlmed.effects.draws import normal_draws
from mlmed.effects.paths import Paths
from mlmed.reml.estimates import Estimates

__all__ = ["EFFECTS", "LINEAR", "effect_draws", "linear_draws", "monte_carlo_draws"]

Array = NDArray[np.float64]
#: The rows of an effects table, in order.
EFFECTS = ("a", "b", "cprime", "cov_ab", "indirect", "direct", "total")
#: The effects that are linear in psi; the others are functions of them.
LINEAR = ("a", "b", "cprime", "cov_ab")


def monte_carlo_draws(
    quantities: Mapping[str, Quantity], V: Covariance, *, n: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Draws (n,) of every effect from the joint normal distribution of the linear ones.

    A quantity whose variance does not exist is NaN in every draw, and so is what is made of it.

    Parameters
    ----------
    quantities : mapping
        At least a, b, cprime and cov_ab, each with its gradient in psi.
    V : Covariance
        Of psi.
    """
    linear = [quantities[name] for name in LINEAR]
    mean = np.array([quantity.estimate for quantity in linear])
    J = np.stack([quantity.gradient for quantity in linear])
    covariance = np.full((len(linear), len(linear)), np.nan)
    for i, left in enumerate(J):
        matrix = V.of(left)
        for k, right in enumerate(J):
            rows, columns = left != 0.0, right != 0.0
            covariance[i, k] = left[rows] @ matrix[np.ix_(rows, columns)] @ right[columns]
    known = np.isfinite(np.diag(covariance))
    draws = np.full((n, len(linear)), np.nan)
    if known.any():
        draws[:, known] = normal_draws(mean[known], covariance[np.ix_(known, known)], n, rng)
    return effect_draws(draws)


def linear_draws(paths: Paths, estimates: Estimates, psi: Array) -> Array:
    """a, b, cprime and cov_ab of many parameter vectors: (n, n_psi) -> (n, 4)."""
    p, T = len(estimates.beta), len(estimates.tau)
    weight = np.einsum("kab,a,b->k", estimates.tau_basis, paths.a.random, paths.b.random)
    slopes = np.stack([paths.a.fixed, paths.b.fixed, paths.cprime.fixed])
    return np.column_stack([psi[:, :p] @ slopes.T, psi[:, p : p + T] @ weight])


def effect_draws(linear: Array) -> dict[str, Array]:
    """All effects from draws of a, b, cprime and cov_ab, (n, 4): one array (n,) an effect."""
    a, b, cprime, cov_ab = linear.T
    indirect = a * b + cov_ab
    return dict(zip(EFFECTS, (a, b, cprime, cov_ab, indirect, cprime, indirect + cprime), strict=True))
