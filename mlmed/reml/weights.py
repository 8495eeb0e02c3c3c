"""Cross-products across equations, weighted row by row with a matrix of their pattern (docs/math.md, eq. 90, 91).

A row whose responses O are observed has the precision Sigma_OO^-1. So every matrix between Z, X and y that the
criterion needs is, entry by entry, a cross-product of the pattern times one number that depends on the two equations
the entry belongs to.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmed.reml.problem import Cross

__all__ = ["log_residual", "precisions", "weighted_clusters", "weighted_cross", "weighted_tables"]

Array = NDArray[np.float64]


def precisions(cross: Cross, Sigma: Array) -> Array:
    """Sigma_OO^-1 of every pattern in the rows and columns O of a (R, R) matrix, zero elsewhere, (P, R, R).

    Raises
    ------
    numpy.linalg.LinAlgError
        If Sigma is singular.
    """
    out = np.zeros((len(cross.observed), *Sigma.shape))
    for target, own in zip(out, cross.observed, strict=True):
        at = np.ix_(own, own)
        target[at] = np.linalg.inv(Sigma[at])
    return out


def log_residual(cross: Cross, Sigma: Array) -> float:
    """log|R| of all rows.

    Raises
    ------
    numpy.linalg.LinAlgError
        If Sigma is not positive definite.
    """
    total = 0.0
    for own, nobs in zip(cross.observed, cross.nobs, strict=True):
        factor = np.linalg.cholesky(Sigma[np.ix_(own, own)])
        total += 2.0 * float(nobs) * float(np.log(np.diag(factor)).sum())
    return total


def weighted_tables(cross: Cross, stratum: NDArray[np.int64], weights: Array, part: slice) -> tuple[Array, Array]:
    """Z'(weights)Z, (S, n, q, q), and Z'(weights)[X y], (S, n, q, p + 1), of one chunk of clusters.

    All S matrices of weights, (S, P, R, R), at once: for a pair of equations the sum over patterns is a product of
    matrices.
    """
    R = cross.observed.shape[1]
    p, effects = len(cross.owner) - R, [_run(stratum == r) for r in range(R)]
    columns = [_run(cross.owner[:p] == r) for r in range(R)]
    n, q = cross.A[0, part].shape[0], cross.A.shape[2]
    A, B = np.zeros((len(weights), n, q, q)), np.zeros((len(weights), n, q, p + 1))
    for r in range(R):
        for s in range(R):
            both = np.flatnonzero(cross.observed[:, r] & cross.observed[:, s])
            if not len(both):
                continue
            w = weights[:, both, r, s]
            A[:, :, effects[r], effects[s]] = _combined(w, cross.A[both, part, effects[r], effects[s]])
            B[:, :, effects[r], columns[s]] = _combined(w, cross.B[both, part, effects[r], columns[s]])
            B[:, :, effects[r], p] += _combined(w, cross.B[both, part, effects[r], p + s])
    return A, B


def _combined(weights: Array, tables: Array) -> Array:
    """Sums over patterns: (S, P), (P, ...) -> (S, ...)."""
    return (weights @ tables.reshape(len(tables), -1)).reshape(len(weights), *tables.shape[1:])


def _run(mine: NDArray[np.bool_]) -> slice:
    """Where a run of true values stands; empty if there is none."""
    at = np.flatnonzero(mine)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0)


def weighted_cross(cross: Cross, weights: Array) -> Array:
    """[X y]'(weights)[X y], (p + 1, p + 1), of all clusters."""
    return weighted_clusters(cross, weights, cross.C[:, None])[0]


def weighted_clusters(cross: Cross, weights: Array, C: Array) -> Array:
    """[X y]'(weights)[X y] of n clusters, (n, p + 1, p + 1), from their C, (P, n, p + R, p + R)."""
    whole = np.einsum("pcd,pncd->ncd", weights[:, cross.owner[:, None], cross.owner], C)
    return np.asarray(cross.fold.T @ whole @ cross.fold)
