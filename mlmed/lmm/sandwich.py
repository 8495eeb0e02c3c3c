"""Cluster-robust covariance of psi = (beta, tau, sigma2), and the directions that only one cluster informs.

All kinds are ``sum_j c_j c_j'`` with c_j the first-order change of psi-hat that cluster j causes: a bread
matrix times that cluster's score. They differ in bread and in the small-sample correction.

Without cluster j the precision of beta is P - P_j. It is singular where the leverage of the cluster, an eigenvalue of
P_j relative to P, is 1: moving beta along that eigenvector changes the expected response of cluster j only. Quantities
that change with such a move cannot be estimated without the cluster (deletion, bootstrap) and have no robust standard
error: the cluster fits itself, and its score is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import chunks, weighted_clusters, weighted_tables, whitener
from mlmed.lmm.estimates import Estimates, to_estimates
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.percluster import ClusterProducts, cluster_terms, scores_at
from mlmed.lmm.problem import CrossProducts, Problem
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.vcov import Vcov, information_of
from mlmed.lmm.working import Working
from mlmed.options import ROBUST_KINDS, one_of

Array = NDArray[np.float64]

#: Distance from 1 below which a leverage counts as 1. Rounding leaves 1e-14 to 5e-9, the latter with columns collinear
#: up to 1e-10 of their variance; and an estimate that owes a millionth to other clusters rests on one.
FULL_LEVERAGE = 1e-6
#: Entries of a move below this share of the standard errors of their coefficients are the rounding error of zero.
NO_MOVE = 1e-6
#: Eigenvalues of a cluster's cross-products below this share of the largest are the rounding error of zero.
DEPENDENT = 1e-14


@dataclass(frozen=True, slots=True)
class Alone:
    """Moves of beta that change the expected response of one cluster (or row) only.

    Attributes
    ----------
    moves : (p, k) array
        One move per column, in the user's units; exact zeros for coefficients that do not move.
    owners : (k,) int array
        Position of that cluster.
    """

    moves: Array
    owners: NDArray[np.intp]


def leverages(own: Array, root: Array) -> tuple[Array, Array]:
    """Eigenvalues (n, p), increasing, and eigenvectors (n, p, p) of every P_j relative to P.

    Parameters
    ----------
    own : (n, p, p) array
        X_j'V_j^-1 X_j of n clusters.
    root : (p, p) array
        P^-1 = root root'.
    """
    values, vectors = np.linalg.eigh(root.T @ own @ root)
    return np.asarray(values, dtype=np.float64), np.asarray(vectors, dtype=np.float64)


def moves_of_one(working: Working, optimum: Optimum, products: ClusterProducts) -> Alone:
    """Moves of the fixed effects of a mixed model that single clusters alone inform.

    Parameters
    ----------
    working, optimum : Working, Optimum
        The model and its optimum.
    products : ClusterProducts
        From ``cluster_products(working, grams)``.
    """
    problem, P_inv = working.problem, optimum.evaluation.P_inv
    p, root = problem.n_fixed, np.asarray(np.linalg.cholesky(P_inv), dtype=np.float64)

    def found() -> Iterator[tuple[int, Array]]:
        nothing = np.empty((0, problem.n_random, problem.n_random))
        for part in chunks(problem):
            terms = cluster_terms(problem, products, nothing, optimum.L, optimum.sigma2, part)
            own = terms.cross[:p, :p].transpose(2, 0, 1)
            # the largest leverage is at most the sum of all
            enough = np.flatnonzero(np.einsum("jab,ab->j", own, P_inv) > 1.0 - FULL_LEVERAGE)
            values, vectors = leverages(own[enough], root)
            for j, value, vector in zip(enough, values, vectors, strict=True):
                yield part.start + int(j), root @ vector[:, value > 1.0 - FULL_LEVERAGE]

    X_map = working.units.X_map
    return gathered(found(), X_map, np.sqrt(np.einsum("ia,ab,ib->i", X_map, P_inv, X_map)))


def gathered(found: Iterator[tuple[int, Array]], to_user: Array, errors: Array) -> Alone:
    """Collect moves of several clusters side by side.

    Parameters
    ----------
    found : iterator of (int, (p, k) array)
        Position of a cluster and its moves, in units in which P^-1 = root root' and a move is ``root v``.
    to_user : (p, p) array
        Map from these units to the user's.
    errors : (p,) array
        Standard errors of the coefficients in the user's units.
    """
    moves, owners = [np.empty((len(errors), 0))], []
    for owner, own in found:
        moves.append(without_rounding(to_user @ own, errors))
        owners += [owner] * own.shape[1]
    return Alone(np.hstack(moves), np.array(owners, dtype=np.intp))


def without_rounding(moves: Array, errors: Array) -> Array:
    """Set entries of moves (p, k) below rounding to zero, in units ``errors`` (p,) of the coefficients."""
    return np.where(np.abs(moves) > NO_MOVE * errors[:, None], moves, 0.0)


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

    Directions that one cluster alone informs (``Alone``) come out with a meaningless variance, as its score is 0. The
    caller removes them.

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
    on the choice of D, but it does on the units of rows where these differ. So rows are divided by the residual sd of
    their equation, which makes responses unit-free; with one equation that changes nothing. Correlated residuals of a
    row are made independent by any factor of Sigma: the result is the same.

    Outside the span of the columns of [Z_j X_j y_j], V_j and A_j are then the identity, so the rows of a cluster may
    be replaced by pseudo-rows with the same cross-products, no more than there are columns.
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
        # D B D' = (K'K)(I - H)(K'K) = E E'; its rank follows from the leverages, before any squaring
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
