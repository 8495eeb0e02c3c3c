"""Cross-products of the fixed part cluster by cluster, and the first derivatives that one cluster adds.

``Problem`` sums [X y]'[X y] over clusters because the criterion needs no more. What is asked of single
clusters (scores, deletion) needs the terms of that sum; they are made on demand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.lmm.assembly import Assembly, build_assembly, cluster_cross
from mlmed.lmm.clusters import factor_clusters, product
from mlmed.lmm.cross_products import cross_products
from mlmed.lmm.perresidual import ClusterProducts, Inverse, ResidualTerms, cross_terms, diagonal_terms, rooted_terms
from mlmed.lmm.problem import Problem, Roots
from mlmed.lmm.whitened import rooted
from mlmed.lmm.working import Working

__all__ = ["ClusterProducts", "ClusterTerms", "cluster_products", "cluster_terms", "products_by_cluster"]

Array = NDArray[np.float64]


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
    """What each of n clusters adds to the sums of eq. 5, 9 and 11; k and l run over the K = n_tau + S parameters.

    Attributes
    ----------
    cross : (p + 1, p + 1, n) array
        [X y]'V^-1[X y].
    trace : (K, n) array
        tr(V^-1 V_k).
    moved : (K, p + 1, p + 1, n) array
        [X y]'V^-1 V_k V^-1[X y].
    information : (K, K, n) array
        tr(V^-1 V_k V^-1 V_l); empty unless it was asked for.
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
        Those of the fixed part by cluster.
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
    """Join what G and what the residual parameters add."""
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
