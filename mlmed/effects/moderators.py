"""Values at which moderators are held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mlmed.data.layout import EquationLayout
from mlmed.data.predictors import are_few
from mlmed.data.probing import is_unknown, pooled
from mlmed.errors import EffectError

__all__ = ["at_one_place", "is_reached", "refuse_unreached", "unreached", "values_seen"]

#: Values of a variable that a message lists, at most.
MOST_LISTED = 10


def at_one_place(layouts: tuple[EquationLayout, ...]) -> tuple[EquationLayout, ...]:
    """The equations with one typical value per moderator: that of the last equation that has it.

    Equations may use different rows, or clusters instead of rows, and so have other means; the product of a at one
    value and b at another is no effect.
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
    """Refuse values of moderators and covariates at which nothing is known of a term that transforms them.

    Raises
    ------
    EffectError
        Such a value (see ``is_unknown``), with those that the rows have.
    """
    for name, value in at.items():
        if any(name in equation.levels for equation in equations) or is_reached(equations, name, float(value)):
            continue
        raise EffectError(f"at gives {name} the value {float(value):g}, but {unreached(equations, name)}")


def is_reached(equations: Sequence[EquationLayout], name: str, value: float) -> bool:
    """Whether every equation that transforms a variable is known at a value, by the values that any of them has."""
    values = values_seen(equations, name)
    own = [equation for equation in equations if name in equation.observed]
    return not any(is_unknown(replace(one, observed={**one.observed, name: values}), name, value) for one in own)


def unreached(equations: Sequence[EquationLayout], name: str) -> str:
    """The values that a variable has, and what that means for others."""
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
