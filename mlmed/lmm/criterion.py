"""REML and ML criterion with exact first and second derivatives, in natural parameters.

Sums over clusters come from ``clusters.py``; this file works on small matrices whose size does not depend on the
number of clusters. Equation numbers refer to ``docs/math.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dtrtri

from mlmed.lmm.clusters import (
    MANY,
    ClusterSums,
    DiagonalSums,
    Factored,
    Whitener,
    chunk_sums,
    chunks,
    diagonal_sums,
    factor_clusters,
    inverted,
    ordered_map,
    weighted_cross,
    whitener,
    worker_count,
)
from mlmed.lmm.cross import CrossSums, CrossWeights, ResidualTables, cross_sums, cross_tables, weights_along
from mlmed.lmm.problem import Evaluation, Problem, with_natural
from mlmed.lmm.roots import Rooted, RootSums, first_of_roots, root_sums, root_tables, rooted

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Solved:
    """Generalized least squares at one (G, sigma2): eq. 5 and 6."""

    value: float
    beta: Array
    P_inv: Array
    factor: Array  # (p, p): lower-triangular factor of P
    inverse: Array  # (p, p): its inverse
    contrast: Array  # (p + 1,): (-beta, 1), so that [X y] contrast = y - X beta
    score: Array  # (p,): X'V^-1 (y - X beta), zero unless beta was given

    @property
    def turn(self) -> Array:
        """(p + 1, p + 1): maps [X y] to columns with P = 1 and the residuals y - X beta (eq. 8b)."""
        p = len(self.factor)
        return np.column_stack([np.vstack([self.inverse.T, np.zeros(p)]), self.contrast])

    @property
    def turned(self) -> _Solved:
        """The same for the columns ``[X y] @ turn``."""
        one = np.eye(len(self.factor))
        contrast = np.append(np.zeros(len(one)), 1.0)
        return replace(self, P_inv=one, factor=one, inverse=one, contrast=contrast)


def _factor(S: Array) -> Array:
    """Lower-triangular factor of [X y]'V^-1 [X y]."""
    if not np.isfinite(S).all():
        raise np.linalg.LinAlgError("the cross-products overflow: a residual variance has gone to zero")
    factor, failed = dpotrf(S, lower=1)
    if failed:
        raise np.linalg.LinAlgError("X'V^-1 X is not positive definite")
    return np.asarray(factor)


