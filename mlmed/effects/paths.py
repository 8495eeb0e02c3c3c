"""Paths as contrasts: a = c_a'beta with random part r_a'u, and alike for b and c' (docs/math.md, eq. 26)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import INTERCEPT, EquationLayout, Layout
from mlmed.effects.catalogue import Catalogue, Effects, FormSet, IntervalOptions
from mlmed.effects.quantity import Quantity, mean_product
from mlmed.effects.slopes import (
    Path,
    Question,
    as_number,
    at_one_place,
    compared_values,
    find_slope,
    moderators_of,
    refuse_unreached,
    slope_note,
)
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.formula import formula_variables, term_variables
from mlmed.lmm.estimates import Estimates
from mlmed.names import display_name, labelled
from mlmed.notes import joined
from mlmed.options import check_mapping, is_one_value
from mlmed.text import shown

Array = NDArray[np.float64]
T = TypeVar("T", Quantity, Array)
#: Options of each kind of interval, with defaults.
INTERVALS: IntervalOptions = {
    "delta": {"vcov": "block", "order": "second", "ddf": "none"},
    "monte-carlo": {"vcov": "block", "n": 20_000, "seed": None},
    "profile": {"vcov": "block"},
    "bootstrap": {
        "n": 1000, "kind": "case", "within": False, "ends": "percentile", "seed": None, "n_jobs": None,
        "progress": False,
    },
}  # fmt: skip
#: The linear forms of psi that effects are made of, and the rows of an effects table, in order.
LINEAR = ("a", "b", "cprime", "cov_ab")
EFFECTS = (*LINEAR, "indirect", "direct", "total")


@dataclass(frozen=True, slots=True)
class Paths:
    """The three paths of a simple mediation model.

    Attributes
    ----------
    a, b, cprime : Path
        x -> m, m -> y, x -> y.
    other_slopes : tuple of 2 tuples of str
        Random slopes of the equations of m and y outside the paths, such as ``m~x_w``.
    """

    a: Path
    b: Path
    cprime: Path
    other_slopes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def find_paths(
    layout: Layout,
    *,
    treatment: str,
    contrast: tuple[Any, Any] | None = None,
    at: Mapping[str, Any] | None = None,
) -> Paths:
    """Contrasts for x -> m, m -> y and x -> y in a two-equation model (mediator first).

    Parameters
    ----------
    layout : Layout
        Columns and encodings.
    treatment : str
        Column of the treatment x.
    contrast : pair, optional
        Values of the treatment to compare; needed if it is a factor of more than two levels or enters nonlinearly.
    at : mapping, optional
        Values of moderators; by default the mean of a numeric one, otherwise the first level, in the rows of the
        outcome equation.

    Raises
    ------
    EffectError
        A value for a variable that is no moderator, a nonlinear path, a moderator whose mean lies at a jump of a path,
        or a treatment-mediator interaction.
    """
    first, second = at_one_place(layout.equations)
    _check_mediator_terms(first.name, second, treatment)
    held = check_at(at, (first, second), treatment, path_moderators(first, second, treatment))
    refuse_unreached(held, (first, second))
    x = Question(treatment, compared_values((first, second), treatment, contrast, held), held, True)
    m = Question(first.name, None, held, False)
    a, b, cprime = find_slope(first, x), find_slope(second, m), find_slope(second, x)
    return Paths(
        _place(layout, 0, a),
        _place(layout, 1, b),
        _place(layout, 1, cprime),
        (_other_slopes(first, a.random), _other_slopes(second, np.abs(b.random) + np.abs(cprime.random))),
    )


def path_moderators(first: EquationLayout, second: EquationLayout, treatment: str) -> set[str]:
    """Variables on which a path depends: they share a term with the treatment, or in ``second`` with m."""
    found = moderators_of(first, treatment) | moderators_of(second, treatment) | moderators_of(second, first.name)
    return found - {treatment, first.name}


def check_at(
    at: Mapping[str, Any] | None,
    equations: tuple[EquationLayout, EquationLayout],
    treatment: str,
    moderators: Collection[str],
) -> dict[str, Any]:
    """Check values of moderators; booleans of numeric ones become 0 and 1.

    Parameters
    ----------
    at : mapping or None
        From the user.
    equations : tuple of 2 EquationLayout
        Mediator and outcome.
    treatment : str
        Column of the treatment x.
    moderators : collection of str
        Names that are allowed.

    Raises
    ------
    EffectError
        A name on which no path depends, or a value that is not one finite number.
    """
    held = check_mapping(at, "at", "at={'w': 1.0}")
    levels = {name: value for equation in equations for name, value in equation.levels.items()}
    for name, value in held.items():
        if name not in moderators:
            may = f"choose among {', '.join(sorted(moderators))}" if moderators else "no path has one, so leave it out"
            raise EffectError(
                f"at names {name}, {_role(name, equations, treatment)}; at= has the values of moderators: {may}"
            )
        if name in levels:
            if not is_one_value(value):
                raise EffectError(f"at gives {name} the value {shown(value)}; it must be one of its levels")
            continue
        number = as_number(value)
        if number is None:
            raise EffectError(f"at gives {name} the value {shown(value)}; it must be a number (not nan or missing)")
        held[name] = number
    return held


def _role(name: str, equations: tuple[EquationLayout, EquationLayout], treatment: str) -> str:
    """Describe a variable that is no moderator."""
    if name == treatment:
        return "the treatment; effects are those of a change in it (see contrast=)"
    for equation, role in zip(equations, ("mediator", "outcome"), strict=True):
        if name == equation.name:
            return f"the {role}"
    if any(name in equation.typical for equation in equations):
        return "a predictor on which no path depends (no term has it together with treatment or mediator)"
    return "which no equation uses"


def _other_slopes(equation: EquationLayout, claimed: Array) -> tuple[str, ...]:
    """Random slopes outside the paths of their equation."""
    pairs = zip(equation.random, claimed, strict=True)
    return tuple(labelled(equation.name, name) for name, weight in pairs if name != INTERCEPT and weight == 0.0)


def _check_mediator_terms(mediator: str, second: EquationLayout, treatment: str) -> None:
    """Refuse terms that leave the mediator without a single slope b."""
    plain = mediator in second.typical
    variables = frozenset({mediator}) if plain else formula_variables(mediator)
    for encoding in second.encodings:
        for term in encoding.terms:
            names, shown = term_variables(term), display_name(str(term))
            if treatment in names and names & variables:
                raise EffectError(
                    f"the outcome equation has the term {shown}: the effect of {mediator} depends on {treatment}, so "
                    "there is no single b to make an indirect effect of; drop it, or combine coefficients with nlcom()"
                )
            if not plain and names & variables and shown != mediator:
                raise EffectError(
                    f"the outcome equation has the term {shown} beside the mediator {mediator}, whose effect is then "
                    f"not a single slope; make a column of {mediator} before the fit and use it in both equations"
                )


def _place(layout: Layout, equation: int, path: Path) -> Path:
    """Pad one equation's contrast to the length of beta and u."""
    fixed = [path.fixed if e == equation else np.zeros(len(own.fixed)) for e, own in enumerate(layout.equations)]
    random = [path.random if e == equation else np.zeros(len(own.random)) for e, own in enumerate(layout.equations)]
    return replace(path, fixed=np.concatenate(fixed), random=np.concatenate(random))


