"""The optimum in the user's units: estimates, their covariance, and the random effects of the clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.optimizer import Optimum
from mlmed.quadrature.problem import Problem
from mlmed.quadrature.units import Units
from mlmed.text import Compact

__all__ = ["Estimates", "effect_order", "to_estimates"]

Array = NDArray[np.float64]

#: Why variances have no standard error on the boundary.
BOUNDARY = (
    "boundary (singular) fit: the likelihood has its maximum where a variance is 0 or a correlation is 1, and a "
    "standard error says nothing there"
)


@dataclass(frozen=True, slots=True, repr=False)
class Estimates(Compact):
    """Estimates in the user's units; random effects in the order location, scale (u, t).

    Attributes
    ----------
    beta, tau : (p,), (k,) arrays
        Fixed effects of the location and of the log residual sd.
    G : (q + d, q + d) array
        Covariance of (u, t).
    cov_at : tuple of (int, int)
        (i, j), i >= j: the entries of G that are estimated, by rows.
    psi : (n,) array
        (beta, tau, entries of G).
    vcov : (n, n) array
        Inverse observed information in psi; NaN for entries of G on the boundary.
    rank : int
        Rank of G.
    loglik : float
        Log-likelihood.
    """

    beta: Array
    tau: Array
    G: Array
    cov_at: tuple[tuple[int, int], ...]
    psi: Array
    vcov: Array
    rank: int
    loglik: float

    @property
    def reason(self) -> str:
        """Why entries of vcov are NaN; empty if none is."""
        return BOUNDARY if self.rank < len(self.G) else ""


def effect_order(problem: Problem) -> NDArray[np.intp]:
    """Positions in (t, u) of (u, t)."""
    d, q = problem.structure.d, problem.structure.q
    return np.concatenate([np.arange(d, d + q), np.arange(d)]).astype(np.intp)


def to_estimates(problem: Problem, units: Units, optimum: Optimum) -> Estimates:
    """Everything linear in (beta, tau, G), the covariance by the exact Jacobian in theta."""
    at, first = optimum.theta, problem.p + problem.k
    structure, order = problem.structure, effect_order(problem)
    L = structure.factor(at[first:])
    T = units.random_map[order]
    G = T @ L @ L.T @ T.T
    place = {int(position): k for k, position in enumerate(order)}
    pairs = [(place[int(i)], place[int(j)]) for i, j in zip(structure.rows, structure.columns, strict=True)]
    cov_at = tuple(sorted((max(pair), min(pair)) for pair in pairs))
    rows, columns = (np.array([pair[k] for pair in cov_at], dtype=np.intp) for k in (0, 1))
    beta = units.beta_map @ at[: problem.p] + units.shift * units.intercept
    tau = units.tau_map @ at[problem.p : first]
    jacobian = np.zeros((first + len(cov_at), len(at)))
    jacobian[: problem.p, : problem.p] = units.beta_map
    jacobian[problem.p : first, problem.p : first] = units.tau_map
    for k, (i, j) in enumerate(zip(structure.rows, structure.columns, strict=True)):
        change = np.outer(T[:, i], T @ L[:, j])
        jacobian[first:, first + k] = (change + change.T)[rows, columns]
    free = ~optimum.gone
    inverse = np.zeros_like(optimum.hessian)
    inverse[np.ix_(free, free)] = np.linalg.inv(optimum.hessian[np.ix_(free, free)])
    vcov = jacobian @ inverse @ jacobian.T
    rank = len(G) - int((np.diag(L) == 0.0).sum())
    if rank < len(G):
        vcov[first:, :] = vcov[:, first:] = np.nan
    psi = np.concatenate([beta, tau, G[rows, columns]])
    return Estimates(beta, tau, G, cov_at, psi, vcov, rank, optimum.loglik - problem.nobs * float(np.log(units.unit)))