def _generalized_least_squares(
    problem: Problem, factor: Array, logdet: float, reml: bool, beta: Array | None
) -> _Solved:
    """Eq. 6 from the lower-triangular ``factor`` (p + 1, p + 1) of S."""
    p = problem.n_fixed
    total = int(problem.nobs.sum())
    diagonal = factor.diagonal()
    inverse = dtrtri(factor, lower=1)[0]
    contrast = inverse[p] * diagonal[p]  # the last row of the inverse factor is (-beta, 1) over its pivot
    P_inv = inverse[:p, :p].T @ inverse[:p, :p]
    rss = float(diagonal[p]) ** 2
    score = np.zeros(p)
    if beta is not None:  # eq. 37: rss of a given beta
        away = -contrast[:p] - beta
        score = factor[:p, :p] @ (factor[:p, :p].T @ away)
        rss += float(away @ score)
        contrast = np.append(-beta, 1.0)
    value = logdet + rss
    if reml:
        value += 2.0 * float(np.log(diagonal[:p]).sum()) + (total - p) * np.log(2 * np.pi)
    else:
        value += total * np.log(2 * np.pi)
    return _Solved(float(value), -contrast[:p], P_inv, factor[:p, :p], inverse[:p, :p], contrast, score)


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
    root: Array | None = None,
    base: Array | None = None,
) -> Evaluation:
    """Evaluate -2l (eq. 7) and its derivatives up to ``order`` at G = L L'.

    Parameters
    ----------
    problem : Problem
        Cross-products of the model.
    L : (q, q) array
        Any factor of G; G may be singular.
    sigma2 : (S,) array
        Residual parameters (``problem.residual``): variances, and covariances if residuals are correlated.
    reml : bool
        Restricted (default) or full likelihood.
    order : {0, 1, 2}
        Value and beta only; with gradient; with Hessian.
    chunk : int, optional
        Clusters per pass through the cache; the sums are the same to the last bit for a given chunk size,
        whatever the number of threads.
    beta : (p,) array, optional
        Fixed effects; by default their generalized least squares estimate. With beta the derivatives are those of a
        function of (vec G, sigma2, beta), in this order (eq. 37, 38).
    root : (R, R) array, optional
        Lower-triangular factor of Sigma if residuals are correlated; by default that of ``sigma2``, which has lost
        small differences of nearly equal responses.
    base : (R, R) array, optional
        Take derivatives in Sigma along B E_s B' first (eq. 95b), if residuals are correlated.

    Raises
    ------
    numpy.linalg.LinAlgError
        If X'V^-1 X or Sigma is not positive definite, or a residual variance so small that sums overflow.
    """
    workers = worker_count() if problem.n_clusters >= MANY else 1
    slices, made = chunks(problem, chunk), _whitener(problem, sigma2, root)
    factor, logdet, size, parts = _first_pass(problem, L, sigma2, made, slices, workers)
    solved = _generalized_least_squares(problem, factor, logdet, reml, beta)
    size = max(size, abs(solved.value))
    empty = np.empty((0, 0))
    if order == 0:
        return Evaluation(solved.value, solved.beta, solved.P_inv, np.empty(0), empty, empty, empty, size)

    weight = solved.contrast[:, None] * solved.contrast
    if reml:
        weight[: problem.n_fixed, : problem.n_fixed] += solved.P_inv
    turn = None if problem.roots is None else solved.turn
    weights = _directions(problem, made, base)
    second = order > 1
    sums, residual = _second_pass(
        problem, L, sigma2, weights, weight, slices, parts, workers, turn, reml=reml, second=second
    )
    gradient = _gradient(sums, residual, weight)
    if beta is not None:
        gradient = np.append(gradient, -2.0 * solved.score)
    tables = (empty, empty, empty)
    if second:
        tables = _second_order(problem, sums, residual, solved, reml, given=beta is not None)
    found = Evaluation(solved.value, solved.beta, solved.P_inv, gradient, *tables, size, sums.QTF[0])
    return found if base is None or weights is None else with_natural(found, problem.residual, base)


def _whitener(problem: Problem, sigma2: Array, root: Array | None) -> Whitener | None:
    if problem.cross is None:
        return None
    return whitener(problem.cross, problem.residual.root(sigma2) if root is None else root)


def _directions(problem: Problem, made: Whitener | None, base: Array | None) -> CrossWeights | None:
    if problem.cross is None or made is None:
        return None
    basis = problem.residual.basis
    return weights_along(problem.cross, made, basis if base is None else base @ basis @ base.T)


def _second_order(
    problem: Problem,
    sums: ClusterSums,
    residual: ResidualTables,
    solved: _Solved,
    reml: bool,
    *,
    given: bool,
) -> tuple[Array, Array, Array]:
    """Hessian, information and slopes of beta; if ``given``, beta is fixed by the caller and a coordinate."""
    if problem.roots is None:
        information, hessian, v = _second_derivatives(problem, sums, residual, solved, reml)
        beta_gradient = -solved.P_inv @ v
    else:
        information, hessian, own = _second_derivatives(problem, sums, residual, solved.turned, reml)
        v, beta_gradient = solved.factor @ own, -solved.inverse.T @ own
    if not given:
        hessian += 2.0 * (v.T @ beta_gradient)  # beta is profiled out
    else:
        P = solved.factor @ solved.factor.T
        hessian = np.block([[hessian, 2.0 * v.T], [2.0 * v, 2.0 * P]])
        information = np.block([[information, np.zeros_like(v.T)], [np.zeros_like(v), 2.0 * P]])
    return hessian, information, beta_gradient