def path_effects(a: T, b: T, cprime: T, cov_ab: T) -> dict[str, T]:
    """The paths, and the indirect, direct and total effect (eq. 26, 27)."""
    indirect = mean_product((a, b), {(0, 1): cov_ab})
    return dict(zip(EFFECTS, (a, b, cprime, cov_ab, indirect, cprime, indirect + cprime), strict=True))


def effects_of(paths: Paths, estimates: Estimates) -> Effects:
    """The effects as a function of psi = (beta, tau, sigma2)."""
    p, T = len(estimates.beta), len(estimates.tau)
    weights = np.zeros((4, p + T + len(estimates.sigma2)))
    weights[:3, :p] = paths.a.fixed, paths.b.fixed, paths.cprime.fixed
    weights[3, p : p + T] = np.einsum("kab,a,b->k", estimates.tau_basis, paths.a.random, paths.b.random)
    notes = [
        slope_note(paths.a, "fixed at 0: the mediator equation has no such term"),
        slope_note(paths.b, "fixed at 0: the outcome equation has no such term"),
        slope_note(paths.cprime, "fixed at 0: the treatment is not in the outcome equation"),
    ]
    note, of_cov = _note_of_covariance(paths, bool(weights[3].any()))
    both = paths.a.is_present and paths.b.is_present
    at_a, at_b = (((path.note,) if both else ()) for path in (paths.a, paths.b))
    carried = (at_a, at_b, (paths.cprime.note,), of_cov)
    held = (paths.a.held, paths.b.held, paths.cprime.held, paths.a.random_held + paths.b.random_held)
    return Effects(path_effects, LINEAR, weights, (*notes, note), carried, held=held)


