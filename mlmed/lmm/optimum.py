"""From one start to a certified optimum, inside the cone of G or on one of its faces.

A singular G is a legitimate optimum. After the search, collapsed directions of G are removed, the criterion is
optimized again on that face, and the face is kept only if the criterion is no worse. The multiplier (the gradient
along the removed directions) then certifies it: it must not be negative (eq. 17).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import NotIdentifiedError
from mlmed.lmm.covariance import SUSPECT, Block, canonical_factor, factor_rank, find_face, missing_directions
from mlmed.lmm.objective import Objective, ThetaEvaluation, objective_for
from mlmed.lmm.problem import Evaluation, Problem, along
from mlmed.lmm.sigma import ResidualChart, symmetric_slope
from mlmed.lmm.start import start_theta, theta_of
from mlmed.numerics.certificate import (
    CURVATURE,
    DECREMENT,
    GRADIENT,
    MULTIPLIER,
    Certificate,
    above,
    below,
    decrement_of,
    first_reason,
    scaled_curvature,
)
from mlmed.numerics.newton import SHORTEST, NewtonSettings, Step, decrement_at, evaluated, last_step, newton

Array = NDArray[np.float64]

#: Largest rise of -2l when a suspect direction is set to zero: below the gain from leaving a face that the certificate
#: tolerates.
AGREES = 4e-9
#: Whether a search will end in a known optimum, from criterion, coordinates, evaluation and Newton decrement at a step.
Known = Callable[[Objective, Array, ThetaEvaluation, float], bool]
#: Bounds of the certificate, all on the scale of -2l in unit-free coordinates: gradient and multiplier in standard
#: errors. The square of the multiplier is a decrement: twice the predicted drop of a step.
MAX_GRADIENT, MAX_DECREMENT, MIN_MULTIPLIER = 1e-5, 1e-8, -1e-4
#: Gradient below which no further step is taken.
SMALL_GRADIENT = 1e-9
#: Curvature (scaled to unit diagonal) below which a direction is flat: the optimum is not unique.
MIN_CURVATURE = 1e-6
#: Residual variance, of a response with variance 1, below which it explains why a search did not converge.
VANISHING = 1e-6
#: Newton steps before the coordinates are rescaled to the units of the data.
LEG = 5


def on_face(objective: Objective, blocks: tuple[Block, ...], theta: Array, point: ThetaEvaluation) -> _Reached | None:
    """Optimize on the face next to theta; None if G is safely interior or the face is worse.

    Returns
    -------
    objective : Objective
        The criterion on the face.
    theta : (n,) array
        Its optimum there.
    point : ThetaEvaluation
        Criterion and derivatives at theta.
    steps : tuple of Step
        The extra evaluations.
    """
    L, natural = objective.factor(theta), point.natural
    face = find_face(blocks, L, natural.spread / objective.problem.n_clusters)
    if face.rank == sum(len(block.index) for block in blocks):
        return None
    start = np.append(face.theta, theta[objective.n_factor :])
    return _kept(replace(objective, basis=face.basis), start, point)


def on_residual_face(
    objective: Objective, blocks: tuple[Block, ...], theta: Array, point: ThetaEvaluation
) -> _Reached | None:
    """``on_face`` for Sigma, which may be singular if no row has all responses."""
    if objective.problem.cross is None:
        return None
    chart, part = objective.chart.on_face(objective.residual_root(theta), tol=SUSPECT)
    if chart.rank == objective.problem.n_strata:
        return None
    start = np.concatenate([theta[: objective.n_factor], part, objective.free_part(theta)])
    try:
        return _kept(replace(objective, chart=chart), start, point)
    except np.linalg.LinAlgError:  # some rows have all these responses: Sigma is nearly singular, not singular
        return None


def _kept(restricted: Objective, start: Array, point: ThetaEvaluation) -> _Reached | None:
    """The optimum of a criterion restricted to a face; None if it is worse than ``point``."""
    end, found, steps = newton(restricted, start, NewtonSettings(polish=False), abandon=restricted.is_lost)
    rounding = NewtonSettings().noise * point.size
    return None if found.value > point.value + AGREES + rounding else (restricted, end, found, steps)


def residual_multiplier(chart: ResidualChart, theta: Array, at: Evaluation) -> tuple[float, Array]:
    """The multiplier of Sigma and the step along it, in sigma2 (S,); as ``multiplier``."""
    structure = chart.structure
    if chart.rank is None or chart.base is None:
        return np.inf, np.zeros(structure.size)
    own, of_Sigma = along(at, structure, chart.base), slice(at.spread.size, at.spread.size + structure.size)
    null = np.linalg.svd(chart.factor(theta))[0][:, chart.rank :]
    values, vectors = np.linalg.eigh(null.T @ symmetric_slope(structure, own.gradient[of_Sigma]) @ null)
    entries = structure.squared(null @ vectors[:, :1])
    size = float(np.sqrt(entries @ own.information[of_Sigma, of_Sigma] @ entries))
    lowest = float(values[0]) / size
    return lowest, max(-lowest, 0.0) / size * structure.squared(chart.base @ null @ vectors[:, :1])


def multiplier(problem: Problem, blocks: tuple[Block, ...], factor: Array, at: Evaluation) -> tuple[float, Array]:
    """Smallest slope of -2l along a direction missing from G (eq. 17), and the step (q, q) along it.

    A slope is scaled by the root of the curvature tr(V^-1 ZDZ' V^-1 ZDZ') of its direction D: its square is twice the
    predicted drop of -2l off the face. Infinite if G is interior.

    Parameters
    ----------
    problem : Problem
        Cross-products.
    blocks : tuple of Block
        Covariance structures.
    factor : (q, q) array
        Factor of G, with zero columns for missing directions.
    at : Evaluation
        Criterion and derivatives there.
    """
    q = len(factor)
    slope, curvature = at.gradient[: q * q].reshape(q, q), at.information[: q * q, : q * q]
    lowest, step = np.inf, np.zeros((q, q))
    for block in blocks:
        for direction in missing_directions(block, factor, slope, at.spread / problem.n_clusters):
            size = float(np.sqrt(direction.ravel() @ curvature @ direction.ravel()))
            found = float((slope * direction).sum()) / size
            if found < lowest:
                lowest, step = found, max(-found, 0.0) / size * direction
    return lowest, step


#: End of a search: criterion, coordinates, the evaluation there, all evaluations.
_Reached = tuple[Objective, Array, ThetaEvaluation, tuple[Step, ...]]


@dataclass(frozen=True, slots=True)
class Searched:
    """How the best of several optima was found.

    Attributes
    ----------
    starts : int
        Starts that were tried.
    values : tuple of float
        -2l of the distinct optima found, the lowest first; empty if there was one search.
    other : (L, sigma2) or None
        The second-best optimum, if there is any.
    clusters : int
        Clusters of the sample in which starts were compared; 0 if all clusters were used.
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
        Rank of G if it is regular.
    residual_lost : int
        Rank deficiency of Sigma, possible among responses that no row has all of.
    searched : Searched
        The record of the starts.
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
    names : tuple of str, optional
        Names of the random effects, for error messages.
    """
    objective = objective_for(problem, blocks, reml=reml)
    start = start_theta(problem, blocks, reml=reml, names=names) if theta is None else theta
    return minimize(objective, blocks, start)


def minimize(objective: Objective, blocks: tuple[Block, ...], start: Array) -> Optimum:
    """Minimize a criterion over the cone of G and certify the result.

    Parameters
    ----------
    objective : Objective
        The criterion of a model, possibly with further coordinates after those of (L, log sd).
    blocks : tuple of Block
        Covariance structure of every random effect.
    start : (n,) array
        Start values.
    """
    found = search_from(objective, blocks, start, NewtonSettings())
    assert found is not None  # without ``known`` no search stops early
    return found


def search_from(
    objective: Objective,
    blocks: tuple[Block, ...],
    start: Array,
    settings: NewtonSettings,
    known: Known | None = None,
) -> Optimum | None:
    """``minimize``, or None if the search stopped early because its end is ``known``."""
    problem = objective.problem
    record: tuple[Step, ...] = ()

    for _ in range(4):  # repeats only to leave a face again
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
    certificate = certify(point, lowest if np.isfinite(lowest) else 0.0, residual=residual)
    size, lost = sum(len(block.index) for block in blocks), problem.n_strata - (chart.chart.rank or problem.n_strata)
    rank = factor_rank(blocks, L)
    return Optimum(L @ L.T, L, sigma2, point.natural, rank, certificate, record, size, lost)


def _search(
    objective: Objective,
    blocks: tuple[Block, ...],
    theta: Array,
    settings: NewtonSettings,
    known: Known | None = None,
) -> _Reached | None:
    """Newton in legs; between legs coordinates are rescaled to the units of the data at the current point (eq. 89b, c).

    Rows of the factor are reordered by the size of their pivots: a triangular factor whose leading pivots shrink
    towards zero makes a curved valley of the criterion; in pivoted order the vanishing directions come last, and the
    way to a singular optimum is short. Nearly equal responses make such a valley in any units but the data's.
    None if the search stopped early because its end is ``known``.
    """
    record: tuple[Step, ...] = ()
    leg = replace(settings, max_steps=min(LEG, settings.max_steps), polish=False)
    natural, ended = objective.evaluation(theta, objective.factor(theta)), False
    if known is not None:
        point = objective.in_chart(theta, natural)
        if known(objective, theta, point, decrement_at(point)):
            return None
    while True:
        objective, theta = objective.recharted(blocks, theta, natural.spread)
        point = objective.in_chart(theta, natural)
        if ended or objective.is_lost(theta):
            return objective, theta, point, record
        leave = None if known is None else _Leave(objective, known)
        theta, point, steps = newton(objective, theta, leg, abandon=objective.is_lost, leave=leave, point=point)
        if leave is not None and leave.was_known:
            return None
        natural = point.natural
        record += steps[1:] if record else steps
        last = record[-1]
        # after a rejected last step the next leg starts with a smaller radius
        radius = settings.radius if last.accepted else 0.25 * float(np.linalg.norm(last.theta - theta))
        leg = replace(leg, radius=min(max(radius, SHORTEST), settings.radius))
        stationary = last.accepted and last.decrement < settings.decrement
        ended = stationary or len(steps) == 1 or radius <= SHORTEST or len(record) > settings.max_steps


@dataclass(slots=True)
class _Leave:
    """Adapter of ``known`` to the coordinates of a criterion; keeps its last answer."""

    objective: Objective
    known: Known
    was_known: bool = False

    def __call__(self, theta: Array, point: ThetaEvaluation, decrement: float) -> bool:
        self.was_known = self.known(self.objective, theta, point, decrement)
        return self.was_known


def _finish(
    blocks: tuple[Block, ...], chart: Objective, end: Array, point: ThetaEvaluation, settings: NewtonSettings
) -> tuple[Array, Array, ThetaEvaluation, tuple[Step, ...]]:
    """Take one more Newton step if it helps, restore the natural order of the factor, evaluate there.

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


