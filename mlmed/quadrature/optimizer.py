"""From start values to a certified maximum: coarse and fine nodes, the faces of the cone, the certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmed.numerics.certificate import (
    CURVATURE,
    DECREMENT,
    GRADIENT,
    MULTIPLIER,
    NODE_CHANGE,
    OFF_CENTRE,
    Certificate,
    above,
    below,
    first_reason,
    scaled_curvature,
    within,
)
from mlmed.quadrature.climb import (
    LOOSE,
    NOISE,
    TIGHT,
    Climb,
    Plan,
    centred,
    climb,
    free_step,
    hessian_at,
    newton_step,
    step_off,
)
from mlmed.quadrature.likelihood import conditional_loglik, loglik, scores
from mlmed.quadrature.nodes import Centres, Nodes, better_of, centres_at_zero, make_nodes
from mlmed.quadrature.problem import Problem
from mlmed.text import Compact

Array = NDArray[np.float64]

#: Largest change of the log-likelihood when the nodes are doubled.
NODES_TOLERANCE = 1e-4
#: Bounds of the certificate, on the scale of -l in working units.
MAX_GRADIENT, MAX_DECREMENT, MIN_CURVATURE, MIN_MULTIPLIER = 1e-4, 1e-8, 1e-6, -1e-4
#: Largest remaining Newton step, in posterior sds, from the centre of a cluster's nodes to its mode.
MAX_OFF_CENTRE = 0.1
#: Nodes per dimension to choose from, by the number of dimensions.
LADDER = {0: (1,), 1: (5, 7, 9, 11, 15, 21, 31, 51, 81), 2: (5, 7, 9, 11, 15, 21, 31, 45, 61)}
#: Nodes per dimension in the coarse search.
COARSE = {0: 1, 1: 5, 2: 3}
#: Shares of an effect's sd (at least 0.1 in working units) below which pivots of G may be zero. All are tried in turn,
#: only the last if the search converged.
NEARLY_SINGULAR = (0.3, 0.02)
#: How far the log-likelihood of a singular optimum may be below the end of the search: the precision of a stationary
#: point, plus at most this where a Newton step still predicts a gain.
FACE_TOLERANCE, FACE_MOST = 1e-6, 1e-5
#: Sd of scale effects, in working units, for a restart next to the fit without them.
SMALL_SD = 0.02
#: Rise of the log-likelihood in a step below which the coarse search ends.
COARSE_RISE = 0.01
#: Share by which an optimum may be below the fit without scale random effects: the rounding of large sums.
BELOW = 1e-9
#: Most saddle points left in turn.
MOST_SADDLES = 5
#: Most Newton steps with coarse and with all nodes.
MOST_COARSE, MOST_FINE = 60, 30


def certify(
    gradient: Array, hessian: Array, gone: NDArray[np.bool_], *, centres: Centres, node_change: float
) -> Certificate:
    """Judge a point.

    Parameters
    ----------
    gradient, hessian : (n,), (n, n) arrays
        Gradient of the log-likelihood and Hessian of its negative.
    gone : (n,) bool array
        Coordinates in zero columns of L.
    centres : Centres
        Centres of the nodes.
    node_change : float
        Change of the log-likelihood when the nodes per dimension are doubled.
    """
    inside = hessian[np.ix_(~gone, ~gone)]
    # the curvature in a zero column of L is twice the slope of -l into the interior of the cone
    multiplier = float(np.linalg.eigvalsh(hessian[np.ix_(gone, gone)])[0]) if gone.any() else 0.0
    off_centre = int((centres.left > MAX_OFF_CENTRE).sum())
    checks = (
        below(GRADIENT, np.abs(gradient).max(), MAX_GRADIENT),
        below(DECREMENT, newton_step(gradient[~gone], inside)[1], MAX_DECREMENT),
        above(CURVATURE, scaled_curvature(inside), MIN_CURVATURE),
        above(MULTIPLIER, multiplier, MIN_MULTIPLIER),
        within(NODE_CHANGE, node_change, NODES_TOLERANCE),
        below(OFF_CENTRE, off_centre, 0.5),
    )
    found = Certificate(checks, advice="simplify the model, or look at check_starts()")
    return replace(found, reason=_reason(found, len(centres.left)))


def is_saddle(found: Certificate) -> bool:
    """Whether -l has negative curvature beyond the rounding of its Hessian."""
    return found.smallest_curvature < -MIN_CURVATURE or found.failed(MULTIPLIER)


def _reason(found: Certificate, clusters: int) -> str:
    off_centre, curvature = found.value(OFF_CENTRE), f"scaled curvature {found.smallest_curvature:.1e}"
    return first_reason(
        [
            (
                found.failed(OFF_CENTRE),
                f"the mode of the scale effects was not found in {off_centre:.0f} of {clusters} clusters, so the "
                "log-likelihood may be wrong; look for clusters whose responses are far from all others or all alike, "
                "or remove the scale random effects",
            ),
            (
                found.failed(NODE_CHANGE),
                f"doubling the quadrature nodes moves the log-likelihood by {found.value(NODE_CHANGE):.1e}; give more "
                "nodes (nodes=), or remove a scale random effect",
            ),
            (
                is_saddle(found),
                f"the likelihood is curved upwards in some direction ({curvature}, multiplier {found.multiplier:.1e}), "
                "so this is no maximum, and on neither side of it was a higher point found; simplify the model, or "
                "look at check_starts()",
            ),
            (
                found.failed(CURVATURE),
                f"the likelihood is flat in some direction ({curvature}), so some parameters cannot be told apart and "
                "their values are arbitrary; simplify the model",
            ),
        ]
    )


@dataclass(frozen=True, slots=True, repr=False)
class Optimum(Compact):
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
        Coordinates in zero columns of L: the boundary.
    nodes : Nodes
        The nodes at the optimum.
    nodes_per_dimension : int
        Nodes per dimension.
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


def optimize(problem: Problem, start: Array, *, m: int | None = None) -> Optimum:
    """Maximize the log-likelihood, choose the number of nodes and certify the result.

    Parameters
    ----------
    start : (n,) array
        Start values in working units.
    m : int, optional
        Nodes per dimension; by default the smallest number of the ladder for which doubling moves the log-likelihood
        by less than ``NODES_TOLERANCE``.
    """
    d = problem.structure.d
    zero = centres_at_zero(problem.J, d)
    near = climb(problem, start, zero, Plan(COARSE[d], 1e-3, MOST_COARSE, COARSE_RISE))
    count, theta, centres = near.evaluations, near.theta, near.centres
    hessian: Array | None = near.hessian
    ladder = LADDER[d] if m is None else (m,)
    chosen, retry, leave = _choose(problem, theta, centres, ladder), True, MOST_SADDLES
    while True:
        plan = Plan(ladder[chosen], 1e-11, MOST_FINE)
        fine, gone = _on_face(problem, climb(problem, theta, centres, plan, hessian=hessian), plan)
        theta, centres = fine.theta, centred(problem, fine.theta, fine.centres, TIGHT)
        count += fine.evaluations
        last = chosen == len(ladder) - 1
        if last or abs(_node_change(problem, theta, centres, plan.m)) < NODES_TOLERANCE:
            found = _certified(problem, fine, gone, plan.m, count)
            off = _off_saddle(problem, found) if leave else None
            if off is not None:
                theta, hessian, count, leave = off, None, found.evaluations, leave - 1
                continue
            enough = not found.certificate.failed(NODE_CHANGE)
            if last or found.certificate.converged or (enough and not retry):
                return found
            # more nodes may also give a gradient closer to that of the integral: tried once
            retry, count = retry and not enough, found.evaluations
        chosen, hessian = chosen + 1, None if gone.any() else fine.hessian


def not_below(problem: Problem, found: Optimum, plain: Array) -> Optimum:
    """Return the optimum or, if it is below ``plain``, a better point; ``plain`` is a point of the model.

    Parameters
    ----------
    found : Optimum
        End of the search.
    plain : (n,) array
        The fit with one residual sd and scale effects of 0, in working units.
    """
    d, m = problem.structure.d, found.nodes_per_dimension
    zero = centres_at_zero(problem.J, d)
    floor = loglik(problem, plain, make_nodes(zero, 1))
    if found.loglik >= floor - BELOW * abs(floor):
        return found
    own = np.flatnonzero((problem.structure.rows == problem.structure.columns) & (problem.structure.rows < d))
    start = plain.copy()
    start[problem.p + problem.k + own] = SMALL_SD
    other = optimize(problem, start, m=m)
    if other.loglik >= floor:
        return other
    theta, gone = _canonical(problem, plain, np.arange(d + problem.structure.q) < d)
    plan = Plan(m, 1e-11, MOST_FINE)
    face = _certified(problem, climb(problem, theta, zero, plan, free=~gone), gone, m, other.evaluations)
    off = _off_saddle(problem, face)
    return face if off is None else optimize(problem, off, m=m)


def _off_saddle(problem: Problem, found: Optimum) -> Array | None:
    """A higher point next to a saddle; None without a saddle or such a point."""
    if not is_saddle(found.certificate):
        return None
    return step_off(problem, found.theta, found.hessian, found.nodes_per_dimension)


def _on_face(problem: Problem, found: Climb, plan: Plan) -> tuple[Climb, NDArray[np.bool_]]:
    """The end of a search, or the singular optimum next to it.

    A pivot of G on its way to zero makes a curved, flat valley; with G restricted to be singular the optimum is a
    regular one. It is accepted if the search found nothing better and the likelihood falls towards the interior.

    Returns
    -------
    climb, gone
        The point, and flags of its coordinates, (n,), in zero columns of L.
    """
    candidates = _candidates(problem, found)
    reached = _at_rest(problem, found, plan.m)[0] if candidates else found.value
    left = newton_step(found.gradient, found.hessian)[1]
    for zero in candidates:
        theta, gone = _canonical(problem, found.theta, zero)
        centres = centred(problem, theta, centres_at_zero(problem.J, problem.structure.d), LOOSE)
        face = climb(problem, theta, centres, plan, free=~gone)
        value, nodes = _at_rest(problem, face, plan.m)
        if value < reached - FACE_TOLERANCE - min(left, FACE_MOST):
            continue
        inward = hessian_at(problem, face.theta, nodes, free=gone)[np.ix_(gone, gone)]
        if float(np.linalg.eigvalsh(inward)[0]) > MIN_MULTIPLIER:
            return face, gone
    theta, gone = _canonical(problem, found.theta, np.zeros(problem.structure.d + problem.structure.q, dtype=bool))
    return replace(found, theta=theta), gone


def _at_rest(problem: Problem, found: Climb, m: int) -> tuple[float, Nodes]:
    """Log-likelihood at the end of a search with tight centres, and its nodes."""
    nodes = make_nodes(centred(problem, found.theta, found.centres, TIGHT), m)
    return loglik(problem, found.theta, nodes), nodes


def _candidates(problem: Problem, found: Climb) -> list[NDArray[np.bool_]]:
    """Columns of L, (d + q,), that may be zero: those with small pivots, together and alone; any if not converged."""
    L = problem.structure.factor(found.theta[problem.p + problem.k :])
    pivots, sds = np.abs(np.diag(L)), np.sqrt((L**2).sum(axis=1))
    resting = _is_resting(found)
    limits = NEARLY_SINGULAR[-1:] if resting else NEARLY_SINGULAR
    masks = [pivots <= limit * np.maximum(sds, 0.1) for limit in limits]
    alone = masks[-1] if resting else np.ones(len(L), dtype=bool)
    masks += [row for row, wanted in zip(np.eye(len(L), dtype=bool), alone, strict=True) if wanted]
    return [mask for k, mask in enumerate(masks) if mask.any() and not any((mask == m).all() for m in masks[:k])]


def _is_resting(found: Climb) -> bool:
    """Whether the gradient is small, or the curvature positive and the decrement small."""
    if float(np.abs(found.gradient).max()) <= MAX_GRADIENT:
        return True
    curved = scaled_curvature(found.hessian) > MIN_CURVATURE
    return curved and newton_step(found.gradient, found.hessian)[1] < MAX_DECREMENT


def _node_change(problem: Problem, theta: Array, centres: Centres, m: int) -> float:
    if problem.structure.d == 0:
        return 0.0
    return loglik(problem, theta, make_nodes(centres, 2 * m)) - loglik(problem, theta, make_nodes(centres, m))


def _choose(problem: Problem, theta: Array, centres: Centres, ladder: tuple[int, ...]) -> int:
    """Position in the ladder of the smallest sufficient number of nodes."""
    centres = centred(problem, theta, centres, LOOSE)
    for k, m in enumerate(ladder):
        if abs(_node_change(problem, theta, centres, m)) < NODES_TOLERANCE:
            return k
    return len(ladder) - 1


def _canonical(problem: Problem, theta: Array, zero: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Refactor G with positive pivots, setting the columns ``zero``, (d + q,), to zero.

    Returns
    -------
    theta, gone
        The point, and flags of its coordinates, (n,), in zero columns.
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
    """Take Newton steps with the final Hessian while they help, evaluate the point and certify it."""
    theta = found.theta
    cold = centred(problem, theta, centres_at_zero(problem.J, problem.structure.d), TIGHT)
    warm = centred(problem, theta, found.centres, TIGHT)
    centres = better_of(partial(conditional_loglik, problem, theta), cold, warm)
    nodes = make_nodes(centres, m)
    hessian = hessian_at(problem, theta, nodes)
    values, parts = scores(problem, theta, nodes)
    value, gradient = float(values.sum()), parts.sum(axis=0)
    count += 2 * len(theta) + 1
    for _ in range(4):
        step, left = free_step(gradient, hessian, ~gone)
        if left < 1e-14:
            break
        there = centred(problem, theta + step, centres, TIGHT)
        again = make_nodes(there, m)
        values, parts = scores(problem, theta + step, again)
        reached, slope = float(values.sum()), parts.sum(axis=0)
        count += 1
        falls = not reached >= value - NOISE * max(abs(value), 1.0)
        if falls or np.abs(slope).max() >= np.abs(gradient).max():
            break
        theta, centres, nodes, value, gradient = theta + step, there, again, reached, slope
    change = _node_change(problem, theta, centres, m)
    certificate = certify(gradient, hessian, gone, centres=centres, node_change=change)
    return Optimum(theta, value, hessian, gone, nodes, m, certificate, count)
