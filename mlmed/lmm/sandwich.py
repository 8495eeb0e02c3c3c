"""Cluster-robust covariance of psi = (beta, tau, sigma2), from cross-products alone.

All kinds are ``sum_j c_j c_j'`` with c_j the first-order change of psi-hat that cluster j causes: a bread
matrix times that cluster's score. They differ in bread and in the small-sample correction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.alone import FULL_LEVERAGE
from mlmed.lmm.clusters import chunks
from mlmed.lmm.estimates import Estimates, to_estimates
from mlmed.lmm.fit import Optimum
from mlmed.lmm.percluster import ClusterProducts
from mlmed.lmm.problem import CrossProducts, Problem
from mlmed.lmm.scores import scores_at
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.vcov import Vcov, information_of
from mlmed.lmm.weights import weighted_clusters, weighted_tables, whitener
from mlmed.lmm.working import Working
from mlmed.options import ROBUST_KINDS, one_of

__all__ = ["adjusted_scores", "sandwich_vcov"]

Array = NDArray[np.float64]

#: Eigenvalues of a cluster's cross-products below this share of the largest are the rounding error of zero.
DEPENDENT = 1e-14


def sandwich_vcov(working: Working, optimum: Optimum, products: ClusterProducts, kind: str, *, reml: bool) -> Vcov:
    """Cluster-robust covariance of all parameters, in the user's units.

    Parameters
    ----------
    working, optimum : Working, Optimum
        The model and its optimum.
    products : ClusterProducts
        From ``cluster_products(working, grams)``.
    kind : {"CR0", "CR1", "CR2", "cluster"}
        ``CR0``: no correction (Liang and Zeger 1986). The bread is block-diagonal: P^-1 for beta and the
        inverse observed information for (tau, sigma2). ``CR1``: CR0 times J/(J - 1). ``CR2``: residuals of
        each cluster adjusted so that the covariance of beta is unbiased if the model is right (Bell and
        McCaffrey; Pustejovsky and Tipton 2018). The adjustment is defined for residuals, hence for beta only;
        the scores of (tau, sigma2) get CR1's factor sqrt(J/(J - 1)), and the cross-blocks follow.
        ``cluster``: the inverse of the joint Hessian of psi as bread and CR1's factor. It lets beta move with
        (tau, sigma2), which matters when a response is also a regressor; it is valid for every parameter.
    reml : bool
        Restricted likelihood or not.

    Notes
    -----
    Scores of (tau, sigma2) are centred. At an interior optimum they sum to zero anyway; at a singular one
    they do not, and their common part is no evidence of variation between clusters.

    What one cluster alone gives (``mlmed.lmm.alone``) comes out with a variance that says nothing: its score is 0. The
    caller removes it.

    Raises
    ------
    EffectError
        Unknown kind.
    """
    one_of(kind, ROBUST_KINDS, "kind")
    estimates = to_estimates(working, optimum, reml=reml)
    changes, reason = _changes(working, optimum, products, estimates, kind, reml=reml)
    p = working.problem.n_fixed
    user = np.column_stack([changes[:, :p] @ working.units.X_map.T, changes[:, p:] @ estimates.tau_map.T])
    return Vcov.one(user.T @ user, reason)


def _changes(
    working: Working, optimum: Optimum, products: ClusterProducts, estimates: Estimates, kind: str, *, reml: bool
) -> tuple[Array, str]:
    """Bread times scores, (J, p + n_tau + S) in working units, and why entries are NaN."""
    problem, at = working.problem, optimum.evaluation
    p, J = problem.n_fixed, problem.n_clusters
    P_inv = at.P_inv if reml else None
    scores = scores_at(problem, working.blocks, products, optimum.L, optimum.sigma2, at.beta, P_inv)
    of_variances = scores[:, p:] - scores[:, p:].mean(axis=0)
    factor = 1.0 if kind == "CR0" else np.sqrt(J / (J - 1.0))
    V, reason = information_of(estimates)
    of_beta = adjusted_scores(problem, products, optimum) if kind == "CR2" else -0.5 * factor * scores[:, :p]
    beta = of_beta @ at.P_inv  # X'V^-1 r is minus half the score
    if kind != "cluster":
        return np.column_stack([beta, -0.5 * factor * of_variances @ V]), reason
    # the joint Hessian, inverted by blocks: its Schur complement is the Hessian that V comes from
    D = at.beta_gradient @ natural_jacobian(problem, working.blocks)
    variances = (of_beta @ D - 0.5 * factor * of_variances) @ V
    return np.column_stack([beta + variances @ D.T, variances]), reason


def adjusted_scores(problem: Problem, products: ClusterProducts, optimum: Optimum) -> Array:
    """X_j'V_j^-1 A_j r_j of CR2 by cluster, (J, p), in working units.

    With V = D'D and B_j = V_j - X_j P^-1 X_j', the adjustment is A_j = D'(D B_j D')^{+1/2} D. It does not depend
    on which D is taken, but on the units of the rows as soon as they differ between rows. Rows are divided by the
    residual sd of their equation, so that no response has a unit; with one equation that changes nothing. Correlated
    residuals of a row are made independent by a factor of Sigma, whichever: the result is the same.

    Outside the span of the columns of [Z_j X_j y_j] V_j and A_j are then 1, so the rows of a cluster may be
    replaced by pseudo-rows with the same cross-products, of which there are no more than columns.
    """
    p, q, at = problem.n_fixed, problem.n_random, optimum.evaluation
    contrast = np.append(-at.beta, 1.0)
    out = np.empty((problem.n_clusters, p))
    for part in chunks(problem):
        rows = pseudo_rows(problem, products, optimum.sigma2, part)
        Z, X, r = rows[:, :, :q] @ optimum.L, rows[:, :, q : q + p], rows[:, :, q:] @ contrast
        K = np.linalg.cholesky(np.eye(Z.shape[1]) + Z @ Z.transpose(0, 2, 1))
        white = np.linalg.solve(K, X)  # D = K', so that K^-1 X = D'^-1 X
        leverage, vectors = np.linalg.eigh(white @ at.P_inv @ white.transpose(0, 2, 1))
        # D B D' = (K'K)(I - H)(K'K) = E E'; its rank is known from the leverages, before anything is squared
        free = leverage < 1.0 - FULL_LEVERAGE
        root = np.sqrt(np.where(free, 1.0 - leverage, 0.0))
        left, values, _ = np.linalg.svd(K.transpose(0, 2, 1) @ K @ vectors * root[:, None, :])
        kept = np.arange(values.shape[1]) < free.sum(axis=1)[:, None]
        inverse = np.divide(1.0, values, out=np.zeros_like(values), where=kept)
        turned = np.einsum("jab,jac,jc->jb", left, K.transpose(0, 2, 1), r, optimize=True)
        out[part] = np.einsum("jai,jab,jb->ji", white, left, inverse * turned, optimize=True)
    return out


def pseudo_rows(problem: Problem, products: ClusterProducts, sigma2: Array, part: slice) -> Array:
    """Rows with the cross-products of the clusters' own rows [Z X y], residuals made independent with variance 1.

    Returns
    -------
    rows : (n, k, q + p + 1) array
        Equation below equation if residuals are independent; zeros where a cluster has fewer pseudo-rows than others.
    """
    if products.cross is not None:
        return _rows_of(_whitened(problem, products.cross, sigma2, part))
    q, size = problem.n_random, problem.n_random + problem.n_fixed + 1
    found = []
    for r, variance in enumerate(sigma2):
        zs = np.flatnonzero(problem.stratum == r)
        if problem.roots is not None:
            own = problem.roots.take(part).rows(r, zs)
            wide = np.zeros((*own.shape[:2], size))
            wide[:, :, [*zs, *range(q, size)]] = own / np.sqrt(variance)
            found.append(wide)
            continue
        A, B = problem.A[np.ix_(zs, zs)][:, :, part], problem.B[zs][:, :, part]
        cross = np.zeros((A.shape[2], size, size))
        cross[np.ix_(np.arange(len(cross)), zs, zs)] = A.transpose(2, 0, 1)
        cross[:, zs, q:] = B.transpose(2, 0, 1)
        cross[:, q:, zs] = B.transpose(2, 1, 0)
        cross[:, q:, q:] = products.C[r, :, :, part].transpose(2, 0, 1)
        found.append(_rows_of(cross / variance))
    return np.concatenate(found, axis=1)


def _whitened(problem: Problem, products: CrossProducts, sigma2: Array, part: slice) -> Array:
    """[Z X y]'R^-1 [Z X y] of every cluster, (n, q + p + 1, q + p + 1)."""
    cross = problem.cross
    assert cross is not None
    weights = whitener(cross, problem.residual.root(sigma2)).precision
    A, B = (tables[0] for tables in weighted_tables(cross, problem.stratum, weights[None], part))
    C = weighted_clusters(cross, weights, products.C[:, part])
    return np.block([[A, B], [B.transpose(0, 2, 1), C]])


def _rows_of(cross: Array) -> Array:
    """Rows with given cross-products, (n, size, size) -> (n, k, size)."""
    values, vectors = np.linalg.eigh(cross)
    real = values > DEPENDENT * values[:, -1:]
    used = real.any(axis=0)
    root = np.sqrt(np.where(real, values, 0.0))
    return np.asarray((root[:, :, None] * vectors.transpose(0, 2, 1))[:, used])
