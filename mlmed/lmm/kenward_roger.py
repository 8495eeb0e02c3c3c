"""Kenward and Roger (1997): covariance and degrees of freedom of fixed effects in small samples, and their sums.

V is linear in its natural parameters (tau, sigma2), so the term with second derivatives of V is zero, and the sums over
clusters of X'V^-1 V_k V^-1 X, X'V^-1 V_k V^-1 V_l V^-1 X and tr(V^-1 V_k V^-1 V_l) suffice (docs/math.md, eq. 49, 96,
97). With V^-1 X = R^-1 (X - Z h), terms of residual parameters are linear in the cross-products of X - Z h by cell: an
equation if Sigma is diagonal, otherwise a pattern of observed responses and a pair of equations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import Sums, chunks, factor_clusters, product, smallest_share, weighted_tables, whitener
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.cross import CrossWeights, weights_along
from mlmed.lmm.problem import Cross, Problem, along
from mlmed.lmm.roots import rooted
from mlmed.lmm.vcov import information_inverse

Array = NDArray[np.float64]
ONLY_REML = "Kenward and Roger's correction is derived for REML; fit with method='reml'"
ROUNDED = (
    "the other responses of a row leave {share:.1e} of a residual variance, where Kenward and Roger's correction loses "
    "its digits; use ddf='satterthwaite', or model the difference of the two responses"
)
#: Share of a residual variance below which the correction loses five digits: its terms cancel like the square of this.
LOST_DIGITS = 3e-4


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
        Weights of the patterns, in ``once`` and ``twice`` row by row; None if Sigma is diagonal.
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
    lost: Array  # (M, p, p): cells of X'X minus those of X - Z h
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
    """The same from roots; ``lost`` is minus the cross-products in the span of Z, computed without a difference."""
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
    # U_s'N U_t: the rest of X in ``twice`` minus X'V^-1 V_s V^-1 V_t V^-1 X
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
    """C_r minus the cross-products of X - Z h in equation r (eq. 6b), (R, p, p)."""
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
        Take sigma2 along B E_s B' (eq. 95b) instead of natural parameters, if residuals are correlated.
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


@dataclass(frozen=True, slots=True)
class KenwardRoger:
    """Material for tests of fixed effects; NaN where it does not exist.

    Attributes
    ----------
    plain : (p, p) array
        (X'V^-1 X)^-1.
    adjusted : (p, p) array
        The adjusted covariance of the fixed effects.
    slopes : (K, p, p) array
        Derivative of ``plain`` with respect to the natural parameters (tau, sigma2).
    W : (K, K) array
        Covariance of (tau, sigma2): twice the inverse of the expected REML information.
    reason : str
        Why entries are NaN; empty if none are.
    """

    plain: Array
    adjusted: Array
    slopes: Array
    W: Array
    reason: str = ""

    def mapped(self, X_map: Array) -> KenwardRoger:
        """The same for ``offset + X_map @ beta``; (tau, sigma2) keep their units, which cancel in every df."""
        plain, adjusted, slopes = (X_map @ part @ X_map.T for part in (self.plain, self.adjusted, self.slopes))
        return KenwardRoger(plain, adjusted, slopes, self.W, self.reason)


def kenward_roger(
    problem: Problem, L: Array, sigma2: Array, J: Array, *, reml: bool = True, base: Array | None = None
) -> KenwardRoger:
    """Adjusted covariance of the fixed effects (Kenward & Roger, 1997), and material for degrees of freedom.

    Parameters
    ----------
    problem : Problem
        Cross-products of the model; results are in its units (see ``KenwardRoger.mapped``).
    L, sigma2, J : arrays
        The estimates and d(vec G, sigma2)/d(tau, sigma2), as in ``moments``.
    reml : bool
        Whether the estimates are REML; otherwise the correction does not exist.
    base : array, optional
        As in ``moments``; then ``slopes`` and ``W`` are in its coordinates, which nothing else depends on.
    """
    K, p = J.shape[1], problem.n_fixed
    reason = _impossible(problem, sigma2, reml)
    if reason:
        nan = np.full((p, p), np.nan)
        return KenwardRoger(nan, nan, np.full((K, p, p), np.nan), np.full((K, K), np.nan), reason)
    found = moments(problem, L, sigma2, J, base)
    plain = found.P_inv
    spread = found.moved @ plain
    expected = (
        found.trace - 2.0 * np.einsum("klij,ji->kl", found.twice, plain) + np.einsum("kij,lji->kl", spread, spread)
    )
    W, reason = information_inverse(0.5 * (expected + expected.T), "the expected information")
    # once for the variance that estimated (tau, sigma2) add to beta, once for the bias of P^-1 at the estimates
    gain = np.einsum("kl,klij->ij", W, found.twice - np.einsum("kij,ljm->klim", spread, found.moved))
    adjusted = plain + plain @ (gain + gain.T) @ plain
    return KenwardRoger(plain, adjusted, plain @ found.moved @ plain, W, reason)


def _impossible(problem: Problem, sigma2: Array, reml: bool) -> str:
    """Why the correction does not exist to five digits; empty if it does."""
    if not reml:
        return ONLY_REML
    if problem.cross is None:
        return ""
    share = smallest_share(problem.cross, problem.residual.root(sigma2))
    return "" if share > LOST_DIGITS else ROUNDED.format(share=share)


def contrast_df(contrasts: Array, covariance: Array, slopes: Array, W: Array) -> Array:
    """Denominator degrees of freedom 2 v^2 / (g'W g) of single contrasts, v = l'Pl and g_k = l'(dP/dk)l.

    With W from the observed information this is Satterthwaite's (Fai & Cornelius, 1996); with W from the expected
    information it is Kenward and Roger's for one contrast: A_1 = A_2 = g'Wg/v^2, scale 1, df 2/A_1.

    Parameters
    ----------
    contrasts : (n, p) array
        One l in each row.
    covariance : (p, p) array
        P, the unadjusted covariance of the fixed effects.
    slopes : (K, p, p) array
        Its derivatives with respect to (tau, sigma2).
    W : (K, K) array
        Covariance of (tau, sigma2).

    Returns
    -------
    df : (n,) array
        NaN for a zero contrast or if W is NaN.
    """
    v = np.einsum("ni,ij,nj->n", contrasts, covariance, contrasts)
    g = np.einsum("ni,kij,nj->nk", contrasts, slopes, contrasts)
    spread = np.einsum("nk,kl,nl->n", g, W, g)
    return np.divide(2.0 * v**2, spread, out=np.full(len(v), np.nan), where=spread > 0.0)
