"""Start values of a location-scale model, and its estimates in the user's units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.optimizer import Optimum
from mlmed.quadrature.problem import Problem, Units, effect_order
from mlmed.text import Compact

Array = NDArray[np.float64]

#: Start values: sd of random scale slopes, least sd of a random scale intercept.
SLOPE_SD, LEAST_SD = 0.1, 0.1
#: Least sd of the pivots of the location's covariance, in working units: zero is a saddle of the factor.
LEAST_LOCATION_SD = 0.05
#: The same for factoring a singular covariance.
LEAST_PIVOT = 1e-6
#: Reason for variances without standard error on the boundary.
BOUNDARY = (
    "boundary (singular) fit: the likelihood has its maximum where a variance is 0 or a correlation is 1, and a "
    "standard error says nothing there"
)


def start_theta(problem: Problem, units: Units, beta: Array, G: Array, sigma2: float) -> Array:
    """Theta from a homoscedastic fit, scale effects independent of the location's.

    Parameters
    ----------
    beta, G, sigma2 : (p,), (q, q) arrays, float
        Fixed effects, covariance of the location effects and residual variance, in the user's units.
    """
    d = problem.structure.d
    log_sd, out = 0.5 * np.log(sigma2), _with_location(problem, units, beta, G, sigma2, LEAST_LOCATION_SD)
    own = (problem.structure.rows == problem.structure.columns) & (problem.structure.rows < d)
    out[problem.p + problem.k :][own] = _scale_sds(problem, out[: problem.p], log_sd)
    return out


def plain_theta(problem: Problem, units: Units, beta: Array, G: Array, sigma2: float) -> Array:
    """Theta of a homoscedastic fit itself, scale random effects 0: a special case of every model with them."""
    return _with_location(problem, units, beta, G, sigma2, LEAST_PIVOT)


def _with_location(problem: Problem, units: Units, beta: Array, G: Array, sigma2: float, least: float) -> Array:
    d, q = problem.structure.d, problem.structure.q
    working = np.asarray(np.linalg.solve(units.beta_map, beta - units.shift * units.intercept), dtype=np.float64)
    L = np.zeros((d + q, d + q))
    if q:
        back = np.linalg.inv(units.random_map[d:, d:])
        L[d:, d:] = np.linalg.cholesky(back @ G @ back.T + least**2 * np.eye(q))
    free = L[problem.structure.rows, problem.structure.columns]
    return np.concatenate([working, _constant(problem, 0.5 * np.log(sigma2)), free])


def _constant(problem: Problem, log_sd: float) -> Array:
    """Tau with log sds closest to one value."""
    W = np.concatenate([c.W[np.arange(c.y.shape[1]) < c.size[:, None]] for c in problem.chunks])
    return np.linalg.lstsq(W, np.full(len(W), log_sd), rcond=None)[0]


def _scale_sds(problem: Problem, beta: Array, log_sd: float) -> Array:
    """Sds of the scale effects: that of the clusters' log residual sds beyond sampling error; small for slopes."""
    d = problem.structure.d
    found, error = [], []
    for chunk in problem.chunks:
        filled = np.arange(chunk.y.shape[1]) < chunk.size[:, None]
        residual = chunk.y - chunk.X @ beta
        mean = residual.sum(axis=1) / chunk.size
        squares = (np.where(filled, residual - mean[:, None], 0.0) ** 2).sum(axis=1)
        usable = (chunk.size > 2) & (squares > 0.0)
        found.append(0.5 * np.log(squares[usable] / (chunk.size[usable] - 1.0)))
        error.append(0.5 / (chunk.size[usable] - 1.0))
    logs = np.concatenate(found)
    spread = float(logs.var() - np.concatenate(error).mean()) if len(logs) > 1 else 0.0
    level = np.sqrt(max(spread, LEAST_SD**2))
    return np.array([level if _is_constant(problem, k) else SLOPE_SD for k in range(d)])


def _is_constant(problem: Problem, k: int) -> bool:
    return all(
        bool(np.all(chunk.V[:, :, k] == (np.arange(chunk.y.shape[1]) < chunk.size[:, None])))
        for chunk in problem.chunks
    )


def random_start(problem: Problem, theta: Array, rng: np.random.Generator) -> Array:
    """Random start: fixed effects moved by 0.3 sd of the response, sds by a factor, new covariances."""
    fixed = problem.p + problem.k
    out = theta.copy()
    out[:fixed] += rng.normal(scale=0.3, size=fixed)
    own = problem.structure.rows == problem.structure.columns
    size = np.maximum(np.abs(theta[fixed:][own]), 0.05)
    out[fixed:][own] = size * np.exp(rng.normal(scale=0.5, size=int(own.sum())))
    out[fixed:][~own] = rng.normal(scale=0.1, size=int((~own).sum()))
    return out


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
        (i, j), i >= j: estimated entries of G, by rows.
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


def to_estimates(problem: Problem, units: Units, optimum: Optimum) -> Estimates:
    """Map the optimum to the user's units: estimates linearly, their covariance by the exact Jacobian in theta."""
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
