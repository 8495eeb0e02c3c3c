"""The Gaussian part of a location-scale model: what is known of every cluster once its scale effects are given.

Nodes are the last axis of every array, so that small matrices are handled entry by entry for all nodes at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.problem import Chunk, Parameters

__all__ = ["Conditional", "conditional", "symmetric_map"]

Array = NDArray[np.float64]

#: Weighted sum of squares beyond which differences of such sums lose digits.
CANCELS = 1e6
#: Where the sum, or the share of the location effects' variance, is beyond these, a node counts for nothing.
OVERFLOW, INVERTIBLE = 1e60, 1e14
#: Pivots of I + B are at least 1: one below this is a rounding error of a much larger B.
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
    """The Gaussian part of one chunk; ``s`` is (J, Q, d)."""
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
            # the same number as a sum of squares, which keeps its digits and errs, if at all, to a smaller likelihood
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
    """Matrix that takes the lower triangle of a symmetric A to that of B A B', both by rows."""
    i, j = np.tril_indices(len(B))
    out: Array = B[np.ix_(i, i)] * B[np.ix_(j, j)] + np.where(i == j, 0.0, B[np.ix_(i, j)] * B[np.ix_(j, i)])
    return out


def _inverse(lower: Array, q: int) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Inverse, (J, q, q, Q), and log determinant, (J, Q), of I + B, and where they exist; positive semidefinite B.

    Gauss-Jordan elimination without pivoting, which loses nothing as no eigenvalue is below 1.

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
