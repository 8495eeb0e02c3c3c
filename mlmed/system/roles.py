"""Roles in a mediation model, checked before any data is read: mediators, treatment, contrast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlmed.errors import FormulaError
from mlmed.formula import Equation, formula_of, formula_variables
from mlmed.names import display_name, encode_quoted
from mlmed.options import check_text, is_one_value
from mlmed.system.graph import refuse_cycles
from mlmed.text import shown


def check_mediators(mediators: Sequence[Equation], outcome: Equation) -> None:
    """Refuse equations that feed back into each other, and mediators through which nothing flows to the outcome.

    Raises
    ------
    FormulaError
        A cycle, or a mediator that no equation on the way to the outcome has in its fixed part.
    """
    for mediator in mediators:
        if formula_variables(outcome.response) & mediator.predictors:
            raise FormulaError(
                f"the outcome {outcome.name} is a predictor of the mediator {mediator.name}; the equations must not "
                "feed back into each other, so remove it there"
            )
    refuse_cycles((*mediators, outcome))
    known = [outcome]
    while grown := [m for m in mediators if m not in known and any(_has_term_of(m, other) for other in known)]:
        known += grown
    for mediator in mediators:
        if mediator not in known:
            raise FormulaError(_flows_nowhere(mediator, mediators, outcome))


def _flows_nowhere(mediator: Equation, mediators: Sequence[Equation], outcome: Equation) -> str:
    elsewhere = "" if len(mediators) == 1 else ", nor in that of a mediator on the way to it"
    return (
        f"the mediator {mediator.name} is not in the fixed part of the outcome equation {outcome.text!r}{elsewhere}, "
        f"so nothing can flow through it; add it, as in '{outcome.name} ~ {mediator.name} + ...'"
    )


def _has_term_of(mediator: Equation, equation: Equation) -> bool:
    """Whether the fixed part of an equation has the mediator: its column, or the same transformed response."""
    if mediator.name in formula_variables(mediator.response):
        return mediator.name in formula_variables(equation.fixed)
    return mediator.response in frozenset(map(str, formula_of(equation.fixed)))


def check_contrast(contrast: Any) -> tuple[Any, Any] | None:
    """Check that a contrast has two different values; None stays None."""
    if contrast is None:
        return None
    pair = tuple(contrast) if isinstance(contrast, list | tuple) else ()
    if len(pair) != 2 or not all(map(is_one_value, pair)) or pair[0] == pair[1]:
        raise FormulaError(
            f"contrast must be two different values of the treatment, (from, to); found {shown(contrast)}"
        )
    return pair[0], pair[1]


def treatment_of(mediators: Equation | Sequence[Equation], treatment: str | None) -> str:
    """Return the treatment: the predictor of the mediators that was named, or the only one that is no mediator.

    Raises
    ------
    FormulaError
        No such predictor, or several and none was named.
    """
    equations = [mediators] if isinstance(mediators, Equation) else list(mediators)
    candidates = sorted(frozenset().union(*(formula_variables(equation.fixed) for equation in equations)))
    several = len(equations) > 1
    where = f"mediator equation{'s' if several else ''} {', '.join(repr(equation.text) for equation in equations)}"
    if treatment is not None:
        treatment = check_text(treatment, "treatment", "a predictor of the mediator", error=FormulaError)
        treatment = display_name(encode_quoted(treatment))
        if treatment not in candidates:
            their = "their" if several else "its"
            raise FormulaError(
                f"the treatment {treatment!r} is not in the {where}; {their} predictors are "
                f"{', '.join(candidates) or 'none'}"
            )
        return treatment
    inner = frozenset().union(*(equation.response_columns for equation in equations))
    outer = [name for name in candidates if name not in inner]
    if len(outer) != 1:
        raise FormulaError(
            f"which variable is the treatment? The {where} {'have' if several else 'has'} "
            f"{', '.join(outer) if outer else 'no predictor'}; say treatment='...'"
        )
    return outer[0]