def _first_pass(
    problem: Problem, L: Array, sigma2: Array, made: Whitener | None, slices: list[slice], workers: int
) -> tuple[Array, float, float, Sequence[slice | Factored | Rooted]]:
    """Factor of S, log|V| over all clusters (eq. 5), the size of the terms of S, the parts of the second pass.

    A single chunk is kept factored.
    """
    if problem.roots is not None:
        return first_of_roots(problem, problem.roots, L, sigma2, slices, workers)
    keep, precision = len(slices) == 1, None if made is None else made.precision

    def reduced(part: slice) -> tuple[Array, float, Factored | None]:
        factored = factor_clusters(problem, L, sigma2, part, precision)
        half = factored.both.reshape(-1, factored.both.shape[2])[:, problem.n_random :]
        return half.T @ half, factored.logdet, factored if keep else None

    S, logdet, size = _rows(problem, sigma2, made)
    kept: list[slice | Factored] = []
    for removed, part_logdet, factored in ordered_map(reduced, slices, workers):
        S -= removed
        logdet += part_logdet
        if factored is not None:
            kept.append(factored)
    return _factor(S), logdet, size, kept or slices


def _rows(problem: Problem, sigma2: Array, made: Whitener | None) -> tuple[Array, float, float]:
    """[X y]'R^-1 [X y], log|R| and the size of the terms that add up to y'R^-1 y."""
    if problem.cross is not None and made is not None:
        cross, p = problem.cross, problem.n_fixed
        size = float((np.abs(made.precision) * np.abs(cross.C[:, p:, p:])).sum())
        return weighted_cross(cross, made.precision), made.logdet, max(size, 1.0)
    C = problem.C
    S = ((1.0 / sigma2) @ C.reshape(len(C), -1)).reshape(C.shape[1:])
    return S, float(problem.nobs @ np.log(sigma2)), max(float(S[-1, -1]), 1.0)


def _second_pass(
    problem: Problem,
    L: Array,
    sigma2: Array,
    weights: CrossWeights | None,
    weight: Array,
    slices: list[slice],
    parts: Sequence[slice | Factored | Rooted],
    workers: int,
    turn: Array | None,
    *,
    reml: bool,
    second: bool,
) -> tuple[ClusterSums, ResidualTables]:
    """Sums over clusters for the derivatives in G and in the residual parameters.

    With roots the columns [X y] are multiplied by ``turn`` first (eq. 8b).
    """
    precision = None if weights is None else weights.precision

    def summed(
        part: tuple[slice, slice | Factored | Rooted],
    ) -> tuple[ClusterSums, DiagonalSums | CrossSums | RootSums]:
        at, given = part
        if turn is not None:
            own = (given if isinstance(given, Rooted) else rooted(problem, L, sigma2, at)).turned(turn)
            tables = own.tables(reml=reml)
            return chunk_sums(tables, own.V, second=second), root_sums(problem, own, reml=reml, second=second)
        factored = given if isinstance(given, Factored) else factor_clusters(problem, L, sigma2, at, precision)
        made = inverted(factored, weight, None if weights is None else L)
        if weights is None:
            return chunk_sums(made.tables, made.V, second=second), diagonal_sums(made, second=second)
        return chunk_sums(made.tables, made.V, second=second), cross_sums(
            problem, weights, made, weight, at, second=second
        )

    found = ordered_map(summed, list(zip(slices, parts, strict=True)), workers)
    sums, own = next(found)
    for other, other_own in found:
        sums.add(other)
        own.add(other_own)
    if isinstance(own, RootSums):
        assert turn is not None
        return sums, root_tables(problem, own, turn, sigma2, reml=reml)
    if isinstance(own, DiagonalSums):
        return sums, _diagonal_tables(problem, sums, own, weight, sigma2)
    assert weights is not None
    return sums, cross_tables(problem, weights, own, weight)


def _diagonal_tables(
    problem: Problem, sums: ClusterSums, own: DiagonalSums, weight: Array, sigma2: Array
) -> ResidualTables:
    """O_r (eq. 6b), traces and second-order tables of residual variances."""
    q, R = problem.n_random, problem.n_strata
    scale = sigma2[:, None, None]
    # O_r = [X y]'V^-1 D_r V^-1 [X y], the cross-products of conditional residuals
    moved = _symmetric(problem.C / scale - _by_stratum(problem, own.residual)) / scale
    lost = problem.member @ (problem.n_clusters - sums.QTF[2].diagonal())  # tr(I_r N A)
    trace = (problem.nobs - lost) / sigma2
    if not own.NN.size:
        return ResidualTables(trace, moved, np.zeros(0), np.zeros(0))
    by_equation = problem.member @ own.F_QT.reshape(2, q, q * q)  # F'I_r (Q or T)
    mixed = _symmetric(by_equation.reshape(2, R, q, q)) / scale
    omega = moved.reshape(R, -1) @ weight.ravel()
    inverse, member = 1.0 / sigma2, problem.member
    pairs = member @ np.array([own.NN, -own.NT]) @ member.T * (inverse[:, None] * inverse)
    diagonal = pairs.reshape(2, -1)[:, :: R + 1]
    diagonal[0] += inverse**2 * (problem.nobs - 2.0 * lost)
    diagonal[1] += inverse * omega
    return ResidualTables(trace, moved, mixed, pairs)


