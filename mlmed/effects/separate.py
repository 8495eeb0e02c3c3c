"""Effects of three separate fits: mediator, outcome, and outcome without the mediator (docs/math.md, eq. 59 to 62).

psi holds the parameters of the three fits one after the other. Those of the first two are independent of each other;
what the third has in common with them, the fits do not say, so its covariances with them are NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import EquationLayout, Layout
from mlmed.effects.forms import Effects
from mlmed.effects.moderators import at_one_place
from mlmed.effects.paths import check_at, find_paths, path_moderators
from mlmed.effects.quantity import Quantity
from mlmed.effects.slopes import compared_values, slope_note
from mlmed.lmm.vcov import Vcov, stacked
from mlmed.names import safe_name
from mlmed.notes import joined

__all__ = [
    "EFFECTS",
    "LINEAR",
    "QUOTIENTS",
    "Slopes",
    "find_slopes",
    "separate_effects",
    "separate_quantities",
    "separate_vcov",
]

Array = NDArray[np.float64]
T = TypeVar("T", Quantity, Array)
LINEAR = ("a", "b", "cprime", "c")
#: The rows of the table of effects, in order.
EFFECTS = (*LINEAR, "indirect", "direct", "total", "c_minus_cprime", "prop_mediated", "ratio")
#: Quotients, and what they divide by.
QUOTIENTS = {"prop_mediated": "total", "ratio": "direct"}
UNKNOWN_COVARIANCE = (
    "no standard error from the fits: c and the other paths come from two fits to the same rows, whose covariance "
    "neither fit has; interval='bootstrap' gives it"
)
NO_C = "the equation without the mediator has no such treatment; say which it is with total='y ~ x + (1 | id)'"
NO_DIRECT = "fixed at 0: the treatment is not in the outcome equation"


def separate_vcov(parts: Sequence[Vcov]) -> Vcov:
    """Put the covariances of the three fits together (eq. 60)."""
    return stacked(parts, 2, UNKNOWN_COVARIANCE)


@dataclass(frozen=True, slots=True)
class Slopes:
    """a, b, cprime and c as linear functions of psi.

    Attributes
    ----------
    effects : Effects
        Made of them; c is lacking where the equation without the mediator has no treatment.
    both_vary : bool
        Whether a and b both vary over clusters.
    """

    effects: Effects
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
    notes = tuple(slope_note(path, absent) for path, absent in zip(four, ("", "", NO_DIRECT, NO_C), strict=True))
    lacking = frozenset() if reduced.is_present else frozenset({"c"})
    taken = tuple((path.note,) for path in four)
    effects = Effects(separate_effects, LINEAR, weights, notes, taken, lacking)
    return Slopes(effects, bool(paths.a.random.any() and paths.b.random.any()))


def separate_effects(a: T, b: T, cprime: T, c: T) -> dict[str, T]:
    """The effects of separate fits (eq. 59 to 61)."""
    indirect = a * b
    total = indirect + cprime
    with np.errstate(divide="ignore", invalid="ignore"):
        share, ratio = indirect / total, indirect / cprime
    return dict(zip(EFFECTS, (a, b, cprime, c, indirect, cprime, total, c - cprime, share, ratio), strict=True))


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
    found = slopes.effects.quantities(psi)
    said = {term: [remarks.get(term, "")] for term in found}
    for term, below in QUOTIENTS.items():
        if found[below].estimate == 0.0:
            said[term].insert(0, f"not defined: {below} is 0")
    return {term: replace(q, note=joined(q.note, *said[term])) for term, q in found.items()}
