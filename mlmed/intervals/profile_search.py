"""Profile likelihood of any function of the parameters: intervals, curves, tests (docs/math.md, eq. 39 to 42)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.delta import Quantity, std_error
from mlmed.errors import EffectError
from mlmed.lmm.estimates import Estimates
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.pull import Pull, PulledPoint, psi_map, pulled_optimum
from mlmed.lmm.vcov import parameter_vcov
from mlmed.lmm.working import Working

Array = NDArray[np.float64]
#: A quantity as a function of the estimates.
QuantityAt = Callable[[Estimates], Quantity]

#: Tolerance of the drop of -2l at an end; a hundredth of the required 1e-6 in the log-likelihood.
DROP_TOLERANCE = 1e-8
#: A drop of -2l below minus this means that the fit was not the global optimum.
BETTER = 1e-5
#: Strength of the pull in units of the profile's curvature: stiff enough to move g, soft enough to stay smooth.
STIFFNESS, STIFFNESS_AT_VALUE = 4.0, 50.0
#: Most searches for one end; most halvings of a failed pull; distance from the estimate, in standard errors, beyond
#: which an end is infinite.
MAX_SEARCHES, MAX_HALVINGS, FAR = 60, 5, 1e3


@dataclass(frozen=True, slots=True)
class ProfilePoint:
    """One point of the profile of g.

    Attributes
    ----------
    value : float
        g there.
    drop : float
        -2l minus its minimum.
    slope : float
        Derivative of the drop in g.
    psi : (n,) array
        All parameters at this point, re-estimated.
    note : str
        Why not to trust the point; usually empty.
    """

    value: float
    drop: float
    slope: float
    psi: Array
    note: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a profile interval.

    Attributes
    ----------
    value : float
        The end; infinite, or the edge of the parameter space, if the likelihood never drops far enough.
    drop : float
        Drop of -2l there.
    psi : (n,) array
        The parameters there; empty if there are none.
    note : str
        Note on the end; usually empty.
    """

    value: float
    drop: float
    psi: Array
    note: str = ""


@dataclass(frozen=True, slots=True)
class Profiler:
    """State for moving along the profile of one function g.

    Attributes
    ----------
    term : str
        Its name.
    estimate : float
        Its value at the optimum.
    unit : float
        Standard error of g, or a guess of its size.
    working, reml, optimum, minimum
        The model, its optimum and -2l there.
    pull : Pull
        g and its map to psi, with strength 0.
    """

    term: str
    estimate: float
    unit: float
    working: Working
    reml: bool
    optimum: Optimum
    minimum: float
    pull: Pull

    def point(self, towards: float, start: Optimum, *, stiffness: float = STIFFNESS) -> tuple[ProfilePoint, Optimum]:
        """Pull towards a value: return the profile point reached, and a start for the next one."""
        pull = replace(self.pull, towards=towards, strength=2.0 * stiffness / self.unit**2)
        found: PulledPoint = pulled_optimum(self.working, self.working.blocks, pull, start, reml=self.reml)
        drop = found.criterion - self.minimum
        certificate = found.optimum.certificate
        note = "" if certificate.converged else f"a point of the profile is not certified: {certificate.complaint}"
        if drop < -BETTER:
            note = f"the profile found a log-likelihood {-0.5 * drop:.3g} above that of the fit: not its global optimum"
        return ProfilePoint(found.value, drop, found.slope, found.psi, note), found.optimum


def profiler_for(
    quantity_at: QuantityAt,
    estimates: Estimates,
    working: Working,
    optimum: Optimum,
    *,
    reml: bool,
) -> Profiler:
    """Make the profiler of a quantity.

    Raises
    ------
    EffectError
        The model fixes the quantity.
    """
    here = quantity_at(estimates)
    if here.is_fixed:
        raise EffectError(
            f"{here.term} is fixed by the model ({here.note or 'no parameter in it'}): nothing to estimate"
        )
    p, T = len(estimates.beta), len(estimates.tau)

    def target(psi: Array) -> tuple[float, Array, Array | None]:
        there = quantity_at(replace(estimates, beta=psi[:p], tau=psi[p : p + T], sigma2=psi[p + T :]))
        return there.estimate, there.gradient, there.hessian

    unit = next(filter(np.isfinite, _sizes(here, estimates)))
    pull = Pull(target, psi_map(working.units, estimates.tau_at, estimates.sigma_at), here.estimate, 0.0)
    made = Profiler(here.term, here.estimate, unit, working, reml, optimum, -2.0 * estimates.loglik, pull)
    if np.isfinite(std_error(here, parameter_vcov(estimates, "joint").matrix)):
        return made
    near, _ = made.point(here.estimate + unit, optimum)  # unit from the curvature of the profile itself
    moved = near.value - here.estimate
    return replace(made, unit=float(np.sqrt(2.0 * moved / near.slope))) if moved * near.slope > 0.0 else made


def _sizes(quantity: Quantity, estimates: Estimates) -> list[float]:
    """Guesses of a standard error, the best first; the last is always finite."""
    kinds = (parameter_vcov(estimates, kind).matrix for kind in ("joint", "block"))
    errors = [std_error(quantity, V, order="first") for V in kinds]
    slopes = np.zeros_like(quantity.gradient)
    slopes[: len(estimates.beta)] = quantity.gradient[: len(estimates.beta)]
    known = parameter_vcov(estimates, "block").matrix[: len(estimates.beta), : len(estimates.beta)]
    fixed = slopes[: len(estimates.beta)]
    partial = float(np.sqrt(fixed @ known @ fixed))
    rest = 0.25 * abs(quantity.estimate) or 1.0
    return [error if error > 0.0 else np.nan for error in errors] + [partial if partial > 0.0 else np.nan, rest]


