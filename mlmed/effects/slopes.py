"""One slope of the model: columns differenced between values of a variable, moderators held (docs/math.md, eq. 26)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.layout import EquationLayout
from mlmed.data.predictors import are_few
from mlmed.data.probing import columns_at, is_straight, is_unknown, jump_around, pooled, reads, rows_of, transforms
from mlmed.data.terms import Encoding
from mlmed.errors import EffectError, FormulaError
from mlmed.formula import term_variables
from mlmed.names import display_name
from mlmed.options import is_number, is_one_value
from mlmed.text import display_level, shorten

Array = NDArray[np.float64]

#: Points between two values of a variable at which its path is checked for bends.
BETWEEN = 9
#: Values of a variable that a message lists, at most.
MOST_LISTED = 10


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
    held, random_held : tuple of str
        What the notes are made of: ``w = 1``, ``g from b to c``.
    """

    fixed: Array
    random: Array
    note: str = ""
    random_note: str = ""
    is_present: bool = True
    held: tuple[str, ...] = ()
    random_held: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """Change of one variable: from which value to which, and where others are held."""

    variable: str
    values: tuple[Any, Any] | None
    at: Mapping[str, Any]
    is_treatment: bool


def find_slope(equation: EquationLayout, question: Question) -> Path:
    """Find the path for a question: unit vectors in plain models, differences of columns otherwise.

    Raises
    ------
    EffectError
        No single slope, or a value that the rows do not reach.
    """
    present = reads(equation, question.variable)
    parts = [_plain_column(encoding, question.variable, equation) for encoding in equation.encodings]
    if all(part is not None for part in parts) and question.values is None:
        filled = [part for part in parts if part is not None]
        return Path(filled[0], np.concatenate(filled[1:]), is_present=present)
    return replace(_differenced(equation, question), is_present=present)


def _plain_column(encoding: Encoding, variable: str, equation: EquationLayout) -> Array | None:
    """Unit vector of the column that is the variable itself; None if other columns involve it."""
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
    """Return the two treatment values that all paths compare; None for a unit change or a factor of two levels.

    A number with two values that enters nonlinearly, ``I(treat == 2)``, or as ``C(treat)`` in some equations only, is
    compared at these values everywhere, like a factor with two levels.

    Raises
    ------
    EffectError
        A contrast beyond the values in the rows of a treatment that a term transforms.
    """
    coded = [equation.levels[treatment] for equation in equations if treatment in equation.levels]
    if contrast is None and coded and len(coded[0]) == 2 and isinstance(coded[0][0], float):
        return coded[0] if len(coded) < sum(treatment in equation.typical for equation in equations) else None
    asked = Question(treatment, contrast, at or {}, True)
    values = values_seen(equations, treatment)
    if contrast is not None or len(values) < 2:
        if contrast is not None and values and not coded:
            _check_reached(equations, treatment, contrast)
        return contrast
    bent = any(not _is_straight_path(equation, asked, values) for equation in equations)
    return (values[0], values[1]) if len(values) == 2 and bent else None


def _check_reached(equations: Sequence[EquationLayout], variable: str, contrast: tuple[Any, Any]) -> None:
    """Refuse values of a transformed variable that the rows do not reach."""
    values = values_seen(equations, variable)
    for value in contrast:
        number = as_number(value)
        if number is None:
            raise EffectError(f"contrast must give two numbers for {variable}; found {contrast}")
        within = number in values or (len(values) > 2 and values[0] < number < values[-1])
        if not within or not is_reached(equations, variable, number):
            raise EffectError(f"contrast names {value!r}, but {unreached(equations, variable)}")


def _is_straight_path(equation: EquationLayout, question: Question, values: Sequence[float]) -> bool:
    """Whether every column is linear in the variable over its range."""
    grid = np.linspace(values[0], values[-1], BETWEEN)
    rows = _synthetic_rows(equation, question, tuple(grid))
    try:
        return is_straight(grid, columns_at(equation, rows, skip=question.variable))
    except FormulaError:
        return False


def as_number(value: Any) -> float | None:
    """Return a finite number as a float; None for anything else."""
    return float(value) if is_number(value) or isinstance(value, bool | np.bool_) else None


