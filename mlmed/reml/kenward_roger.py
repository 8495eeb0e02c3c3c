"""Kenward and Roger (1997): covariance and degrees of freedom of fixed effects in small samples.

V is linear in its natural parameters (tau, sigma2), so the term with second derivatives of V is zero and all of it
rests on three sums: X'V^-1 V_k V^-1 X, X'V^-1 V_k V^-1 V_l V^-1 X and tr(V^-1 V_k V^-1 V_l). They are formed from
the cross-products of every cluster with the identities of eq. 5 and 6b (docs/math.md, "Small samples").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.reml.clusters import chunks, factor_clusters, product
from mlmed.reml.criterion import evaluate
from mlmed.reml.problem import Problem
from mlmed.reml.vcov import POSITIVE, information_inverse

__all__ = [
    "KenwardRoger",
    "Moments",
    "ScaledF",
    "contrast_df",
    "kenward_roger",
    "moments",
    "moved_crossproducts",
    "scaled_f",
]

Array = NDArray[np.float64]

ONLY_REML = "Kenward and Roger's correction is derived for REML; fit with method='reml'"
TOO_FEW = "the approximating F distribution has no mean: too few clusters for a test of so many contrasts"
DEPENDENT = "the contrasts are linearly dependent"


@dataclass(frozen=True, slots=True)
class Moments:
    """Sums over clusters for the K = n_tau + R natural parameters (tau, sigma2).

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
class KenwardRoger:
    """What tests of fixed effects are made of; NaN where it does not exist.

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


@dataclass(frozen=True, slots=True)
class ScaledF:
    """``scale * b'L'(L adjusted L')^-1 L b / d`` is about F(d, df) for d contrasts L.

    Attributes
    ----------
    scale, df : float
        Kenward and Roger's lambda, 1 for a single contrast, and m, the denominator degrees of freedom.
    reason : str
        Why they are NaN; empty if they are not.
    """

    scale: float
    df: float
    reason: str = ""


@dataclass(slots=True)
class _Sums:
    """Sums over clusters with U = Z'V^-1 X (q, p); the last three are empty where only ``moved`` is asked for."""

    UU: Array  # (q*p, q*p)
    residual: Array  # (R, p, p): h'I_r B + U'I_r h, what C_r / sigma2_r loses in eq. 6b
    UQU: Array  # (q, q, q*p, q*p): [b, c, ai, di], U_ai Q_bc U_di
    UY: Array  # (R, q*p, q*p): U_ai (F'I_r U)_bk
    UNU: Array  # (R, R, p, p): U'I_r N I_s U

    def add(self, other: _Sums) -> None:
        """Add another chunk in place."""
        for name in self.__slots__:
            total = getattr(self, name)
            total += getattr(other, name)


def _chunk_sums(problem: Problem, L: Array, sigma2: Array, part: slice, second: bool) -> _Sums:
    p, q, R = problem.n_fixed, problem.n_random, problem.n_strata
    member = [np.flatnonzero(problem.stratum == r) for r in range(R)]
    A, B, H = factor_clusters(problem, L, sigma2, part).cluster_last()
    B = B[:, :p]
    N = np.einsum("baj,bcj->acj", H, H)
    h = product(N, B)
    U = B - product(A, h)
    flat = U.reshape(q * p, -1)
    residual = np.array([_inner(h[own], B[own]) + _inner(U[own], h[own]) for own in member])
    if not second:
        return _Sums(flat @ flat.T, residual, *(np.zeros(0) for _ in range(3)))
    NA = product(N, A)
    Q = A - product(A, NA)
    F = np.eye(q)[:, :, None] - NA
    Y = [np.einsum("abj,aij->bij", F[own], U[own]).reshape(q * p, -1) for own in member]
    return _Sums(
        UU=flat @ flat.T,
        residual=residual,
        UQU=np.array([[(flat * Q[b, c]) @ flat.T for c in range(q)] for b in range(q)]),
        UY=np.array([flat @ moved.T for moved in Y]),
        UNU=np.array([[_inner(U[r], product(N[r][:, s], U[s])) for s in member] for r in member]),
    )


def _inner(left: Array, right: Array) -> Array:
    """Sum over clusters of the cluster-wise products left'right: (a, i, J), (a, k, J) -> (i, k)."""
    return np.tensordot(left, right, axes=([0, 2], [0, 2]))


def _sums(problem: Problem, L: Array, sigma2: Array, *, second: bool) -> _Sums:
    first, *others = chunks(problem)
    total = _chunk_sums(problem, L, sigma2, first, second)
    for part in others:
        total.add(_chunk_sums(problem, L, sigma2, part, second))
    return total


def _moved(problem: Problem, sums: _Sums, sigma2: Array) -> Array:
    """X'V^-1 V_k V^-1 X for (vec G, sigma2), (q*q + R, p, p): the leading block of eq. 11."""
    p, q = problem.n_fixed, problem.n_random
    of_G = sums.UU.reshape(q, p, q, p).transpose(0, 2, 1, 3).reshape(q * q, p, p)
    own = (problem.C[:, :p, :p] / sigma2[:, None, None] - sums.residual) / sigma2[:, None, None]
    return np.concatenate([of_G, 0.5 * (own + own.transpose(0, 2, 1))])


def moved_crossproducts(problem: Problem, L: Array, sigma2: Array, J: Array) -> Array:
    """X'V^-1 V_k V^-1 X for the natural parameters, (K, p, p); parameters as in ``kenward_roger``."""
    moved = _moved(problem, _sums(problem, L, sigma2, second=False), sigma2)
    return np.tensordot(J.T, moved, axes=1)


def moments(problem: Problem, L: Array, sigma2: Array, J: Array) -> Moments:
    """All sums of the correction; parameters as in ``kenward_roger``.

    With V^-1 Z = R^-1 Z F, where F = I - N A, X'V^-1 V_k V^-1 V_l V^-1 X is, for G_ab and G_cd, U_a'Q_bc U_d; for
    G_ab and sigma2_r, U_a'(F'I_r U)_b / sigma2_r; for sigma2_r and sigma2_s,
    delta_rs O_r / sigma2_r - U'I_r N I_s U / (sigma2_r sigma2_s).
    """
    p, q, R = problem.n_fixed, problem.n_random, problem.n_strata
    qq, inverse = q * q, 1.0 / sigma2
    at = evaluate(problem, L, sigma2, order=2)
    sums = _sums(problem, L, sigma2, second=True)
    moved = _moved(problem, sums, sigma2)
    twice = np.zeros((qq + R, qq + R, p, p))
    twice[:qq, :qq] = sums.UQU.reshape(q, q, q, p, q, p).transpose(2, 0, 1, 4, 3, 5).reshape(qq, qq, p, p)
    mixed = sums.UY.reshape(R, q, p, q, p).transpose(1, 3, 0, 2, 4).reshape(qq, R, p, p)
    twice[:qq, qq:] = mixed * inverse[:, None, None]
    twice[qq:, :qq] = twice[:qq, qq:].transpose(1, 0, 3, 2)  # holds after J, whose E_k are symmetric
    twice[qq:, qq:] = -sums.UNU * np.outer(inverse, inverse)[:, :, None, None]
    for r in range(R):
        twice[qq + r, qq + r] += moved[qq + r] * inverse[r]
    half = np.tensordot(J.T, twice, axes=1)
    return Moments(
        P_inv=at.P_inv,
        moved=np.tensordot(J.T, moved, axes=1),
        twice=np.einsum("kyij,yl->klij", half, J),
        trace=J.T @ at.information @ J,
    )


def kenward_roger(problem: Problem, L: Array, sigma2: Array, J: Array, *, reml: bool = True) -> KenwardRoger:
    """Adjusted covariance of the fixed effects (Kenward & Roger, 1997), and what degrees of freedom need.

    Parameters
    ----------
    problem : Problem
        Cross-products of the model; results are in its units (see ``KenwardRoger.mapped``).
    L : (q, q) array
        Any factor of G at the estimates; G may be singular.
    sigma2 : (R,) array
        Residual variances.
    J : (q*q + R, K) array
        d(vec G, sigma2)/d(tau, sigma2), see ``natural_jacobian``.
    reml : bool
        Whether the estimates are by REML; for others the correction does not exist.
    """
    K, p = J.shape[1], problem.n_fixed
    if not reml:
        nan = np.full((p, p), np.nan)
        return KenwardRoger(nan, nan, np.full((K, p, p), np.nan), np.full((K, K), np.nan), ONLY_REML)
    found = moments(problem, L, sigma2, J)
    plain = found.P_inv
    spread = found.moved @ plain
    expected = (
        found.trace - 2.0 * np.einsum("klij,ji->kl", found.twice, plain) + np.einsum("kij,lji->kl", spread, spread)
    )
    W, reason = information_inverse(0.5 * (expected + expected.T))
    # once for what beta gains by moving with (tau, sigma2), once for the bias of P^-1 at their estimates
    gain = np.einsum("kl,klij->ij", W, found.twice - np.einsum("kij,ljm->klim", spread, found.moved))
    adjusted = plain + plain @ (gain + gain.T) @ plain
    reason = reason.replace("the Hessian", "the expected information")
    return KenwardRoger(plain, adjusted, plain @ found.moved @ plain, W, reason)


def contrast_df(contrasts: Array, covariance: Array, slopes: Array, W: Array) -> Array:
    """Denominator degrees of freedom 2 v^2 / (g'W g) of single contrasts, v = l'Pl and g_k = l'(dP/dk)l.

    With W from the observed information this is Satterthwaite's (Fai & Cornelius, 1996); with W from the expected
    information it is what Kenward and Roger's formulas come to for one contrast, where A_1 = A_2 = g'Wg/v^2,
    the scale is 1 and the df are 2/A_1.

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
        NaN for a contrast that is zero, and where W is.
    """
    v = np.einsum("ni,ij,nj->n", contrasts, covariance, contrasts)
    g = np.einsum("ni,kij,nj->nk", contrasts, slopes, contrasts)
    spread = np.einsum("nk,kl,nl->n", g, W, g)
    return np.divide(2.0 * v**2, spread, out=np.full(len(v), np.nan), where=spread > 0.0)


def scaled_f(contrasts: Array, found: KenwardRoger) -> ScaledF:
    """Scale and denominator df of the F test that all contrasts are zero (Kenward & Roger, 1997).

    Parameters
    ----------
    contrasts : (d, p) array
        Linearly independent contrasts of the fixed effects.
    found : KenwardRoger
        In the same units as the contrasts.
    """
    nan, d = float("nan"), len(contrasts)
    if found.reason:
        return ScaledF(nan, nan, found.reason)
    own = contrasts @ found.plain @ contrasts.T
    size = np.sqrt(np.diag(own))
    if not size.all() or np.linalg.eigvalsh(own / np.outer(size, size))[0] < POSITIVE:
        return ScaledF(nan, nan, DEPENDENT)
    if d == 1:
        return ScaledF(1.0, float(contrast_df(contrasts, found.plain, found.slopes, found.W)[0]))
    turned = contrasts.T @ np.linalg.solve(own, contrasts) @ found.slopes  # Theta P P_k P, up to its sign
    traces = np.einsum("kii->k", turned)
    A1 = float(traces @ found.W @ traces)
    A2 = float(np.einsum("kl,kij,lji->", found.W, turned, turned, optimize=True))
    # with A1 <= d A2, g is between -(d + 4)/(d + 2) and d - 2, and the divisor at least d + 6
    B, g = (A1 + 6.0 * A2) / (2.0 * d), ((d + 1.0) * A1 - (d + 4.0) * A2) / ((d + 2.0) * A2)
    c1, c2, c3 = (part / (3.0 * d + 2.0 * (1.0 - g)) for part in (g, d - g, d + 2.0 - g))
    # 1/E* and 1/rho, which exist where V* is infinite (c3 B = 1) and the variance of F is that of 4 df
    mean_inverse = 1.0 - A2 / d
    if mean_inverse <= 0.0 or 1.0 + c1 * B <= 0.0:
        return ScaledF(nan, nan, TOO_FEW)
    rho_inverse = d * (1.0 - c2 * B) ** 2 * (1.0 - c3 * B) / (mean_inverse**2 * (1.0 + c1 * B))
    df = 4.0 + (d + 2.0) * rho_inverse / (d - rho_inverse)
    return ScaledF(mean_inverse * df / (df - 2.0), df) if df > 2.0 else ScaledF(nan, nan, TOO_FEW)