def find_end(profiler: Profiler, side: int, *, level: float) -> End:
    """Find the lower (side -1) or upper (+1) end by Newton steps on the signed root of the drop (eq. 41).

    Each point comes with the slope of the profile, so about five are enough.
    """
    z, unit = float(ndtri(0.5 + level / 2.0)), profiler.unit
    strength = 2.0 * STIFFNESS / unit**2
    towards = profiler.estimate + side * z * unit * (1.0 + 1.0 / STIFFNESS)
    inner, outer, start = profiler.estimate, np.inf * side, profiler.optimum
    last: ProfilePoint | None = None
    done: list[tuple[float, float]] = []  # pulls and the zeta each reached
    halvings = 0
    for _ in range(MAX_SEARCHES):
        at, optimum = profiler.point(towards, start)
        if at.note and at.drop > -BETTER and halvings < MAX_HALVINGS:
            towards, halvings = 0.5 * (inner + towards), halvings + 1
            continue
        if at.note:
            return End(np.nan, at.drop, at.psi, _lost_note(profiler, last, at))
        if abs(at.drop - z * z) < DROP_TOLERANCE:
            return End(at.value, at.drop, at.psi)
        stuck = last is not None and abs(at.value - last.value) < 1e-9 * unit and abs(at.drop - last.drop) < 1e-9
        if at.drop < z * z and stuck and abs(towards - inner) > 0.1 * unit:
            return End(at.value, at.drop, at.psi, _edge_note(profiler.term, at.drop, z))
        if abs(at.value - profiler.estimate) > FAR * unit:
            return End(side * np.inf, at.drop, at.psi, _unbounded_note(profiler.term, at.drop, z))
        inner, outer = (towards, outer) if at.drop < z * z else (inner, towards)
        start = optimum if at.drop < 4.0 * z * z else profiler.optimum
        done.append((towards, float(np.sqrt(max(at.drop, 0.0)))))
        aims = _aims(at, done, side, z, strength)
        last, towards = at, _next(aims, towards, side, inner, outer, profiler)
    return End(np.nan, at.drop, at.psi, f"no end was found within {MAX_SEARCHES} searches along the profile")


def _aims(at: ProfilePoint, done: list[tuple[float, float]], side: int, z: float, strength: float) -> list[float]:
    """Next pulls to try, the better guess first.

    A Newton step for zeta(g) = z becomes a pull by eq. 40 at an extrapolated slope; with three points, a secant through
    the last two pulls needs no extrapolation.
    """
    found = []
    zeta = done[-1][1]
    if len(done) >= 3 and done[-1][1] != done[-2][1]:
        (before, low), (here, high) = done[-2:]
        found.append(here + (z - high) * (here - before) / (high - low))
    rate = side * at.slope / (2.0 * zeta) if zeta > 0.0 else 0.0
    if rate > 0.0:
        found.append(at.value + side * (z - zeta) / rate + side * 2.0 * z * rate / strength)
    return found


def _next(aims: list[float], towards: float, side: int, inner: float, outer: float, base: Profiler) -> float:
    """First aim inside the bracket, else its midpoint; without a bracket a bounded step outwards."""
    if np.isfinite(outer):
        return next((aim for aim in aims if (aim - inner) * (aim - outer) < 0.0), 0.5 * (inner + outer))
    reach = max(abs(towards - base.estimate), base.unit)
    step = side * (aims[-1] - towards) if aims else reach
    return towards + side * min(max(step, 0.05 * reach), 4.0 * reach)


def _lost_note(profiler: Profiler, last: ProfilePoint | None, at: ProfilePoint) -> str:
    reached = f"{profiler.estimate if last is None else last.value:.4g}"
    return f"no end was found: the profile of {profiler.term} can be followed as far as {reached}, then {at.note}"


def _edge_note(term: str, drop: float, z: float) -> str:
    return (
        f"the profile of {term} ends at the edge of the parameter space, where the log-likelihood has dropped by "
        f"{0.5 * drop:.3g} only (not {0.5 * z * z:.3g}): the interval is closed by the edge"
    )


def _unbounded_note(term: str, drop: float, z: float) -> str:
    return (
        f"unbounded: {FAR:g} standard errors away {term} has cost {0.5 * drop:.3g} of log-likelihood only "
        f"(not {0.5 * z * z:.3g})"
    )


def constrained(profiler: Profiler, value: float) -> ProfilePoint:
    """Best point with g = value, by the method of multipliers: the pull overshoots until g gets there.

    Raises
    ------
    EffectError
        g cannot take the value.
    """
    towards, start, reached = value, profiler.optimum, np.nan
    for _ in range(MAX_SEARCHES):
        at, start = profiler.point(towards, start, stiffness=STIFFNESS_AT_VALUE)
        gap = value - at.value
        if at.note or abs(gap) < 1e-9 * profiler.unit:
            return replace(at, value=value, drop=at.drop + at.slope * gap)
        if abs(towards - value) > FAR * profiler.unit:
            break
        # near an edge of the parameter space g hardly follows, so the pull moves away in growing steps
        follows = abs(at.value - reached) >= 1e-3 * abs(gap) or not np.isfinite(reached)
        towards = towards + gap if follows else value + 4.0 * (towards + gap - value)
        reached = at.value
    raise EffectError(
        f"{profiler.term} could not be brought to {value:g}: the search stopped at {reached:.6g}. A value outside of "
        "the parameter space cannot be tested; a variance of zero can, as 'var(...) = 0'"
    )
