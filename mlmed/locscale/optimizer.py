"""From start values to a certified optimum: coarse and fine nodes, the faces of the cone, the certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.locscale.climb import LOOSE, TIGHT, Climb, Plan, centred, climb, free_step, hessian_at, newton_step
from mlmed.locscale.likelihood import loglik, scores
from mlmed.locscale.nodes import Centres, Nodes, centres_at_zero, make_nodes
from mlmed.locscale.problem import Problem

__all__ = ["LADDER", "NODES_TOLERANCE", "Certificate", "Optimum", "optimize"]

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
#: A singular optimum may have a log-likelihood this much below where the search ended: the precision of a point of
#: rest, and the most that is allowed where a Newton step still promises something.
FACE_TOLERANCE, FACE_MOST = 1e-6, 1e-5
#: The coarse search ends where a step rises by less.
COARSE_RISE = 0.01
#: Newton steps with coarse and with all nodes.
MOST_COARSE, MOST_FINE = 60, 30


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
    near = climb(problem, start, zero, Plan(COARSE[d], 1e-3, MOST_COARSE, COARSE_RISE))
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
    """Log-likelihood where a search ended, free of the noise of loose centres, and its nodes."""
    nodes = make_nodes(centred(problem, found.theta, found.centres, TIGHT), m)
    return loglik(problem, found.theta, nodes), nodes


def _candidates(problem: Problem, found: Climb) -> list[NDArray[np.bool_]]:
    """Columns of L, (d + q,), that may be zero: those with small pivots, together and alone; any if not at rest."""
    L = problem.structure.factor(found.theta[problem.p + problem.k :])
    pivots, sds = np.abs(np.diag(L)), np.sqrt((L**2).sum(axis=1))
    resting = _is_resting(found)
    limits = NEARLY_SINGULAR[-1:] if resting else NEARLY_SINGULAR
    masks = [pivots <= limit * np.maximum(sds, 0.1) for limit in limits]
    alone = masks[-1] if resting else np.ones(len(L), dtype=bool)
    masks += [row for row, wanted in zip(np.eye(len(L), dtype=bool), alone, strict=True) if wanted]
    return [mask for k, mask in enumerate(masks) if mask.any() and not any((mask == m).all() for m in masks[:k])]


def _is_resting(found: Climb) -> bool:
    """A small gradient, or a Newton step that promises nothing where the likelihood is curved in every direction."""
    if float(np.abs(found.gradient).max()) <= MAX_GRADIENT:
        return True
    curved = _scaled_curvature(found.hessian) > MIN_CURVATURE
    return curved and newton_step(found.gradient, found.hessian)[1] < MAX_DECREMENT


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
        step, left = free_step(gradient, hessian, ~gone)
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
