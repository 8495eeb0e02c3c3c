"""Cross-products of the fixed part cluster by cluster, and the first derivatives that one cluster adds.

``Problem`` sums [X y]'[X y] over clusters because the criterion needs no more. What is asked of single
clusters (scores, deletion) needs the terms of that sum; they are made on demand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.reml.assembly import build_assembly, cluster_cross
from mlmed.reml.clusters import factor_clusters, product
from mlmed.reml.problem import Problem
from mlmed.reml.working import Working

__all__ = ["ClusterProducts", "ClusterTerms", "cluster_products", "cluster_terms"]

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
    """

    C: Array
    nobs: NDArray[np.int64]


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
    rows = assembly.member @ grams.products[:, 0]
    return ClusterProducts(cluster_cross(assembly, grams.products), np.rint(rows).astype(np.int64))


@dataclass(frozen=True, slots=True)
class ClusterTerms:
    """What each of n clusters adds to the sums of eq. 5, 9 and 11; k and l run over the K = n_tau + R parameters.

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
    sigma2 : (R,) array
        Residual variances.
    part : slice
        The clusters.
    information : bool
        Whether to fill in the expected second derivatives.
    """
    A, B, H = factor_clusters(problem, L, sigma2, part).cluster_last()
    members = [np.flatnonzero(problem.stratum == r) for r in range(problem.n_strata)]
    N = np.einsum("baj,bcj->acj", H, H)
    half, h, NA = product(H, B), product(N, B), product(N, A)
    U = B - product(A, h)  # Z'V^-1 [X y]
    Q = A - product(A, NA)  # Z'V^-1 Z
    C = products.C[..., part] / sigma2[:, None, None, None]
    own = np.empty_like(C)
    for r, mine in enumerate(members):  # eq. 6b
        lost = np.einsum("aij,amj->imj", h[mine], B[mine]) + np.einsum("aij,amj->imj", U[mine], h[mine])
        own[r] = (C[r] - 0.5 * (lost + lost.transpose(1, 0, 2))) / sigma2[r]
    along = np.einsum("aij,kamj->kimj", U, np.einsum("kab,bmj->kamj", basis, U))
    rows = products.nobs[:, part]
    inside = np.array([np.einsum("aaj->j", NA[np.ix_(mine, mine)]) for mine in members])
    return ClusterTerms(
        cross=C.sum(axis=0) - np.einsum("aij,amj->imj", half, half),
        trace=np.concatenate([np.einsum("kab,abj->kj", basis, Q), (rows - inside) / sigma2[:, None]]),
        moved=np.concatenate([along, own]),
        information=_information(basis, Q, NA, rows - 2.0 * inside, sigma2, members) if information else np.empty(0),
    )


def _information(
    basis: Array, Q: Array, NA: Array, diagonal: Array, sigma2: Array, members: list[NDArray[np.intp]]
) -> Array:
    """Eq. 9 before it is summed over clusters; ``diagonal`` (R, n) is n_r - 2 tr(I_r N A)."""
    T, R, q, n = len(basis), len(sigma2), len(Q), Q.shape[2]
    out = np.empty((T + R, T + R, n))
    turned = np.einsum("kab,bcj->jkac", basis, Q)
    swapped = turned.transpose(0, 3, 2, 1)
    pairs = np.matmul(turned.reshape(n, T, q * q), swapped.reshape(n, q * q, T))
    out[:T, :T] = pairs.transpose(1, 2, 0)
    F = np.eye(q)[:, :, None] - NA
    for r, mine in enumerate(members):
        FQ = np.einsum("caj,cbj->abj", F[mine], Q[mine]) / sigma2[r]  # F'I_r Q: V^-1 Z = R^-1 Z F
        out[:T, T + r] = out[T + r, :T] = np.einsum("kab,abj->kj", basis, FQ)
        for s, other in enumerate(members):
            pair = np.einsum("acj,caj->j", NA[np.ix_(mine, other)], NA[np.ix_(other, mine)])
            out[T + r, T + s] = (pair + (diagonal[r] if r == s else 0.0)) / (sigma2[r] * sigma2[s])
    return out
