"""Terms of single clusters: cross-products of the fixed part, first derivatives, scores.

``Problem`` sums [X y]'[X y] over clusters because the criterion needs no more. Scores and deletion need the terms
of that sum, which are computed on demand. Scores are the derivatives of

    F(beta, tau, sigma2) = log|V| + (y - X beta)'V^-1(y - X beta) [+ log|X'V^-1 X|],

with beta as a parameter of its own; F is a sum of one term per cluster. The bracket (REML) is a function of a sum over
clusters; a cluster's part in its derivative is the change due to that cluster's V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.lmm.clusters import chunks, factor_clusters, product, weighted_clusters, weighted_tables
from mlmed.lmm.covariance import Block, natural_basis
from mlmed.lmm.cross import cross_weights
from mlmed.lmm.maps import cross_products
from mlmed.lmm.problem import CrossProducts, Problem, Roots
from mlmed.lmm.roots import Rooted, rooted
from mlmed.lmm.working import Assembly, Working, build_assembly, cluster_cross

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
        The terms of ``Problem.cross``, if residuals are correlated.
    """

    C: Array
    nobs: NDArray[np.int64]
    cross: CrossProducts | None = None

    def take(self, index: NDArray[np.intp]) -> ClusterProducts:
        """Select the listed clusters, in this order."""
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
        Z'V^-1 V_s V^-1 Z; empty without ``information``.
    pairs : (S, S, n) array
        tr(V^-1 V_s V^-1 V_t); empty without ``information``.
    """

    cross: Array
    trace: Array
    moved: Array
    mixed: Array
    pairs: Array


def diagonal_terms(
    problem: Problem, products: ClusterProducts, made: Inverse, sigma2: Array, part: slice, *, information: bool
) -> ResidualTerms:
    """Terms if residuals are independent across equations."""
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
    """Terms from roots; ``cross`` holds only the part of [X y] orthogonal to Z."""
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
    """Terms if residuals are correlated across equations (eq. 92 to 94)."""
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


def cluster_products(working: Working, grams: Grams) -> ClusterProducts:
    """C of eq. 3 before it is summed over clusters.

    Parameters
    ----------
    working : Working
        The model.
    grams : Grams
        The Grams it was built from; their shift and scale are its working units.
    """
    assembly = build_assembly(working.blocks, grams, correlated=working.problem.cross is not None)
    return products_by_cluster(assembly, grams.products)


def products_by_cluster(assembly: Assembly, products: Array) -> ClusterProducts:
    """The same from products (P, K * (K + 1) / 2, J) of any clusters."""
    rows = assembly.member @ products[:, 0]
    cross = None if assembly.cross is None else cross_products(assembly.cross, products, len(assembly.stratum))
    return ClusterProducts(cluster_cross(assembly, products), np.rint(rows).astype(np.int64), cross)


@dataclass(frozen=True, slots=True)
class ClusterTerms:
    """Terms of n clusters in the sums of eq. 5, 9 and 11; k and l run over the K = n_tau + S parameters.

    Attributes
    ----------
    cross : (p + 1, p + 1, n) array
        [X y]'V^-1[X y].
    trace : (K, n) array
        tr(V^-1 V_k).
    moved : (K, p + 1, p + 1, n) array
        [X y]'V^-1 V_k V^-1[X y].
    information : (K, K, n) array
        tr(V^-1 V_k V^-1 V_l); empty without ``information``.
    """

    cross: Array
    trace: Array
    moved: Array
    information: Array


def cluster_terms(
    problem: Problem,
    products: ClusterProducts,
    basis: Array,
    L: Array,
    sigma2: Array,
    part: slice,
    *,
    information: bool = False,
) -> ClusterTerms:
    """Terms of one chunk of clusters.

    Parameters
    ----------
    problem : Problem
        Cross-products in working units.
    products : ClusterProducts
        Cross-products of the fixed part by cluster.
    basis : (n_tau, q, q) array
        Matrices E_k with G = sum tau_k E_k.
    L : (q, q) array
        Any factor of G.
    sigma2 : (S,) array
        Residual parameters.
    part : slice
        The clusters.
    information : bool
        Whether to fill in the expected second derivatives.
    """
    if problem.roots is not None:
        return _rooted_terms(problem, problem.roots, products, basis, L, sigma2, part, information)
    A, B, H = factor_clusters(problem, L, sigma2, part).cluster_last()
    N = np.einsum("baj,bcj->acj", H, H)
    half, h, NA = product(H, B), product(N, B), product(N, A)
    made = Inverse(A, B, N, NA, h, B - product(A, h), A - product(A, NA))
    if products.cross is None:
        own = diagonal_terms(problem, products, made, sigma2, part, information=information)
    else:
        own = cross_terms(problem, products.cross, made, sigma2, part, information=information)
    cross = own.cross - np.einsum("aij,amj->imj", half, half)
    return _terms(basis, made.Q, made.V, cross, own, information)


def _rooted_terms(
    problem: Problem,
    roots: Roots,
    products: ClusterProducts,
    basis: Array,
    L: Array,
    sigma2: Array,
    part: slice,
    information: bool,
) -> ClusterTerms:
    """The same from roots: sums of positive terms (eq. 5b to 10b)."""
    at = rooted(problem, L, sigma2, part)
    own = rooted_terms(problem, roots, at, products.nobs[:, part], sigma2, part, information=information)
    cross = own.cross + np.einsum("nai,nam->imn", at.half, at.half)
    return _terms(basis, at.Q.transpose(1, 2, 0), at.V.transpose(1, 2, 0), cross, own, information)


def _terms(basis: Array, Q: Array, V: Array, cross: Array, own: ResidualTerms, information: bool) -> ClusterTerms:
    """Join the terms of G and of the residual parameters."""
    along = np.einsum("aij,kamj->kimj", V, np.einsum("kab,bmj->kamj", basis, V))
    return ClusterTerms(
        cross=cross,
        trace=np.concatenate([np.einsum("kab,abj->kj", basis, Q), own.trace]),
        moved=np.concatenate([along, own.moved]),
        information=_information(basis, Q, own) if information else np.empty(0),
    )


def _information(basis: Array, Q: Array, own: ResidualTerms) -> Array:
    """Eq. 9 before it is summed over clusters."""
    T, S, q, n = len(basis), len(own.trace), len(Q), Q.shape[2]
    out = np.empty((T + S, T + S, n))
    turned = np.einsum("kab,bcj->jkac", basis, Q)
    swapped = turned.transpose(0, 3, 2, 1)
    pairs = np.matmul(turned.reshape(n, T, q * q), swapped.reshape(n, q * q, T))
    out[:T, :T] = pairs.transpose(1, 2, 0)
    out[:T, T:] = np.einsum("kab,sabj->ksj", basis, own.mixed)
    out[T:, :T] = out[:T, T:].transpose(1, 0, 2)
    out[T:, T:] = own.pairs
    return out


def psi_basis(problem: Problem, blocks: tuple[Block, ...]) -> Array:
    """Matrices E_k of all blocks, (n_tau, q, q)."""
    return np.concatenate([natural_basis(block, problem.n_random) for block in blocks])


def scores_at(
    problem: Problem,
    blocks: tuple[Block, ...],
    products: ClusterProducts,
    L: Array,
    sigma2: Array,
    beta: Array,
    P_inv: Array | None,
) -> Array:
    """Scores at any point, (J, p + n_tau + S).

    Parameters
    ----------
    problem, blocks : Problem, tuple of Block
        The model in working units.
    products : ClusterProducts
        Cross-products of the fixed part by cluster.
    L, sigma2, beta : (q, q), (S,), (p,) arrays
        The point; G = L L'.
    P_inv : (p, p) array or None
        (X'V^-1 X)^-1 for REML, None for ML.
    """
    p, basis = problem.n_fixed, psi_basis(problem, blocks)
    contrast = np.append(-beta, 1.0)
    weight = np.outer(contrast, contrast)
    if P_inv is not None:
        weight[:p, :p] += P_inv
    out = np.empty((problem.n_clusters, p + len(basis) + problem.residual.size))
    for part in chunks(problem):
        terms = cluster_terms(problem, products, basis, L, sigma2, part)
        out[part, :p] = -2.0 * np.einsum("imj,m->ji", terms.cross[:p], contrast)
        out[part, p:] = (terms.trace - np.einsum("kimj,im->kj", terms.moved, weight)).T
    return out
