"""REML and ML criterion with exact first and second derivatives, in natural parameters.

Everything is computed from per-cluster cross-products; equation numbers refer to ``docs/math.md``.
Arrays that run over clusters keep the cluster index last, so that the small q x q recursions are loops
over long contiguous vectors, and clusters are taken in chunks that stay in cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from mlmed.reml.parallel import ordered_map, worker_count
from mlmed.reml.problem import Evaluation, Problem

__all__ = ["Factored", "chunks", "evaluate", "factor_clusters", "product"]

Array = NDArray[np.float64]

#: Clusters per chunk: at q = 5 the hundred or so vectors of this length stay in a 1 MB cache.
CHUNK = 1024
#: Clusters above which threads pay, and the chunk that keeps them busy.
MANY, LARGE_CHUNK = 65_536, 4096


def chunks(n_clusters: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` clusters."""
    return (slice(start, min(start + size, n_clusters)) for start in range(0, n_clusters, size))


def product(left: Array, right: Array) -> Array:
    """Cluster-wise matrix product: (a, b, J), (b, c, J) -> (a, c, J)."""
    return np.einsum("abj,bcj->acj", left, right)


@dataclass(frozen=True, slots=True)
class Factored:
    """One chunk after eq. 4: A, B weighted by 1/sigma2 and H = K^-1 L' with K K' = I + L'A L."""

    A: Array
    B: Array
    H: Array
    logdet: float


def factor_clusters(problem: Problem, L: Array, sigma2: Array, part: slice) -> Factored:
    """Cholesky factor of ``I + L'A L`` for one chunk of clusters, applied to ``L'`` (eq. 4)."""
    weight = (1.0 / sigma2)[problem.stratum][:, None, None]
    A = problem.A[:, :, part] * weight
    B = problem.B[:, :, part] * weight
    q, _, n = A.shape
    M = np.matmul(L.T, (L.T @ A.reshape(q, q * n)).reshape(q, q, n))
    H = np.repeat(L.T[:, :, None], n, axis=2)
    logdet = 0.0
    for k in range(q):  # right-looking Cholesky of I + L'A L with forward substitution of L'
        pivot = 1.0 + M[k, k]
        logdet += float(np.log(pivot).sum())
        root = np.sqrt(pivot)
        H[k] /= root
        if k + 1 < q:
            column = M[k + 1 :, k] / root
            M[k + 1 :, k + 1 :] -= column[:, None] * column[None]
            H[k + 1 :] -= column[:, None] * H[k]
    return Factored(A, B, H, logdet)


def _cross(left: Array, right: Array) -> Array:
    """Sum over clusters of the outer products, row by row: (a, i, J), (a, k, J) -> (a, i, k)."""
    return np.matmul(left, right.transpose(0, 2, 1))


@dataclass(frozen=True, slots=True)
class _Solved:
    """Generalized least squares at one (G, sigma2): eq. 5 and 6."""

    value: float
    beta: Array
    P_inv: Array
    contrast: Array  # (p + 1,): (-beta, 1), so that [X y] contrast = y - X beta
    score: Array  # (p,): X'V^-1 (y - X beta), zero unless beta was given


def _generalized_least_squares(
    problem: Problem, S: Array, logdet: float, sigma2: Array, reml: bool, beta: Array | None
) -> _Solved:
    p = problem.n_fixed
    total = int(problem.nobs.sum())
    if not np.isfinite(S).all():
        raise np.linalg.LinAlgError("the cross-products overflow: a residual variance has gone to zero")
    factor = cho_factor(S, lower=True)[0]
    rss = factor[p, p] ** 2
    P_factor = (factor[:p, :p], True)
    best = cho_solve(P_factor, S[:p, p])
    P_inv = cho_solve(P_factor, np.eye(p))
    score = np.zeros(p)
    if beta is not None:  # eq. 37: rss of a given beta
        score = S[:p, :p] @ (best - beta)
        rss += float((best - beta) @ score)
    value = float(problem.nobs @ np.log(sigma2)) + logdet + rss
    if reml:
        value += 2.0 * float(np.log(np.diag(factor)[:p]).sum()) + (total - p) * np.log(2 * np.pi)
    else:
        value += total * np.log(2 * np.pi)
    used = best if beta is None else beta
    return _Solved(float(value), used, P_inv, np.append(-used, 1.0), score)


