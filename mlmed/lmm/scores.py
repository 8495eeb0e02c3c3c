"""Scores of single clusters: the derivatives of -2l in psi = (beta, tau, sigma2) with beta free.

The criterion that is minimized is a function of the covariance parameters, beta following them. Here beta
keeps its own place,

    F(beta, tau, sigma2) = log|V| + (y - X beta)'V^-1(y - X beta) [+ log|X'V^-1 X|],

which splits into one term per cluster. The bracket (REML) is a function of a sum over clusters; a cluster's
part in its derivative is the change that comes from that cluster's V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import chunks
from mlmed.lmm.covariance import Block, natural_basis
from mlmed.lmm.fit import Optimum
from mlmed.lmm.percluster import ClusterProducts, cluster_terms
from mlmed.lmm.problem import Evaluation, Problem
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.working import Working

__all__ = ["ClusterScores", "cluster_scores", "joint_hessian", "psi_basis", "scores_at"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClusterScores:
    """First derivatives of F by cluster and its second derivatives, in working units.

    Attributes
    ----------
    scores : (J, p + n_tau + S) array
        A cluster's part in dF/dpsi; columns sum to zero at an interior optimum.
    hessian : (p + n_tau + S, p + n_tau + S) array
        Second derivatives of F in psi.
    """

    scores: Array
    hessian: Array


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


def joint_hessian(at: Evaluation, J: Array) -> Array:
    """Second derivatives of F in psi at beta = GLS, (p + n_tau + S,) * 2.

    ``Evaluation.hessian`` belongs to the criterion in which beta follows the variances (eq. 10); what that
    takes away, ``H_tb H_bb^-1 H_bt = 2 v'P^-1 v``, is added back.

    Parameters
    ----------
    at : Evaluation
        Of order 2.
    J : (q*q + S, n_tau + S) array
        d(vec G, sigma2)/d(tau, sigma2).
    """
    p, D = len(at.beta), at.beta_gradient @ J
    P = np.linalg.inv(at.P_inv)
    v = -P @ D  # eq. 12
    H = np.empty((p + D.shape[1],) * 2)
    H[:p, :p] = P + P.T
    H[:p, p:] = 2.0 * v
    H[p:, :p] = 2.0 * v.T
    H[p:, p:] = J.T @ at.hessian @ J + 2.0 * D.T @ P @ D
    return H


def cluster_scores(working: Working, optimum: Optimum, products: ClusterProducts, *, reml: bool) -> ClusterScores:
    """Scores and joint Hessian at the optimum, in working units."""
    at = optimum.evaluation
    scores = scores_at(
        working.problem, working.blocks, products, optimum.L, optimum.sigma2, at.beta, at.P_inv if reml else None
    )
    return ClusterScores(scores, joint_hessian(at, natural_jacobian(working.problem, working.blocks)))
