"""What the data say of the clusters' random effects, in the user's units."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.estimates import effect_order
from mlmed.quadrature.likelihood import Mixture, posterior
from mlmed.quadrature.nodes import centres_at_zero, make_nodes
from mlmed.quadrature.optimizer import Optimum
from mlmed.quadrature.problem import Problem
from mlmed.quadrature.units import Units
from mlmed.text import Compact

__all__ = ["ClusterEffects", "EffectsLaw", "cluster_effects", "effects_law", "prior_mixture", "user_mixture"]

Array = NDArray[np.float64]

#: Step of central differences of the posterior means in theta, which is in working units.
STEP = 1e-4
#: Nodes per dimension for a cluster of which nothing is known.
PRIOR_NODES = {0: 1, 1: 41, 2: 21}


@dataclass(frozen=True, slots=True, repr=False)
class ClusterEffects(Compact):
    """Empirical Bayes estimates, in the order (u, t).

    Attributes
    ----------
    mean : (J, r) array
        Posterior means given the estimates.
    covariance : (J, r, r) array
        Posterior covariances given the estimates.
    """

    mean: Array
    covariance: Array

    @property
    def sd(self) -> Array:
        """Posterior standard deviations given the estimates, (J, r)."""
        return np.sqrt(np.einsum("jaa->ja", self.covariance))


@dataclass(frozen=True, slots=True, repr=False)
class EffectsLaw(Compact):
    """Random effects, and how they and the fixed ones move with theta.

    Attributes
    ----------
    effects : ClusterEffects
        At the estimates.
    slopes : (J, r, n) array
        Derivatives of the posterior means in theta.
    beta_slopes, tau_slopes : (p, n), (k, n) arrays
        Derivatives of the fixed effects in theta.
    vcov : (n, n) array
        Covariance of the estimates of theta; 0 where they lie on the boundary.
    """

    effects: ClusterEffects
    slopes: Array
    beta_slopes: Array
    tau_slopes: Array
    vcov: Array


def cluster_effects(problem: Problem, units: Units, optimum: Optimum) -> ClusterEffects:
    """Posterior moments at the estimates."""
    T = units.random_map[effect_order(problem)]
    mean, covariance = posterior(problem, optimum.theta, optimum.nodes).moments()
    return ClusterEffects(mean @ T.T, T @ covariance @ T.T)


def effects_law(problem: Problem, units: Units, optimum: Optimum) -> EffectsLaw:
    """Posterior moments and the derivatives of the means, at the nodes of the optimum."""
    effects, theta, n = cluster_effects(problem, units, optimum), optimum.theta, len(optimum.theta)
    T = units.random_map[effect_order(problem)]
    slopes, free = np.zeros((*effects.mean.shape, n)), np.flatnonzero(~optimum.gone)
    for k in free:
        step = STEP * (np.arange(n) == k)
        ahead, behind = (posterior(problem, at, optimum.nodes).moments()[0] for at in (theta + step, theta - step))
        slopes[:, :, k] = (ahead - behind) @ T.T / (2.0 * STEP)
    vcov = np.zeros((n, n))
    vcov[np.ix_(free, free)] = np.linalg.inv(optimum.hessian[np.ix_(free, free)])
    beta_slopes, tau_slopes = np.zeros((problem.p, n)), np.zeros((problem.k, n))
    beta_slopes[:, : problem.p] = units.beta_map
    tau_slopes[:, problem.p : problem.p + problem.k] = units.tau_map
    return EffectsLaw(effects, slopes, beta_slopes, tau_slopes, vcov)


def user_mixture(problem: Problem, units: Units, optimum: Optimum) -> Mixture:
    """The posterior of every cluster, node by node."""
    return _in_user_units(problem, units, posterior(problem, optimum.theta, optimum.nodes))


def prior_mixture(problem: Problem, units: Units, optimum: Optimum) -> Mixture:
    """The same of one cluster without rows: J = 1."""
    d = problem.structure.d
    at, nodes = problem.parameters(optimum.theta), make_nodes(centres_at_zero(1, d), PRIOR_NODES[d])
    s = nodes.points.transpose(0, 2, 1)
    cov_u = np.broadcast_to((at.L_uu @ at.L_uu.T)[..., None], (1, *at.L_uu.shape, s.shape[2]))
    return _in_user_units(problem, units, Mixture(np.exp(nodes.log_weights), at.L_tt @ s, at.L_ut @ s, cov_u))


def _in_user_units(problem: Problem, units: Units, found: Mixture) -> Mixture:
    d = problem.structure.d
    T, U = units.random_map[:d, :d], units.random_map[d:, d:]
    cov_u = np.einsum("ab,jbck,dc->jadk", U, found.cov_u, U, optimize=True)
    return replace(found, t=T @ found.t, u=U @ found.u, cov_u=cov_u)