def _probed_values(equation: EquationLayout, question: Question) -> tuple[Any, ...]:
    """Values of the variable at which columns are differenced; more than two to check linearity."""
    variable, levels = question.variable, equation.levels.get(question.variable)
    if question.values is not None:
        if levels is not None:
            bad = [value for value in question.values if not is_one_value(value) or value not in levels]
            if bad:
                raise EffectError(
                    f"contrast names {bad[0]!r}, but {variable} has no such level; its levels are {shorten(levels)}"
                )
            return question.values
        numbers = tuple(map(as_number, question.values))
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
    if not transforms(equation, variable):  # linear by its syntax
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


def _synthetic_rows(equation: EquationLayout, question: Question, values: tuple[Any, ...]) -> pd.DataFrame:
    """Make one row per value of the variable; others are held by ``at`` or at typical values."""
    columns = {
        name: list(values) if name == question.variable else [question.at.get(name, typical)] * len(values)
        for name, typical in equation.typical.items()
    }
    for name, known in equation.levels.items():
        bad = [value for value in columns[name] if value not in known]
        if bad:
            raise EffectError(f"{name} has no level {bad[0]!r}; its levels are {shorten(known)}")
    return rows_of(equation, columns)


def _differenced(equation: EquationLayout, question: Question) -> Path:
    values = _probed_values(equation, question)
    table = _synthetic_rows(equation, question, values)
    _refuse_jumps(equation, question, table)
    try:
        parts = columns_at(equation, table)
    except FormulaError as error:
        raise EffectError(_not_evaluated(equation, question, values)) from error
    is_unit = question.values is None and question.variable not in equation.levels
    if is_unit and not is_straight(values, parts):
        raise EffectError(_not_a_slope(equation, question))
    width = values[-1] - values[0] if is_unit else 1.0
    steps = [(numbers[-1] - numbers[0]) / width for numbers in parts]
    held, random_held = (_held(equation, question, which) for which in (slice(1), slice(1, None)))
    note, random_note = (f"at {', '.join(pieces)}" if pieces else "" for pieces in (held, random_held))
    unseen = is_unit and not (note or random_note) and not any(map(np.any, steps))
    if unseen and transforms(equation, question.variable):  # it changes between the values checked
        raise EffectError(_not_a_slope(equation, question))
    return Path(steps[0], np.concatenate(steps[1:]), note, random_note, held=held, random_held=random_held)


def _refuse_jumps(equation: EquationLayout, question: Question, table: pd.DataFrame) -> None:
    """Refuse to hold a moderator at a mean that lies between two of its values where the path jumps."""
    for name in sorted(moderators_of(equation, question.variable) & equation.observed.keys() - question.at.keys()):
        ends = table.iloc[:1], table.iloc[-1:]  # the variable, and its products, may be 0 at one end
        around = next(filter(None, (jump_around(equation, row, name) for row in ends)), None)
        if around is not None:
            raise EffectError(
                f"the effect of {question.variable} in equation {equation.name} jumps with {name} around its mean "
                f"({equation.typical[name]:.6g}), between its values {around[0]:g} and {around[1]:g}; say where it is "
                f"taken with at={{{name!r}: ...}}"
            )


