"""Start values: the homoscedastic fit, and the spread of the clusters' own log residual sds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.problem import Problem
from mlmed.quadrature.units import Units

__all__ = ["plain_theta", "random_start", "start_theta"]

Array = NDArray[np.float64]

#: Sd of random scale slopes, and the least sd of a random scale intercept, to start from.
SLOPE_SD, LEAST_SD = 0.1, 0.1
#: Pivots of the location's covariance are at least this sd, in working units: zero is a saddle of the factor.
LEAST_LOCATION_SD = 0.05
#: The same where a singular covariance shall only be factored.
LEAST_PIVOT = 1e-6


def start_theta(problem: Problem, units: Units, beta: Array, G: Array, sigma2: float) -> Array:
    """Theta of a homoscedastic fit, scale effects independent of the location's.

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
    """Theta of a homoscedastic fit itself, without scale random effects: a point of every model that has them."""
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
    """Tau whose log sds come closest to one value."""
    W = np.concatenate([c.W[np.arange(c.y.shape[1]) < c.size[:, None]] for c in problem.chunks])
    return np.linalg.lstsq(W, np.full(len(W), log_sd), rcond=None)[0]


def _scale_sds(problem: Problem, beta: Array, log_sd: float) -> Array:
    """Sds of the scale effects: of the clusters' log residual sds beyond sampling error, a small one for slopes."""
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
    """Another start: fixed effects moved by 0.3 sd of the response, sds by a factor, covariances drawn anew."""
    fixed = problem.p + problem.k
    out = theta.copy()
    out[:fixed] += rng.normal(scale=0.3, size=fixed)
    own = problem.structure.rows == problem.structure.columns
    size = np.maximum(np.abs(theta[fixed:][own]), 0.05)
    out[fixed:][own] = size * np.exp(rng.normal(scale=0.5, size=int(own.sum())))
    out[fixed:][~own] = rng.normal(scale=0.1, size=int((~own).sum()))
    return out
