"""From cross-products to a certified optimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import NotIdentifiedError
from mlmed.reml.boundary import factor_rank, multiplier, on_face, on_residual_face, residual_multiplier
from mlmed.reml.covariance import Block, canonical_factor, factor_coordinates
from mlmed.reml.objective import FLAT, Objective, ThetaEvaluation, objective_for
from mlmed.reml.optimizer import SHORTEST, Leave, NewtonSettings, Step, evaluated, last_step, newton
from mlmed.reml.problem import Evaluation, Problem
from mlmed.reml.sigma import ResidualChart
from mlmed.reml.start import start_theta

__all__ = ["Certificate", "Known", "Optimum", "Searched", "coordinates", "minimize", "optimize", "search_from"]

Array = NDArray[np.float64]
#: Whether the end of a search is known: factor of G, residual parameters, evaluation and Newton decrement at a step.
Known = Callable[[Array, Array, Evaluation, float], bool]

#: Bounds of the certificate, all on the scale of -2l in unit-free coordinates: gradient and multiplier in standard
#: errors. The square of the multiplier is what the decrement is, twice the drop that a step promises.
MAX_GRADIENT, MAX_DECREMENT, MIN_MULTIPLIER = 1e-5, 1e-8, -1e-4
#: Gradient that needs no improvement.
SMALL_GRADIENT = 1e-9
#: Curvature (scaled to unit diagonal) below which a direction counts as flat: the optimum is not unique.
MIN_CURVATURE = 1e-6
#: Residual variance, of a response with variance 1, that explains why a search did not end.
VANISHING = 1e-6
#: Newton steps before the coordinates take the units of the data anew.
LEG = 5


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was recomputed at the returned point.

    Attributes
    ----------
    gradient_norm : float
        Largest entry of the gradient of -2l, each over the root of its own second derivative (eq. 34a): how many
        standard errors (times the root of 2) a coordinate is away from where it would be stationary alone.
    newton_decrement : float
        g'H^-1 g: twice the drop of -2l that a Newton step still promises.
    smallest_curvature : float
        Smallest eigenvalue of the Hessian in theta, scaled to unit diagonal, on the face of the cone where the
        optimum lies: positive at a minimum, (nearly) zero where parameters trade off without cost.
    multiplier : float
        At a singular optimum, the smallest slope of -2l into the interior of the cone, over the root of the curvature
        there; 0 otherwise.
    converged : bool
        All of these are within their bounds.
    residual : float
        Smallest residual variance, where responses have variance 1: says why, where it goes to zero.
    """

    gradient_norm: float
    newton_decrement: float
    smallest_curvature: float
    multiplier: float
    converged: bool
    residual: float = 1.0

    @property
    def complaint(self) -> str:
        """What is wrong, in words; empty if the optimum is certified."""
        if self.converged:
            return ""
        if self.residual < VANISHING:
            return (
                f"a residual variance goes to zero ({self.residual:.1e} of the variance of its response): the random "
                "effects fit a response nearly exactly within clusters; use fewer random effects, or remove a "
                "predictor that repeats the response"
            )
        if self.smallest_curvature < -MIN_CURVATURE:
            return (
                f"the criterion curves downwards in some direction (scaled curvature {self.smallest_curvature:.1e}), "
                "so the search ended before an optimum; simplify the model"
            )
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
class Searched:
    """How the best of several optima was found.

    Attributes
    ----------
    starts : int
        Starts that were tried.
    values : tuple of float
        -2l of the distinct optima that searches ended in, the lowest first; empty if there was one search.
    other : (L, sigma2) or None
        The best optimum but the returned one, where there is any.
    clusters : int
        Clusters of the sample in which starts were compared; 0 where all clusters were.
    """

    starts: int = 1
    values: tuple[float, ...] = ()
    other: tuple[Array, Array] | None = None
    clusters: int = 0

    @property
    def n_optima(self) -> int:
        """Distinct optima."""
        return max(len(self.values), 1)


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
    size : int
        Random effects that may vary: rank of G where it is not singular.
    residual_lost : int
        Dimensions that Sigma lacks: not 0 where responses of which no row has all leave nothing of a combination.
    searched : Searched
        The starts it is the best of.
    """

    G: Array
    L: Array
    sigma2: Array
    evaluation: Evaluation
    rank: int
    certificate: Certificate
    steps: tuple[Step, ...]
    size: int
    residual_lost: int
    searched: Searched = field(default_factory=Searched)

    @property
    def is_singular(self) -> bool:
        """Whether G or Sigma is singular."""
        return self.rank < self.size or self.residual_lost > 0


def optimize(
    problem: Problem,
    blocks: tuple[Block, ...],
    *,
    reml: bool,
    theta: Array | None = None,
    settings: NewtonSettings | None = None,
    names: tuple[str, ...] | None = None,
) -> Optimum:
    """Minimize -2l over the covariance structures from one start and certify the result.

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
    found = search_from(objective, blocks, start, settings)
    assert found is not None  # nothing is known that it could be left for
    return found


