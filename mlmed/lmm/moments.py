"""Sums over clusters that corrections for small samples rest on (docs/math.md, eq. 49, 96, 97).

V is linear in its natural parameters (tau, sigma2), so X'V^-1 V_k V^-1 X, X'V^-1 V_k V^-1 V_l V^-1 X and
tr(V^-1 V_k V^-1 V_l) are all of them. With V^-1 X = R^-1 (X - Z h), what residual parameters add is linear in the
cross-products of X - Z h, taken by cell: an equation where Sigma is diagonal, otherwise a pattern of observed
responses and a pair of equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import Sums, chunks, factor_clusters, product
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.cross import CrossWeights, weights_along
from mlmed.lmm.directions import along
from mlmed.lmm.problem import Cross, Problem
from mlmed.lmm.weights import weighted_tables, whitener
from mlmed.lmm.whitened import rooted

__all__ = ["Moments", "moments", "moved_crossproducts"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over clusters for the K = n_tau + S natural parameters (tau, sigma2).

    Attributes
    ----------
    P_inv : (p, p) array
        (X'V^-1 X)^-1.
    moved : (K, p, p) array
        X'V^-1 V_k V^-1 X (the -P_k of the paper).
    twice : (K, K, p, p) array
        X'V^-1 V_k V^-1 V_l V^-1 X (its Q_kl).
    trace : (K, K) array
        tr(V^-1 V_k V^-1 V_l).
    """

    P_inv: Array
    moved: Array
    twice: Array
    trace: Array


@dataclass(frozen=True, slots=True)
class _Cells:
    """Weights of M cells of cross-products of X - Z h.

    Attributes
    ----------
    sigma2 : (S,) array
        Residual parameters.
    once : (S, M) array
        Weights of X'V^-1 V_s V^-1 X.
    twice : (S, S, M) array
        Weights of (X - Z h)'R^-1 D_s R^-1 D_t R^-1 (X - Z h).
    weights : CrossWeights or None
        Those of the patterns, which ``once`` and ``twice`` have row by row; None where Sigma is diagonal.
    """

    sigma2: Array
    once: Array
    twice: Array
    weights: CrossWeights | None


def _cells(problem: Problem, sigma2: Array, base: Array | None) -> _Cells:
    S = len(sigma2)
    if problem.cross is None:
        each, twice = np.arange(S), np.zeros((S, S, S))
        twice[each, each, each] = sigma2**-3
        return _Cells(sigma2, np.diag(sigma2**-2), twice, None)
    basis = problem.residual.basis if base is None else base @ problem.residual.basis @ base.T
    weights = weights_along(problem.cross, whitener(problem.cross, problem.residual.root(sigma2)), basis)
    pairs = np.einsum("kprs,lst,ptu->klpru", weights.moved, basis, weights.precision, optimize=True)
    return _Cells(sigma2, weights.moved.reshape(S, -1), pairs.reshape(S, S, -1), weights)


@dataclass(slots=True)
class _Sums(Sums):
    """Sums over clusters with U = Z'V^-1 X (q, p) and U_s of eq. 92; the last three are empty below order 2."""

    UU: Array  # (q*p, q*p)
    lost: Array  # (M, p, p): what the cells of X'X lose in those of X - Z h
    UQU: Array  # (q*(q + 1)/2, q*p, q*p): U_ai Q_bc U_dk at [ai, dk], for every b <= c
    UY: Array  # (S, q*p, q*p): U_ai (F'U_s)_bk
    UNU: Array  # (S*p, S*p): U_s'N U_t


def _chunk_sums(problem: Problem, L: Array, cells: _Cells, part: slice, second: bool) -> _Sums:
    if problem.roots is not None:
        return _rooted_sums(problem, L, cells.sigma2, part, second)
    p, q, weights = problem.n_fixed, problem.n_random, cells.weights
    A, B, H = factor_clusters(problem, L, cells.sigma2, part).cluster_last()
    B = B[:, :p]
    N = np.einsum("baj,bcj->acj", H, H)
    h = product(N, B)
    U = B - product(A, h)
    flat = U.reshape(q * p, -1)
    lost = _lost(problem, B, h, U, cells.sigma2) if weights is None else _cross_lost(problem, weights.cross, h, part)
    if not second:
        return _Sums(flat @ flat.T, lost, *(np.zeros(0) for _ in range(3)))
    moved = _by_parameter(problem, U, cells.sigma2) if weights is None else _cross_moved(problem, weights, h, part)
    NA = product(N, A)
    Q, F = A - product(A, NA), np.eye(q)[:, :, None] - NA
    Y = np.einsum("abj,saij->sbij", F, moved).reshape(len(moved), q * p, -1)
    left, right = (_by_row(table) for table in (moved, np.einsum("abj,sbij->saij", N, moved)))
    return _Sums(
        UU=flat @ flat.T,
        lost=lost,
        UQU=np.array([(flat * Q[b, c]) @ flat.T for b, c in zip(*np.triu_indices(q), strict=True)]),
        UY=flat @ Y.transpose(0, 2, 1),
        UNU=left @ right.T,
    )


