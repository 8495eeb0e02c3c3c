"""Mean and residual sd of new rows with their errors, and quantiles of a new response."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from mlmed.quadrature.likelihood import Mixture
from mlmed.quadrature.posterior import EffectsLaw

__all__ = ["NewColumns", "Predicted", "predict_rows", "response_quantiles"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Rows whose quantiles are found together, and how exact they are, in sds of the response.
TOGETHER, EXACT = 2000, 1e-9


@dataclass(frozen=True, slots=True)
class NewColumns:
    """New rows in the columns of both formulas.

    Attributes
    ----------
    X, Z : (n, p), (n, q) arrays
        Fixed and random columns of the location.
    W, V : (n, k), (n, d) arrays
        Fixed and random columns of the scale.
    at : (n,) int array or None
        Cluster of each row, -1 where it is not one of the fit; None: rows of the population.
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
        The same of the logarithm of the residual sd.
    """

    mean: Array
    mean_se: Array
    log_sd: Array
    log_sd_se: Array


def predict_rows(new: NewColumns, fixed: tuple[Array, Array], G: Array, law: EffectsLaw) -> Predicted:
    """Fixed part, plus the posterior means of the row's cluster.

    The variance of an effect is its posterior variance given the estimates plus that of its mean as the estimates move
    (Kass and Steffey, 1989), so that fixed and random parts may err together. A cluster that is not one of the fit has
    the population's value and the variance G.

    Parameters
    ----------
    new : NewColumns
        The rows.
    fixed : (p,), (k,) arrays
        beta and tau.
    G : (q + d, q + d) array
        Covariance of (u, t).
    law : EffectsLaw
        Of the clusters of the fit.
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
    correlated, with heavier tails than a normal distribution. The error of beta is added to every one of them, the
    variances and tau are taken as known.

    Parameters
    ----------
    laws : Mixture, Mixture
        Of the clusters of the fit, and of one of which nothing is known.
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
    """By bisection: a quantile of a mixture lies between those of its parts."""
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