def search_from(
    objective: Objective,
    blocks: tuple[Block, ...],
    start: Array,
    settings: NewtonSettings,
    known: Known | None = None,
) -> Optimum | None:
    """The same, or None where the search was left because its end is ``known``."""
    problem = objective.problem
    record: tuple[Step, ...] = ()

    for _ in range(4):  # more than once only if a face has to be left again
        reached = _search(objective, blocks, start, settings, known)
        if reached is None:
            return None
        chart, end, point, steps = reached
        record += steps
        if chart.is_lost(end):
            raise NotIdentifiedError(problem.residual.lost)
        for face in (on_residual_face, on_face):
            found = face(chart, blocks, end, point)
            if found is not None:
                chart, end, point, steps = found
                record += steps
        if chart.is_lost(end):
            raise NotIdentifiedError(problem.residual.lost)
        L, end, point, steps = _finish(blocks, chart, end, point, settings)
        record += steps
        of_G, more = multiplier(problem, blocks, L, point.natural)
        of_Sigma, also = residual_multiplier(chart.chart, chart.residual_part(end), point.natural)
        lowest = min(of_G, of_Sigma)
        if lowest >= MIN_MULTIPLIER:
            break
        moved = coordinates(problem, blocks, L @ L.T + more, chart.sigma2(end) + also)
        start = np.append(moved, chart.free_part(end))
    sigma2 = chart.sigma2(end)
    residual = float(sigma2[: problem.n_strata].min())
    certificate = replace(_certify(point, lowest if np.isfinite(lowest) else 0.0), residual=residual)
    size, lost = sum(len(block.index) for block in blocks), problem.n_strata - (chart.chart.rank or problem.n_strata)
    rank = factor_rank(blocks, L)
    return Optimum(L @ L.T, L, sigma2, point.natural, rank, certificate, record, size, lost)


def _search(
    objective: Objective,
    blocks: tuple[Block, ...],
    theta: Array,
    settings: NewtonSettings,
    known: Known | None = None,
) -> tuple[Objective, Array, ThetaEvaluation, tuple[Step, ...]] | None:
    """Newton in legs; between legs coordinates take the units of the data at the point that was reached (eq. 89b, 89c).

    Rows of the factor are reordered by the size of their pivots: a triangular factor whose leading pivots shrink
    towards zero makes a curved valley of the criterion; in pivoted order the vanishing directions come last, and the
    way to a singular optimum is short. Responses that hardly differ make such a valley in any units but the data's.
    None where the search was left because its end is ``known``.
    """
    record: tuple[Step, ...] = ()
    leg = replace(settings, max_steps=min(LEG, settings.max_steps), polish=False)
    natural, ended = objective.evaluation(theta, objective.factor(theta)), False
    while True:
        objective, theta = objective.recharted(blocks, theta, natural.spread)
        point = objective.in_chart(theta, natural)
        if ended or objective.is_lost(theta):
            return objective, theta, point, record
        leave = None if known is None else _leaving(objective, known)
        theta, point, steps = newton(objective, theta, leg, abandon=objective.is_lost, leave=leave, point=point)
        natural = point.natural
        record += steps[1:] if record else steps
        last = record[-1]
        if leave is not None and last.accepted and leave(theta, point, last.decrement):
            return None
        # a leg that ends with a step that was too long goes on with a shorter one
        radius = settings.radius if last.accepted else 0.25 * float(np.linalg.norm(last.theta - theta))
        leg = replace(leg, radius=min(max(radius, SHORTEST), settings.radius))
        stationary = last.accepted and last.decrement < settings.decrement
        ended = stationary or len(steps) == 1 or radius <= SHORTEST or len(record) > settings.max_steps


