"""An optimum in the user's units: estimates, their derivatives, and the linear regression for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlmed.errors import EffectError
from mlmed.lmm.covariance import ROUNDING, natural_basis, natural_pairs, natural_turn, psd_cholesky
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.problem import Problem
from mlmed.lmm.sigma import ResidualStructure
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.working import Units, Working
from mlmed.text import shown

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates and derivatives in the user's units; psi = (beta, tau, sigma2).

    Attributes
    ----------
    beta : (p,) array
        Fixed effects.
    G : (q, q) array
        Covariance of the random effects (variance scale).
    tau : (n_tau,) array
        Natural parameters of G.
    tau_at : (n_tau, 2) int array
        Row and column of each tau in G.
    tau_basis : (n_tau, q, q) array
        Matrices E_k with G = sum tau_k E_k.
    sigma2 : (S,) array
        Residual parameters: R variances, then covariances if residuals are correlated across equations.
    sigma_at : (S, 2) int array
        Row and column of each of them in Sigma.
    loglik : float
        Log-likelihood, restricted if REML.
    P_inv : (p, p) array
        (X'V^-1 X)^-1.
    hessian : (n_tau + S, n_tau + S) array
        Second derivatives of -2l in working (tau, sigma2), in which they are well conditioned (eq. 10).
    tau_map : (n_tau + S, n_tau + S) array
        The user's (tau, sigma2) is ``tau_map`` times the working one (eq. 20).
    beta_gradient : (p, n_tau + S) array
        Derivative of beta with respect to working (tau, sigma2) (eq. 12).
    local, turn : (n_tau + S, n_tau + S) arrays or None
        The Hessian in the units of the data, ``local = turn @ hessian @ turn.T`` without its cancellation; None if
        residuals are independent.
    """

    beta: Array
    G: Array
    tau: Array
    tau_at: NDArray[np.intp]
    tau_basis: Array
    sigma2: Array
    sigma_at: NDArray[np.intp]
    loglik: float
    P_inv: Array
    hessian: Array
    tau_map: Array
    beta_gradient: Array
    local: Array | None = None
    turn: Array | None = None

    @property
    def psi(self) -> Array:
        """All estimates, (n,)."""
        return np.concatenate([self.beta, self.tau, self.sigma2])

    @property
    def Sigma(self) -> Array:
        """Residual covariance matrix of a row, (R, R)."""
        out = np.zeros((int(self.sigma_at.max()) + 1,) * 2)
        rows, columns = self.sigma_at.T
        out[rows, columns] = out[columns, rows] = self.sigma2
        return out


def to_estimates(working: Working, optimum: Optimum, *, reml: bool) -> Estimates:
    """Map an optimum from working to user's units (eq. 18 to 21)."""
    problem, units, blocks = working.problem, working.units, working.blocks
    at, q = optimum.evaluation, problem.n_random
    pairs = np.array([pair for block in blocks for pair in natural_pairs(block)])
    basis = np.concatenate([natural_basis(block, q) for block in blocks])
    J = natural_jacobian(problem, blocks)
    mapped = units.Z_map @ basis @ units.Z_map.T
    sigma_at = problem.residual.at
    tau_map = np.diag(np.append(np.zeros(len(basis)), units.sigma_scale(sigma_at)))
    tau_map[: len(basis), : len(basis)] = mapped[:, pairs[:, 0], pairs[:, 1]].T
    root = units.Z_map @ optimum.L
    G = root @ root.T
    value = at.value + units.criterion_shift(problem.nobs, reml=reml)
    local = turn = None
    if at.along is not None and at.base is not None:
        turn, of_Sigma = np.eye(J.shape[1]), slice(len(basis), None)
        turn[: len(basis), : len(basis)] = natural_turn(blocks, at.spread / problem.n_clusters)
        local = turn @ (J.T @ at.along.hessian @ J) @ turn.T
        turn[of_Sigma, of_Sigma] = problem.residual.congruence(at.base)
    return Estimates(
        beta=units.offset + units.X_map @ at.beta,
        G=G,
        tau=G[pairs[:, 0], pairs[:, 1]],
        tau_at=pairs,
        tau_basis=basis,
        sigma2=optimum.sigma2 * units.sigma_scale(sigma_at),
        sigma_at=sigma_at,
        loglik=-0.5 * value,
        P_inv=units.X_map @ at.P_inv @ units.X_map.T,
        hessian=J.T @ at.hessian @ J,
        tau_map=tau_map,
        beta_gradient=units.X_map @ at.beta_gradient @ J,
        local=local,
        turn=turn,
    )


