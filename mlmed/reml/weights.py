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
    """Z'(weights)Z, (n, q, q), and Z'(weights)[X y], (n, q, p + 1), of one chunk of clusters; weights (P, R, R)."""
    of_A = weights[:, stratum[:, None], stratum]
    of_B = weights[:, stratum[:, None], cross.owner]
    A = np.einsum("pab,pnab->nab", of_A, cross.A[:, part])
    B = np.einsum("pac,pnac->nac", of_B, cross.B[:, part])
    return A, B @ cross.fold


def weighted_cross(cross: Cross, weights: Array) -> Array:
    """[X y]'(weights)[X y], (p + 1, p + 1), of all clusters."""
    return weighted_clusters(cross, weights, cross.C[:, None])[0]


def weighted_clusters(cross: Cross, weights: Array, C: Array) -> Array:
    """[X y]'(weights)[X y] of n clusters, (n, p + 1, p + 1), from their C, (P, n, p + R, p + R)."""
    whole = np.einsum("pcd,pncd->ncd", weights[:, cross.owner[:, None], cross.owner], C)
    return np.asarray(cross.fold.T @ whole @ cross.fold)
