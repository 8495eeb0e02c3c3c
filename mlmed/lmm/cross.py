"""Derivatives of the criterion in an unstructured Sigma (docs/math.md, eq. 92 to 95).

V is linear in the natural parameters of Sigma, with D_s = dSigma/dsigma_s repeated over rows. With the weights
W = Sigma_OO^-1 of a pattern, R^-1 D_s R^-1 is a matrix of weights, too, W D_s W, so cross-products of the patterns
suffice. Derivatives may be taken along other directions, D_s = K E_s K' with K K' close to Sigma (eq. 95b): with
nearly equal responses these are of one size, while natural derivatives cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import Inverted, Sums, Whitener, weighted_cross, weighted_tables, whitener
from mlmed.lmm.problem import Cross, Problem

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ResidualTables:
    """Terms of the residual parameters in gradient and Hessian, for diagonal and unstructured Sigma.

    Attributes
    ----------
    trace : (S,) array
        tr(V^-1 V_s).
    own : (S, p + 1, p + 1) array
        [X y]'V^-1 V_s V^-1 [X y].
    mixed : (2, S, q, q) array
        Z'V^-1 V_s V^-1 Z and the same between Z'V^-1 [X y] W and its transpose; empty below order 2.
    pairs : (2, S, S) array
        tr(V^-1 V_s V^-1 V_t), and the quadratic form of V^-1 V_s V^-1 V_t V^-1; empty below order 2.
    form : (S,) array or None
        tr(W own), if computed before ``own`` was squared.
    """

    trace: Array
    own: Array
    mixed: Array
    pairs: Array
    form: Array | None = None


@dataclass(frozen=True, slots=True)
class CrossWeights:
    """Weights of all patterns at one Sigma.

    Attributes
    ----------
    cross : Cross
        The cross-products they are for.
    precision : (P, R, R) array
        W of every pattern.
    inner : (S, P, R, R) array
        D_s with whitened rows, C^-1 D_s C^-T with C C' = Sigma_OO.
    moved : (S, P, R, R) array
        W D_s W.
    twice : (S, S, P, R, R) array
        Symmetric part of W D_s W D_t W.
    """

    cross: Cross
    precision: Array
    inner: Array
    moved: Array
    twice: Array

    @property
    def traces(self) -> Array:
        """tr(W D_s) of every pattern, (S, P)."""
        return np.einsum("sprr->sp", self.inner)

    @property
    def pairs(self) -> Array:
        """tr(W D_s W D_t) of every pattern, (S, S, P)."""
        return np.einsum("kpru,lpru->klp", self.inner, self.inner)


def cross_weights(problem: Problem, sigma2: Array) -> CrossWeights:
    """Weights for derivatives in the natural parameters (S,); the problem has ``cross``."""
    assert problem.cross is not None
    made = whitener(problem.cross, problem.residual.root(sigma2))
    return weights_along(problem.cross, made, problem.residual.basis)


def weights_along(cross: Cross, made: Whitener, directions: Array) -> CrossWeights:
    """Weights for derivatives along D_s, (S, R, R)."""
    half = made.half
    inner = half @ directions[:, None] @ half.swapaxes(1, 2)
    right = inner @ half
    moved = half.swapaxes(1, 2) @ right
    twice = np.einsum("kpur,lpuv->klprv", right, right)
    return CrossWeights(cross, made.precision, inner, moved, 0.5 * (twice + twice.swapaxes(-1, -2)))


@dataclass(slots=True)
class CrossSums(Sums):
    """Sums over clusters for an unstructured Sigma; the last four are empty below order 2.

    Attributes
    ----------
    NA : (P, R, R) array
        tr of N with the cross-products Z'Z of a pattern, by pair of equations.
    lost : (S, p + 1, p + 1) array
        h'B_s + U_s'h, with U_s = B_s - A_s h, subtracted from C_s in [X y]'V^-1 D_s V^-1 [X y].
    omega : (P, R, R) array
        Cross-products of a pattern minus those of its conditional residuals, weighted by W.
    FQ, FT : (S, q, q) arrays
        Z'V^-1 D_s V^-1 Z, and V W Y_s' with Y_s = Z'V^-1 D_s V^-1 [X y].
    NN, NT : (S, S) arrays
        tr(N A_s N A_t) and tr(W U_s'N U_t).
    """

    NA: Array
    lost: Array
    omega: Array
    FQ: Array
    FT: Array
    NN: Array
    NT: Array


def _by_equation(tables: Array, left: Array, right: Array) -> Array:
    """Add up the entries that belong to the same pair of equations: (P, a, b) -> (P, R, R); (R, a), (R, b)."""
    return left @ tables @ right.T


def cross_sums(
    problem: Problem, weights: CrossWeights, made: Inverted, weight: Array, part: slice, *, second: bool
) -> CrossSums:
    """Sums of one chunk; ``weight`` (p + 1, p + 1) is W of eq. 8."""
    N, h, cross = made.N, made.h, weights.cross
    S = len(weights.moved)
    A_P, B_P, member = cross.A[:, part], cross.B[:, part], problem.member
    owner = (cross.owner == np.arange(problem.n_strata)[:, None]).astype(float)
    A, B = weighted_tables(cross, problem.stratum, weights.moved, part)
    U = B - A @ h
    lost = np.einsum("nai,snak->sik", h, B, optimize=True) + np.einsum("snai,nak->sik", U, h, optimize=True)
    hW = h @ weight
    through = np.einsum("nac,pnac->pac", hW @ cross.fold.T, B_P)
    back = np.einsum("nab,pnab->pab", hW @ h.transpose(0, 2, 1), A_P)
    twice = _by_equation(through, member, owner)
    omega = twice + twice.transpose(0, 2, 1) - _by_equation(back, member, member)
    NA = _by_equation(np.einsum("nab,pnab->pab", N, A_P), member, member)
    if not second:
        return CrossSums(NA, lost, omega, *(np.zeros(0) for _ in range(4)))
    F = made.tables[:, 2]
    Ft = F.transpose(0, 2, 1)
    Y = Ft @ U
    G = N @ A
    NU = N @ U
    return CrossSums(
        NA,
        lost,
        omega,
        FQ=(Ft @ A @ F).sum(axis=1),
        FT=np.einsum("nak,snbk->sab", made.V @ weight, Y, optimize=True),
        NN=G.reshape(S, -1) @ G.swapaxes(-1, -2).reshape(S, -1).T,
        NT=(U @ weight).reshape(S, -1) @ NU.reshape(S, -1).T,
    )


def cross_tables(problem: Problem, weights: CrossWeights, sums: CrossSums, weight: Array) -> ResidualTables:
    """Terms of gradient and Hessian."""
    cross, nobs = weights.cross, weights.cross.nobs
    owner = (cross.owner == np.arange(problem.n_strata)[:, None]).astype(float)
    own = np.array([weighted_cross(cross, moved) for moved in weights.moved]) - sums.lost
    trace = weights.traces @ nobs - np.einsum("kprs,prs->k", weights.moved, sums.NA)
    empty = np.zeros(0)
    own = 0.5 * (own + own.transpose(0, 2, 1))
    if not sums.FQ.size:
        return ResidualTables(trace, own, empty, empty)
    mixed = np.stack([sums.FQ, sums.FT])
    expected = weights.pairs @ nobs
    expected += sums.NN - 2.0 * np.einsum("klprs,prs->kl", weights.twice, sums.NA, optimize=True)
    wide = cross.fold @ weight @ cross.fold.T
    omega = _by_equation(wide * cross.C, owner, owner) - sums.omega
    form = np.einsum("klprs,prs->kl", weights.twice, omega, optimize=True) - sums.NT
    pairs = np.stack([expected, form])
    return ResidualTables(trace, own, 0.5 * (mixed + mixed.swapaxes(-1, -2)), 0.5 * (pairs + pairs.swapaxes(-1, -2)))
