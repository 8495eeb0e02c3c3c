"""From cross-products to a certified optimum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import NotIdentifiedError
from mlmed.reml.boundary import factor_rank, multiplier, on_face
from mlmed.reml.covariance import Block, canonical_factor, factor_coordinates, pivoted_chart
from mlmed.reml.objective import Objective, ThetaEvaluation, objective_for
from mlmed.reml.optimizer import NewtonSettings, Step, evaluated, last_step, newton
from mlmed.reml.problem import Evaluation, Problem
from mlmed.reml.start import start_theta

__all__ = ["Certificate", "Optimum", "coordinates", "minimize", "optimize"]

Array = NDArray[np.float64]

#: Bounds of the certificate, all on the scale of -2l in unit-free coordinates.
MAX_GRADIENT, MAX_DECREMENT, MIN_MULTIPLIER = 1e-4, 1e-8, -1e-4
#: Gradient that needs no improvement.
SMALL_GRADIENT = 1e-8
#: Curvature (scaled to unit diagonal) below which a direction counts as flat: the optimum is not unique.
MIN_CURVATURE = 1e-6
#: Newton steps before the factor is reordered.
LEG = 5


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was recomputed at the returned point.

    Attributes
    ----------
    gradient_norm : float
        Largest entry of the gradient of -2l in theta.
    newton_decrement : float
        g'H^-1 g: twice the drop of -2l that a Newton step still promises.
    smallest_curvature : float
        Smallest eigenvalue of the Hessian in theta, scaled to unit diagonal, on the face of the cone where the
        optimum lies: positive at a minimum, (nearly) zero where parameters trade off without cost.
    multiplier : float
        At a singular optimum, the smallest slope of -2l into the interior of the cone; 0 otherwise.
    converged : bool
        All of these are within their bounds.
    """

    gradient_norm: float
    newton_decrement: float
    smallest_curvature: float
    multiplier: float
    converged: bool

    @property
    def complaint(self) -> str:
        """What is wrong, in words; empty if the optimum is certified."""
        if self.converged:
            return ""
        if self.smallest_curvature <= MIN_CURVATURE:
            return (
                f"the likelihood is flat in some direction (scaled curvature {self.smallest_curvature:.1e}), so "
                "some parameters cannot be told apart and their values are arbitrary; simplify the model"
            )
        return (
            f"gradient {self.gradient_norm:.1e}, Newton decrement {self.newton_decrement:.1e}, smallest curvature "
            f"{self.smallest_curvature:.1e}, multiplier {self.multiplier:.1e}; rescale predictors or simplify the model"
        )


@dataclass(frozen=True, slots=True)
class Optimum:
    """The optimum of the criterion, in the units of the problem.

    Attributes
    ----------
    G : (q, q) array
        Covariance of the random effects.
    L : (q, q) array
        Its lower-triangular factor, exact zero columns where it is singular.
    sigma2 : (S,) array
        Residual parameters.
    evaluation : Evaluation
        Criterion and derivatives there.
    rank : int
        Rank of G.
    certificate : Certificate
        Evidence that this is an optimum.
    steps : tuple of Step
        Every evaluation of criterion and derivatives, the start first.
    """

    G: Array
    L: Array
    sigma2: Array
    evaluation: Evaluation
    rank: int
    certificate: Certificate
    steps: tuple[Step, ...]


def optimize(
    problem: Problem,
    blocks: tuple[Block, ...],
    *,
    reml: bool,
    theta: Array | None = None,
    settings: NewtonSettings | None = None,
    names: tuple[str, ...] | None = None,
) -> Optimum:
    """Minimize -2l over the covariance structures and certify the result.

    Parameters
    ----------
    problem : Problem
        Cross-products in working units (columns of unit scale).
    blocks : tuple of Block
        Covariance structure of every random effect.
    reml : bool
        Restricted or full likelihood.
    theta : array, optional
        Start values; by default one scoring step from a neutral guess.
    settings : NewtonSettings, optional
        Tolerances of the search.
    names : tuple of str, optional
        Names of the random effects, for error messages.
    """
    objective = objective_for(problem, blocks, reml=reml)
    start = start_theta(problem, blocks, reml=reml, names=names) if theta is None else theta
    return minimize(objective, blocks, start, settings or NewtonSettings())


def minimize(objective: Objective, blocks: tuple[Block, ...], start: Array, settings: NewtonSettings) -> Optimum:
    """Minimize a criterion over the cone of G and certify the result.

    Parameters
    ----------
    objective : Objective
        The criterion of a model, or one with more coordinates after those of (L, log sd).
    blocks : tuple of Block
        Covariance structure of every random effect.
    start : (n,) array
        Start values.
    settings : NewtonSettings
        Tolerances of the search.
    """
    problem = objective.problem
    record: tuple[Step, ...] = ()

    for _ in range(4):  # more than once only if a face has to be left again
        chart, end, point, steps = _search(objective, blocks, start, settings)
        record += steps
        face = None if chart.is_lost(end) else on_face(chart, blocks, end, point)
        if face is not None:
            chart, end, point, steps = face
            record += steps
        if chart.is_lost(end):
            raise NotIdentifiedError(problem.residual.lost)
        L, theta_end, point, steps = _finish(objective, blocks, chart, end, point, settings)
        record += steps
        G = _square(L)
        at = point.natural
        slope = at.gradient[: G.size].reshape(G.shape)
        lowest, direction = multiplier(problem, blocks, G, slope)
        if lowest >= MIN_MULTIPLIER:
            break
        start = np.append(_factor_part(blocks, G + 0.01 * direction), theta_end[objective.n_factor :])
    certificate = _certify(objective, theta_end, point, lowest)
    return Optimum(G, L, objective.sigma2(theta_end), at, factor_rank(blocks, L), certificate, record)


