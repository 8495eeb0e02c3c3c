"""Conditional modes of the random effects and their covariances (docs/math.md, eq. 22)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import chunks
from mlmed.lmm.problem import Problem
from mlmed.lmm.whitened import given_effects

__all__ = ["ConditionalModes", "conditional_modes"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConditionalModes:
    """What the data say about each cluster.

    Attributes
    ----------
    modes : (q, J) array
        E(u_j | y) at the estimates.
    covariances : (q, q, J) array
        Var(u_j | y), the estimates taken as known (lme4's ``condVar``).
    """

    modes: Array
    covariances: Array


def conditional_modes(problem: Problem, L: Array, sigma2: Array, beta: Array, Z_map: Array) -> ConditionalModes:
    """Modes ``N Z'R^-1 (y - X beta)`` and covariances ``N = L M^-1 L'`` per cluster, mapped by ``Z_map``.

    Parameters
    ----------
    problem : Problem
        Cross-products in working units.
    L, sigma2, beta : (q, q), (S,), (p,) arrays
        Estimates in working units.
    Z_map : (q, q) array
        ``u = Z_map @ u_w``.
    """
    q, J = problem.n_random, problem.n_clusters
    modes, covariances = np.empty((q, J)), np.empty((q, q, J))
    contrast = np.append(-beta, 1.0)
    for part in chunks(problem):
        own, HB = given_effects(problem, L, sigma2, part)
        H = own @ Z_map.T  # (n, q, q): K^-1 L' times Z_map'
        half = HB @ contrast
        modes[:, part] = (half[:, None, :] @ H)[:, 0].T
        covariances[:, :, part] = (H.transpose(0, 2, 1) @ H).transpose(1, 2, 0)
    return ConditionalModes(modes, covariances)
