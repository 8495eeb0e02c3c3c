"""Paths as contrasts: a = c_a'beta with random part r_a'u, and alike for b and c' (docs/math.md, eq. 26)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import ModelSpec as Encoding
from numpy.typing import NDArray

from mlmed.data.design import encode
from mlmed.data.frames import shorten
from mlmed.data.layout import EquationLayout, Layout
from mlmed.effects.delta import Quantity
from mlmed.effects.moderators import at_one_place
from mlmed.errors import EffectError, FormulaError
from mlmed.formula import formula_variables, term_variables
from mlmed.names import display_name, safe_name
from mlmed.reml.estimates import Estimates

__all__ = ["Path", "Paths", "effect_quantities", "find_paths"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Path:
    """One slope of the model.

    Attributes
    ----------
    fixed : (p,) array
        c with path = c'beta.
    random : (q,) array
        r with cluster j's deviation = r'u_j.
    note : str
        Values of moderators at which it was taken.
    """

    fixed: Array
    random: Array
    note: str = ""


@dataclass(frozen=True, slots=True)
class Paths:
    """The three paths of a simple mediation model."""

    a: Path
    b: Path
    cprime: Path


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
        Unknown moderator, a path that is not linear, or a treatment-mediator interaction.
    """
    first, second = at_one_place(layout.equations)
    at = dict(at or {})
    _check_at(at, layout, treatment)
    _check_mediator_terms(first.name, second, treatment)
    x = _Question(treatment, contrast, at, True)
    m = _Question(first.name, None, at, False)
    return Paths(
        _place(layout, 0, _path(first, x)),
        _place(layout, 1, _path(second, m)),
        _place(layout, 1, _path(second, x)),
    )


def _check_at(at: dict[str, Any], layout: Layout, treatment: str) -> None:
    """Values of moderators: known columns, numbers where numbers are meant; truth values become 0 and 1."""
    known = {name: value for equation in layout.equations for name, value in equation.typical.items()}
    levels = {name: value for equation in layout.equations for name, value in equation.levels.items()}
    for name, value in at.items():
        if name == treatment:
            raise EffectError(f"at names {name}, the treatment; effects are those of a change in it (see contrast=)")
        if name not in known:
            raise EffectError(f"at names {name}, which no equation uses; known are {', '.join(sorted(known))}")
        if name in levels:
            continue
        number = isinstance(value, int | float | np.number | np.bool_)
        if not number or not np.isfinite(float(value)):
            raise EffectError(f"at gives {name} the value {value!r}; it must be a number (not nan or missing)")
        at[name] = float(value)


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
    return Path(np.concatenate(fixed), np.concatenate(random), path.note)


def _path(equation: EquationLayout, question: _Question) -> Path:
    parts = [_plain_column(encoding, question.variable, equation) for encoding in equation.encodings]
    if all(part is not None for part in parts) and question.values is None:
        filled = [part for part in parts if part is not None]
        return Path(filled[0], np.concatenate(filled[1:]))
    return _differenced(equation, question)


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


def _compared_values(equation: EquationLayout, question: _Question) -> tuple[Any, ...]:
    """Values of the variable between which columns are differenced; three where linearity is to be checked."""
    variable, levels = question.variable, equation.levels.get(question.variable)
    if question.values is not None:
        if levels is not None:
            bad = [value for value in question.values if value not in levels]
            if bad:
                raise EffectError(
                    f"contrast names {bad[0]!r}, but {variable} has no such level; its levels are {shorten(levels)}"
                )
            return question.values
        if not all(isinstance(v, int | float | np.number | np.bool_) and np.isfinite(v) for v in question.values):
            raise EffectError(f"contrast must give two numbers for {variable}; found {question.values}")
        return tuple(map(float, question.values))
    if levels is None:
        base = float(equation.typical[variable])
        return base, base + 1.0, base + 2.0
    if len(levels) == 2:
        return levels
    raise EffectError(
        f"{variable} has {len(levels)} levels ({shorten(levels)}); say which two to compare with "
        "contrast=(control, treated)"
    )


