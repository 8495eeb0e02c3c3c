"""Kenward and Roger (1997): covariance and degrees of freedom of fixed effects in small samples.

V is linear in its natural parameters (tau, sigma2), so the term with second derivatives of V is zero and all of it
rests on the sums of ``moments.py`` (docs/math.md, "Small samples").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.moments import moments
from mlmed.lmm.problem import Problem
from mlmed.lmm.vcov import POSITIVE, information_inverse
from mlmed.lmm.weights import smallest_share

__all__ = ["KenwardRoger", "ScaledF", "contrast_df", "kenward_roger", "scaled_f"]

Array = NDArray[np.float64]

ONLY_REML = "Kenward and Roger's correction is derived for REML; fit with method='reml'"
ROUNDED = (
    "the other responses of a row leave {share:.1e} of a residual variance, where Kenward and Roger's correction loses "
    "its digits; use ddf='satterthwaite', or model the difference of the two responses"
)
#: Share of a residual variance below which the correction, whose terms cancel like its square, loses five digits.
LOST_DIGITS = 3e-4
TOO_FEW = "the approximating F distribution has no mean: too few clusters for a test of so many contrasts"
DEPENDENT = "the contrasts are linearly dependent"


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


def kenward_roger(
    problem: Problem, L: Array, sigma2: Array, J: Array, *, reml: bool = True, base: Array | None = None
) -> KenwardRoger:
    """Adjusted covariance of the fixed effects (Kenward & Roger, 1997), and what degrees of freedom need.

    Parameters
    ----------
    problem : Problem
        Cross-products of the model; results are in its units (see ``KenwardRoger.mapped``).
    L, sigma2, J : arrays
        The estimates and d(vec G, sigma2)/d(tau, sigma2), as in ``moments``.
    reml : bool
        Whether the estimates are by REML; for others the correction does not exist.
    base : array, optional
        As in ``moments``; ``slopes`` and ``W`` are in its coordinates then, and nothing else depends on them.
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
    # once for what beta gains by moving with (tau, sigma2), once for the bias of P^-1 at their estimates
    gain = np.einsum("kl,klij->ij", W, found.twice - np.einsum("kij,ljm->klim", spread, found.moved))
    adjusted = plain + plain @ (gain + gain.T) @ plain
    return KenwardRoger(plain, adjusted, plain @ found.moved @ plain, W, reason)


def _impossible(problem: Problem, sigma2: Array, reml: bool) -> str:
    """Why the correction does not exist, or not to five digits; empty if it does."""
    if not reml:
        return ONLY_REML
    if problem.cross is None:
        return ""
    share = smallest_share(problem.cross, problem.residual.root(sigma2))
    return "" if share > LOST_DIGITS else ROUNDED.format(share=share)


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
