"""Log-likelihood of a location-scale model and its scores, by quadrature over the scale random effects.

Given s (t = L_tt s) a cluster is Gaussian, y ~ N(X beta + Z L_ut s, R + Z L_uu L_uu' Z') with R = diag(exp(2 eta)), and
u is integrated exactly. The scores are Fisher's identity by the same quadrature: the exact derivative of the sum at
fixed nodes. Nodes are the last axis of every array, so that small matrices are handled entry by entry for all nodes
at once. See docs/location_scale.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.nodes import Nodes
from mlmed.quadrature.problem import Chunk, Parameters, Problem

Array = NDArray[np.float64]

#: Weighted sum of squares beyond which differences of such sums lose digits.
CANCELS = 1e6
#: Sum, or share of the location effects' variance, beyond which a node gets weight 0.
OVERFLOW, INVERTIBLE = 1e60, 1e14
#: Pivots of I + B are at least 1; one below this is due to rounding of a much larger B.
LOST_PIVOT = 0.5


@dataclass(frozen=True, slots=True)
class Conditional:
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
    A, c : (J, q, q, Q), (J, q, Q) arrays
        Z'R^-1 Z and Z'R^-1 (e0 - Z L_ut s).
    mean_w, cov_w : (J, q, Q), (J, q, q, Q) arrays
        Posterior mean and covariance of w given s.
    shift : (J, q, Q) array
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


def conditional(chunk: Chunk, at: Parameters, offset: float, s: Array) -> Conditional:
    """Gaussian part of one chunk given ``s``, (J, Q, d)."""
    q = chunk.Z.shape[2]
    base = chunk.W @ at.tau + offset * (np.arange(chunk.y.shape[1]) < chunk.size[:, None])
    s = s.transpose(0, 2, 1)
    t = at.L_tt @ s
    with np.errstate(over="ignore", invalid="ignore"):
        weights = chunk.V @ t
        weights += base[:, :, None]
        weights *= -2.0
        np.exp(weights, out=weights)
        e0 = chunk.y - chunk.X @ at.beta
        products = np.concatenate([(e0**2)[:, None], e0[:, None] * chunk.Z.transpose(0, 2, 1), chunk.ZZ], axis=1)
        sums = products @ weights
        usable = np.isfinite(sums).all(axis=1) & (sums[:, 0] < OVERFLOW)
        if not usable.all():
            sums = np.where(usable[:, None], sums, 0.0)
            weights = np.where(usable[:, None], weights, 0.0)
        A = sums[:, 1 + q :][:, _square(q)]
        shift = at.L_ut @ s
        c = sums[:, 1 : 1 + q] - np.einsum("jabk,jbk->jak", A, shift)
        cov_w, logdet, regular = _inverse(symmetric_map(at.L_uu.T) @ sums[:, 1 + q :], q)
        Lc = at.L_uu.T @ c
        mean_w = np.einsum("jabk,jbk->jak", cov_w, Lc)
        square = sums[:, 0] - (shift * (sums[:, 1 : 1 + q] + c)).sum(axis=1) - (Lc * mean_w).sum(axis=1)
        if q and (sums[:, 0] > CANCELS).any():
            # the same as a sum of squares, which keeps its digits; errors can only lower the likelihood
            left = e0[:, :, None] - chunk.Z @ (shift + at.L_uu @ mean_w)
            square = np.einsum("jnk,jnk,jnk->jk", weights, left, left) + (mean_w**2).sum(axis=1)
        log_sds = base.sum(axis=1)[:, None] + (t * chunk.V.sum(axis=1)[:, :, None]).sum(axis=1)
        found = -0.5 * (chunk.size[:, None] * np.log(2.0 * np.pi) + logdet + square) - log_sds
    found = np.where(usable & regular & np.isfinite(found), found, -np.inf)
    return Conditional(found, weights, products, e0, A, c, mean_w, cov_w, shift)


def _square(q: int) -> NDArray[np.intp]:
    """Positions in the lower triangle, by rows, of the entries of a symmetric matrix, (q, q)."""
    at = np.zeros((q, q), dtype=np.intp)
    i, j = np.tril_indices(q)
    at[i, j] = at[j, i] = np.arange(len(i))
    return at


def symmetric_map(B: Array) -> Array:
    """Matrix that maps the lower triangle of a symmetric A to that of B A B', both by rows."""
    i, j = np.tril_indices(len(B))
    out: Array = B[np.ix_(i, i)] * B[np.ix_(j, j)] + np.where(i == j, 0.0, B[np.ix_(i, j)] * B[np.ix_(j, i)])
    return out


