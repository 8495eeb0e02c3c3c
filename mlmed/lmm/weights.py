"""Cross-products across equations, weighted row by row with a matrix of their pattern (docs/math.md, eq. 90, 91).

A row whose responses O are observed has the precision Sigma_OO^-1. So every matrix between Z, X and y that the
criterion needs is, entry by entry, a cross-product of the pattern times one number that depends on the two equations
the entry belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtri

from mlmed.lmm.problem import Cross

__all__ = [
    "Whitener",
    "residual_units",
    "smallest_share",
    "weighted_clusters",
    "weighted_cross",
    "weighted_tables",
    "whitener",
]

Array = NDArray[np.float64]

#: Share of a response's residual sd that the others leave, below which Sigma_OO counts as singular.
SINGULAR = 1e-13


@dataclass(frozen=True, slots=True)
class Whitener:
    """What makes the residuals of the rows of every pattern independent with variance 1, at one Sigma (eq. 91).

    Attributes
    ----------
    half : (P, R, R) array
        C^-1 with C C' = Sigma_OO, C lower triangular, in the rows and columns O of every pattern, zero elsewhere.
    precision : (P, R, R) array
        Sigma_OO^-1 = C^-T C^-1, likewise.
    logdet : float
        log|R| of all rows.
    """

    half: Array
    precision: Array
    logdet: float


def whitener(cross: Cross, root: Array) -> Whitener:
    """The whitener of Sigma = ``root @ root.T``.

    Sigma is not formed: that would lose what responses hardly differ in.

    Parameters
    ----------
    cross : Cross
        The patterns and their rows.
    root : (R, R) array
        A factor of Sigma. A column may be zero as long as Sigma_OO of every pattern is regular.

    Raises
    ------
    numpy.linalg.LinAlgError
        If Sigma_OO of a pattern is singular.
    """
    half = np.zeros((len(cross.observed), *root.shape))
    logdet = 0.0
    for target, own, nobs in zip(half, cross.observed, cross.nobs, strict=True):
        mine = root[own]
        lower = root if own.all() and not np.triu(root, 1).any() else np.asarray(np.linalg.qr(mine.T, mode="r")).T
        pivots = np.abs(lower.diagonal())
        if pivots.min() <= SINGULAR * np.sqrt((mine**2).sum(axis=1).max()):
            raise np.linalg.LinAlgError("the residual covariance of responses observed together is singular")
        target[np.ix_(own, own)] = dtrtri(lower, lower=1)[0]
        logdet += 2.0 * float(nobs) * float(np.log(pivots).sum())
    return Whitener(half, half.swapaxes(1, 2) @ half, logdet)


def smallest_share(cross: Cross, root: Array) -> float:
    """The smallest share of a residual variance that the other responses of a row leave."""
    made, variances = whitener(cross, root), np.einsum("rk,rk->r", root, root)
    inflation = np.einsum("prr,r->pr", made.precision, variances)  # 1 / share of the observed, 0 elsewhere
    return float(1.0 / inflation.max())


def residual_units(cross: Cross, root: Array) -> Array:
    """Regular lower-triangular B with B B' the inverse of the average precision of rows, (R, R) (eq. 89b).

    With complete rows B B' = Sigma. Where Sigma is singular and no row has all responses, B is regular still.
    """
    average = np.einsum("prs,p->rs", whitener(cross, root).precision, cross.nobs) / cross.nobs.sum()
    # with J the exchange of rows, J A J = U U' gives A = (J U J)(J U J)', upper triangular, and its inverse is lower
    upper = np.linalg.cholesky(average[::-1, ::-1])[::-1, ::-1]
    return np.asarray(np.linalg.inv(upper).T, dtype=np.float64)


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
