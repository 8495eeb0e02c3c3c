"""Levels of factors as a formula learned them; those that a formula computes, as ``C(age >= 65)``, have no column."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula

from mlmed.calls import codings_of, has_coded_expression
from mlmed.data.frames import shorten
from mlmed.data.terms import Encoding
from mlmed.errors import DataError, FormulaError
from mlmed.names import display_name, typed

__all__ = ["computed_levels", "misfit_of_coding", "refuse_levels", "unknown_level"]

#: Codings that compare the other levels with one that they may name.
_TREATMENT = frozenset({"Treatment", "contr.treatment", "contr.SAS"})


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
            only = shorten(levels) or "missing"
            raise DataError(f"{display_name(expression)} in {where} is constant (its only level is {only}); remove it")
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
    known = [
        f"{display_name(text)}: {shorten(levels) or 'missing'}" for text, levels in computed_levels(source).items()
    ]
    return FormulaError(
        f"a factor in {where} has a level that it did not have in the rows of the fit, so its effect is unknown "
        f"(levels of the fit, {'; '.join(known)}); choose values with one of these levels, or remove those rows"
    )


def misfit_of_coding(formula: Formula, table: pd.DataFrame, where: str) -> FormulaError | None:
    """The error for a coding of C() that cannot be that of the column's levels; None if there is none."""
    expressions = {f.expr for term in formula for f in term.factors if f.eval_method.value == "python"}
    for column, coding in (pair for text in sorted(expressions) for pair in codings_of(text)):
        if column not in table:
            continue
        levels = _levels_of(table[column])
        name, written = display_name(column), display_name(ast.unparse(coding))
        reference = _reference(coding)
        if reference is not None and reference not in levels:
            return FormulaError(
                f"{written} in {where}: {name} has no level {typed(reference)} to refer to; its levels are "
                f"{shorten(map(typed, levels))}, so write one of these"
            )
        if reference is None and not isinstance(coding, ast.Name):
            return FormulaError(
                f"{written} in {where} is no coding of the {len(levels)} levels of {name} "
                f"({shorten(map(typed, levels))}): a matrix has a row for each and a column for each but one, scores "
                "are a number for each"
            )
    return None


def _levels_of(column: pd.Series) -> list[Any]:
    return list(column.cat.categories) if isinstance(column.dtype, pd.CategoricalDtype) else np.unique(column).tolist()


def _reference(coding: ast.expr) -> Any:
    """The level that a treatment coding names; None if it names none, or is another coding."""
    called = coding.func if isinstance(coding, ast.Call) else coding
    if not isinstance(coding, ast.Call) or ast.unparse(called) not in _TREATMENT:
        return None
    given = [*coding.args[:1], *(word.value for word in coding.keywords if word.arg in ("base", "reference"))]
    return next((value.value for value in given if isinstance(value, ast.Constant)), None)
