"""Newton's method on the quadrature sum with moving nodes, to a stationary point, and off saddle points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import NotIdentifiedError
from mlmed.lmm.covariance import ROUNDING, psd_cholesky
from mlmed.quadrature.likelihood import conditional_loglik, loglik, scores
from mlmed.quadrature.nodes import Centres, Nodes, adapt, centres_at_zero, make_nodes
from mlmed.quadrature.problem import Problem

Array = NDArray[np.float64]

#: Step of central differences of the gradient, and the largest change of a coordinate in one Newton step.
DIFFERENCE, LONGEST = 1e-4, 0.7
#: Tolerance of the modes during a search and at its result, in posterior sds.
LOOSE, TIGHT = 0.002, 1e-7
#: Relative change of the sum due to loose centres; a Newton step may lose as much.
NOISE = 1e-10
#: Signed lengths of steps off a saddle.
STEPS = np.concatenate([sign * 0.4 ** np.arange(12.0) for sign in (1.0, -1.0)])


@dataclass(frozen=True, slots=True)
class Plan:
    """Settings of a search.

    Attributes
    ----------
    m : int
        Nodes per dimension.
    decrement : float
        Newton decrement at which to stop.
    most : int
        Most Newton steps.
    rise : float
        Rise of the log-likelihood below which a step is the last. With few nodes the gradient at fixed nodes is not
        exactly that of the sum with moving nodes, so searches would creep near the optimum.
    """

    m: int
    decrement: float
    most: int
    rise: float = -np.inf


@dataclass(frozen=True, slots=True)
class Climb:
    """End of a search.

    Attributes
    ----------
    theta : (n,) array
        The point.
    value : float
        Log-likelihood there.
    gradient : (n,) array
        Its gradient.
    centres : Centres
        Centres of the nodes there.
    hessian : (n, n) array
        Hessian of -l, at the point or one before it.
    evaluations : int
        Evaluations of the gradient.
    """

    theta: Array
    value: float
    gradient: Array
    centres: Centres
    hessian: Array
    evaluations: int


def centred(problem: Problem, theta: Array, start: Centres, tolerance: float) -> Centres:
    """Centres of the nodes at theta."""
    return adapt(partial(conditional_loglik, problem, theta), start, tolerance=tolerance)


def hessian_at(
    problem: Problem, theta: Array, nodes: Nodes, *, central: bool = True, free: NDArray[np.bool_] | None = None
) -> Array:
    """Hessian of -l, (n, n), by differences of the exact gradient at fixed nodes; 0 for coordinates that are not free.

    Raises
    ------
    NotIdentifiedError
        If the log-likelihood overflows near theta.
    """
    n = len(theta)
    base = None if central else scores(problem, theta, nodes)[1].sum(axis=0)
    rows = np.zeros((n, n))
    for k in np.flatnonzero(np.ones(n, dtype=bool) if free is None else free):
        step = np.zeros(n)
        step[k] = DIFFERENCE if central else 0.1 * DIFFERENCE
        ahead = scores(problem, theta + step, nodes)[1].sum(axis=0)
        behind = scores(problem, theta - step, nodes)[1].sum(axis=0) if base is None else base
        rows[k] = (behind - ahead) / (step[k] * (2.0 if central else 1.0))
    if not np.isfinite(rows).all():
        raise NotIdentifiedError(
            "the log-likelihood overflows beside the point that the search has reached: residual sds of single rows "
            "are many orders of magnitude apart there, or go to zero; remove the scale random effects, or look for "
            "clusters whose responses are all alike or far from all others"
        )
    if free is not None:
        rows[:, ~free] = 0.0
    return 0.5 * (rows + rows.T)


def newton_step(gradient: Array, hessian: Array) -> tuple[Array, float]:
    """Ascent step, and the decrement g'H^-1 g; takes absolute eigenvalues and limits the move of a coordinate."""
    size = np.sqrt(np.maximum(np.abs(np.diag(hessian)), 1e-8 * np.abs(np.diag(hessian)).max()))
    values, vectors = np.linalg.eigh(hessian / np.outer(size, size))
    along = vectors.T @ (gradient / size)
    bent = np.maximum(np.abs(values), 1e-4)
    step = vectors @ (along / bent) / size
    longest = float(np.abs(step).max())
    return step * min(1.0, LONGEST / max(longest, LONGEST)), float((along**2 / bent).sum())


