"""Newton's method in a trust region, with the exact Hessian and a record of every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

Array = NDArray[np.float64]

#: Trust radius below which steps are rounding errors.
SHORTEST = 1e-14
#: Ratio of the smallest to the largest squared Cholesky pivot above which a Hessian needs no eigenvalues.
SAFE = 1e-6


@dataclass(frozen=True, slots=True)
class NewtonSettings:
    """Tolerances of the search; all on the scale of -2l, which has no units.

    Attributes
    ----------
    decrement : float
        Newton decrement g'H^-1 g below which the point counts as stationary.
    max_steps : int
        Steps after which the search gives up.
    radius : float
        First trust radius, in units of theta.
    noise : float
        Rounding error of the criterion relative to the size of its terms: smaller changes are not evidence.
    polish : bool
        Take one more Newton step from a stationary point.
    """

    decrement: float = 1e-9
    max_steps: int = 100
    radius: float = 1.0
    noise: float = 1e-13
    polish: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One evaluation of criterion and derivatives.

    Attributes
    ----------
    theta : (n,) array
        The point.
    value : float
        -2l there.
    gradient_norm : float
        Largest entry of the gradient in theta, each divided by the root of its own second derivative.
    decrement : float
        Newton decrement g'H^-1 g (infinite where H is not positive definite).
    accepted : bool
        Whether the search moved there.
    """

    theta: Array
    value: float
    gradient_norm: float
    decrement: float
    accepted: bool


class Quadratic(Protocol):
    """Gradient (n,) and Hessian (n, n) of a quadratic model."""

    @property
    def gradient(self) -> Array:
        """First derivatives, (n,)."""
        ...

    @property
    def hessian(self) -> Array:
        """Second derivatives, (n, n)."""
        ...


class Point(Quadratic, Protocol):
    """A criterion and its derivatives at one theta."""

    @property
    def value(self) -> float:
        """The criterion."""
        ...

    @property
    def steepness(self) -> float:
        """Largest entry of the gradient, each divided by the root of its own second derivative."""
        ...

    @property
    def size(self) -> float:
        """Size of the terms of the value, to which its rounding error is proportional."""
        ...


P = TypeVar("P", bound=Point)
P_co = TypeVar("P_co", bound=Point, covariant=True)


class Differentiable(Protocol[P_co]):
    """A criterion to minimize."""

    def derivatives(self, theta: Array) -> P_co:
        """Value, gradient and Hessian."""
        ...


@dataclass(frozen=True, slots=True)
class _Model:
    """The quadratic model at a point. Most are safely convex and need no eigenvalues, which cost ten times a solve."""

    gradient: Array
    hessian: Array
    decrement: float  # g'H^-1 g over the directions with curvature; infinite at a saddle
    easy: Array | None  # the Newton step, if the Hessian is safely positive definite
    spectrum: _Spectrum | None

    @classmethod
    def of(cls, point: Quadratic) -> _Model:
        factor, step, info = dposv(point.hessian, -point.gradient)
        if info == 0:
            pivots = np.diagonal(factor) ** 2
            if pivots.min() > SAFE * max(float(pivots.max()), 1.0):
                return cls(point.gradient, point.hessian, -float(point.gradient @ step), step, None)
        spectrum = _Spectrum.of(point)
        return cls(point.gradient, point.hessian, spectrum.decrement, None, spectrum)

    def step(self, radius: float) -> Array:
        """Exact minimizer of the quadratic model in the ball of the given radius."""
        if self.easy is not None and _length(self.easy) <= radius:
            return self.easy
        spectrum = self.spectrum or _Spectrum.of(self)
        return spectrum.step(radius)

    def predicted(self, step: Array) -> float:
        return float(self.gradient @ step + 0.5 * step @ self.hessian @ step)


