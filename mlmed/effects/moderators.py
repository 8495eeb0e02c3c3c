"""Values at which moderators are held."""

from __future__ import annotations

from dataclasses import replace

from mlmed.data.layout import EquationLayout

__all__ = ["at_one_place"]


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

    return tuple(map(placed, layouts))