def climb(
    problem: Problem,
    theta: Array,
    centres: Centres,
    plan: Plan,
    *,
    hessian: Array | None = None,
    free: NDArray[np.bool_] | None = None,
) -> Climb:
    """Maximize by Newton's method until the decrement is small.

    Parameters
    ----------
    theta : (n,) array
        Start values.
    centres : Centres
        Centres of the nodes at similar parameters.
    plan : Plan
        Number of nodes and stopping rules.
    hessian : (n, n) array, optional
        Hessian of -l nearby; updated from gradients (BFGS), recomputed if a step fails.
    free : (n,) bool array, optional
        Coordinates that may move; all by default.
    """
    movable = np.ones(len(theta), dtype=bool) if free is None else free
    centres = centred(problem, theta, centres, LOOSE)
    nodes = make_nodes(centres, plan.m)
    values, parts = scores(problem, theta, nodes)
    value, gradient, count, fresh = float(values.sum()), parts.sum(axis=0), 1, False

    def curvature() -> Array:
        return hessian_at(problem, theta, nodes, central=False, free=movable)

    if hessian is None:
        hessian, fresh, count = curvature(), True, count + len(theta)
    for _ in range(plan.most):
        step, left = free_step(gradient, hessian, movable)
        if left < plan.decrement:
            break
        found = _line(problem, theta, step, value, centres, plan.m, slope=float(gradient @ step))
        if found is None:
            if fresh:
                break
            hessian, fresh, count = curvature(), True, count + len(theta)
            continue
        share, reached, centres = found
        last, value, before = reached - value < plan.rise, reached, gradient
        theta, nodes = theta + share * step, make_nodes(centres, plan.m)
        gradient = scores(problem, theta, nodes)[1].sum(axis=0)
        count += 1
        if last:
            break
        if free_step(gradient, hessian, movable)[1] > 0.2 * left:
            hessian, fresh, count = curvature(), True, count + len(theta)
        else:
            hessian, fresh = _bfgs(hessian, share * step, np.where(movable, before - gradient, 0.0)), False
    return Climb(theta, value, gradient, centres, hessian, count)


def free_step(gradient: Array, hessian: Array, free: NDArray[np.bool_]) -> tuple[Array, float]:
    """``newton_step`` in the free coordinates."""
    step = np.zeros(len(gradient))
    step[free], left = newton_step(gradient[free], hessian[np.ix_(free, free)])
    return step, left


def _line(
    problem: Problem, theta: Array, step: Array, value: float, centres: Centres, m: int, *, slope: float
) -> tuple[float, float, Centres] | None:
    """Share of the step taken, value and centres there; None if no share helps."""
    share = 1.0
    noise = NOISE * max(abs(value), 1.0)
    for _ in range(12):
        at = theta + share * step
        if np.isfinite(conditional_loglik(problem, at, centres.mode[:, None, :])).all():
            there = centred(problem, at, centres, LOOSE)
            reached = loglik(problem, at, make_nodes(there, m))
            if reached >= value + 1e-4 * share * slope - noise:
                return share, reached, there
        share *= 0.4
    return None


def _bfgs(hessian: Array, step: Array, change: Array) -> Array:
    curvature = float(step @ change)
    along = hessian @ step
    if curvature <= 1e-10 * float(np.linalg.norm(step) * np.linalg.norm(change)) or float(step @ along) <= 0.0:
        return hessian
    return hessian + np.outer(change, change) / curvature - np.outer(along, along) / float(step @ along)


def step_off(problem: Problem, theta: Array, hessian: Array, m: int) -> Array | None:
    """The highest point along paths off a saddle; None if none is higher than the saddle.

    At a stationary point the gradient does not show where the likelihood rises, and a Hessian updated from gradients
    does not show the sign of the curvature, so points on both sides are compared.

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

    The Hessian is not scaled to unit diagonal: an entry of L in a zero column has no curvature of its own.
    """
    direction = np.linalg.eigh(hessian)[1][:, 0]
    direction *= LONGEST / np.abs(direction).max()
    yield from (theta + step * direction for step in STEPS)


def _sheared(problem: Problem, theta: Array) -> Iterator[Array]:
    """Points where a multiple of one random effect is added to another, b_k + c b_j: G becomes A G A'.

    If the variance of b_k is near 0, G hardly depends on the other effects' entries in b_k's column of L, so lines in
    L bend away from the path along which a covariance with b_j grows.
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
    """Log-likelihood with its own nodes, adapted from those of the saddle; minus infinity if it does not exist."""
    if not np.isfinite(conditional_loglik(problem, theta, centres.mode[:, None, :])).all():
        return -np.inf
    value = loglik(problem, theta, make_nodes(centred(problem, theta, centres, TIGHT), m))
    return value if np.isfinite(value) else -np.inf
