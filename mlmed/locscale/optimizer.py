"""From start values to a certified optimum: Newton's method on the quadrature sum, nodes moving along.

Within a step the nodes stay where they are, so value, gradient and Hessian belong to one smooth function; after it they
are centred again. With enough nodes the value does not depend on where they lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmed.locscale.likelihood import conditional_loglik, loglik, scores
from mlmed.locscale.nodes import Centres, Nodes, adapt, centres_at_zero, make_nodes
from mlmed.locscale.problem import Problem

__all__ = ["LADDER", "NODES_TOLERANCE", "Certificate", "Climb", "Optimum", "climb", "hessian_at", "optimize"]

Array = NDArray[np.float64]

#: Doubling the nodes may move the log-likelihood by this much.
NODES_TOLERANCE = 1e-4
#: Nodes per dimension to choose from, by the number of dimensions.
LADDER = {0: (1,), 1: (5, 7, 9, 11, 15, 21, 31, 51, 81), 2: (5, 7, 9, 11, 15, 21, 31)}
#: Nodes per dimension on the way to the neighbourhood of the optimum.
COARSE = {0: 1, 1: 5, 2: 3}
#: Bounds of the certificate, on the scale of -l in working units.
MAX_GRADIENT, MAX_DECREMENT, MIN_CURVATURE, MIN_MULTIPLIER = 1e-4, 1e-8, 1e-6, -1e-4
#: Pivots of G that may be zero: below this share of the effect's sd, taken to be at least 0.1 in working units. All are
#: tried in turn, the last one alone where the search came to rest.
NEARLY_SINGULAR = (0.3, 0.02)
#: A singular optimum may have a log-likelihood this much below where the search ended, which is its precision there.
FACE_TOLERANCE = 1e-7
#: Step of central differences of the gradient, and the largest change of a coordinate in one Newton step.
DIFFERENCE, LONGEST = 1e-4, 0.7
#: Newton steps with coarse and with all nodes.
MOST_COARSE, MOST_FINE = 60, 30
#: Tolerance of the modes on the way and where the result is evaluated, in posterior sds.
LOOSE, TIGHT = 0.05, 1e-7


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was recomputed at the returned point.

    Attributes
    ----------
    gradient_norm : float
        Largest entry of the gradient of the log-likelihood in theta.
    newton_decrement : float
        g'H^-1 g: twice the rise that a Newton step still promises.
    smallest_curvature : float
        Smallest eigenvalue of the Hessian of -l in theta, scaled to unit diagonal, without columns of L that are zero.
    multiplier : float
        At a singular optimum, the smallest slope of -2l into the interior of the cone; 0 otherwise.
    node_change : float
        Change of the log-likelihood when the nodes per dimension are doubled.
    converged : bool
        All of these are within their bounds.
    """

    gradient_norm: float
    newton_decrement: float
    smallest_curvature: float
    multiplier: float
    node_change: float
    converged: bool

    @property
    def complaint(self) -> str:
        """What is wrong, in words; empty if the optimum is certified."""
        if self.converged:
            return ""
        if abs(self.node_change) >= NODES_TOLERANCE:
            return (
                f"doubling the quadrature nodes moves the log-likelihood by {self.node_change:.1e}; give more nodes "
                "(nodes=), or remove a scale random effect"
            )
        if self.smallest_curvature <= MIN_CURVATURE:
            return (
                f"the likelihood is flat in some direction (scaled curvature {self.smallest_curvature:.1e}), so some "
                "parameters cannot be told apart and their values are arbitrary; simplify the model"
            )
        return (
            f"gradient {self.gradient_norm:.1e}, Newton decrement {self.newton_decrement:.1e}, multiplier "
            f"{self.multiplier:.1e}; simplify the model, or look at check_starts()"
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search is run.

    Attributes
    ----------
    m : int
        Nodes per dimension.
    decrement : float
        Where to stop.
    most : int
        Most Newton steps.
    """

    m: int
    decrement: float
    most: int


@dataclass(frozen=True, slots=True)
class Climb:
    """Where a search ended.

    Attributes
    ----------
    theta : (n,) array
        The point.
    value : float
        Log-likelihood there.
    gradient : (n,) array
        Its gradient.
    centres : Centres
        Of the nodes there.
    hessian : (n, n) array
        Of -l, at the point or one before it.
    evaluations : int
        Evaluations of the gradient.
    """

    theta: Array
    value: float
    gradient: Array
    centres: Centres
    hessian: Array
    evaluations: int


@dataclass(frozen=True, slots=True)
class Optimum:
    """The maximum, in working units.

    Attributes
    ----------
    theta : (n,) array
        (beta, tau, free entries of L); the diagonal of L is not negative.
    loglik : float
        Log-likelihood.
    hessian : (n, n) array
        Observed information in theta.
    gone : (n,) bool array
        Coordinates that belong to zero columns of L: the boundary.
    nodes : Nodes
        The nodes at the optimum.
    nodes_per_dimension : int
        Of the quadrature.
    certificate : Certificate
        Evidence that this is a maximum.
    evaluations : int
        Evaluations of the gradient.
    """

    theta: Array
    loglik: float
    hessian: Array
    gone: NDArray[np.bool_]
    nodes: Nodes
    nodes_per_dimension: int
    certificate: Certificate
    evaluations: int


def centred(problem: Problem, theta: Array, start: Centres, tolerance: float) -> Centres:
    """Centres of the nodes at theta."""
    return adapt(partial(conditional_loglik, problem, theta), start, tolerance=tolerance)


def hessian_at(
    problem: Problem, theta: Array, nodes: Nodes, *, central: bool = True, free: NDArray[np.bool_] | None = None
) -> Array:
    """Hessian of -l, (n, n), by differences of the exact gradient at fixed nodes; 0 where a coordinate is not free."""
    n = len(theta)
    base = None if central else scores(problem, theta, nodes)[1].sum(axis=0)
    rows = np.zeros((n, n))
    for k in np.flatnonzero(np.ones(n, dtype=bool) if free is None else free):
        step = np.zeros(n)
        step[k] = DIFFERENCE if central else 0.1 * DIFFERENCE
        ahead = scores(problem, theta + step, nodes)[1].sum(axis=0)
        behind = scores(problem, theta - step, nodes)[1].sum(axis=0) if base is None else base
        rows[k] = (behind - ahead) / (step[k] * (2.0 if central else 1.0))
    if free is not None:
        rows[:, ~free] = 0.0
    return 0.5 * (rows + rows.T)


def newton_step(gradient: Array, hessian: Array) -> tuple[Array, float]:
    """Step that rises, and the decrement g'H^-1 g; negative curvature is turned round, no coordinate moves far."""
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
    """Newton's method until the decrement is small.

    Parameters
    ----------
    theta : (n,) array
        Where to start.
    centres : Centres
        Of nodes at parameters nearby.
    plan : Plan
        Nodes, and where to stop.
    hessian : (n, n) array, optional
        Of -l nearby; corrected from gradients (BFGS), computed again where that does not serve.
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
        step, left = _free_step(gradient, hessian, movable)
        if left < plan.decrement:
            break
        found = _line(problem, theta, step, value, centres, plan.m, slope=float(gradient @ step))
        if found is None:
            if fresh:
                break
            hessian, fresh, count = curvature(), True, count + len(theta)
            continue
        share, value, centres = found
        before = gradient
        theta, nodes = theta + share * step, make_nodes(centres, plan.m)
        gradient = scores(problem, theta, nodes)[1].sum(axis=0)
        count += 1
        if _free_step(gradient, hessian, movable)[1] > 0.2 * left:
            hessian, fresh, count = curvature(), True, count + len(theta)
        else:
            hessian, fresh = _bfgs(hessian, share * step, np.where(movable, before - gradient, 0.0)), False
    return Climb(theta, value, gradient, centres, hessian, count)


def _free_step(gradient: Array, hessian: Array, free: NDArray[np.bool_]) -> tuple[Array, float]:
    """``newton_step`` among the coordinates that may move."""
    step = np.zeros(len(gradient))
    step[free], left = newton_step(gradient[free], hessian[np.ix_(free, free)])
    return step, left


def _line(
    problem: Problem, theta: Array, step: Array, value: float, centres: Centres, m: int, *, slope: float
) -> tuple[float, float, Centres] | None:
    """Share of the step that is taken, value and centres there; None if no share helps."""
    share = 1.0
    noise = 1e-11 * max(abs(value), 1.0)
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


def optimize(problem: Problem, start: Array, *, hessian: Array | None = None, m: int | None = None) -> Optimum:
    """Maximize the log-likelihood, choose the number of nodes and certify the result.

    Parameters
    ----------
    start : (n,) array
        Start values in working units.
    hessian : (n, n) array, optional
        Of -l at an optimum that was found before (other starts).
    m : int, optional
        Nodes per dimension; by default the smallest number of the ladder for which doubling moves the log-likelihood
        by less than ``NODES_TOLERANCE``.
    """
    d = problem.structure.d
    zero = centres_at_zero(problem.J, d)
    near = climb(problem, start, zero, Plan(COARSE[d], 1e-3, MOST_COARSE))
    count, theta, centres = near.evaluations, near.theta, near.centres
    hessian = near.hessian if hessian is None else hessian
    ladder = LADDER[d] if m is None else (m,)
    chosen = _choose(problem, theta, centres, ladder)
    while True:
        plan = Plan(ladder[chosen], 1e-11, MOST_FINE)
        fine, gone = _on_face(problem, climb(problem, theta, centres, plan, hessian=hessian), plan)
        theta, centres = fine.theta, centred(problem, fine.theta, fine.centres, TIGHT)
        count += fine.evaluations
        change = _node_change(problem, theta, centres, ladder[chosen])
        if abs(change) < NODES_TOLERANCE or chosen == len(ladder) - 1:
            break
        chosen, hessian = chosen + 1, None if gone.any() else fine.hessian
    return _certified(problem, fine, gone, plan.m, count)


def _on_face(problem: Problem, found: Climb, plan: Plan) -> tuple[Climb, NDArray[np.bool_]]:
    """The end of a search, or the singular optimum next to it.

    A pivot of G on its way to zero makes a curved, flat valley; where G is taken to be singular the optimum is an
    ordinary one. It is accepted if the search found nothing better and the likelihood falls into the interior.

    Returns
    -------
    climb, gone
        The point, and which of its coordinates, (n,), belong to columns of L that are zero.
    """
    for zero in _candidates(problem, found):
        theta, gone = _canonical(problem, found.theta, zero)
        centres = centred(problem, theta, centres_at_zero(problem.J, problem.structure.d), LOOSE)
        face = climb(problem, theta, centres, plan, free=~gone)
        if face.value < found.value - FACE_TOLERANCE:
            continue
        nodes = make_nodes(centred(problem, face.theta, face.centres, TIGHT), plan.m)
        inward = hessian_at(problem, face.theta, nodes, free=gone)[np.ix_(gone, gone)]
        if float(np.linalg.eigvalsh(inward)[0]) > MIN_MULTIPLIER:
            return face, gone
    theta, gone = _canonical(problem, found.theta, np.zeros(problem.structure.d + problem.structure.q, dtype=bool))
    return replace(found, theta=theta), gone


def _candidates(problem: Problem, found: Climb) -> list[NDArray[np.bool_]]:
    """Columns of L, (d + q,), that may be zero: those with small pivots, together and alone; any if not at rest."""
    L = problem.structure.factor(found.theta[problem.p + problem.k :])
    pivots, sds = np.abs(np.diag(L)), np.sqrt((L**2).sum(axis=1))
    resting = float(np.abs(found.gradient).max()) <= MAX_GRADIENT
    limits = NEARLY_SINGULAR[-1:] if resting else NEARLY_SINGULAR
    masks = [pivots <= limit * np.maximum(sds, 0.1) for limit in limits]
    alone = masks[-1] if resting else np.ones(len(L), dtype=bool)
    masks += [row for row, wanted in zip(np.eye(len(L), dtype=bool), alone, strict=True) if wanted]
    return [mask for k, mask in enumerate(masks) if mask.any() and not any((mask == m).all() for m in masks[:k])]


def _node_change(problem: Problem, theta: Array, centres: Centres, m: int) -> float:
    if problem.structure.d == 0:
        return 0.0
    return loglik(problem, theta, make_nodes(centres, 2 * m)) - loglik(problem, theta, make_nodes(centres, m))


def _choose(problem: Problem, theta: Array, centres: Centres, ladder: tuple[int, ...]) -> int:
    """Position of the smallest number of nodes that is enough."""
    centres = centred(problem, theta, centres, LOOSE)
    for k, m in enumerate(ladder):
        if abs(_node_change(problem, theta, centres, m)) < NODES_TOLERANCE:
            return k
    return len(ladder) - 1


def _canonical(problem: Problem, theta: Array, zero: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """The same covariance by a factor with positive pivots, the given ones, (d + q,), made zero with their columns.

    Returns
    -------
    theta, gone
        The point, and which of its coordinates, (n,), belong to columns that are zero.
    """
    first, structure = problem.p + problem.k, problem.structure
    L = structure.factor(theta[first:])
    G = L @ L.T
    out, empty = np.zeros_like(L), zero.copy()
    for k in range(len(G)):
        pivot = G[k, k] - out[k, :k] @ out[k, :k]
        empty[k] |= pivot <= 0.0
        if not empty[k]:
            out[k, k] = np.sqrt(pivot)
            out[k + 1 :, k] = (G[k + 1 :, k] - out[k + 1 :, :k] @ out[k, :k]) / out[k, k]
    found, gone = theta.copy(), np.zeros(len(theta), dtype=bool)
    found[first:] = out[structure.rows, structure.columns]
    gone[first:] = empty[structure.columns]
    return found, gone


def _certified(problem: Problem, found: Climb, gone: NDArray[np.bool_], m: int, count: int) -> Optimum:
    """Evaluate the point once more, after Newton steps with the final Hessian as long as they help."""
    theta = found.theta
    centres = centred(problem, theta, centres_at_zero(problem.J, problem.structure.d), TIGHT)
    nodes = make_nodes(centres, m)
    hessian = hessian_at(problem, theta, nodes)
    gradient = scores(problem, theta, nodes)[1].sum(axis=0)
    count += 2 * len(theta) + 1
    for _ in range(4):
        step, left = _free_step(gradient, hessian, ~gone)
        if left < 1e-14:
            break
        there = centred(problem, theta + step, centres, TIGHT)
        again = make_nodes(there, m)
        slope = scores(problem, theta + step, again)[1].sum(axis=0)
        count += 1
        if np.abs(slope).max() >= np.abs(gradient).max():
            break
        theta, centres, nodes, gradient = theta + step, there, again, slope
    certificate = _certificate(gradient, hessian, gone, _node_change(problem, theta, centres, m))
    return Optimum(theta, loglik(problem, theta, nodes), hessian, gone, nodes, m, certificate, count)


def _certificate(gradient: Array, hessian: Array, gone: NDArray[np.bool_], change: float) -> Certificate:
    inside = hessian[np.ix_(~gone, ~gone)]
    left = newton_step(gradient[~gone], inside)[1]
    curvature = _scaled_curvature(inside)
    # where a column of L is zero, the curvature in it is twice the slope of -l into the interior of the cone
    multiplier = float(np.linalg.eigvalsh(hessian[np.ix_(gone, gone)])[0]) if gone.any() else 0.0
    norm = float(np.abs(gradient).max())
    converged = (
        norm < MAX_GRADIENT
        and left < MAX_DECREMENT
        and curvature > MIN_CURVATURE
        and multiplier > MIN_MULTIPLIER
        and abs(change) < NODES_TOLERANCE
    )
    return Certificate(norm, left, curvature, multiplier, change, bool(converged))


def _scaled_curvature(hessian: Array) -> float:
    diagonal = np.abs(np.diag(hessian))
    size = np.sqrt(np.maximum(diagonal, 1e-9 * diagonal.max()))
    return float(np.linalg.eigvalsh(hessian / np.outer(size, size))[0])