def _not_evaluated(equation: EquationLayout, question: Question, values: tuple[Any, ...]) -> str:
    """Name the variables at whose values a formula is undefined: held ones, or the changed one."""
    held = {
        name: question.at.get(name, equation.typical[name]) for name in equation.observed.keys() - {question.variable}
    }
    seen = {name: equation.observed[name][len(equation.observed[name]) // 2] for name in held}

    def fails(at: Mapping[str, Any]) -> bool:
        try:
            columns_at(equation, _synthetic_rows(equation, replace(question, at={**question.at, **at}), values))
        except FormulaError:
            return True
        return False

    if fails(seen):
        if question.values is None:
            return _not_a_slope(equation, question)
        return (
            f"equation {equation.name} cannot be evaluated where {question.variable} goes from {values[0]} to "
            f"{values[1]}; choose other values with contrast="
        )
    alone = [name for name in sorted(held) if fails({**seen, name: held[name]})]
    culprits = alone or sorted(name for name in held if held[name] != seen[name])
    places = ", ".join(f"{name} = {held[name]:g}" for name in culprits)
    ranges = ", ".join(f"{n} from {equation.observed[n][0]:g} to {equation.observed[n][-1]:g}" for n in culprits)
    return (
        f"equation {equation.name} cannot be evaluated at {places} (its rows have {ranges}); choose other values with "
        f"at={{{culprits[0]!r}: ...}}"
    )


def _not_a_slope(equation: EquationLayout, question: Question) -> str:
    remedy = (
        "say which two values to compare with contrast=(from, to)"
        if question.is_treatment
        else "make a column of the transformed mediator before the fit and use it in both equations"
    )
    return (
        f"the effect of {question.variable} in equation {equation.name} is not a single slope (it enters through a "
        f"transformation); {remedy}"
    )


def moderators_of(equation: EquationLayout, variable: str, which: slice = slice(None)) -> set[str]:
    """Variables that share a term with a given one, in some encodings."""
    terms = [term for encoding in equation.encodings[which] for term in encoding.terms]
    found = set().union(*(term_variables(term) for term in terms if variable in term_variables(term)))
    return found - {variable}


def _held(equation: EquationLayout, question: Question, which: slice) -> tuple[str, ...]:
    """Say where the fixed or the random part of a path was taken; empty if it is constant."""
    terms = [term for encoding in equation.encodings[which] for term in encoding.terms]
    pieces = []
    for name in sorted(moderators_of(equation, question.variable, which)):
        if name in question.at:
            pieces.append(f"{name} = {question.at[name]}")
        else:
            kind = "first level" if name in equation.levels else "mean"
            value = equation.typical[name]
            pieces.append(
                f"{name} = {value:.6g} ({kind})" if kind == "mean" else f"{name} = {display_level(value)} ({kind})"
            )
    if question.values is not None and any(question.variable in term_variables(term) for term in terms):
        start, stop = (f"{value:g}" if isinstance(value, float) else value for value in question.values)
        pieces.append(f"{question.variable} from {start} to {stop}")
    return tuple(pieces)


def slope_note(path: Path, absent: str) -> str:
    """Say where a path was taken, or why it is fixed at 0: ``absent`` if no term has the variable."""
    if path.fixed.any():
        return path.note
    return f"fixed at 0: the slope is 0 {path.note}, whatever the coefficients are" if path.is_present else absent


def at_one_place(layouts: tuple[EquationLayout, ...]) -> tuple[EquationLayout, ...]:
    """Give all equations one typical value per moderator: that of the last equation with it.

    Equations on different rows, or on clusters, have different means; the product of a at one value and b at another
    is no effect.
    """
    common = {name: value for layout in layouts for name, value in layout.typical.items()}

    def placed(layout: EquationLayout) -> EquationLayout:
        typical = {
            name: common[name] if name not in layout.levels or common[name] in layout.levels[name] else own
            for name, own in layout.typical.items()
        }
        return replace(layout, typical=typical)

    return tuple(map(placed, pooled(layouts)))


def refuse_unreached(at: Mapping[str, Any], equations: Sequence[EquationLayout]) -> None:
    """Refuse values of moderators and covariates that the rows of a transforming term do not reach.

    Raises
    ------
    EffectError
        Such a value (see ``is_unknown``); the message lists those in the rows.
    """
    for name, value in at.items():
        if any(name in equation.levels for equation in equations) or is_reached(equations, name, float(value)):
            continue
        raise EffectError(f"at gives {name} the value {float(value):g}, but {unreached(equations, name)}")


def is_reached(equations: Sequence[EquationLayout], name: str, value: float) -> bool:
    """Whether every equation that transforms a variable is defined at a value, given all observed values."""
    values = values_seen(equations, name)
    own = [equation for equation in equations if name in equation.observed]
    return not any(is_unknown(replace(one, observed={**one.observed, name: values}), name, value) for one in own)


def unreached(equations: Sequence[EquationLayout], name: str) -> str:
    """Say which values a variable has, and why others are refused."""
    values = values_seen(equations, name)
    seen = f"goes from {values[0]:g} to {values[-1]:g}"
    if len(values) <= MOST_LISTED:
        *first, last = (f"{value:g}" for value in values)
        seen = f"has {', '.join(first)} and {last}" if first else f"has {last}"
    elif are_few(values):
        seen = f"has {len(values)} values from {values[0]:g} to {values[-1]:g}"
    return (
        f"{name} {seen} and enters through a transformation, of which nothing is known elsewhere; choose among the "
        "values that it has"
    )


def values_seen(equations: Sequence[EquationLayout], name: str) -> tuple[float, ...]:
    """Observed values of a transformed variable in all equations, ascending."""
    return tuple(sorted({value for equation in equations for value in equation.observed.get(name, ())}))
