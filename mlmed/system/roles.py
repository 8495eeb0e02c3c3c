"""Roles in a mediation model, checked before any data is read: mediator, treatment, contrast."""

from __future__ import annotations

from typing import Any

from mlmed.errors import FormulaError
from mlmed.formula import Equation, formula_of, formula_variables
from mlmed.names import display_name, encode_quoted
from mlmed.options import check_text, is_one_value
from mlmed.text import shown


def check_mediator(first: Equation, second: Equation) -> None:
    """Refuse equations that feed back into each other, and an outcome that the mediator does not reach."""
    if formula_variables(second.response) & first.predictors:
        raise FormulaError(
            f"the outcome {second.name} is a predictor of the mediator {first.name}; the equations must not feed back "
            "into each other, so remove it there"
        )
    plain = first.name in formula_variables(first.response)
    present = formula_variables(second.fixed) if plain else frozenset(map(str, formula_of(second.fixed)))
    if (first.name if plain else first.response) not in present:
        raise FormulaError(
            f"the mediator {first.name} is not in the fixed part of the outcome equation {second.text!r}, so nothing "
            f"can flow through it; add it, as in '{second.name} ~ {first.name} + ...'"
        )


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


def treatment_of(first: Equation, treatment: str | None) -> str:
    """Return the treatment: the predictor of the mediator that was named, or the only one."""
    candidates = sorted(formula_variables(first.fixed))
    if treatment is not None:
        treatment = check_text(treatment, "treatment", "a predictor of the mediator", error=FormulaError)
        treatment = display_name(encode_quoted(treatment))
        if treatment not in candidates:
            raise FormulaError(
                f"the treatment {treatment!r} is not in the mediator equation {first.text!r}; its predictors are "
                f"{', '.join(candidates) or 'none'}"
            )
        return treatment
    if len(candidates) != 1:
        raise FormulaError(
            f"which variable is the treatment? The mediator equation {first.text!r} has "
            f"{', '.join(candidates) if candidates else 'no predictor'}; say treatment='...'"
        )
    return candidates[0]