def _search(
    objective: Objective,
    blocks: tuple[Block, ...],
    theta: Array,
    settings: NewtonSettings,
) -> tuple[Objective, Array, ThetaEvaluation, tuple[Step, ...]]:
    """Newton in legs; between legs the factor's rows are reordered by the size of their pivots.

    A triangular factor whose leading pivots shrink towards zero makes a curved valley of the criterion; in
    pivoted order the vanishing directions come last, and the way to a singular optimum is short.
    """
    record: tuple[Step, ...] = ()
    leg = replace(settings, max_steps=min(LEG, settings.max_steps), polish=False)
    point: ThetaEvaluation | None = None
    while True:
        theta, point, steps = newton(objective, theta, leg, abandon=objective.is_lost, point=point)
        record += steps[1:] if record else steps
        stationary = record[-1].accepted and record[-1].decrement < settings.decrement
        if stationary or objective.is_lost(theta) or len(steps) == 1 or len(record) > settings.max_steps:
            return objective, theta, point, record
        L = objective.factor(theta)
        basis, reordered = pivoted_chart(blocks, L @ L.T)
        theta = np.append(reordered, theta[objective.n_factor :])
        objective = replace(objective, basis=basis)
        point = objective.in_chart(theta, point.natural)


def _finish(
    objective: Objective,
    blocks: tuple[Block, ...],
    chart: Objective,
    end: Array,
    point: ThetaEvaluation,
    settings: NewtonSettings,
) -> tuple[Array, Array, ThetaEvaluation, tuple[Step, ...]]:
    """The point that is returned, evaluated there: one more Newton step, then the factor in its natural order.

    Should the step not help, it is not taken. Where the gradient is not small in the natural order, whose pivots may be
    smaller, another one is tried there, unless the optimum is on a face of the cone.

    Returns
    -------
    L, theta, point, steps
        Factor, coordinates, criterion and derivatives there, the evaluations.
    """
    record: tuple[Step, ...] = ()
    noise, bound = settings.noise * point.natural.size, max(_largest(point), SMALL_GRADIENT)
    moves = [last_step(point, settings.radius)] if settings.polish else []
    for move in [*moves, np.zeros_like(end)]:
        L, entries = canonical_factor(blocks, chart.factor(end + move))
        theta = np.append(entries, (end + move)[chart.n_factor :])
        found = objective.derivatives(theta)
        record += (evaluated(theta, found),)
        if found.value - point.value <= noise and _largest(found) <= bound:
            break
    if _largest(found) > 0.1 * MAX_GRADIENT and chart.n_factor == objective.n_factor:
        trial = theta + last_step(found, settings.radius)
        other = objective.derivatives(trial)
        record += (evaluated(trial, other),)
        if other.value - found.value <= noise and _largest(other) < _largest(found):
            return objective.factor(trial), trial, other, record
    return L, theta, found, record


def _largest(point: ThetaEvaluation) -> float:
    return float(np.abs(point.gradient).max())


def _square(L: Array) -> Array:
    return L @ L.T


def _factor_part(blocks: tuple[Block, ...], G: Array) -> Array:
    """Coordinates of the factor of G."""
    return np.concatenate([factor_coordinates(block, G) for block in blocks])


def coordinates(problem: Problem, blocks: tuple[Block, ...], G: Array, sigma2: Array) -> Array:
    """Theta of a covariance matrix and residual parameters."""
    return np.append(_factor_part(blocks, G), problem.residual.coordinates(sigma2))


def _certify(objective: Objective, theta: Array, point: ThetaEvaluation, lowest: float) -> Certificate:
    """Gradient, decrement and curvature at the returned point itself."""
    values, vectors = np.linalg.eigh(point.hessian)
    along = vectors.T @ point.gradient
    scale = max(float(np.abs(values).max()), 1.0)
    bent = values > 1e-10 * scale
    decrement = float((along[bent] ** 2 / values[bent]).sum())
    gradient_norm = _largest(point)
    curvature = _smallest_curvature(objective, theta, point.hessian)
    converged = bool(
        gradient_norm < MAX_GRADIENT
        and decrement < MAX_DECREMENT
        and values[0] > -1e-7 * scale
        and curvature > MIN_CURVATURE
        and lowest >= MIN_MULTIPLIER
    )
    return Certificate(gradient_norm, decrement, curvature, lowest, converged)


def _smallest_curvature(objective: Objective, theta: Array, hessian: Array) -> float:
    """Smallest eigenvalue of the Hessian, scaled to unit diagonal, over directions that stay on the face.

    A column of L that is zero stays zero there; its curvature is the multiplier's business.
    """
    gone = np.abs(objective.factor(theta)).max(axis=0) == 0.0
    keep = np.ones(len(theta), dtype=bool)
    keep[: objective.n_factor] = np.abs(objective.basis).max(axis=1) @ gone == 0.0
    part = hessian[keep][:, keep]
    diagonal = np.abs(np.diag(part))
    # an entry far below the others is rounding noise of zero, which scaling must not blow up
    size = np.sqrt(np.maximum(diagonal, 1e-9 * max(float(diagonal.max()), 1.0)))
    return float(np.linalg.eigvalsh(part / np.outer(size, size))[0])