@dataclass(slots=True)
class _Sums:
    """Sums over clusters that eq. 8 to 12 are assembled from; the last six are empty without second order."""

    slope: Array  # (q, q): Q - T
    trace: Array  # (R,): tr(I_r N A)
    residual: Array  # (R, p + 1, p + 1): h'I_r B + V'I_r h, what C_r / sigma2_r loses in eq. 6b
    QQ: Array  # (q*q, q*q)
    QT: Array  # (q*q, q*q)
    VV: Array  # (q*(p+1), q*(p+1)): Z'V^-1[X y] with itself
    FQ: Array  # (q, q, q): row c of (F' , Q)
    FT: Array  # (q, q, q)
    NN: Array  # (q, q): (N A)_ac (N A)_ca
    NT: Array  # (q, q): N_ac T_ca

    def add(self, other: _Sums) -> None:
        """Add another chunk in place."""
        for name in self.__slots__:
            total = getattr(self, name)
            total += getattr(other, name)


def _chunk_sums(part: Factored, problem: Problem, weight: Array, second: bool) -> _Sums:
    """Sums of one chunk. ``weight`` (p + 1, p + 1) is W of eq. 8: T = Z'V^-1[X y] W [X y]'V^-1 Z."""
    q, k, n = part.B.shape
    N = np.einsum("baj,bcj->acj", part.H, part.H)
    h = product(N, part.B)
    V = part.B - product(part.A, h)  # Z'V^-1 [X y]
    NA = product(N, part.A)
    Q = part.A - product(part.A, NA)  # Z'V^-1 Z
    T = np.einsum("aij,bij->abj", V, np.matmul(weight, V))
    slope = (Q - T).sum(axis=2)
    trace = _by_stratum(np.einsum("aaj->a", NA), problem)
    residual = _by_stratum(_cross(h, part.B) + _cross(V, h), problem)
    if not second:
        return _Sums(slope, trace, residual, *(np.zeros(0) for _ in range(7)))
    Qv, Tv, Vv = Q.reshape(q * q, n), T.reshape(q * q, n), V.reshape(q * k, n)
    F = -NA
    F[np.arange(q), np.arange(q)] += 1.0  # V^-1 Z = R^-1 Z F
    return _Sums(
        slope=slope,
        trace=trace,
        residual=residual,
        QQ=Qv @ Qv.T,
        QT=Qv @ Tv.T,
        VV=Vv @ Vv.T,
        FQ=_cross(F, Q),
        FT=_cross(F, T),
        NN=np.einsum("acj,caj->ac", NA, NA),
        NT=np.einsum("acj,caj->ac", N, T),
    )


def _by_stratum(rows: Array, problem: Problem) -> Array:
    """Sum entries that belong to the same equation: (q, ...) -> (R, ...)."""
    member = (problem.stratum == np.arange(problem.n_strata)[:, None]).astype(float)
    return (member @ rows.reshape(len(rows), -1)).reshape(problem.n_strata, *rows.shape[1:])


def _symmetric(matrices: Array) -> Array:
    return 0.5 * (matrices + np.swapaxes(matrices, -1, -2))


def evaluate(
    problem: Problem,
    L: Array,
    sigma2: Array,
    *,
    reml: bool = True,
    order: int = 2,
    chunk: int | None = None,
    beta: Array | None = None,
) -> Evaluation:
    """Evaluate -2l (eq. 7) and its derivatives up to ``order`` at G = L L'.

    Parameters
    ----------
    problem : Problem
        Cross-products of the model.
    L : (q, q) array
        Any factor of G; G may be singular.
    sigma2 : (R,) array
        Residual variances, positive.
    reml : bool
        Restricted (default) or full likelihood.
    order : {0, 1, 2}
        Value and beta only; with gradient; with Hessian.
    chunk : int, optional
        Clusters per pass through the cache; the sums are the same to the last bit for a given chunk size,
        whatever the number of threads.
    beta : (p,) array, optional
        Fixed effects; by default the best ones given (G, sigma2). With beta the derivatives are those of a
        function of (vec G, sigma2, beta), in this order (eq. 37, 38).

    Raises
    ------
    numpy.linalg.LinAlgError
        If X'V^-1 X is not positive definite, or a residual variance so small that sums overflow.
    """
    p = problem.n_fixed
    chunk = chunk or (LARGE_CHUNK if problem.n_clusters >= MANY else CHUNK)
    workers = worker_count() if problem.n_clusters >= MANY else 1
    slices = list(chunks(problem.n_clusters, chunk))
    keep = len(slices) == 1

    def reduced(part: slice) -> tuple[Array, float, Factored | None]:
        factored = factor_clusters(problem, L, sigma2, part)
        half = product(factored.H, factored.B)
        return _cross(half, half).sum(axis=0), factored.logdet, factored if keep else None

    S = np.einsum("rik,r->ik", problem.C, 1.0 / sigma2)
    logdet = 0.0
    kept: Factored | None = None
    for removed, part_logdet, factored in ordered_map(reduced, slices, workers):
        S -= removed
        logdet += part_logdet
        kept = factored
    solved = _generalized_least_squares(problem, S, logdet, sigma2, reml, beta)
    empty = np.empty((0, 0))
    if order == 0:
        return Evaluation(solved.value, solved.beta, solved.P_inv, np.empty(0), empty, empty, empty)

    weight = np.outer(solved.contrast, solved.contrast)
    if reml:
        weight[:p, :p] += solved.P_inv

    def summed(part: slice) -> _Sums:
        factored = kept if kept is not None else factor_clusters(problem, L, sigma2, part)
        return _chunk_sums(factored, problem, weight, order > 1)

    found = ordered_map(summed, slices, workers)
    sums = next(found)
    for other in found:
        sums.add(other)
    # O_r = [X y]'V^-1 D_r V^-1 [X y] (eq. 6b), the cross-products of conditional residuals
    own = _symmetric(problem.C / sigma2[:, None, None] - sums.residual) / sigma2[:, None, None]
    omega = np.einsum("rik,ik->r", own, weight)
    gradient = np.append(sums.slope.ravel(), (problem.nobs - sums.trace) / sigma2 - omega)
    if beta is not None:
        gradient = np.append(gradient, -2.0 * solved.score)
    if order == 1:
        return Evaluation(solved.value, solved.beta, solved.P_inv, gradient, empty, empty, empty)
    information, hessian, v = _second_derivatives(problem, sums, own, omega, solved, sigma2, reml)
    beta_gradient = -solved.P_inv @ v
    if beta is None:
        hessian -= 2.0 * v.T @ solved.P_inv @ v  # beta follows the variances
    else:
        P = np.linalg.inv(solved.P_inv)
        hessian = np.block([[hessian, 2.0 * v.T], [2.0 * v, 2.0 * P]])
        information = np.block([[information, np.zeros_like(v.T)], [np.zeros_like(v), 2.0 * P]])
    return Evaluation(solved.value, solved.beta, solved.P_inv, gradient, hessian, information, beta_gradient)


