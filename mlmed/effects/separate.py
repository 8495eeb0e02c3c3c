"""Effects of three separate fits: mediator, outcome, and outcome without the mediator (docs/math.md, eq. 59 to 62).

psi holds the parameters of the three fits one after the other. Those of the first two are independent of each other;
what the third has in common with them, the fits do not say, so its covariances with them are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.layout import EquationLayout, Layout
from mlmed.effects.delta import Covariance, Quantity, said_of, std_error, wald_table
from mlmed.effects.draws import normal_draws
from mlmed.effects.moderators import at_one_place
from mlmed.effects.paths import check_at, find_paths, path_moderators
from mlmed.effects.slopes import compared_values, joined_notes, slope_note
from mlmed.names import safe_name
from mlmed.reml.vcov import ParameterVcov

__all__ = [
    "EFFECTS",
    "LINEAR",
    "SeparateVcov",
    "Slopes",
    "covariance_of_linear",
    "effect_draws",
    "find_slopes",
    "linear_monte_carlo",
    "separate_quantities",
    "separate_table",
    "separate_vcov",
]

Array = NDArray[np.float64]
LINEAR = ("a", "b", "cprime", "c")
#: The rows of the table of effects, in order.
EFFECTS = (*LINEAR, "indirect", "direct", "total", "c_minus_cprime", "prop_mediated", "ratio")
UNKNOWN_COVARIANCE = (
    "no standard error from the fits: c and the other paths come from two fits to the same rows, whose covariance "
    "neither fit has; interval='bootstrap' gives it"
)
NO_C = "the equation without the mediator has no such treatment; say which it is with total='y ~ x + (1 | id)'"
NO_DIRECT = "fixed at 0: the treatment is not in the outcome equation"


@dataclass(frozen=True, slots=True)
class SeparateVcov:
    """Covariance of psi = (psi_m, psi_y, psi_reduced), eq. 60.

    Attributes
    ----------
    blocks : tuple of 3 ParameterVcov
        Those of the fits.
    parts : tuple of 3 slices
        Where each fit has its parameters.
    """

    blocks: tuple[ParameterVcov, ...]
    parts: tuple[slice, ...]

    def of(self, gradient: Array, hessian: Array | None = None) -> Array:
        """The matrix for a quantity: 0 between the first two fits, NaN between the third and the others."""
        matrix = np.zeros((self.parts[-1].stop,) * 2)
        matrix[self.parts[2], :] = matrix[:, self.parts[2]] = np.nan
        for block, part in zip(self.blocks, self.parts, strict=True):
            matrix[part, part] = block.of(*_of_part(part, gradient, hessian))
        return matrix

    def reason_for(self, gradient: Array, hessian: Array | None = None) -> str:
        """Why a quantity has no standard error, if it is for want of a covariance."""
        used = self._uses(gradient, hessian)
        if 2 in used and len(used) > 1:
            return UNKNOWN_COVARIANCE
        return joined_notes(*(self.blocks[k].reason_for(*_of_part(self.parts[k], gradient, hessian)) for k in used))

    def note_for(self, gradient: Array, hessian: Array | None = None) -> str:
        """What a reader should know of the covariance behind a quantity."""
        used = self._uses(gradient, hessian)
        return joined_notes(*(self.blocks[k].note_for(*_of_part(self.parts[k], gradient, hessian)) for k in used))

    def _uses(self, gradient: Array, hessian: Array | None) -> list[int]:
        """Numbers of the fits that a quantity depends on."""
        touched = gradient != 0.0
        if hessian is not None:
            touched = touched | np.any(hessian != 0.0, axis=0)
        return [k for k, part in enumerate(self.parts) if touched[part].any()]


def _of_part(part: slice, gradient: Array, hessian: Array | None) -> tuple[Array, Array | None]:
    """Derivatives in the parameters of one fit; second ones in one of them and in any."""
    return gradient[part], None if hessian is None else hessian[:, part]


def separate_vcov(blocks: Sequence[ParameterVcov]) -> SeparateVcov:
    """Put the covariances of the three fits together (eq. 60)."""
    ends = np.cumsum([0, *(len(block.matrix) for block in blocks)])
    return SeparateVcov(tuple(blocks), tuple(slice(int(start), int(stop)) for start, stop in pairwise(ends)))


@dataclass(frozen=True, slots=True)
class Slopes:
    """a, b, cprime and c as linear functions of psi.

    Attributes
    ----------
    weights : (4, n) array
        ``weights @ psi`` are a, b, cprime, c; a row of zeros where the equation has no such slope.
    taken : tuple of 4 str
        Values of moderators at which they were taken.
    notes : tuple of 4 str
        What to say beside each: where it was taken, or why it is 0.
    has_c : bool
        Whether the equation without the mediator has the treatment.
    both_vary : bool
        Whether a and b both vary over clusters.
    """

    weights: Array
    taken: tuple[str, ...]
    notes: tuple[str, ...]
    has_c: bool
    both_vary: bool


def find_slopes(
    layouts: tuple[EquationLayout, EquationLayout, EquationLayout],
    parts: tuple[slice, ...],
    *,
    treatment: str,
    contrast: tuple[Any, Any] | None = None,
    at: Mapping[str, Any] | None = None,
) -> Slopes:
    """Contrasts of the four paths.

    Parameters
    ----------
    layouts : tuple of 3 EquationLayout
        Mediator, outcome, outcome without the mediator.
    parts : tuple of 3 slices
        Where each fit has its parameters in psi, fixed effects first.
    treatment, contrast, at
        As in ``find_paths``; the default of a moderator is its mean or first level in the outcome equation.

    Raises
    ------
    EffectError
        As ``find_paths``.
    """
    third, first, second = at_one_place((layouts[2], layouts[0], layouts[1]))
    apart = replace(first, name=safe_name(first.name))  # not a predictor there, so its name need only be readable
    above, below = path_moderators(first, second, treatment), path_moderators(apart, third, treatment)
    held = check_at(at, (first, second), treatment, above | below)
    pair = compared_values((first, second, third), treatment, contrast, held)
    question: dict[str, Any] = {"treatment": treatment, "contrast": pair}
    here, there = ({name: held[name] for name in held if name in known} for known in (above, below))
    paths = find_paths(Layout((), (), (first, second), (), 0), at=here, **question)
    reduced = find_paths(Layout((), (), (apart, third), (), 0), at=there, **question).cprime
    weights, p = np.zeros((4, parts[-1].stop)), len(first.fixed)
    weights[0, parts[0].start : parts[0].start + p] = paths.a.fixed[:p]
    for row, path, part in ((1, paths.b, parts[1]), (2, paths.cprime, parts[1]), (3, reduced, parts[2])):
        weights[row, part.start : part.start + len(path.fixed) - p] = path.fixed[p:]
    four = (paths.a, paths.b, paths.cprime, reduced)
    taken = tuple(path.note for path in four)
    notes = tuple(slope_note(path, absent) for path, absent in zip(four, ("", "", NO_DIRECT, NO_C), strict=True))
    both_vary = bool(paths.a.random.any() and paths.b.random.any())
    return Slopes(weights, taken, notes, reduced.is_present, both_vary)


def separate_quantities(slopes: Slopes, psi: Array, remarks: Mapping[str, str]) -> dict[str, Quantity]:
    """All effects with their derivatives (eq. 61).

    Parameters
    ----------
    slopes : Slopes
        The four paths.
    psi : (n,) array
        Estimates of the three fits.
    remarks : mapping
        What to say beside an effect, by term.
    """
    a, b, cprime, c = (
        Quantity(term, float(weight @ psi), weight, None, note)
        for term, weight, note in zip(LINEAR, slopes.weights, slopes.notes, strict=True)
    )
    if not slopes.has_c:
        c = replace(c, estimate=float("nan"))
    at_a, at_b, at_cprime, at_c = slopes.taken
    indirect = replace(a.times(b, "indirect"), note=joined_notes(at_a, at_b))
    direct = cprime.named("direct")
    total = replace(indirect.plus(cprime, "total"), note=joined_notes(indirect.note, at_cprime))
    gap = Quantity("c_minus_cprime", c.estimate - cprime.estimate, c.gradient - cprime.gradient, None, "")
    gap = replace(gap, note=joined_notes(at_c, at_cprime)) if slopes.has_c else c.named("c_minus_cprime")
    share, ratio = _quotient(indirect, total, "prop_mediated"), _quotient(indirect, direct, "ratio")
    listed = (a, b, cprime, c, indirect, direct, total, gap, share, ratio)
    return {q.term: replace(q, note=joined_notes(q.note, remarks.get(q.term, ""))) for q in listed}


def _quotient(u: Quantity, v: Quantity, term: str) -> Quantity:
    """Quotient with its derivatives; NaN and the reason where v is exactly 0."""
    if v.estimate == 0.0:
        return Quantity(term, float("nan"), np.zeros_like(u.gradient), None, f"not defined: {v.term} is 0")
    f = u.estimate / v.estimate
    gradient = (u.gradient - f * v.gradient) / v.estimate
    cross = np.outer(gradient, v.gradient)
    hessian = -(cross + cross.T) / v.estimate
    for weight, part in ((1.0, u), (-f, v)):
        if part.hessian is not None:
            hessian = hessian + weight * part.hessian / v.estimate
    return Quantity(term, f, gradient, hessian, joined_notes(u.note, v.note))


def effect_draws(linear: Array, *, has_c: bool = True) -> dict[str, Array]:
    """All effects from draws of a, b, cprime and c, (n, 4): one array (n,) an effect."""
    a, b, cprime, c = linear.T
    c = c if has_c else np.full(len(c), np.nan)
    indirect = a * b
    total = indirect + cprime
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = indirect / total, indirect / cprime
    return dict(zip(EFFECTS, (a, b, cprime, c, indirect, cprime, total, c - cprime, *ratios), strict=True))


def covariance_of_linear(slopes: Slopes, V: Covariance) -> Array:
    """Covariance (4, 4) of a, b, cprime and c; NaN where V is, also for entries that would only add 0 times NaN."""
    out = np.empty((4, 4))
    for i, left in enumerate(slopes.weights):
        matrix = V.of(left)
        for k, right in enumerate(slopes.weights):
            rows, columns = left != 0.0, right != 0.0
            out[i, k] = left[rows] @ matrix[np.ix_(rows, columns)] @ right[columns]
    return out


def linear_monte_carlo(slopes: Slopes, psi: Array, V: Covariance, *, n: int, rng: np.random.Generator) -> Array:
    """Draws (n, 4) of a, b, cprime and c from their normal distributions.

    c is drawn apart, as its covariance with the others is not known: nothing may be made of it and another. A path
    whose variance does not exist is NaN.
    """
    mean, covariance = slopes.weights @ psi, covariance_of_linear(slopes, V)
    draws = np.full((n, 4), np.nan)
    for group in ([0, 1, 2], [3]):
        known = [k for k in group if np.isfinite(covariance[k, k])]
        if known:
            draws[:, known] = normal_draws(mean[known], covariance[np.ix_(known, known)], n, rng)
    return draws


def separate_table(
    quantities: Sequence[Quantity], V: Covariance, *, order: str, level: float, more: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """The delta method for functions of separate fits; ``more`` has further notes by term."""
    errors = np.array([std_error(quantity, V, order=order) for quantity in quantities])
    notes = [joined_notes(q.note, said_of(q, V, order=order), (more or {}).get(q.term, "")) for q in quantities]
    estimates = np.array([quantity.estimate for quantity in quantities])
    return wald_table([q.term for q in quantities], estimates, errors, level=level, notes=notes)
