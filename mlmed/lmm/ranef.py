"""The random effects of every cluster given the data: modes, covariances, dependence on beta (eq. 22, 73)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import chunks
from mlmed.lmm.problem import Problem
from mlmed.lmm.roots import given_effects
from mlmed.lmm.working import Units

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ConditionalModes:
    """Conditional means and covariances of the random effects.

    Attributes
    ----------
    modes : (q, J) array
        E(u_j | y) at the estimates.
    covariances : (q, q, J) array
        Var(u_j | y) at the estimates, taken as known (lme4's ``condVar``).
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


@dataclass(frozen=True, slots=True)
class ModeLaw:
    """Normal distribution of u_j given the data and beta, variances taken as known.

    Attributes
    ----------
    modes : (J, q) array
        E(u_j | y, beta-hat).
    root : (J, q, q) array
        ``root_j' root_j`` is Var(u_j | y, beta), whatever beta is.
    slide : (J, q, p) array
        E(u_j | y, beta) = modes_j - slide_j (beta - beta-hat).
    """

    modes: Array
    root: Array
    slide: Array

    @property
    def covariances(self) -> Array:
        """Var(u_j | y, beta), (J, q, q)."""
        return self.root.transpose(0, 2, 1) @ self.root

    def draw(self, shift: Array, rng: np.random.Generator) -> Array:
        """Draw one u_j for every cluster and every draw of the fixed effects.

        Parameters
        ----------
        shift : (d, p) array
            beta - beta-hat of every draw.
        rng : Generator
            Source of d * J * q numbers.

        Returns
        -------
        (d, J, q) array
        """
        z = rng.standard_normal((len(shift), *self.modes.shape))
        u = np.matmul(z.transpose(1, 0, 2), self.root)  # (J, d, q): z'root has covariance root'root
        u -= np.matmul(shift, self.slide.transpose(0, 2, 1))
        return np.ascontiguousarray(u.transpose(1, 0, 2)) + self.modes

    def independent(self) -> ModeLaw:
        """The law with independent effects that ignores beta (as in R's ``mediation``)."""
        sizes = np.sqrt(np.einsum("jaa->ja", self.covariances))
        return replace(self, root=sizes[:, :, None] * np.eye(sizes.shape[1]), slide=np.zeros_like(self.slide))


def mode_law(problem: Problem, L: Array, sigma2: Array, beta: Array, units: Units) -> ModeLaw:
    """Modes, covariances and their dependence on beta, in the user's units.

    Parameters
    ----------
    problem : Problem
        Cross-products in working units.
    L, sigma2, beta : (q, q), (S,), (p,) arrays
        Estimates in working units.
    units : Units
        Maps to the user's units.
    """
    J, q, p = problem.n_clusters, problem.n_random, problem.n_fixed
    law = ModeLaw(np.empty((J, q)), np.empty((J, q, q)), np.empty((J, q, p)))
    contrast = np.append(-beta, 1.0)
    back = np.linalg.inv(units.X_map)  # maps a step of beta to working units
    for part in chunks(problem):
        own, HB = given_effects(problem, L, sigma2, part)
        H = own @ units.Z_map.T  # K^-1 L' Z_map': N_j = H'H (eq. 22)
        turned = H.transpose(0, 2, 1)
        law.root[part] = H
        law.modes[part] = (turned @ (HB @ contrast)[:, :, None])[:, :, 0]
        law.slide[part] = turned @ (HB[:, :, :p] @ back)
    return law
