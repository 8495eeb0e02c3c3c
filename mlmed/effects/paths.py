"""Paths as contrasts: a = c_a'beta with random part r_a'u, and alike for b and c' (docs/math.md, eq. 26)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec as Encoding
from numpy.typing import NDArray

from mlmed.data.frames import shorten
from mlmed.data.layout import INTERCEPT, EquationLayout, Layout
from mlmed.data.probing import columns_at, is_straight, jumps_at, reads, rows_of, transforms
from mlmed.effects.delta import Quantity
from mlmed.effects.moderators import at_one_place
from mlmed.errors import EffectError, FormulaError
from mlmed.formula import formula_variables, term_variables
from mlmed.names import display_name
from mlmed.reml.estimates import Estimates

__all__ = [
    "Path",
    "Paths",
    "check_at",
    "compared_values",
    "effect_quantities",
    "find_paths",
    "joined_notes",
    "path_moderators",
    "slope_note",
]

Array = NDArray[np.float64]

#: Points between two values of a variable at which its path may bend.
BETWEEN = 9


@dataclass(frozen=True, slots=True)
class Path:
    """One slope of the model.

    Attributes
    ----------
    fixed : (p,) array
        c with path = c'beta.
    random : (q,) array
        r with cluster j's deviation = r'u_j.
    note, random_note : str
        Values of moderators at which ``fixed`` and ``random`` were taken.
    is_present : bool
        Whether a term of the fixed part has the variable.
    """

    fixed: Array
    random: Array
    note: str = ""
    random_note: str = ""
    is_present: bool = True


@dataclass(frozen=True, slots=True)
class Paths:
    """The three paths of a simple mediation model.

    Attributes
    ----------
    a, b, cprime : Path
        x -> m, m -> y, x -> y.
    other_slopes : tuple of 2 tuples of str
        Random slopes of the equations of m and of y that belong to none of the paths, as ``m:x_w``.
    """

    a: Path
    b: Path
    cprime: Path
    other_slopes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


@dataclass(frozen=True, slots=True)
class _Question:
    """Change of one variable: from which value to which, with the others held where."""

    variable: str
    values: tuple[Any, Any] | None
    at: Mapping[str, Any]
    is_treatment: bool


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
        Column that plays x.
    contrast : pair, optional
        Values of the treatment to compare; needed when it is not numeric with two levels or not linear.
    at : mapping, optional
        Values of moderators; by default the mean of a numeric one and the first level of another, in the rows of the
        outcome equation.

    Raises
    ------
    EffectError
        A value for what is no moderator, a path that is not linear, a moderator whose mean lies where a path jumps, or
        a treatment-mediator interaction.
    """
    first, second = at_one_place(layout.equations)
    _check_mediator_terms(first.name, second, treatment)
    held = check_at(at, (first, second), treatment, path_moderators(first, second, treatment))
    _check_held(held, (first, second))
    x = _Question(treatment, compared_values((first, second), treatment, contrast, held), held, True)
    m = _Question(first.name, None, held, False)
    a, b, cprime = _path(first, x), _path(second, m), _path(second, x)
    return Paths(
        _place(layout, 0, a),
        _place(layout, 1, b),
        _place(layout, 1, cprime),
        (_other_slopes(first, a.random), _other_slopes(second, np.abs(b.random) + np.abs(cprime.random))),
    )


def path_moderators(first: EquationLayout, second: EquationLayout, treatment: str) -> set[str]:
    """Variables on which a path depends: those that share a term with the treatment, or in ``second`` with m."""
    found = _moderators(first, treatment) | _moderators(second, treatment) | _moderators(second, first.name)
    return found - {treatment, first.name}


