"""REML and ML criterion with exact first and second derivatives, in natural parameters.

Everything is computed from per-cluster cross-products, summed in ``clusters.py``; equation numbers refer to
``docs/math.md``. What is here works on small matrices whose size does not depend on the number of clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtri

from mlmed.reml.clusters import MANY, ClusterSums, Factored, chunk_sums, chunks, factor_clusters
from mlmed.reml.parallel import ordered_map, worker_count
from mlmed.reml.problem import Evaluation, Problem

__all__ = ["evaluate"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Solved:
    """Generalized least squares at one (G, sigma2): eq. 5 and 6."""

    value: float
    beta: Array
    P: Array
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
    factor, failed = dpotrf(S, lower=1)
    if failed:
        raise np.linalg.LinAlgError("X'V^-1 X is not positive definite")
    diagonal = factor.diagonal()
    inverse = dtrtri(factor, lower=1)[0]
    contrast = inverse[p] * diagonal[p]  # the last row of the inverse factor is (-beta, 1) over its pivot
    P_inv = inverse[:p, :p].T @ inverse[:p, :p]
    rss = float(diagonal[p]) ** 2
    score = np.zeros(p)
    if beta is not None:  # eq. 37: rss of a given beta
        away = -contrast[:p] - beta
        score = S[:p, :p] @ away
        rss += float(away @ score)
        contrast = np.append(-beta, 1.0)
    value = float(problem.nobs @ np.log(sigma2)) + logdet + rss
    if reml:
        value += 2.0 * float(np.log(diagonal[:p]).sum()) + (total - p) * np.log(2 * np.pi)
    else:
        value += total * np.log(2 * np.pi)
    return _Solved(float(value), -contrast[:p], S[:p, :p], P_inv, contrast, score)


def _by_stratum(problem: Problem, rows: Array) -> Array:
    """Sum entries that belong to the same equation: (q, ...) -> (R, ...)."""
    return (problem.member @ rows.reshape(len(rows), -1)).reshape(problem.n_strata, *rows.shape[1:])


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
    workers = worker_count() if problem.n_clusters >= MANY else 1
    slices = chunks(problem, chunk)
    S, logdet, parts = _first_pass(problem, L, sigma2, slices, workers)
    solved = _generalized_least_squares(problem, S, logdet, sigma2, reml, beta)
    empty = np.empty((0, 0))
    if order == 0:
        return Evaluation(solved.value, solved.beta, solved.P_inv, np.empty(0), empty, empty, empty)

    weight = solved.contrast[:, None] * solved.contrast
    if reml:
        weight[: problem.n_fixed, : problem.n_fixed] += solved.P_inv

    def summed(part: slice | Factored) -> ClusterSums:
        factored = part if isinstance(part, Factored) else factor_clusters(problem, L, sigma2, part)
        return chunk_sums(factored, weight, second=order > 1)

    found = ordered_map(summed, parts, workers)
    sums = next(found)
    for other in found:
        sums.add(other)
    own, omega, gradient = _first_derivatives(problem, sums, weight, sigma2)
    if beta is not None:
        gradient = np.append(gradient, -2.0 * solved.score)
    if order == 1:
        return Evaluation(solved.value, solved.beta, solved.P_inv, gradient, empty, empty, empty)
    information, hessian, v = _second_derivatives(problem, sums, own, omega, solved, sigma2, reml)
    beta_gradient = -solved.P_inv @ v
    if beta is None:
        hessian += 2.0 * (v.T @ beta_gradient)  # beta follows the variances
    else:
        P = solved.P
        hessian = np.block([[hessian, 2.0 * v.T], [2.0 * v, 2.0 * P]])
        information = np.block([[information, np.zeros_like(v.T)], [np.zeros_like(v), 2.0 * P]])
    return Evaluation(solved.value, solved.beta, solved.P_inv, gradient, hessian, information, beta_gradient)


def _first_pass(
    problem: Problem, L: Array, sigma2: Array, slices: list[slice], workers: int
) -> tuple[Array, float, Sequence[slice | Factored]]:
    """S and log|M| over all clusters (eq. 5), and the parts of the second pass: a single chunk is kept factored."""
    keep = len(slices) == 1

    def reduced(part: slice) -> tuple[Array, float, Factored | None]:
        factored = factor_clusters(problem, L, sigma2, part)
        half = factored.both.reshape(-1, factored.both.shape[2])[:, problem.n_random :]
        return half.T @ half, factored.logdet, factored if keep else None

    C = problem.C
    S = ((1.0 / sigma2) @ C.reshape(len(C), -1)).reshape(C.shape[1:])
    logdet = 0.0
    kept: list[slice | Factored] = []
    for removed, part_logdet, factored in ordered_map(reduced, slices, workers):
        S -= removed
        logdet += part_logdet
        if factored is not None:
            kept.append(factored)
    return S, logdet, kept or slices


def _first_derivatives(problem: Problem, sums: ClusterSums, weight: Array, sigma2: Array) -> tuple[Array, Array, Array]:
    """O_r (eq. 6b), tr(W O_r) and the gradient in (vec G, sigma2) (eq. 8)."""
    q, R = problem.n_random, problem.n_strata
    scale = sigma2[:, None, None]
    # O_r = [X y]'V^-1 D_r V^-1 [X y], the cross-products of conditional residuals
    own = _symmetric(problem.C / scale - _by_stratum(problem, sums.residual)) / scale
    omega = own.reshape(R, -1) @ weight.ravel()
    gradient = np.empty(q * q + R)
    np.subtract(sums.QTF[0], sums.QTF[1], out=gradient[: q * q].reshape(q, q))
    gradient[q * q :] = (problem.nobs - _trace(problem, sums)) / sigma2 - omega
    return own, omega, gradient


def _trace(problem: Problem, sums: ClusterSums) -> Array:
    """tr(I_r N A) summed over clusters, (R,)."""
    return problem.member @ (problem.n_clusters - sums.QTF[2].diagonal())


def _second_derivatives(
    problem: Problem, sums: ClusterSums, own: Array, omega: Array, solved: _Solved, sigma2: Array, reml: bool
) -> tuple[Array, Array, Array]:
    """Assemble eq. 9 to 11: expected and observed second derivatives at fixed beta, and v_k as columns."""
    q, p, R = problem.n_random, problem.n_fixed, problem.n_strata
    k, qq = p + 1, q * q
    # tr(V^-1 V_k V^-1 V_l) and the quadratic form of T, in (vec G, sigma2)
    tables = np.empty((2, qq + R, qq + R))
    _pairs(sums.Q_QT, out=tables[:, :qq, :qq].reshape(2, q, q, q, q))
    by_equation = problem.member @ sums.F_QT.reshape(2, q, qq)  # F'I_r (Q or T)
    mixed = (_symmetric(by_equation.reshape(2, R, q, q)) / sigma2[:, None, None]).reshape(2, R, qq)
    tables[:, qq:, :qq] = mixed
    tables[:, :qq, qq:] = mixed.transpose(0, 2, 1)
    tables[:, qq:, qq:] = _residual_pairs(problem, sums, omega, sigma2)
    trace, form = tables

    # X'V^-1 V_k V^-1 [X y] for every coordinate: (qq + R, p + 1, p + 1)
    moved = np.empty((qq + R, k, k))
    outer = sums.VV.reshape(q, k, q, k)
    np.add(outer.transpose(0, 2, 1, 3), outer.transpose(0, 2, 3, 1), out=moved[:qq].reshape(q, q, k, k))
    moved[:qq] *= 0.5
    moved[qq:] = own
    v = (moved.reshape(-1, k) @ solved.contrast).reshape(qq + R, k)[:, :p]
    hessian = 2.0 * form - trace
    if reml:
        spread = (moved[:, :p, :p].reshape(-1, p) @ solved.P_inv).reshape(qq + R, p, p)
        hessian -= spread.reshape(qq + R, p * p) @ spread.transpose(0, 2, 1).reshape(qq + R, p * p).T
    return trace, hessian, v.T


def _pairs(sums: Array, out: Array) -> None:
    """sum_j Q_bc (Q or T)_da as the (ab, cd) entry of tr(E_ab Q E_cd T), symmetrized over transposes."""
    q = out.shape[1]
    both = sums.transpose(1, 0, 2)
    both = 0.25 * (both + both.transpose(0, 2, 1))
    four = both.reshape(2, q, q, q, q)  # [b, c, d, a], symmetric in (b, c) and in (d, a) as Q and T are
    np.add(four.transpose(0, 4, 1, 2, 3), four.transpose(0, 1, 4, 2, 3), out=out)


def _residual_pairs(problem: Problem, sums: ClusterSums, omega: Array, sigma2: Array) -> Array:
    """Entries (r, s) of both tables, (2, R, R)."""
    inverse, member = 1.0 / sigma2, problem.member
    out = member @ np.array([sums.NN, -sums.NT]) @ member.T * (inverse[:, None] * inverse)
    diagonal = out.reshape(2, -1)[:, :: problem.n_strata + 1]
    diagonal[0] += inverse**2 * (problem.nobs - 2.0 * _trace(problem, sums))
    diagonal[1] += inverse * omega
    return out
