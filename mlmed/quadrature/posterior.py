"""Posterior of the clusters' random effects, and predictions for new rows: means, residual sds, quantiles."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mlmed.quadrature.likelihood import Mixture, posterior
from mlmed.quadrature.nodes import centres_at_zero, make_nodes
from mlmed.quadrature.optimizer import Optimum
from mlmed.quadrature.problem import Problem, Units, effect_order
from mlmed.text import Compact

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Step of central differences of the posterior means in theta (working units).
STEP = 1e-4
#: Nodes per dimension for a cluster without data.
PRIOR_NODES = {0: 1, 1: 41, 2: 21}
#: Rows per chunk of quantiles, and their accuracy in sds of the response.
TOGETHER, EXACT = 2000, 1e-9


@dataclass(frozen=True, slots=True, repr=False)
class ClusterEffects(Compact):
    """Empirical Bayes estimates of random effects, in the order (u, t).

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
    """Random effects, and derivatives of random and fixed effects in theta.

    Attributes
    ----------
    effects : ClusterEffects
        Posterior moments at the estimates.
    slopes : (J, r, n) array
        Derivatives of the posterior means in theta.
    beta_slopes, tau_slopes : (p, n), (k, n) arrays
        Derivatives of the fixed effects in theta.
    vcov : (n, n) array
        Covariance of the estimates of theta; 0 on the boundary.
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
    """The posterior of every cluster in the user's units."""
    return _in_user_units(problem, units, posterior(problem, optimum.theta, optimum.nodes))


def prior_mixture(problem: Problem, units: Units, optimum: Optimum) -> Mixture:
    """The same for one cluster without rows: J = 1."""
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


@dataclass(frozen=True, slots=True)
class NewColumns:
    """Columns of both formulas for new rows.

    Attributes
    ----------
    X, Z : (n, p), (n, q) arrays
        Fixed and random columns of the location.
    W, V : (n, k), (n, d) arrays
        Fixed and random columns of the scale.
    at : (n,) int array or None
        Cluster of each row, -1 if not in the fit; None for population predictions.
    """

    X: Array
    Z: Array
    W: Array
    V: Array
    at: Indices | None


@dataclass(frozen=True, slots=True)
class Predicted:
    """Expected response and log residual sd of n rows.

    Attributes
    ----------
    mean, mean_se : (n,) arrays
        Expected response and its standard error.
    log_sd, log_sd_se : (n,) arrays
        Log residual sd and its standard error.
    """

    mean: Array
    mean_se: Array
    log_sd: Array
    log_sd_se: Array


def predict_rows(new: NewColumns, fixed: tuple[Array, Array], G: Array, law: EffectsLaw) -> Predicted:
    """Predict from the fixed part plus the posterior means of the row's cluster.

    The variance of an effect is its posterior variance given the estimates plus that of its mean due to estimation
    (Kass and Steffey, 1989), so errors of fixed and random parts may be correlated. A cluster outside the fit has the
    population's value and the variance G.

    Parameters
    ----------
    new : NewColumns
        The rows.
    fixed : (p,), (k,) arrays
        beta and tau.
    G : (q + d, q + d) array
        Covariance of (u, t).
    law : EffectsLaw
        Random effects of the clusters of the fit.
    """
    q = new.Z.shape[1]
    mean = _one(new.X @ fixed[0], new.X @ law.beta_slopes, new.Z, new.at, slice(0, q), (G, law))
    log_sd = _one(new.W @ fixed[1], new.W @ law.tau_slopes, new.V, new.at, slice(q, None), (G, law))
    return Predicted(*mean, *log_sd)


def _one(
    value: Array, slope: Array, random: Array, at: Indices | None, own: slice, laws: tuple[Array, EffectsLaw]
) -> tuple[Array, Array]:
    """Value and standard error of fixed part plus random part."""
    G, law = laws
    variance = np.zeros(len(value))
    if at is not None and random.shape[1]:
        known = at >= 0
        Z, cluster = random[known], at[known]
        value, slope = value.copy(), slope.copy()
        value[known] += np.vecdot(Z, law.effects.mean[cluster, own])
        slope[known] += np.einsum("na,nak->nk", Z, law.slopes[cluster, own])
        variance[known] = np.einsum("na,nab,nb->n", Z, law.effects.covariance[cluster, own, own], Z)
        new = random[~known]
        variance[~known] = np.einsum("na,ab,nb->n", new, G[own, own], new)
    return value, np.sqrt(variance + np.einsum("nk,kl,nl->n", slope, law.vcov, slope))


def response_quantiles(
    new: NewColumns, fixed: tuple[Array, Array], laws: tuple[Mixture, Mixture], law: EffectsLaw, p: tuple[float, ...]
) -> Array:
    """Quantiles of a new response, (n, len(p)).

    A new response is a mixture of normals over the nodes of the scale effects: skewed where location and scale are
    correlated, with heavier tails than a normal distribution. Every component includes the error of beta; variances
    and tau are taken as known.

    Parameters
    ----------
    laws : Mixture, Mixture
        Posterior of the clusters of the fit, and of a cluster without data.
    p : tuple of float
        Probabilities.
    """
    error = np.einsum("nk,kl,nl->n", new.X @ law.beta_slopes, law.vcov, new.X @ law.beta_slopes)
    base = (new.X @ fixed[0], new.W @ fixed[1], error)
    at = np.full(len(new.X), -1) if new.at is None else new.at
    out = np.empty((len(new.X), len(p)))
    for start in range(0, len(out), TOGETHER):
        rows = np.arange(start, min(start + TOGETHER, len(out)))
        for known, found in ((at[rows] >= 0, laws[0]), (at[rows] < 0, laws[1])):
            some = rows[known]
            if len(some):
                out[some] = _quantiles(*_components(new, base, found, some, np.maximum(at[some], 0)), p)
    return out


def _components(
    new: NewColumns, base: tuple[Array, Array, Array], found: Mixture, rows: Indices, cluster: Indices
) -> tuple[Array, Array, Array]:
    """Weights, means and sds of the response at the nodes, (rows, Q) each."""
    cluster = cluster if len(found.share) > 1 else np.zeros_like(cluster)
    Z, V = new.Z[rows], new.V[rows]
    mean = base[0][rows, None] + np.einsum("na,nak->nk", Z, found.u[cluster])
    log_sd = base[1][rows, None] + np.einsum("na,nak->nk", V, found.t[cluster])
    own = np.einsum("na,nabk,nb->nk", Z, found.cov_u[cluster], Z)
    return found.share[cluster], mean, np.sqrt(np.exp(2.0 * log_sd) + own + base[2][rows, None])


def _quantiles(share: Array, mean: Array, sd: Array, p: tuple[float, ...]) -> Array:
    """Quantiles by bisection: that of a mixture lies between those of its components."""
    out = np.empty((len(mean), len(p)))
    for k, wanted in enumerate(p):
        ends = mean + ndtri(wanted) * sd
        low, high = ends.min(axis=1), ends.max(axis=1)
        while ((high - low) > EXACT * sd.min(axis=1) + 4.0 * np.spacing(np.abs(high))).any():
            middle = 0.5 * (low + high)
            below = (share * ndtr((middle[:, None] - mean) / sd)).sum(axis=1) < wanted
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        out[:, k] = 0.5 * (low + high)
    return out