def _leaving(objective: Objective, known: Known) -> Leave:
    """``known`` as a function of the coordinates of ``objective``."""

    def leave(theta: Array, point: ThetaEvaluation, decrement: float) -> bool:
        return known(objective.factor(theta), objective.sigma2(theta), point.natural, decrement)

    return leave


def _finish(
    blocks: tuple[Block, ...], chart: Objective, end: Array, point: ThetaEvaluation, settings: NewtonSettings
) -> tuple[Array, Array, ThetaEvaluation, tuple[Step, ...]]:
    """The point that is returned, evaluated there: one more Newton step, then the factor in its natural order.

    Should the step not help, it is not taken.

    Returns
    -------
    L, theta, point, steps
        Factor, coordinates, criterion and derivatives there, the evaluations.
    """
    record: tuple[Step, ...] = ()
    noise, bound = settings.noise * point.natural.size, max(point.steepness, SMALL_GRADIENT)
    moves = [last_step(point, settings.radius)] if settings.polish else []
    for move in [*moves, np.zeros_like(end)]:
        theta = end + move
        L = canonical_factor(blocks, chart.factor(theta))
        found = chart.derivatives(theta, L)
        record += (evaluated(theta, found),)
        if found.value - point.value <= noise and found.steepness <= bound:
            break
    return L, theta, found, record


def _factor_part(blocks: tuple[Block, ...], G: Array) -> Array:
    """Coordinates of the factor of G."""
    return np.concatenate([factor_coordinates(block, G) for block in blocks])


def coordinates(problem: Problem, blocks: tuple[Block, ...], G: Array, sigma2: Array) -> Array:
    """Theta of a covariance matrix and residual parameters; a singular Sigma is moved inside the cone."""
    structure = problem.residual
    root = structure.lifted(structure.root(sigma2))
    return np.append(_factor_part(blocks, G), ResidualChart(structure).coordinates(root))


def _certify(point: ThetaEvaluation, lowest: float) -> Certificate:
    """Gradient, decrement and curvature at the returned point itself, on the face of the cone where it lies."""
    values, vectors = np.linalg.eigh(point.hessian)
    along = vectors.T @ point.gradient
    scale = max(float(np.abs(values).max()), 1.0)
    bent = values > 1e-10 * scale
    decrement = float((along[bent] ** 2 / values[bent]).sum())
    curvature = _smallest_curvature(point.hessian)
    converged = bool(
        point.steepness < MAX_GRADIENT
        and decrement < MAX_DECREMENT
        and curvature > MIN_CURVATURE
        and lowest >= MIN_MULTIPLIER
    )
    return Certificate(point.steepness, decrement, curvature, lowest, converged)


def _smallest_curvature(hessian: Array) -> float:
    """Smallest eigenvalue of the Hessian, scaled to unit diagonal."""
    diagonal = np.abs(hessian.diagonal())
    # an entry far below the others is rounding noise of zero, which scaling must not blow up
    size = np.sqrt(np.maximum(diagonal, FLAT * max(float(diagonal.max()), 1.0)))
    return float(np.linalg.eigvalsh(hessian / np.outer(size, size))[0])
