"""Log-likelihood of a location-scale model and its scores, by quadrature over the scale random effects.

Given s (t = L_tt s) a cluster is Gaussian, y ~ N(X beta + Z L_ut s, R + Z L_uu L_uu' Z') with R = diag(exp(2 eta)), and
u is integrated exactly. The scores are Fisher's identity by the same quadrature: the exact derivative of the sum at
nodes that stay where they are. See docs/location_scale.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.locscale.nodes import Nodes
from mlmed.locscale.problem import Chunk, Parameters, Problem

__all__ = ["Moments", "conditional_loglik", "loglik", "posterior_moments", "scores"]

Array = NDArray[np.float64]

#: Weighted sum of squares beyond which differences of such sums lose digits.
CANCELS = 1e6
#: Where the sum, or the share of the location effects' variance, is beyond these, a node counts for nothing.
OVERFLOW, INVERTIBLE = 1e60, 1e14


@dataclass(frozen=True, slots=True)
class _Conditional:
    """One chunk at Q points of s.

    Attributes
    ----------
    loglik : (J, Q) array
        log f(y | s).
    weights : (J, n, Q) array
        1 / residual variance of every row.
    products : (J, K, n) array
        Products of (e0, Z), e0 = y - X beta: e0 e0, e0 z_1 .. e0 z_q, then the lower triangle of z z'.
    e0 : (J, n) array
        Residuals of the fixed effects.
    A, c : (J, Q, q, q), (J, Q, q) arrays
        Z'R^-1 Z and Z'R^-1 (e0 - Z L_ut s).
    mean_w, cov_w : (J, Q, q), (J, Q, q, q) arrays
        Posterior mean and covariance of w given s.
    shift : (J, Q, q) array
        L_ut s.
    """

    loglik: Array
    weights: Array
    products: Array
    e0: Array
    A: Array
    c: Array
    mean_w: Array
    cov_w: Array
    shift: Array


@dataclass(frozen=True, slots=True)
class Moments:
    """Posterior moments of the random effects, in working units.

    Attributes
    ----------
    mean : (J, d + q) array
        Means in the order (t, u).
    covariance : (J, d + q, d + q) array
        Covariances.
    """

    mean: Array
    covariance: Array


def _conditional(chunk: Chunk, at: Parameters, offset: float, s: Array) -> _Conditional:
    q = chunk.Z.shape[2]
    base = chunk.W @ at.tau + offset * (np.arange(chunk.y.shape[1]) < chunk.size[:, None])
    t = s @ at.L_tt.T
    with np.errstate(over="ignore", invalid="ignore"):
        weights = np.exp(-2.0 * (base[:, :, None] + chunk.V @ t.transpose(0, 2, 1)))
        e0 = chunk.y - chunk.X @ at.beta
        i, j = np.tril_indices(q)
        Zt = chunk.Z.transpose(0, 2, 1)
        products = np.concatenate([(e0**2)[:, None, :], e0[:, None, :] * Zt, Zt[:, i] * Zt[:, j]], axis=1)
        sums = (products @ weights).transpose(0, 2, 1)
        A = np.empty((*s.shape[:2], q, q))
        A[..., i, j] = A[..., j, i] = sums[..., 1 + q :]
        shift = s @ at.L_ut.T
        along = (A @ shift[..., None])[..., 0]
        c = sums[..., 1 : 1 + q] - along
        usable = np.isfinite(sums).all(axis=-1) & (sums[..., 0] < OVERFLOW)
        if not usable.all():
            A, c = np.where(usable[..., None, None], A, 0.0), np.where(usable[..., None], c, 0.0)
            weights = np.where(usable[:, None, :], weights, 0.0)
        M = np.eye(q) + at.L_uu.T @ A @ at.L_uu
        bent = np.einsum("jkaa->jk", M) > INVERTIBLE
        if bent.any():
            usable &= ~bent
            M = np.where(bent[..., None, None], np.eye(q), M)
        cov_w = np.asarray(np.linalg.inv(M), dtype=np.float64)
        Lc = c @ at.L_uu
        mean_w = np.asarray((cov_w @ Lc[..., None])[..., 0], dtype=np.float64)
        sign, logdet = np.linalg.slogdet(M)
        usable &= sign > 0.0
        square = sums[..., 0] - (shift * (sums[..., 1 : 1 + q] + c)).sum(axis=-1) - (Lc * mean_w).sum(axis=-1)
        if q and (sums[..., 0] > CANCELS).any():
            # the same number as a sum of squares, which keeps its digits and errs, if at all, to a smaller likelihood
            left = e0[:, :, None] - chunk.Z @ (shift + mean_w @ at.L_uu.T).transpose(0, 2, 1)
            square = np.einsum("jnk,jnk,jnk->jk", weights, left, left) + (mean_w**2).sum(axis=-1)
        log_sds = base.sum(axis=1)[:, None] + (t * chunk.V.sum(axis=1)[:, None, :]).sum(axis=-1)
        found = -0.5 * (chunk.size[:, None] * np.log(2.0 * np.pi) + logdet + square) - log_sds
    found = np.where(usable & np.isfinite(found), found, -np.inf)
    return _Conditional(np.asarray(found, dtype=np.float64), weights, products, e0, A, c, mean_w, cov_w, shift)


def conditional_loglik(problem: Problem, theta: Array, s: Array) -> Array:
    """Log f(y_j | s) at Q points of every cluster, (J, Q); ``s`` is (J, Q, d)."""
    at = problem.parameters(theta)
    out = np.empty(s.shape[:2])
    for chunk in problem.chunks:
        out[chunk.at] = _conditional(chunk, at, problem.offset, s[chunk.at]).loglik
    return out


def _posterior(conditional: Array, nodes: Nodes, at: NDArray[np.intp]) -> tuple[Array, Array]:
    """Log-likelihood of every cluster, (J,), and posterior weights of its nodes, (J, Q)."""
    terms = conditional + nodes.log_weights[at]
    top = terms.max(axis=1)
    if not np.isfinite(top).all():
        return np.full(len(at), -np.inf), np.full(terms.shape, np.nan)
    shares = np.exp(terms - top[:, None])
    total = shares.sum(axis=1)
    return top + np.log(total), shares / total[:, None]


def loglik(problem: Problem, theta: Array, nodes: Nodes) -> float:
    """Log-likelihood in working units; minus infinity where it cannot be evaluated."""
    found = conditional_loglik(problem, theta, nodes.points)
    return float(_posterior(found, nodes, np.arange(problem.J))[0].sum())


def scores(problem: Problem, theta: Array, nodes: Nodes) -> tuple[Array, Array]:
    """Log-likelihood of every cluster, (J,), and its derivative in theta, (J, size)."""
    at = problem.parameters(theta)
    value, out = np.empty(problem.J), np.empty((problem.J, problem.size))
    for chunk in problem.chunks:
        s = nodes.points[chunk.at]
        given = _conditional(chunk, at, problem.offset, s)
        value[chunk.at], share = _posterior(given.loglik, nodes, chunk.at)
        out[chunk.at] = _chunk_scores(problem, chunk, at, given, s, share)
    return value, out


def _chunk_scores(problem: Problem, chunk: Chunk, at: Parameters, given: _Conditional, s: Array, share: Array) -> Array:
    q, d = problem.structure.q, problem.structure.d
    i, j = np.tril_indices(q)
    w, S = given.mean_w, given.cov_w
    second = S + w[..., :, None] * w[..., None, :]
    u = given.shift + w @ at.L_uu.T
    uu = u[..., :, None] * u[..., None, :] + at.L_uu @ S @ at.L_uu.T
    into_mean = given.c - (given.A @ (w @ at.L_uu.T)[..., None])[..., 0]
    into_factor = given.c[..., :, None] * w[..., None, :] - given.A @ (at.L_uu @ second)
    weighted_s = share[..., None] * s
    lower = np.zeros((len(chunk.at), d + q, d + q))
    lower[:, d:, :d] = into_mean.transpose(0, 2, 1) @ weighted_s
    lower[:, d:, d:] = np.einsum("jk,jkab->jab", share, into_factor)
    # expected squared residuals are linear in (1, u, u u'); times 1 for tau, times s for L_tt
    one = np.ones((*share.shape, 1))
    coefficients = np.concatenate([one, u, uu[..., i, j]], axis=-1)
    by_s = np.concatenate([share[..., None], weighted_s], axis=-1)
    spread = (by_s[..., :, None] * coefficients[..., None, :]).reshape(*share.shape, -1)
    rows = (given.weights @ spread).reshape(*chunk.y.shape, 1 + d, -1)
    factor = np.concatenate([[1.0], np.full(q, -2.0), np.where(i == j, 1.0, 2.0)])
    squares = np.einsum("jkn,jnsk->jns", given.products * factor[:, None], rows)
    residual = rows[:, :, 0, 0] * given.e0 - (chunk.Z * rows[:, :, 0, 1 : 1 + q]).sum(axis=-1)
    beta = (residual[:, None, :] @ chunk.X)[:, 0]
    tau = ((squares[:, :, 0] - 1.0)[:, None, :] @ chunk.W)[:, 0]
    lower[:, :d, :d] = chunk.V.transpose(0, 2, 1) @ squares[:, :, 1:] - (
        chunk.V.sum(axis=1)[:, :, None] * weighted_s.sum(axis=1)[:, None, :]
    )
    return np.concatenate([beta, tau, lower[:, problem.structure.rows, problem.structure.columns]], axis=1)


def posterior_moments(problem: Problem, theta: Array, nodes: Nodes) -> Moments:
    """Posterior means and covariances of (t, u), by the same quadrature."""
    at, (d, q) = problem.parameters(theta), (problem.structure.d, problem.structure.q)
    mean, covariance = np.empty((problem.J, d + q)), np.empty((problem.J, d + q, d + q))
    for chunk in problem.chunks:
        s = nodes.points[chunk.at]
        given = _conditional(chunk, at, problem.offset, s)
        share = _posterior(given.loglik, nodes, chunk.at)[1]
        b = np.concatenate([s @ at.L_tt.T, given.shift + given.mean_w @ at.L_uu.T], axis=-1)
        centre = np.einsum("jk,jka->ja", share, b)
        off = b - centre[:, None, :]
        spread = np.einsum("jk,jka,jkb->jab", share, off, off)
        spread[:, d:, d:] += np.einsum("jk,jkab->jab", share, at.L_uu @ given.cov_w @ at.L_uu.T)
        mean[chunk.at], covariance[chunk.at] = centre, spread
    return Moments(mean, covariance)