def _inverse(lower: Array, q: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Inverse, (J, q, q, Q), and log determinant, (J, Q), of I + B, B positive semidefinite, and where they exist.

    Gauss-Jordan elimination needs no pivoting, as no eigenvalue is below 1.

    Parameters
    ----------
    lower : (J, q (q + 1) / 2, Q) array
        Lower triangle of B by rows.
    """
    M = lower[:, _square(q)]
    trace = np.einsum("jaak->jk", M)
    bent = ~(trace <= INVERTIBLE)
    if bent.any():
        M = np.where(bent[:, None, None], 0.0, M)
    M += np.eye(q)[:, :, None]
    logdet = np.zeros(trace.shape)
    for k in range(q):
        pivot = M[:, k, k].copy()
        lost = ~(pivot > LOST_PIVOT)
        if lost.any():
            bent |= lost
            pivot[lost] = 1.0
        logdet += np.log(pivot)
        row = M[:, k] / pivot[:, None]
        column = M[:, :, k].copy()
        column[:, k] = 0.0
        M -= column[:, :, None] * row[:, None]
        M[:, :, k] = -column / pivot[:, None]
        M[:, k] = row
        M[:, k, k] = 1.0 / pivot
    if bent.any():
        M = np.where(bent[:, None, None], np.eye(q)[:, :, None], M)
    return M, logdet, ~bent


@dataclass(frozen=True, slots=True)
class Mixture:
    """Posterior of the random effects, in working units: given a node, t is known and u is normal.

    Attributes
    ----------
    share : (J, Q) array
        Posterior weights of the nodes.
    t : (J, d, Q) array
        Scale effects at the nodes.
    u, cov_u : (J, q, Q), (J, q, q, Q) arrays
        Means and covariances of the location effects given t.
    """

    share: Array
    t: Array
    u: Array
    cov_u: Array

    def moments(self) -> tuple[Array, Array]:
        """Means, (J, d + q), and covariances, (J, d + q, d + q), in the order (t, u)."""
        d = self.t.shape[1]
        b = np.concatenate([self.t, self.u], axis=1)
        mean = np.einsum("jk,jak->ja", self.share, b)
        off = b - mean[:, :, None]
        covariance = (self.share[:, None] * off) @ off.transpose(0, 2, 1)
        covariance[:, d:, d:] += np.einsum("jk,jabk->jab", self.share, self.cov_u)
        return mean, covariance


def conditional_loglik(problem: Problem, theta: Array, s: Array) -> Array:
    """Log f(y_j | s) at Q points of every cluster, (J, Q); ``s`` is (J, Q, d)."""
    at = problem.parameters(theta)
    out = np.empty(s.shape[:2])
    for chunk in problem.chunks:
        out[chunk.at] = conditional(chunk, at, problem.offset, s[chunk.at]).loglik
    return out


def _posterior(given: Array, nodes: Nodes, at: NDArray[np.intp]) -> tuple[Array, Array]:
    """Log-likelihood of every cluster, (J,), and posterior weights of its nodes, (J, Q)."""
    terms = given + nodes.log_weights[at]
    top = terms.max(axis=1)
    if not np.isfinite(top).all():
        return np.full(len(at), -np.inf), np.full(terms.shape, np.nan)
    shares = np.exp(terms - top[:, None])
    total = shares.sum(axis=1)
    return top + np.log(total), shares / total[:, None]


def loglik(problem: Problem, theta: Array, nodes: Nodes) -> float:
    """Log-likelihood in working units; minus infinity if it cannot be evaluated."""
    found = conditional_loglik(problem, theta, nodes.points)
    return float(_posterior(found, nodes, np.arange(problem.J))[0].sum())


def scores(problem: Problem, theta: Array, nodes: Nodes) -> tuple[Array, Array]:
    """Log-likelihood of every cluster, (J,), and its derivative in theta, (J, size)."""
    at = problem.parameters(theta)
    value, out = np.empty(problem.J), np.empty((problem.J, problem.size))
    for chunk in problem.chunks:
        s = nodes.points[chunk.at]
        given = conditional(chunk, at, problem.offset, s)
        value[chunk.at], share = _posterior(given.loglik, nodes, chunk.at)
        out[chunk.at] = _chunk_scores(problem, chunk, at, given, s, share)
    return value, out


def _chunk_scores(problem: Problem, chunk: Chunk, at: Parameters, given: Conditional, s: Array, share: Array) -> Array:
    q, d = problem.structure.q, problem.structure.d
    w, first = given.mean_w, np.tril_indices(q)
    J, n = chunk.y.shape
    u, uu = _moments_of_u(given, at)
    second = given.cov_w + w[:, :, None] * w[:, None]
    into_mean = given.c - np.einsum("jabk,jbk->jak", given.A, at.L_uu @ w)
    weighted_s = share[:, None] * s.transpose(0, 2, 1)
    lower = np.zeros((J, d + q, d + q))
    lower[:, d:, :d] = into_mean @ weighted_s.transpose(0, 2, 1)
    spread = (at.L_uu @ second.reshape(J, q, q * share.shape[1])).reshape(second.shape)
    lower[:, d:, d:] = (share[:, None] * given.c) @ w.transpose(0, 2, 1)
    lower[:, d:, d:] -= np.einsum("jabk,jbck->jac", share[:, None, None] * given.A, spread)
    # expected squared residuals are linear in (1, u, u u'); weighted by 1 for tau, by s for L_tt
    coefficients = np.concatenate([np.ones((J, 1, share.shape[1])), u, uu], axis=1)
    by_s = np.concatenate([share[:, None], weighted_s], axis=1)
    nodes = (by_s[:, :, None] * coefficients[:, None]).reshape(J, -1, share.shape[1])
    rows = (nodes @ given.weights.transpose(0, 2, 1)).reshape(J, 1 + d, -1, n)
    factor = np.concatenate([[1.0], np.full(q, -2.0), np.where(first[0] == first[1], 1.0, 2.0)])
    squares = np.einsum("jkn,jskn->jsn", given.products * factor[:, None], rows)
    residual = rows[:, 0, 0] * given.e0 - np.einsum("jnk,jkn->jn", chunk.Z, rows[:, 0, 1 : 1 + q])
    beta = (residual[:, None] @ chunk.X)[:, 0]
    tau = ((squares[:, :1] - 1.0) @ chunk.W)[:, 0]
    lower[:, :d, :d] = (squares[:, 1:] @ chunk.V).transpose(0, 2, 1) - (
        chunk.V.sum(axis=1)[:, :, None] * weighted_s.sum(axis=2)[:, None]
    )
    return np.concatenate([beta, tau, lower[:, problem.structure.rows, problem.structure.columns]], axis=1)


def _moments_of_u(given: Conditional, at: Parameters) -> tuple[Array, Array]:
    """Posterior means of u given s, (J, q, Q), and of the lower triangle of u u', (J, q (q + 1) / 2, Q)."""
    i, j = np.tril_indices(len(at.L_uu))
    u = given.shift + at.L_uu @ given.mean_w
    return u, u[:, i] * u[:, j] + symmetric_map(at.L_uu) @ given.cov_w[:, i, j]


def posterior(problem: Problem, theta: Array, nodes: Nodes) -> Mixture:
    """Posterior of the random effects of every cluster, by the same quadrature."""
    at, (d, q) = problem.parameters(theta), (problem.structure.d, problem.structure.q)
    J, Q = nodes.log_weights.shape
    out = Mixture(np.empty((J, Q)), np.empty((J, d, Q)), np.empty((J, q, Q)), np.empty((J, q, q, Q)))
    for chunk in problem.chunks:
        s = nodes.points[chunk.at]
        given = conditional(chunk, at, problem.offset, s)
        out.share[chunk.at] = _posterior(given.loglik, nodes, chunk.at)[1]
        out.t[chunk.at] = at.L_tt @ s.transpose(0, 2, 1)
        out.u[chunk.at] = given.shift + at.L_uu @ given.mean_w
        out.cov_u[chunk.at] = np.einsum("ab,jbck,dc->jadk", at.L_uu, given.cov_w, at.L_uu, optimize=True)
    return out