def _gradient(sums: ClusterSums, residual: ResidualTables, weight: Array) -> Array:
    """Gradient in (vec G, sigma2) (eq. 8)."""
    qq = sums.QTF[0].size
    gradient = np.empty(qq + len(residual.trace))
    np.subtract(sums.QTF[0], sums.QTF[1], out=gradient[:qq].reshape(sums.QTF[0].shape))
    form = residual.own.reshape(len(residual.own), -1) @ weight.ravel() if residual.form is None else residual.form
    gradient[qq:] = residual.trace - form
    return gradient


def _second_derivatives(
    problem: Problem, sums: ClusterSums, residual: ResidualTables, solved: _Solved, reml: bool
) -> tuple[Array, Array, Array]:
    """Assemble eq. 9 to 11: expected and observed second derivatives at fixed beta, and v_k as columns."""
    q, p, S = problem.n_random, problem.n_fixed, len(residual.trace)
    k, qq = p + 1, q * q
    # tr(V^-1 V_k V^-1 V_l) and the quadratic form of T, in (vec G, sigma2)
    tables = np.empty((2, qq + S, qq + S))
    _pairs(sums.Q_QT, out=tables[:, :qq, :qq].reshape(2, q, q, q, q))
    mixed = residual.mixed.reshape(2, S, qq)
    tables[:, qq:, :qq] = mixed
    tables[:, :qq, qq:] = mixed.transpose(0, 2, 1)
    tables[:, qq:, qq:] = residual.pairs
    trace, form = tables

    # X'V^-1 V_k V^-1 [X y] for every coordinate: (qq + S, p + 1, p + 1)
    moved = np.empty((qq + S, k, k))
    outer = sums.VV.reshape(q, k, q, k)
    np.add(outer.transpose(0, 2, 1, 3), outer.transpose(0, 2, 3, 1), out=moved[:qq].reshape(q, q, k, k))
    moved[:qq] *= 0.5
    moved[qq:] = residual.own
    v = (moved.reshape(-1, k) @ solved.contrast).reshape(qq + S, k)[:, :p]
    hessian = 2.0 * form - trace
    if reml:
        distinct, at = _distinct(q, S)
        spread = (moved[distinct, :p, :p].reshape(-1, p) @ solved.P_inv).reshape(-1, p, p)
        both = spread.reshape(len(spread), -1) @ spread.transpose(0, 2, 1).reshape(len(spread), -1).T
        hessian -= both[at[:, None], at]
    return trace, hessian, v.T


@lru_cache
def _distinct(q: int, S: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Distinct coordinates of (vec G, sigma2), as G is symmetric, and the position of each coordinate among them."""
    high, low = np.tril_indices(q)
    distinct = np.append(high * q + low, q * q + np.arange(S))
    at = np.empty(q * q + S, dtype=np.intp)
    at[distinct] = np.arange(len(distinct))
    at[low * q + high] = np.arange(len(high))
    distinct.flags.writeable = at.flags.writeable = False  # cached and shared
    return distinct, at


def _pairs(sums: Array, out: Array) -> None:
    """sum_j Q_bc (Q or T)_da as the (ab, cd) entry of tr(E_ab Q E_cd T), symmetrized over transposes."""
    q = out.shape[1]
    both = sums.transpose(1, 0, 2)
    both = 0.25 * (both + both.transpose(0, 2, 1))
    four = both.reshape(2, q, q, q, q)  # [b, c, d, a], symmetric in (b, c) and in (d, a) as Q and T are
    np.add(four.transpose(0, 4, 1, 2, 3), four.transpose(0, 1, 4, 2, 3), out=out)