def _second_derivatives(
    problem: Problem, sums: _Sums, own: Array, omega: Array, solved: _Solved, sigma2: Array, reml: bool
) -> tuple[Array, Array, Array]:
    """Assemble eq. 9 to 11: expected and observed second derivatives at fixed beta, and v_k as columns."""
    q, p, R = problem.n_random, problem.n_fixed, problem.n_strata
    k, qq = p + 1, q * q
    inverse = 1.0 / sigma2
    # tr(V^-1 V_k V^-1 V_l) and the quadratic form of T, in (vec G, sigma2)
    trace = np.zeros((qq + R, qq + R))
    form = np.zeros((qq + R, qq + R))
    trace[:qq, :qq] = _pairs(sums.QQ, q)
    form[:qq, :qq] = _pairs(sums.QT, q)
    trace[:qq, qq:] = _symmetric(_by_stratum(sums.FQ, problem) * inverse[:, None, None]).reshape(R, qq).T
    form[:qq, qq:] = _symmetric(_by_stratum(sums.FT, problem) * inverse[:, None, None]).reshape(R, qq).T
    pairs = np.outer(inverse, inverse)
    NN = _by_stratum(_by_stratum(sums.NN, problem).T, problem)
    NT = _by_stratum(_by_stratum(sums.NT, problem).T, problem)
    trace[qq:, qq:] = pairs * NN + np.diag(inverse**2 * (problem.nobs - 2.0 * sums.trace))
    form[qq:, qq:] = np.diag(inverse * omega) - pairs * NT
    for matrix in (trace, form):
        matrix[qq:, :qq] = matrix[:qq, qq:].T
    form[:qq, :qq] = 0.5 * (form[:qq, :qq] + form[:qq, :qq].T)

    # X'V^-1 V_k V^-1 [X y] for every coordinate: (qq + R, p + 1, p + 1)
    outer = sums.VV.reshape(q, k, q, k).transpose(0, 2, 1, 3).reshape(qq, k, k)
    moved = np.concatenate([_symmetric(outer), own])
    v = moved[:, :p, :] @ solved.contrast  # (qq + R, p)
    hessian = -trace + 2.0 * form
    if reml:
        spread = moved[:, :p, :p] @ solved.P_inv
        flat = spread.reshape(qq + R, p * p)
        hessian -= flat @ spread.transpose(0, 2, 1).reshape(qq + R, p * p).T
    return trace, hessian, v.T


def _pairs(sums: Array, q: int) -> Array:
    """Rearrange sum_j Q_bc T_da into the (ab, cd) entry of tr(E_ab Q E_cd T), symmetrized over transposes."""
    four = sums.reshape(q, q, q, q)  # [b, c, d, a]
    full = four.transpose(3, 0, 1, 2)  # [a, b, c, d]
    full = 0.25 * (full + full.transpose(1, 0, 2, 3) + full.transpose(0, 1, 3, 2) + full.transpose(1, 0, 3, 2))
    return full.reshape(q * q, q * q)
