"""Covariance of all estimates psi = (beta, tau, sigma2), in two named versions (docs/math.md, eq. 23, 24)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import EffectError
from mlmed.reml.estimates import Estimates

__all__ = ["VCOV_KINDS", "ParameterVcov", "VcovKind", "parameter_vcov"]

Array = NDArray[np.float64]
VcovKind = Literal["block", "joint"]
VCOV_KINDS: tuple[str, ...] = get_args(VcovKind)

#: Smallest eigenvalue of the Hessian, scaled to unit diagonal, that still counts as positive.
POSITIVE = 1e-10


@dataclass(frozen=True, slots=True)
class ParameterVcov:
    """Covariance matrix of psi.

    Attributes
    ----------
    matrix : (p + n_tau + S,) * 2 array
        Order: fixed effects, natural parameters of G, residual variances. NaN where it does not exist.
    reason : str
        Why entries are NaN; empty if none are.
    note : str
        What a reader should know of the others; usually empty.
    """

    matrix: Array
    reason: str = ""
    note: str = ""


def check_vcov_kind(kind: str) -> None:
    """Refuse anything but the two versions."""
    if kind not in VCOV_KINDS:
        raise EffectError(f"vcov must be one of {', '.join(VCOV_KINDS)}; found {kind!r}")


def information_inverse(hessian: Array) -> tuple[Array, str]:
    """``2 H^-1``, the inverse observed information in natural parameters, or NaN and the reason."""
    size = np.sqrt(np.abs(np.diag(hessian)))
    size = np.where(size > 0.0, size, 1.0)
    scaled = hessian / np.outer(size, size)
    lowest = float(np.linalg.eigvalsh(scaled)[0])
    if lowest < POSITIVE:
        return np.full_like(hessian, np.nan), _not_positive(lowest)
    inverse = 2.0 * np.linalg.inv(scaled) / np.outer(size, size)
    return 0.5 * (inverse + inverse.T), ""


def _not_positive(lowest: float) -> str:
    return (
        f"the Hessian in natural parameters is not positive definite (smallest scaled eigenvalue {lowest:.2g}), "
        "as happens at the boundary; use profile or bootstrap intervals, or a simpler covariance structure"
    )


def parameter_vcov(estimates: Estimates, kind: str = "block") -> ParameterVcov:
    """Covariance matrix of all parameters.

    Parameters
    ----------
    estimates : Estimates
        Where to take it.
    kind : {"block", "joint"}
        ``block``: (X'V^-1 X)^-1 for beta, inverse observed information for (tau, sigma2), no covariance
        between them (what Stata, lme4, nlme and SAS print; eq. 23). ``joint``: beta moves with (tau, sigma2),
        ``V_bb = P^-1 + D V D'`` and ``V_bt = D V`` (eq. 24; what glmmTMB, lavaan and other joint likelihoods imply).

    Raises
    ------
    EffectError
        Unknown kind.
    """
    check_vcov_kind(kind)
    p = len(estimates.beta)
    V, reason = information_inverse(estimates.hessian)
    matrix = np.zeros((p + len(V), p + len(V)))
    matrix[:p, :p] = estimates.P_inv
    matrix[p:, p:] = estimates.tau_map @ V @ estimates.tau_map.T
    if kind == "joint":
        D = estimates.beta_gradient
        matrix[:p, :p] += D @ V @ D.T
        matrix[:p, p:] = D @ V @ estimates.tau_map.T
        matrix[p:, :p] = matrix[:p, p:].T
    return ParameterVcov(matrix, reason)