def check_at(
    at: Mapping[str, Any] | None,
    equations: tuple[EquationLayout, EquationLayout],
    treatment: str,
    moderators: Collection[str],
) -> dict[str, Any]:
    """Values of moderators: numbers where numbers are meant; truth values become 0 and 1.

    Parameters
    ----------
    at : mapping or None
        What the user gave.
    equations : tuple of 2 EquationLayout
        Mediator and outcome.
    treatment : str
        The column that plays x.
    moderators : collection of str
        What may be named.

    Raises
    ------
    EffectError
        It names something that no path depends on, or a value is not one finite number.
    """
    held: dict[str, Any] = dict(at or {})
    levels = {name: value for equation in equations for name, value in equation.levels.items()}
    for name, value in held.items():
        if name not in moderators:
            may = f"choose among {', '.join(sorted(moderators))}" if moderators else "no path has one, so leave it out"
            raise EffectError(
                f"at names {name}, {_role(name, equations, treatment)}; at= has the values of moderators: {may}"
            )
        if name in levels:
            continue
        number = _as_number(value)
        if number is None:
            raise EffectError(f"at gives {name} the value {value!r}; it must be a number (not nan or missing)")
        held[name] = number
    return held


def _role(name: str, equations: tuple[EquationLayout, EquationLayout], treatment: str) -> str:
    """What a variable is that is no moderator."""
    if name == treatment:
        return "the treatment; effects are those of a change in it (see contrast=)"
    for equation, role in zip(equations, ("mediator", "outcome"), strict=True):
        if name == equation.name:
            return f"the {role}"
    if any(name in equation.typical for equation in equations):
        return "a predictor on which no path depends (no term has it together with treatment or mediator)"
    return "which no equation uses"


def _other_slopes(equation: EquationLayout, claimed: Array) -> tuple[str, ...]:
    """Random slopes with no part in the paths of their equation."""
    pairs = zip(equation.random, claimed, strict=True)
    return tuple(f"{equation.name}:{name}" for name, weight in pairs if name != INTERCEPT and weight == 0.0)


