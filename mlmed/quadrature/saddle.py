"""From a saddle point of the likelihood to where it is higher."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.covariance import ROUNDING, psd_cholesky
from mlmed.quadrature.climb import LONGEST, NOISE, TIGHT, centred
from mlmed.quadrature.likelihood import conditional_loglik, loglik
from mlmed.quadrature.nodes import Centres, centres_at_zero, make_nodes
from mlmed.quadrature.problem import Problem

__all__ = ["step_off"]

Array = NDArray[np.float64]

#: Lengths of steps, on both sides of a saddle.
STEPS = np.concatenate([sign * 0.4 ** np.arange(12.0) for sign in (1.0, -1.0)])


def step_off(problem: Problem, theta: Array, hessian: Array, m: int) -> Array | None:
    """The highest point along paths that leave a saddle; None if none is higher than the saddle.

    At a point of rest the gradient says nothing of the direction in which the likelihood rises, and a search that
    corrects its Hessian from gradients does not see the sign of the curvature, so points on both sides are compared.

    Parameters
    ----------
    theta, hessian : (n,), (n, n) arrays
        The point, and the Hessian of -l there.
    m : int
        Nodes per dimension.
    """
    centres = centred(problem, theta, centres_at_zero(problem.J, problem.structure.d), TIGHT)
    here = loglik(problem, theta, make_nodes(centres, m))
    points = [*_along_curvature(theta, hessian), *_sheared(problem, theta)]
    values = [_value(problem, point, centres, m) for point in points]
    best = int(np.argmax(values))
    return points[best] if values[best] > here + NOISE * max(abs(here), 1.0) else None


def _along_curvature(theta: Array, hessian: Array) -> Iterator[Array]:
    """Points on the line of most negative curvature in working units.

    Not in those in which the Hessian has a unit diagonal: an entry of L with a zero column has no curvature of its own.
    """
    direction = np.linalg.eigh(hessian)[1][:, 0]
    direction *= LONGEST / np.abs(direction).max()
    yield from (theta + step * direction for step in STEPS)


def _sheared(problem: Problem, theta: Array) -> Iterator[Array]:
    """Points where one random effect is moved by a multiple of another, b_k + c b_j: G becomes A G A'.

    Where the variance of b_k is next to 0, G does not depend on how the column of L that belongs to b_k is shared among
    the other effects, so that lines in L bend away from the path along which a covariance with b_j grows.
    """
    structure, first = problem.structure, problem.p + problem.k
    L = structure.factor(theta[first:])
    G, sds = L @ L.T, np.sqrt((L**2).sum(axis=1))
    pairs = [(int(i), int(j)) for i, j in zip(structure.rows, structure.columns, strict=True) if i != j]
    for k, j in [*pairs, *(pair[::-1] for pair in pairs)]:
        for step in STEPS if sds[j] > 0.0 else ():
            A = np.eye(len(G))
            A[k, j] = LONGEST * step / sds[j]
            point = theta.copy()
            point[first:] = psd_cholesky(A @ G @ A.T, tol=ROUNDING)[structure.rows, structure.columns]
            yield point


def _value(problem: Problem, theta: Array, centres: Centres, m: int) -> float:
    """Log-likelihood with nodes of its own, sought from those of the saddle; minus infinity where there is none."""
    if not np.isfinite(conditional_loglik(problem, theta, centres.mode[:, None, :])).all():
        return -np.inf
    value = loglik(problem, theta, make_nodes(centred(problem, theta, centres, TIGHT), m))
    return value if np.isfinite(value) else -np.inf