def effect_quantities(paths: Paths, estimates: Estimates) -> dict[str, Quantity]:
    """The quantities a, b, cprime, cov_ab, indirect, direct and total at the estimates."""
    return effects_of(paths, estimates).quantities(estimates.psi)


def _note_of_covariance(paths: Paths, is_free: bool) -> tuple[str, tuple[str, ...]]:
    """Notes on cov_ab, and on an indirect effect that may leave out random slopes."""
    varying = [bool(path.random.any()) for path in (paths.a, paths.b)]
    others = [name for known, names in zip(varying, paths.other_slopes, strict=True) if not known for name in names]
    if is_free:
        taken = paths.a.random_note, paths.b.random_note
        return joined(*taken), taken
    if all(varying):
        return "fixed at 0: the random slopes of a and b are not allowed to covary", ()
    if not all(known or names for known, names in zip(varying, paths.other_slopes, strict=True)):
        return "fixed at 0: a and b do not both vary over clusters", ()
    whose = "a and b" if not any(varying) else "b" if varying[0] else "a"
    note = (
        f"fixed at 0: no random slope has the column of {whose}; whether {', '.join(others)} is its within-cluster "
        "part is not recognized, so their covariance is left out (nlcom() can name it)"
    )
    return note, (f"without a covariance of slopes that {', '.join(others)} may have a part in (see cov_ab)",)


@dataclass(frozen=True)
class PathCatalogue(Catalogue):
    """Paths and effects of two equations fitted jointly: a, b, cprime, cov_ab, indirect, direct, total.

    Attributes
    ----------
    treatment : str
        Column of the treatment x.
    contrast : pair or None
        Values of the treatment that are compared; None for a unit change.
    """

    school: ClassVar[str] = "mediate"
    terms: ClassVar[tuple[str, ...]] = EFFECTS
    meaning: ClassVar[str] = "indirect = a*b + cov_ab"
    intervals: ClassVar[IntervalOptions] = INTERVALS

    treatment: str
    contrast: tuple[Any, Any] | None = None

    def title(self, fit: LmmFit) -> str:
        """Title of a summary."""
        first, second = fit.layout.equations
        return f"Multilevel mediation: {self.treatment} -> {first.name} -> {second.name}"

    @property
    def entries(self) -> dict[str, Any]:
        """Entries of a document about the question."""
        return {"treatment": self.treatment, "contrast": self.contrast}

    def effects(self, fit: LmmFit, at: Mapping[str, Any] | None = None) -> FormSet:
        """The effects at values of moderators.

        Raises
        ------
        EffectError
            As ``find_paths``.
        """
        paths = find_paths(fit.layout, treatment=self.treatment, contrast=self.contrast, at=at)
        forms = effects_of(paths, fit.estimates)
        return FormSet(fit, forms, forms.quantities(fit.psi), _Moving(forms))


@dataclass(frozen=True, slots=True)
class _Moving:
    """Effects as a function of estimates."""

    forms: Effects

    def __call__(self, estimates: Estimates) -> dict[str, Quantity]:
        return self.forms.quantities(estimates.psi)