def _rooted_sums(problem: Problem, L: Array, sigma2: Array, part: slice, second: bool) -> _Sums:
    """The same from roots, where ``lost`` is what Z leaves of X - Z h less all of it: no difference is taken."""
    p, q, member = problem.n_fixed, problem.n_random, problem.member
    at = rooted(problem, L, sigma2, part)
    D, V = at.solved[:, :, :p], at.V[:, :, :p]
    flat = np.ascontiguousarray(V.transpose(1, 2, 0)).reshape(q * p, -1)
    own = np.einsum("ra,nai,nak->rik", member, D, D, optimize=True)
    lost = -sigma2[:, None, None] * own
    if not second:
        return _Sums(flat @ flat.T, lost, *(np.zeros(0) for _ in range(3)))
    Q, by_equation = at.Q.transpose(1, 2, 0), member[:, None, :, None] * D
    Y = np.einsum("nab,rnai->rbin", at.reach, by_equation) / sigma2[:, None, None, None]
    # U_s'N U_t enters as what X'V^-1 V_s V^-1 V_t V^-1 X is less than the rest of X in ``twice``
    through = np.einsum("rnai,nab,snbk->risk", by_equation, at.inverse, by_equation, optimize=True)
    through /= -sigma2[:, None, None, None] * sigma2[:, None]
    for r, table in enumerate(own):
        through[r, :, r] += table / sigma2[r] ** 2
    R = len(sigma2)
    return _Sums(
        UU=flat @ flat.T,
        lost=lost,
        UQU=np.array([(flat * Q[b, c]) @ flat.T for b, c in zip(*np.triu_indices(q), strict=True)]),
        UY=flat @ Y.reshape(R, q * p, -1).transpose(0, 2, 1),
        UNU=through.reshape(R * p, R * p),
    )


def _by_row(tables: Array) -> Array:
    """(S, q, p, n) as a matrix (S*p, q*n)."""
    S, q, p, n = tables.shape
    return tables.transpose(0, 2, 1, 3).reshape(S * p, q * n)


def _by_parameter(problem: Problem, U: Array, sigma2: Array) -> Array:
    """U_s of a diagonal Sigma, the rows of equation s over sigma2_s, (R, q, p, n)."""
    return np.asarray((problem.member / sigma2[:, None])[:, :, None, None] * U)


def _cross_moved(problem: Problem, weights: CrossWeights, h: Array, part: slice) -> Array:
    """U_s of eq. 92, (S, q, p, n)."""
    tables = weighted_tables(weights.cross, problem.stratum, weights.moved, part)
    A, B = (np.ascontiguousarray(table.transpose(0, 2, 3, 1)) for table in tables)
    return np.asarray(B[:, :, : h.shape[1]] - np.einsum("sabj,bij->saij", A, h))


def _lost(problem: Problem, B: Array, h: Array, U: Array, sigma2: Array) -> Array:
    """C_r less the cross-products of X - Z h in equation r (eq. 6b), (R, p, p)."""
    owned = [np.flatnonzero(mine) for mine in problem.member]
    lost = [_inner(h[own], B[own]) + _inner(U[own], h[own]) for own in owned]
    return np.asarray(sigma2[:, None, None] * np.array(lost))


def _inner(left: Array, right: Array) -> Array:
    """Sum over clusters of the products left'right: (a, i, n), (a, k, n) -> (i, k)."""
    return np.tensordot(left, right, axes=([0, 2], [0, 2]))


def _owned(cross: Cross) -> Array:
    """1 where a column of X belongs to an equation, (R, p)."""
    R = cross.observed.shape[1]
    return np.asarray(cross.owner[:-R] == np.arange(R)[:, None], dtype=np.float64)


def _cross_lost(problem: Problem, cross: Cross, h: Array, part: slice) -> Array:
    """X'Z h + h'Z'X - h'Z'Z h by pattern and pair of equations, (P*R*R, p, p)."""
    p, member = problem.n_fixed, problem.member

    def left(tables: Array) -> Array:
        """Multiply (..., n, q, p) with h' from the left, by equation of h's rows: (..., R, p, p)."""
        return np.einsum("ra,...aik->...rik", member, np.matmul(h, np.moveaxis(tables, -2, -3)))

    half = left(cross.B[:, part, :, :p])[:, :, None] * _owned(cross)[:, None]
    through = cross.A[:, None, part] * member[:, None, None]  # (P, R, n, q, q): columns of one equation
    back = left(through @ np.ascontiguousarray(h.transpose(2, 0, 1))).swapaxes(1, 2)
    return (half + half.transpose(0, 2, 1, 4, 3) - back).reshape(-1, p, p)