def _check_mediator_terms(mediator: str, second: EquationLayout, treatment: str) -> None:
    """Refuse what makes a*b + cov_ab something else than the indirect effect."""
    plain = mediator in second.typical
    variables = frozenset({mediator}) if plain else formula_variables(mediator)
    for encoding in second.encodings:
        for term in encoding.terms:
            names, shown = term_variables(term), display_name(str(term))
            if treatment in names and names & variables:
                raise EffectError(
                    f"the outcome equation has the term {shown}: the effect of {mediator} depends on {treatment}, so "
                    "a*b + cov_ab is not the indirect effect; drop it, or combine coefficients with nlcom()"
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


def _path(equation: EquationLayout, question: _Question) -> Path:
    present = reads(equation, question.variable)
    parts = [_plain_column(encoding, question.variable, equation) for encoding in equation.encodings]
    if all(part is not None for part in parts) and question.values is None:
        filled = [part for part in parts if part is not None]
        return Path(filled[0], np.concatenate(filled[1:]), is_present=present)
    return replace(_differenced(equation, question), is_present=present)


def _plain_column(encoding: Encoding, variable: str, equation: EquationLayout) -> Array | None:
    """Unit vector of the column that is the variable itself; None where more is involved."""
    out = np.zeros(len(encoding.column_names))
    involved = [term for term in encoding.terms if variable in term_variables(term)]
    names = list(map(display_name, encoding.column_names))
    if not involved:
        if variable in names and variable not in equation.typical:  # a transformed mediator, np.log(m)
            out[names.index(variable)] = 1.0
        return out
    if len(involved) == 1 and display_name(str(involved[0])) == variable and variable not in equation.levels:
        out[encoding.term_slices[involved[0]]] = 1.0
        return out
    return None


def compared_values(
    equations: Sequence[EquationLayout],
    treatment: str,
    contrast: tuple[Any, Any] | None = None,
    at: Mapping[str, Any] | None = None,
) -> tuple[Any, Any] | None:
    """The two values of the treatment that all paths compare; None for a unit change, or the two levels of a factor.

    A number with two values that enters other than as a straight line, ``I(treat == 2)``, or as ``C(treat)`` in some of
    the equations only, is compared at these values everywhere, as a factor with two levels is.

    Raises
    ------
    EffectError
        A contrast with a value that the rows do not reach, where a term transforms the treatment.
    """
    coded = [equation.levels[treatment] for equation in equations if treatment in equation.levels]
    if contrast is None and coded and len(coded[0]) == 2 and isinstance(coded[0][0], float):
        return coded[0] if len(coded) < sum(treatment in equation.typical for equation in equations) else None
    asked = _Question(treatment, contrast, at or {}, True)
    known = [equation.observed[treatment] for equation in equations if treatment in equation.observed]
    values = sorted(set().union(*known))
    if contrast is not None or len(values) < 2:
        if contrast is not None and values and treatment not in equations[0].levels:
            _check_reached(treatment, contrast, values)
        return contrast
    bent = any(not _is_straight_path(equation, asked, values) for equation in equations)
    return (values[0], values[1]) if len(values) == 2 and bent else None


def _check_reached(variable: str, contrast: tuple[Any, Any], values: list[float]) -> None:
    """Refuse values at which nothing is known of a transformed variable."""
    for value in contrast:
        number = _as_number(value)
        if number is None:
            raise EffectError(f"contrast must give two numbers for {variable}; found {contrast}")
        if number in values or (len(values) > 2 and values[0] < number < values[-1]):
            continue
        raise EffectError(f"contrast names {value!r}, but {_unreached(variable, values)}")


def _check_held(at: Mapping[str, Any], equations: Sequence[EquationLayout]) -> None:
    """Refuse values of a moderator beyond the two that it has, where a term transforms it."""
    for name, value in at.items():
        values = sorted(set().union(*(equation.observed.get(name, ()) for equation in equations)))
        if len(values) == 2 and not values[0] <= value <= values[1]:
            raise EffectError(f"at gives {name} the value {value:g}, but {_unreached(name, values)}")


def _unreached(variable: str, values: list[float]) -> str:
    seen = f"has {values[0]:g} and {values[1]:g}" if len(values) == 2 else f"goes from {values[0]:g} to {values[-1]:g}"
    return (
        f"{variable} {seen} and enters through a transformation, of which nothing is known elsewhere; choose among the "
        "values that it has"
    )


def _is_straight_path(equation: EquationLayout, question: _Question, values: Sequence[float]) -> bool:
    """Whether every column is a straight line in the variable from its smallest to its largest value."""
    grid = np.linspace(values[0], values[-1], BETWEEN)
    rows = _synthetic_rows(equation, question, tuple(grid))
    try:
        return is_straight(grid, columns_at(equation, rows, skip=question.variable))
    except FormulaError:
        return False


def _as_number(value: Any) -> float | None:
    """A finite number as a float, anything else as None."""
    number = isinstance(value, int | float | np.number | np.bool_)
    return float(value) if number and np.isfinite(float(value)) else None


def _probed_values(equation: EquationLayout, question: _Question) -> tuple[Any, ...]:
    """Values of the variable between which columns are differenced; more than two where a line is to be seen."""
    variable, levels = question.variable, equation.levels.get(question.variable)
    if question.values is not None:
        if levels is not None:
            bad = [value for value in question.values if value not in levels]
            if bad:
                raise EffectError(
                    f"contrast names {bad[0]!r}, but {variable} has no such level; its levels are {shorten(levels)}"
                )
            return question.values
        numbers = tuple(map(_as_number, question.values))
        if None in numbers:
            raise EffectError(f"contrast must give two numbers for {variable}; found {question.values}")
        return numbers
    if levels is not None:
        if len(levels) == 2:
            return levels
        raise EffectError(
            f"{variable} has {len(levels)} levels ({shorten(levels)}); say which two to compare with "
            "contrast=(control, treated)"
        )
    if not transforms(equation, variable):  # a straight line by its syntax
        return float(equation.typical[variable]), float(equation.typical[variable]) + 1.0
    values = equation.observed.get(variable, ())
    if not values:
        raise EffectError(
            f"{variable} enters equation {equation.name} through a transformation, and these Grams do not say which "
            "values it has, so whether its effect is a single slope cannot be told; make them again from the data"
        )
    if len(values) < 2:
        raise EffectError(f"{variable} has one value ({values[0]:g}) in the rows of equation {equation.name}")
    return values


def _synthetic_rows(equation: EquationLayout, question: _Question, values: tuple[Any, ...]) -> pd.DataFrame:
    """One row per value of the variable; everything else where ``at`` or the typical value holds it."""
    columns = {
        name: list(values) if name == question.variable else [question.at.get(name, typical)] * len(values)
        for name, typical in equation.typical.items()
    }
    for name, known in equation.levels.items():
        bad = [value for value in columns[name] if value not in known]
        if bad:
            raise EffectError(f"{name} has no level {bad[0]!r}; its levels are {shorten(known)}")
    return rows_of(equation, columns)


def _differenced(equation: EquationLayout, question: _Question) -> Path:
    values = _probed_values(equation, question)
    table = _synthetic_rows(equation, question, values)
    _refuse_jumps(equation, question, table)
    try:
        parts = columns_at(equation, table)
    except FormulaError as error:
        raise EffectError(_not_a_slope(equation, question)) from error
    is_unit = question.values is None and question.variable not in equation.levels
    if is_unit and not is_straight(values, parts):
        raise EffectError(_not_a_slope(equation, question))
    width = values[-1] - values[0] if is_unit else 1.0
    steps = [(numbers[-1] - numbers[0]) / width for numbers in parts]
    note, random_note = (_moderator_note(equation, question, which) for which in (slice(1), slice(1, None)))
    unseen = is_unit and not (note or random_note) and not any(map(np.any, steps))
    if unseen and transforms(equation, question.variable):  # it changes somewhere between the values looked at
        raise EffectError(_not_a_slope(equation, question))
    return Path(steps[0], np.concatenate(steps[1:]), note, random_note)


def _refuse_jumps(equation: EquationLayout, question: _Question, table: pd.DataFrame) -> None:
    """Refuse to hold a moderator at a mean that no row has and where the path jumps."""
    for name in sorted(_moderators(equation, question.variable) & equation.observed.keys() - question.at.keys()):
        if jumps_at(equation, table.iloc[:1], name):
            raise EffectError(
                f"the effect of {question.variable} in equation {equation.name} jumps with {name} around its mean "
                f"({equation.typical[name]:.6g}), which no row has; say where it is taken with at={{{name!r}: ...}}"
            )


def _not_a_slope(equation: EquationLayout, question: _Question) -> str:
    remedy = (
        "say which two values to compare with contrast=(from, to)"
        if question.is_treatment
        else "make a column of the transformed mediator before the fit and use it in both equations"
    )
    return (
        f"the effect of {question.variable} in equation {equation.name} is not a single slope (it enters through a "
        f"transformation); {remedy}"
    )


def _moderators(equation: EquationLayout, variable: str, which: slice = slice(None)) -> set[str]:
    """Variables that share a term of some encodings with another one."""
    terms = [term for encoding in equation.encodings[which] for term in encoding.terms]
    found = set().union(*(term_variables(term) for term in terms if variable in term_variables(term)))
    return found - {variable}


def _moderator_note(equation: EquationLayout, question: _Question, which: slice) -> str:
    """Where the fixed or the random part of a path was taken; empty if it is the same everywhere."""
    terms = [term for encoding in equation.encodings[which] for term in encoding.terms]
    pieces = []
    for name in sorted(_moderators(equation, question.variable, which)):
        if name in question.at:
            pieces.append(f"{name} = {question.at[name]}")
        else:
            kind = "first level" if name in equation.levels else "mean"
            value = equation.typical[name]
            pieces.append(f"{name} = {value:.6g} ({kind})" if kind == "mean" else f"{name} = {value} ({kind})")
    if question.values is not None and any(question.variable in term_variables(term) for term in terms):
        start, stop = (f"{value:g}" if isinstance(value, float) else value for value in question.values)
        pieces.append(f"{question.variable} from {start} to {stop}")
    return f"at {', '.join(pieces)}" if pieces else ""


def joined_notes(*notes: str) -> str:
    """Notes side by side, each once."""
    return "; ".join(dict.fromkeys(note for note in notes if note))


def slope_note(path: Path, absent: str) -> str:
    """Where a path was taken, or why it is fixed at 0: ``absent`` where no term has the variable."""
    if path.fixed.any():
        return path.note
    return f"fixed at 0: the slope is 0 {path.note}, whatever the coefficients are" if path.is_present else absent


def effect_quantities(paths: Paths, estimates: Estimates) -> dict[str, Quantity]:
    """The quantities a, b, cprime, cov_ab, indirect, direct and total (eq. 26, 27)."""
    n = len(estimates.tau) + len(estimates.sigma2)

    def slope(term: str, path: Path, absent: str) -> Quantity:
        gradient = np.append(path.fixed, np.zeros(n))
        return Quantity(term, float(path.fixed @ estimates.beta), gradient, None, slope_note(path, absent))

    a = slope("a", paths.a, "fixed at 0: the mediator equation has no such term")
    b = slope("b", paths.b, "fixed at 0: the outcome equation has no such term")
    cprime = slope("cprime", paths.cprime, "fixed at 0: the treatment is not in the outcome equation")
    cov_ab, left_out = _covariance_of_slopes(paths, estimates)
    taken = [cov_ab.note] if np.any(cov_ab.gradient) else [left_out]
    if paths.a.is_present and paths.b.is_present:
        taken = [paths.a.note, paths.b.note, *taken]
    indirect = replace(a.times(b, "ab").plus(cov_ab, "indirect"), note=joined_notes(*taken))
    total = replace(indirect.plus(cprime, "total"), note=joined_notes(*taken[:2], paths.cprime.note, *taken[2:]))
    listed = [a, b, cprime, cov_ab, indirect, cprime.named("direct"), total]
    return {quantity.term: quantity for quantity in listed}


def _covariance_of_slopes(paths: Paths, estimates: Estimates) -> tuple[Quantity, str]:
    """cov_ab, and what to say beside the indirect effect where random slopes may be left out of it."""
    weight = np.einsum("kab,a,b->k", estimates.tau_basis, paths.a.random, paths.b.random)
    gradient = np.concatenate([np.zeros(len(estimates.beta)), weight, np.zeros(len(estimates.sigma2))])
    varying = [bool(path.random.any()) for path in (paths.a, paths.b)]
    others = [name for known, names in zip(varying, paths.other_slopes, strict=True) if not known for name in names]
    left_out = ""
    if weight.any():
        note = joined_notes(paths.a.random_note, paths.b.random_note)
    elif all(varying):
        note = "fixed at 0: the random slopes of a and b are not allowed to covary"
    elif all(known or names for known, names in zip(varying, paths.other_slopes, strict=True)):
        whose = "a and b" if not any(varying) else "b" if varying[0] else "a"
        note = (
            f"fixed at 0: no random slope has the column of {whose}; whether {', '.join(others)} is its within-cluster "
            "part is not recognized, so their covariance is left out (nlcom() can name it)"
        )
        left_out = f"without a covariance of slopes that {', '.join(others)} may have a part in (see cov_ab)"
    else:
        note = "fixed at 0: a and b do not both vary over clusters"
    return Quantity("cov_ab", float(weight @ estimates.tau), gradient, None, note), left_out