def _synthetic_rows(equation: EquationLayout, question: _Question, values: tuple[Any, ...]) -> pd.DataFrame:
    """One row per value of the variable; everything else where ``at`` or the typical value holds it."""
    columns: dict[str, Any] = {}
    for name, typical in equation.typical.items():
        given = list(values) if name == question.variable else [question.at.get(name, typical)] * len(values)
        known = equation.levels.get(name)
        if known is not None:
            bad = [value for value in given if value not in known]
            if bad:
                raise EffectError(f"{name} has no level {bad[0]!r}; its levels are {shorten(known)}")
            if not isinstance(known[0], float):
                columns[safe_name(name)] = pd.Categorical(given, categories=list(known))
                continue
        columns[safe_name(name)] = np.array(given, dtype=np.float64)
    return pd.DataFrame(columns)


def _differenced(equation: EquationLayout, question: _Question) -> Path:
    values = _compared_values(equation, question)
    table = _synthetic_rows(equation, question, values)
    parts = []
    for encoding in equation.encodings:
        try:
            numbers = encode(encoding, table, where=f"equation {equation.name}")[0]
        except FormulaError as error:
            raise EffectError(_not_a_slope(equation, question)) from error
        step = np.diff(numbers, axis=0)
        if len(values) == 3 and not np.allclose(step[0], step[1], rtol=1e-8, atol=1e-9 * np.abs(numbers).max()):
            raise EffectError(_not_a_slope(equation, question))
        parts.append(step[0])
    return Path(parts[0], np.concatenate(parts[1:]), _moderator_note(equation, question))


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


def _moderator_note(equation: EquationLayout, question: _Question) -> str:
    terms = [term for encoding in equation.encodings for term in encoding.terms]
    found = set().union(*(term_variables(t) for t in terms if question.variable in term_variables(t)))
    pieces = []
    for name in sorted(found - {question.variable}):
        if name in question.at:
            pieces.append(f"{name} = {question.at[name]}")
        else:
            kind = "first level" if name in equation.levels else "mean"
            value = equation.typical[name]
            pieces.append(f"{name} = {value:.6g} ({kind})" if kind == "mean" else f"{name} = {value} ({kind})")
    if question.values is not None:
        pieces.append(f"{question.variable} from {question.values[0]} to {question.values[1]}")
    return f"at {', '.join(pieces)}" if pieces else ""


def _merge_notes(*notes: str) -> str:
    return "; ".join(dict.fromkeys(note for note in notes if note))


def effect_quantities(paths: Paths, estimates: Estimates) -> dict[str, Quantity]:
    """The quantities a, b, cprime, cov_ab, indirect, direct and total (eq. 26, 27)."""
    p, n = len(estimates.beta), len(estimates.tau) + len(estimates.sigma2)

    def slope(term: str, path: Path, missing: str) -> Quantity:
        gradient = np.append(path.fixed, np.zeros(n))
        return Quantity(
            term,
            float(path.fixed @ estimates.beta),
            gradient,
            None,
            path.note if path.fixed.any() else missing,
        )

    a = slope("a", paths.a, "fixed at 0: the mediator equation has no such term")
    b = slope("b", paths.b, "fixed at 0: the outcome equation has no such term")
    cprime = slope("cprime", paths.cprime, "fixed at 0: the treatment is not in the outcome equation")
    both = paths.a.random.any() and paths.b.random.any()
    weight = np.einsum("kab,a,b->k", estimates.tau_basis, paths.a.random, paths.b.random)
    gradient = np.concatenate([np.zeros(p), weight, np.zeros(len(estimates.sigma2))])
    if weight.any():
        note = _merge_notes(paths.a.note, paths.b.note)
    elif both:
        note = "fixed at 0: the random slopes of a and b are not allowed to covary"
    else:
        note = "fixed at 0: a and b do not both vary over clusters"
    cov_ab = Quantity("cov_ab", float(weight @ estimates.tau), gradient, None, note)
    product = a.times(b, "ab")
    indirect = product.plus(cov_ab, "indirect")
    total = indirect.plus(cprime, "total")
    listed = [a, b, cprime, cov_ab, indirect, cprime.named("direct"), total]
    return {quantity.term: quantity for quantity in listed}
