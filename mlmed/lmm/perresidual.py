"""What single clusters add for the residual parameters: diagonal Sigma, or correlated residuals (eq. 6b, 92 to 94)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import product
from mlmed.lmm.cross import cross_weights
from mlmed.lmm.problem import CrossProducts, Problem, Roots
from mlmed.lmm.weights import weighted_clusters, weighted_tables
from mlmed.lmm.whitened import Rooted

__all__ = ["ClusterProducts", "Inverse", "ResidualTerms", "cross_terms", "diagonal_terms", "rooted_terms"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClusterProducts:
    """The terms of ``Problem.C`` and ``Problem.nobs``, in working units.

    Attributes
    ----------
    C : (R, p + 1, p + 1, J) array
        [X y]'[X y] of every equation and cluster.
    nobs : (R, J) int array
        Rows of every equation and cluster.
    cross : CrossProducts or None
        Where residuals are correlated: the terms of ``Problem.cross``.
    """

    C: Array
    nobs: NDArray[np.int64]
    cross: CrossProducts | None = None

    def take(self, index: NDArray[np.intp]) -> ClusterProducts:
        """Those of the listed clusters, in this order."""
        cross = None if self.cross is None else self.cross.take(index)
        return ClusterProducts(self.C.take(index, axis=3), self.nobs.take(index, axis=1), cross)


@dataclass(frozen=True, slots=True)
class Inverse:
    """Matrices of n clusters, cluster index last; N = L M^-1 L'.

    Attributes
    ----------
    A, N, NA, Q : (q, q, n) arrays
        Z'R^-1 Z, N, N A and Z'V^-1 Z.
    B, h, V : (q, p + 1, n) arrays
        Z'R^-1 [X y], N B and Z'V^-1 [X y].
    """

    A: Array
    B: Array
    N: Array
    NA: Array
    h: Array
    V: Array
    Q: Array


@dataclass(frozen=True, slots=True)
class ResidualTerms:
    """Terms of one chunk of n clusters; s and t run over the S residual parameters.

    Attributes
    ----------
    cross : (p + 1, p + 1, n) array
        [X y]'R^-1 [X y].
    trace : (S, n) array
        tr(V^-1 V_s).
    moved : (S, p + 1, p + 1, n) array
        [X y]'V^-1 V_s V^-1 [X y].
    mixed : (S, q, q, n) array
        Z'V^-1 V_s V^-1 Z; empty unless the information is asked for.
    pairs : (S, S, n) array
        tr(V^-1 V_s V^-1 V_t); empty unless the information is asked for.
    """

    cross: Array
    trace: Array
    moved: Array
    mixed: Array
    pairs: Array


def diagonal_terms(
    problem: Problem, products: ClusterProducts, made: Inverse, sigma2: Array, part: slice, *, information: bool
) -> ResidualTerms:
    """Terms where residuals are independent across equations."""
    members = [np.flatnonzero(problem.stratum == r) for r in range(problem.n_strata)]
    B, h, U, NA = made.B, made.h, made.V, made.NA
    C = products.C[..., part] / sigma2[:, None, None, None]
    own = np.empty_like(C)
    for r, mine in enumerate(members):  # eq. 6b
        lost = np.einsum("aij,amj->imj", h[mine], B[mine]) + np.einsum("aij,amj->imj", U[mine], h[mine])
        own[r] = (C[r] - 0.5 * (lost + lost.transpose(1, 0, 2))) / sigma2[r]
    rows = products.nobs[:, part]
    inside = np.array([np.einsum("aaj->j", NA[np.ix_(mine, mine)]) for mine in members])
    trace = (rows - inside) / sigma2[:, None]
    if not information:
        return ResidualTerms(C.sum(axis=0), trace, own, np.empty(0), np.empty(0))
    F, scale = np.eye(len(NA))[:, :, None] - NA, sigma2[:, None, None, None]
    mixed = np.array([np.einsum("caj,cbj->abj", F[mine], made.Q[mine]) for mine in members]) / scale  # F'I_r Q
    pairs = np.empty((len(members), *trace.shape))
    for r, mine in enumerate(members):
        for s, other in enumerate(members):
            pair = np.einsum("acj,caj->j", NA[np.ix_(mine, other)], NA[np.ix_(other, mine)])
            pairs[r, s] = (pair + (rows[r] - 2.0 * inside[r] if r == s else 0.0)) / (sigma2[r] * sigma2[s])
    return ResidualTerms(C.sum(axis=0), trace, own, mixed, pairs)


def rooted_terms(
    problem: Problem,
    roots: Roots,
    at: Rooted,
    rows: NDArray[np.int64],
    sigma2: Array,
    part: slice,
    *,
    information: bool,
) -> ResidualTerms:
    """Terms from roots; ``cross`` holds what Z leaves of [X y] and no more."""
    scale = sigma2[:, None, None, None]
    members = [np.flatnonzero(problem.stratum == r) for r in range(problem.n_strata)]
    rest = np.einsum("nrki,nrkm->rimn", roots.rest[part], roots.rest[part]) / scale
    inside = np.array([np.einsum("nai,nam->imn", at.solved[:, mine], at.solved[:, mine]) for mine in members])
    free = rows - np.array([len(mine) for mine in members])[:, None]
    trace = free + np.array([np.einsum("naa->n", at.inverse[:, mine][:, :, mine]) for mine in members])
    moved = (rest + inside) / scale
    if not information:
        return ResidualTerms(rest.sum(axis=0), trace / sigma2[:, None], moved, np.empty(0), np.empty(0))
    mixed = np.array([np.einsum("nca,ncb->abn", at.reach[:, mine], at.reach[:, mine]) for mine in members]) / scale
    pairs = np.empty((len(members), *trace.shape))
    for r, mine in enumerate(members):
        for s, other in enumerate(members):
            pairs[r, s] = np.square(at.inverse[:, mine][:, :, other]).sum(axis=(1, 2)) + (free[r] if r == s else 0.0)
            pairs[r, s] /= sigma2[r] * sigma2[s]
    return ResidualTerms(rest.sum(axis=0), trace / sigma2[:, None], moved, mixed, pairs)


def cross_terms(
    problem: Problem, products: CrossProducts, made: Inverse, sigma2: Array, part: slice, *, information: bool
) -> ResidualTerms:
    """Terms where residuals are correlated (eq. 92 to 94)."""
    weights = cross_weights(problem, sigma2)
    cross, stratum = weights.cross, problem.stratum
    rows, C_P, A_P = products.nobs[:, part], products.C[:, part], products.A[:, part]

    def whole(given: Array) -> Array:
        return weighted_clusters(cross, given, C_P).transpose(1, 2, 0)

    A, B = (tables.transpose(0, 2, 3, 1) for tables in weighted_tables(cross, stratum, weights.moved, part))
    U = B - np.einsum("sabj,bkj->sakj", A, made.h)
    lost = np.einsum("aij,samj->simj", made.h, B) + np.einsum("saij,amj->simj", U, made.h)
    moved = np.array([whole(one) for one in weights.moved]) - 0.5 * (lost + lost.transpose(0, 2, 1, 3))
    trace = weights.traces @ rows - np.einsum("abj,sabj->sj", made.N, A)
    if not information:
        return ResidualTerms(whole(weights.precision), trace, moved, np.empty(0), np.empty(0))
    F = np.eye(len(made.NA))[:, :, None] - made.NA
    mixed = np.array([product(F.transpose(1, 0, 2), product(one, F)) for one in A])
    G = np.einsum("abj,sbcj->sacj", made.N, A)
    of_rows = weights.pairs @ rows
    twice = weights.twice[..., stratum[:, None], stratum]  # (S, S, P, q, q)
    inside = np.einsum("klpab,pjab,abj->klj", twice, A_P, made.N, optimize=True)
    pairs = of_rows - 2.0 * inside + np.einsum("sabj,tbaj->stj", G, G, optimize=True)
    return ResidualTerms(whole(weights.precision), trace, moved, mixed, pairs)