def loglik_at(working: Working, G: ArrayLike, sigma2: ArrayLike, *, reml: bool) -> float:
    """Log-likelihood at given variances (user's units), maximized over beta.

    Raises
    ------
    EffectError
        If the shapes are wrong, G has a negative eigenvalue, or the residual covariance is not positive definite.
    """
    structure, matrix = working.problem.residual, _numbers(G, "G")
    residual = _residual_values(structure, sigma2)
    q = working.problem.n_random
    if matrix.shape != (q, q):
        raise EffectError(f"G must be ({q}, {q}); found {matrix.shape}")
    if not (np.isfinite(matrix).all() and np.isfinite(residual).all()):
        raise EffectError("G and sigma2 must be finite; found nan or infinite entries")
    if np.abs(matrix - matrix.T).max() > 1e-10 * np.abs(matrix).max(initial=0.0):
        raise EffectError("G must be symmetric")
    lowest, smallest = (float(np.linalg.eigvalsh(part)[0]) for part in (matrix, structure.matrix(residual)))
    # Sigma may be singular if no row has all responses; complete rows are checked by ``evaluate``
    least = -1e-12 * float(np.abs(residual).max()) if structure.correlated else np.finfo(float).tiny
    if lowest < -1e-12 * float(np.abs(matrix).max()) or smallest < least or residual[: structure.R].min() <= 0.0:
        raise EffectError(
            f"G must have no negative eigenvalue (smallest {lowest:.3g}) and those of the residual covariance must be "
            f"positive (smallest {smallest:.3g})"
        )
    L = np.asarray(np.linalg.solve(working.units.Z_map, psd_cholesky(matrix, tol=ROUNDING)), dtype=np.float64)
    scaled = residual / working.units.sigma_scale(structure.at)
    try:
        at = evaluate(working.problem, L, scaled, reml=reml, order=0)
    except np.linalg.LinAlgError as error:
        raise EffectError(
            f"the likelihood has no value there: {error}; give a residual covariance that is regular"
        ) from error
    return -0.5 * (at.value + working.units.criterion_shift(working.problem.nobs, reml=reml))


def _numbers(given: ArrayLike, name: str) -> Array:
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise EffectError(f"{name} must be an array of real numbers ({error}); found {shown(given)}") from error


def _residual_values(structure: ResidualStructure, given: ArrayLike) -> Array:
    """Residual parameters (S,), given as such or as the matrix Sigma."""
    values = np.atleast_1d(_numbers(given, "sigma2"))
    R, S = structure.R, structure.size
    if values.shape == (S,):
        return values
    if values.shape != (R, R):
        raise EffectError(
            f"sigma2 must be ({S},), or the ({R}, {R}) residual covariance; found {values.shape}; fit.Sigma has it"
        )
    rows, columns = structure.at.T
    own: Array = values[rows, columns]
    if not np.allclose(structure.matrix(own), values, rtol=1e-10, atol=0.0, equal_nan=True):
        kind = "symmetric" if structure.correlated else "diagonal, as residual='diagonal' was asked for"
        raise EffectError(f"the residual covariance must be {kind}; found {values.tolist()}")
    return own


def regression_loglik(problem: Problem, units: Units, *, reml: bool) -> float:
    """Log-likelihood of one linear regression of all responses, one residual variance, no random effects.

    This is the model that Stata's "LR test vs. linear regression" compares with.
    """
    p, total = problem.n_fixed, int(problem.nobs.sum())
    cross = np.einsum("rik,r->ik", problem.C, units.y_scale**2)
    factor = np.linalg.cholesky(cross)
    df = total - p if reml else total
    value = df * (np.log(factor[p, p] ** 2 / df) + 1.0 + np.log(2 * np.pi))
    if reml:
        value += 2.0 * np.log(np.diag(factor)[:p]).sum() - 2.0 * np.linalg.slogdet(units.X_map)[1]
    return -0.5 * float(value)