def coordinates(problem: Problem, blocks: tuple[Block, ...], G: Array, sigma2: Array) -> Array:
    """Theta of a covariance matrix and residual parameters; a singular Sigma is moved inside the cone."""
    structure = problem.residual
    root = structure.lifted(structure.root(sigma2))
    return theta_of(structure, blocks, G, root)


def certify(point: ThetaEvaluation, lowest: float, *, residual: float = 1.0) -> Certificate:
    """Judge the returned point itself, on the face of the cone where it lies.

    Parameters
    ----------
    point : ThetaEvaluation
        Criterion and derivatives; the gradient is measured in standard errors (eq. 34a).
    lowest : float
        Smallest multiplier, over the root of the curvature there; 0 at a regular optimum.
    residual : float
        Smallest residual variance, for responses of variance 1: near zero it explains a failed check.
    """
    curvature = scaled_curvature(point.hessian, least=1.0)
    checks = (
        below(GRADIENT, point.steepness, MAX_GRADIENT),
        below(DECREMENT, decrement_of(point.gradient, point.hessian), MAX_DECREMENT),
        above(CURVATURE, curvature, MIN_CURVATURE),
        above(MULTIPLIER, lowest, MIN_MULTIPLIER),
    )
    return Certificate(checks, _reason(curvature, residual), "rescale predictors or simplify the model")


def _reason(curvature: float, residual: float) -> str:
    return first_reason(
        [
            (
                residual < VANISHING,
                f"a residual variance goes to zero ({residual:.1e} of the variance of its response): the random "
                "effects fit a response nearly exactly within clusters; use fewer random effects, or remove a "
                "predictor that repeats the response",
            ),
            (
                curvature < -MIN_CURVATURE,
                f"the criterion curves downwards in some direction (scaled curvature {curvature:.1e}), so the search "
                "ended before an optimum; simplify the model",
            ),
            (
                curvature <= MIN_CURVATURE,
                f"the likelihood is flat in some direction (scaled curvature {curvature:.1e}), so some parameters "
                "cannot be told apart and their values are arbitrary; simplify the model",
            ),
        ]
    )
