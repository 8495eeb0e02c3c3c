"""Levels of factors as a formula learned them; those that a formula computes, as ``C(age >= 65)``, have no column."""

from __future__ import annotations

from typing import Any

from formulaic import Formula

from mlmed.calls import has_coded_expression
from mlmed.data.frames import shorten
from mlmed.data.terms import Encoding
from mlmed.errors import DataError, FormulaError
from mlmed.names import display_name

__all__ = ["computed_levels", "refuse_levels", "unknown_level"]


def computed_levels(encoding: Encoding) -> dict[str, tuple[Any, ...]]:
    """Levels of factors that are computed from columns, as in ``C(age >= 65)``."""
    return {text: levels for text, levels in encoding.levels.items() if has_coded_expression(text)}


def refuse_levels(encoding: Encoding, where: str) -> None:
    """Formulaic drops a factor with a single level silently, and a level that begins with two underscores.

    Raises
    ------
    DataError
        If there is one.
    """
    for expression, levels in encoding.levels.items():
        if len(levels) < 2:
            raise DataError(
                f"{display_name(expression)} in {where} is constant (its only level is {_shown(levels)}); remove it"
            )
        hidden = [level for level in levels if isinstance(level, str) and level.startswith("__")]
        if hidden:
            raise DataError(
                f"{display_name(expression)} in {where} has the level {hidden[0]!r}; levels that begin with two "
                "underscores have a meaning of their own inside formulas, so give it another name"
            )


def unknown_level(source: str | Formula | Encoding, where: str) -> FormulaError:
    """The error for values at which a factor has a level that is not among its own."""
    if not isinstance(source, Encoding):
        return FormulaError(
            f"a factor of {display_name(str(source))!r} in {where} has values that are not among its levels=; name all "
            "of them, or remove those rows"
        )
    known = [f"{display_name(text)}: {_shown(levels)}" for text, levels in computed_levels(source).items()]
    return FormulaError(
        f"a factor in {where} has a level that it did not have in the rows of the fit, so its effect is unknown "
        f"(levels of the fit, {'; '.join(known)}); choose values with one of these levels, or remove those rows"
    )


def _shown(levels: tuple[Any, ...]) -> str:
    return shorten(f"{level:g}" if isinstance(level, float) else level for level in levels) or "missing"
