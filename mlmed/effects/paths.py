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
from mlmed.data.layout import EquationLayout, Layout
from mlmed.effects.delta import Quantity
from mlmed.errors import EffectError
from mlmed.formula import display_name, formula_variables
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
        Values of moderators; by default the mean of a numeric one and the first level of another.

    Raises
    ------
    EffectError
        Unknown moderator, a path that is not linear, or a treatment-mediator interaction.
    """
    first, second = layout.equations
    at = dict(at or {})
    known = {*first.typical, *second.typical}
    unknown = [name for name in at if name not in known]
    if unknown:
        raise EffectError(
            f"at names {', '.join(unknown)}, which no equation uses; known are {', '.join(sorted(known))}"
        )
    together = set(formula_variables(f"`{first.name}`")) if first.name in second.typical else {first.name}
    for term in second.encodings[0].terms:
        names = _term_variables(term)
        if treatment in names and names & together:
            raise EffectError(
                f"the outcome equation has the term {term}: the effect of {first.name} depends on {treatment}, so "
                "a*b + cov_ab is not the indirect effect; drop the interaction, or combine coefficients with nlcom()"
            )
    x = _Question(treatment, contrast, at)
    m = _Question(first.name, None, at)
    return Paths(
        _place(layout, 0, _path(first, x)),
        _place(layout, 1, _path(second, m)),
        _place(layout, 1, _path(second, x)),
    )


def _term_variables(term: Any) -> set[str]:
    names: set[str] = set()
    for factor in term.factors:
        names |= {display_name(factor.expr)} if factor.eval_method.value == "lookup" else set()
        names |= formula_variables(factor.expr) if factor.eval_method.value == "python" else set()
    return names


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
    involved = [term for term in encoding.terms if variable in _term_variables(term)]
    names = [display_name(name) for name in encoding.column_names]
    if not involved:
        if variable in names and variable not in equation.typical:  # a transformed mediator, np.log(m)
            out[names.index(variable)] = 1.0
        return out
    if len(involved) == 1 and display_name(str(involved[0])) == variable and variable not in equation.levels:
        out[encoding.term_slices[involved[0]]] = 1.0
        return out
    return None


def _differenced(equation: EquationLayout, question: _Question) -> Path:
    variable, levels = question.variable, equation.levels.get(question.variable)
    if question.values is not None:
        values: tuple[Any, ...] = question.values
    elif levels is None:
        values = (0.0, 1.0, 2.0)
    elif len(levels) == 2:
        values = levels
    else:
        raise EffectError(
            f"{variable} has {len(levels)} levels ({', '.join(map(str, levels))}); say which two to compare with "
            "contrast=(control, treated)"
        )
    others = {name: question.at.get(name, value) for name, value in equation.typical.items()}
    rows = pd.DataFrame([{**others, variable: value} for value in values])
    for name, known in equation.levels.items():
        bad = [value for value in rows[name] if value not in known]
        if bad:
            raise EffectError(f"{name} has no level {bad[0]!r}; its levels are {', '.join(map(str, known))}")
        rows[name] = pd.Categorical(rows[name], categories=list(known))
    parts = []
    for encoding in equation.encodings:
        numbers = encode(encoding, rows, where=f"equation {equation.name}")[0]
        step = np.diff(numbers, axis=0)
        if len(values) == 3 and not np.allclose(step[0], step[1], rtol=1e-9, atol=1e-9 * np.abs(numbers).max()):
            raise EffectError(
                f"the effect of {variable} in equation {equation.name} is not a single slope (it enters through a "
                f"transformation); say which two values to compare with contrast=(from, to)"
            )
        parts.append(step[0])
    return Path(parts[0], np.concatenate(parts[1:]), _moderator_note(equation, question))


def _moderator_note(equation: EquationLayout, question: _Question) -> str:
    terms = [term for encoding in equation.encodings for term in encoding.terms]
    found = set().union(*(_term_variables(t) for t in terms if question.variable in _term_variables(t)))
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