def _sums(problem: Problem, L: Array, cells: _Cells, *, second: bool) -> _Sums:
    first, *others = chunks(problem)
    total = _chunk_sums(problem, L, cells, first, second)
    for part in others:
        total.add(_chunk_sums(problem, L, cells, part, second))
    return total


def _left_of_X(problem: Problem, sums: _Sums) -> Array:
    """Cross-products of X - Z h by cell, (M, p, p)."""
    p, cross = problem.n_fixed, problem.cross
    if cross is None:
        return (problem.C if problem.roots is None else problem.roots.squares)[:, :p, :p] - sums.lost
    owned = _owned(cross)
    whole = np.einsum("xik,ri,sk->xrsik", cross.C[:, :p, :p], owned, owned)
    return whole.reshape(-1, p, p) - sums.lost


def _moved(problem: Problem, sums: _Sums, cells: _Cells) -> Array:
    """X'V^-1 V_k V^-1 X for (vec G, sigma2), (q*q + S, p, p): the leading block of eq. 11 and 92."""
    p, q = problem.n_fixed, problem.n_random
    of_G = sums.UU.reshape(q, p, q, p).transpose(0, 2, 1, 3).reshape(q * q, p, p)
    own = np.tensordot(cells.once, _left_of_X(problem, sums), axes=1)
    return np.concatenate([of_G, 0.5 * (own + own.transpose(0, 2, 1))])


def _twice(problem: Problem, sums: _Sums, cells: _Cells) -> Array:
    """X'V^-1 V_k V^-1 V_l V^-1 X for (vec G, sigma2), (q*q + S, q*q + S, p, p); see eq. 96 and 97."""
    p, q, S = problem.n_fixed, problem.n_random, len(cells.sigma2)
    qq, (rows, columns) = q * q, np.triu_indices(q)
    UQU = np.empty((q, q, q * p, q * p))
    UQU[rows, columns] = UQU[columns, rows] = sums.UQU
    out = np.empty((qq + S, qq + S, p, p))
    out[:qq, :qq] = UQU.reshape(q, q, q, p, q, p).transpose(2, 0, 1, 4, 3, 5).reshape(qq, qq, p, p)
    out[:qq, qq:] = sums.UY.reshape(S, q, p, q, p).transpose(1, 3, 0, 2, 4).reshape(qq, S, p, p)
    out[qq:, :qq] = out[:qq, qq:].transpose(1, 0, 3, 2)  # holds after J, whose E_k are symmetric
    out[qq:, qq:] = np.tensordot(cells.twice, _left_of_X(problem, sums), axes=1)
    out[qq:, qq:] -= sums.UNU.reshape(S, p, S, p).transpose(0, 2, 1, 3)
    return out


def moved_crossproducts(problem: Problem, L: Array, sigma2: Array, J: Array, base: Array | None = None) -> Array:
    """X'V^-1 V_k V^-1 X for the natural parameters, (K, p, p); parameters as in ``moments``."""
    cells = _cells(problem, sigma2, base)
    return np.tensordot(J.T, _moved(problem, _sums(problem, L, cells, second=False), cells), axes=1)


def moments(problem: Problem, L: Array, sigma2: Array, J: Array, base: Array | None = None) -> Moments:
    """All sums of the correction, in the units of the problem.

    Parameters
    ----------
    problem : Problem
        Cross-products of the model.
    L : (q, q) array
        Any factor of G; G may be singular.
    sigma2 : (S,) array
        Residual parameters (``problem.residual``).
    J : (q*q + S, K) array
        d(vec G, sigma2)/d(tau, sigma2), see ``natural_jacobian``.
    base : (R, R) array, optional
        Take sigma2 along B E_s B' (eq. 95b) in the place of its natural parameters, where residuals are correlated.
    """
    cells = _cells(problem, sigma2, base)
    at = evaluate(problem, L, sigma2, order=2, base=base)
    at = at if base is None else along(at, problem.residual, base)
    sums = _sums(problem, L, cells, second=True)
    half = np.tensordot(J.T, _twice(problem, sums, cells), axes=1)
    return Moments(
        P_inv=at.P_inv,
        moved=np.tensordot(J.T, _moved(problem, sums, cells), axes=1),
        twice=np.einsum("kyij,yl->klij", half, J),
        trace=J.T @ at.information @ J,
    )