@dataclass(frozen=True, slots=True)
class _Spectrum:
    values: Array
    vectors: Array
    slope: Array  # gradient in the eigenbasis
    floor: float  # curvature that cannot be told from zero
    decrement: float

    @classmethod
    def of(cls, point: Quadratic) -> _Spectrum:
        values, vectors = np.linalg.eigh(point.hessian)
        slope = point.gradient @ vectors
        lowest, highest = float(values[0]), float(values[-1])
        scale = max(-lowest, highest, 1.0)
        floor = 1e-10 * scale
        if lowest < -1e-6 * scale:
            return cls(values, vectors, slope, floor, np.inf)
        bent = slice(None) if lowest > floor else values > floor
        return cls(values, vectors, slope, floor, float((slope[bent] ** 2 / values[bent]).sum()))

    def step(self, radius: float) -> Array:
        """Exact minimizer of the quadratic model in the ball of the given radius (More-Sorensen)."""
        lowest = float(self.values[0])
        shift = 0.0
        if lowest > self.floor:
            pass
        elif lowest > -self.floor:
            shift = self.floor
        else:
            shift = -lowest * (1.0 + 1e-8) + self.floor

        def move(extra: float) -> Array:
            return -self.slope / (self.values + extra)

        step = move(shift)
        if _length(step) > radius:
            low, high = shift, shift + _length(self.slope) / radius + abs(lowest)
            for _ in range(80):
                shift = 0.5 * (low + high)
                step = move(shift)
                size = _length(step)
                if abs(size - radius) < 1e-3 * radius:
                    break
                low, high = (shift, high) if size > radius else (low, shift)
        elif lowest < -self.floor:  # hard case: go to the boundary along the direction of negative curvature
            room = np.sqrt(max(radius**2 - float(step @ step), 0.0))
            step[0] += room if self.slope[0] <= 0 else -room
        return self.vectors @ step


def newton(
    objective: Differentiable[P],
    theta: Array,
    settings: NewtonSettings | None = None,
    *,
    abandon: Callable[[Array], bool] | None = None,
    leave: Callable[[Array, P, float], bool] | None = None,
    point: P | None = None,
) -> tuple[Array, P, tuple[Step, ...]]:
    """Minimize ``objective`` from ``theta``; stop early if ``abandon(theta)`` finds the search lost.

    ``leave(theta, point, decrement)`` stops it after a step from which its end is known to the caller.
    ``point``, if known, saves the evaluation at ``theta``.

    Returns
    -------
    theta : (n,) array
        Last accepted point.
    point : Point
        Criterion and derivatives there.
    steps : tuple of Step
        Every evaluation, the start first.
    """
    settings = settings or NewtonSettings()
    point = point or objective.derivatives(theta)
    model = _Model.of(point)
    radius = settings.radius
    steps = [_record(theta, point, model, True)]
    for _ in range(settings.max_steps):
        decrement = model.decrement
        move = model.step(radius)
        predicted = model.predicted(move)
        noise = settings.noise * point.size
        if decrement < settings.decrement and not settings.polish:
            break
        trial_theta = theta + move
        trial = _try(objective, trial_theta)
        size = _length(move)
        if trial is None:  # outside the range of floating point
            steps.append(Step(trial_theta, np.inf, np.inf, np.inf, False))
            radius = 0.25 * size
            continue
        gained = trial.value - point.value
        trial_model = _Model.of(trial)
        if decrement < settings.decrement or abs(predicted) < noise:
            # changes of the value are rounding errors here; judge by the gradient
            better = trial.steepness <= point.steepness and gained <= noise
            steps.append(_record(trial_theta, trial, trial_model, better))
            if better:
                theta, point, model = trial_theta, trial, trial_model
            if decrement < settings.decrement:
                break
            radius = radius if better else 0.25 * size
            if radius < SHORTEST:
                break
            continue
        ratio = gained / predicted
        accepted = ratio > 1e-4
        steps.append(_record(trial_theta, trial, trial_model, accepted))
        if ratio < 0.25:
            radius = 0.25 * size
        elif ratio > 0.75 and size > 0.9 * radius:
            radius = 2.0 * radius
        if accepted:
            theta, point, model = trial_theta, trial, trial_model
            if leave is not None and leave(theta, point, model.decrement):
                break
        if radius < SHORTEST or (abandon is not None and abandon(theta)):
            break
    return theta, point, tuple(steps)


def decrement_at(point: Quadratic) -> float:
    """Newton decrement g'H^-1 g, infinite where H is not positive definite."""
    return _Model.of(point).decrement


def last_step(point: Quadratic, radius: float) -> Array:
    """The Newton step from a stationary point, for one more digit."""
    return _Model.of(point).step(radius)


def _try(objective: Differentiable[P], theta: Array) -> P | None:
    """The trial point, or None if the criterion cannot be computed."""
    try:
        point = objective.derivatives(theta)
    except np.linalg.LinAlgError:
        return None
    return point if np.isfinite(point.value) and np.isfinite(point.hessian).all() else None


def _length(vector: Array) -> float:
    return math.sqrt(vector @ vector)


def evaluated(theta: Array, point: Point) -> Step:
    """An accepted evaluation."""
    return _record(theta, point, _Model.of(point), True)


def _record(theta: Array, point: Point, model: _Model, accepted: bool) -> Step:
    return Step(theta, point.value, point.steepness, model.decrement, accepted)
