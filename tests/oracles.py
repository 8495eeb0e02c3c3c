"""What tests compare the engine with: scores and their joint Hessian, Kenward and Roger's F test, working points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlmed.lmm.covariance import ROUNDING, psd_cholesky
from mlmed.lmm.kenward_roger import KenwardRoger, contrast_df
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.percluster import ClusterProducts, scores_at
from mlmed.lmm.problem import Evaluation
from mlmed.lmm.rowwise import ResidualResampler, RowParametricResampler
from mlmed.lmm.sigma import ResidualStructure
from mlmed.lmm.simulation import ParametricResampler, WorkingPoint
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.vcov import POSITIVE
from mlmed.lmm.working import Units, Working

Array = NDArray[np.float64]
Rng = np.random.Generator
TOO_FEW = "the approximating F distribution has no mean: too few clusters for a test of so many contrasts"
DEPENDENT = "the contrasts are linearly dependent"


@dataclass(frozen=True, slots=True)
class ClusterScores:
    """First derivatives of F by cluster and its second derivatives, in working units.

    Attributes
    ----------
    scores : (J, p + n_tau + S) array
        A cluster's part in dF/dpsi; columns sum to zero at an interior optimum.
    hessian : (p + n_tau + S, p + n_tau + S) array
        Second derivatives of F in psi.
    """

    scores: Array
    hessian: Array


def joint_hessian(at: Evaluation, J: Array) -> Array:
    """Second derivatives of F in psi at beta = GLS, (p + n_tau + S,) * 2.

    ``Evaluation.hessian`` belongs to the criterion in which beta follows the variances (eq. 10); what that
    takes away, ``H_tb H_bb^-1 H_bt = 2 v'P^-1 v``, is added back.

    Parameters
    ----------
    at : Evaluation
        Of order 2.
    J : (q*q + S, n_tau + S) array
        d(vec G, sigma2)/d(tau, sigma2).
    """
    p, D = len(at.beta), at.beta_gradient @ J
    P = np.linalg.inv(at.P_inv)
    v = -P @ D  # eq. 12
    H = np.empty((p + D.shape[1],) * 2)
    H[:p, :p] = P + P.T
    H[:p, p:] = 2.0 * v
    H[p:, :p] = 2.0 * v.T
    H[p:, p:] = J.T @ at.hessian @ J + 2.0 * D.T @ P @ D
    return H


def cluster_scores(working: Working, optimum: Optimum, products: ClusterProducts, *, reml: bool) -> ClusterScores:
    """Scores and joint Hessian at the optimum, in working units."""
    at = optimum.evaluation
    scores = scores_at(
        working.problem, working.blocks, products, optimum.L, optimum.sigma2, at.beta, at.P_inv if reml else None
    )
    return ClusterScores(scores, joint_hessian(at, natural_jacobian(working.problem, working.blocks)))


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


def working_point(units: Units, beta: ArrayLike, G: ArrayLike, sigma2: ArrayLike) -> WorkingPoint:
    """Values in the user's units: beta (p,), positive semidefinite G (q, q), residual parameters sigma2 (S,)."""
    values, matrix, residual = (np.asarray(given, dtype=np.float64) for given in (beta, G, sigma2))
    R = len(units.y_scale)
    structure = ResidualStructure(R, residual.shape != (R,))
    root = psd_cholesky(matrix, tol=ROUNDING)
    L = np.asarray(np.linalg.solve(units.Z_map, root), dtype=np.float64)
    beta_w = np.asarray(np.linalg.solve(units.X_map, values - units.offset), dtype=np.float64)
    return WorkingPoint(beta_w, L, residual / units.sigma_scale(structure.at))


def drawn_products(resampler: ParametricResampler | RowParametricResampler | ResidualResampler, rng: Rng) -> Array:
    """One replicate of a resampler as its products, (P, K * (K + 1) / 2, J)."""
    if isinstance(resampler, ParametricResampler):
        return resampler.squared(resampler.filled(rng))
    return resampler.model.squared(resampler.model.columns(*resampler.draw_parts(rng)))
