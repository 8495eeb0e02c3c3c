"""Refuse formulas that do not fit the table's columns, before any design column is computed."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.parser.types import Factor, Term

from mlmed.data.evaluation import Plain, reading_of
from mlmed.data.terms import Encoding
from mlmed.data.values import is_numeric
from mlmed.errors import DataError, FormulaError
from mlmed.limits import refuse_columns, refuse_size
from mlmed.names import display_name
from mlmed.syntax import codings_of, depends_on_other_rows
from mlmed.text import shorten, typed

#: Columns by name.
Columns = Mapping[str, pd.Series]
#: Codings that compare the other levels with one that they may name.
_TREATMENT = frozenset({"Treatment", "contr.treatment", "contr.SAS"})
#: Comparisons that need no order.
_EQUAL = frozenset(
    {
        "==",
        "!=",
        *(f"{owner}.{name}" for owner in ("np", "") for name in ("isin", "eq", "ne")),
        "np.equal",
        "np.not_equal",
    }
)


def expressions_in(terms: Iterable[Term]) -> Iterator[str]:
    """Factors that are expressions."""
    return (factor.expr for term in terms for factor in term.factors if factor.eval_method.value == "python")


def refuse_other_kinds(source: Formula, table: Columns, where: str) -> None:
    """Refuse comparisons of a column of levels with anything else, and of a column of numbers with text.

    pandas silently answers them with False everywhere, which would change a predictor or response.

    Raises ``FormulaError``: a plain column is compared with a literal that is not one of its levels or is of another
    kind, or with a column of another kind; or unordered levels are compared by order.
    """
    for text in expressions_in(source):
        for key, operands in reading_of(text).compared:
            shown = f"{display_name(text)!r} in {where}"
            columns = [table[one.name] for one in operands if isinstance(one, Plain) and one.name in table]
            values = [one for one in operands if isinstance(one, str | int | float)]
            for column in columns:
                _check(column, values, key in _EQUAL, shown)
            for column, other in permutations(columns, 2):
                _check_columns(column, other, shown)


def used_as_number(source: Formula, table: Columns, where: str) -> FormulaError | None:
    """The error for a column of levels in arithmetic or in a function of numbers, if the formula has one."""
    for text in expressions_in(source):
        for name in reading_of(text).computed:
            if name in table and isinstance(table[name].dtype, pd.CategoricalDtype):
                return FormulaError(
                    f"{display_name(text)!r} in {where} computes with {_described(table[name])}, which are no "
                    f"numbers. {_cure(name)}"
                )
    return None


def _check(column: pd.Series, values: list[Any], equal: bool, shown: str) -> None:
    if is_numeric(column):
        texts = [value for value in values if isinstance(value, str)]
        if texts:
            raise FormulaError(
                f"{shown} compares the column {display_name(str(column.name))!r}, which holds numbers (such as "
                f"{column.iloc[0]:g}), with the text {shorten(map(repr, texts))}, which no number is. Compare it "
                "with a number, without quotation marks"
            )
    elif isinstance(column.dtype, pd.CategoricalDtype) and values:
        others = [value for value in values if value not in column.cat.categories]
        if others:
            raise FormulaError(
                f"{shown} compares {_described(column)}, with {shorten(map(repr, others))}: none of them in the rows "
                f"that are used. {_cure(str(column.name))}"
            )
        if not equal and not column.cat.ordered:
            raise FormulaError(
                f"{shown} asks for the order of {_described(column)}, which have none. {_cure(str(column.name))}"
            )


def _check_columns(column: pd.Series, other: pd.Series, shown: str) -> None:
    is_factor = isinstance(column.dtype, pd.CategoricalDtype)
    if is_factor and is_numeric(other) and all(isinstance(level, str) for level in column.cat.categories):
        raise FormulaError(
            f"{shown} compares {_described(column)}, with the numbers of the column "
            f"{display_name(str(other.name))!r}, and no text is a number. {_cure(str(column.name))}"
        )


def _described(column: pd.Series) -> str:
    levels = shorten(map(repr, column.cat.categories.tolist()))
    return f"the column {display_name(str(column.name))!r}, which holds text or categories with the levels {levels}"


def _cure(name: str) -> str:
    shown = display_name(name)
    return (
        "Compare it with its levels as they are written, or convert it to numbers; if they are value labels of a Stata "
        f"or SPSS file, codes=[{shown!r}] of read_table() or --codes {shown} keeps its numbers"
    )


def refuse_wide(formula: Formula, table: Columns, n: int, where: str, *, dense: bool) -> None:
    """Refuse formulas whose columns would not fit into memory, before it is allocated.

    ``dense``: whether columns are stored with their zeros.
    """
    width = least_columns(formula, table)
    refuse_columns(width, where)
    if dense:
        refuse_size(
            8.0 * width * n,
            f"{where}: at least {width} columns of {n} rows",
            "use fewer columns: merge the levels of factors, or lower the degrees of splines and polynomials",
        )


def least_columns(formula: Formula, table: Columns) -> int:
    """Lower bound for the number of columns of a formula, the constant included.

    Examples
    --------
    >>> table = {"x": pd.Series([1.0, 2.0, 3.0, 4.0]), "g": pd.Series(list("abcd"), dtype="category")}
    >>> [least_columns(Formula(text), table) for text in ("x + g", "C(x):g", "bs(x, df=5):poly(x, 2)")]
    [5, 10, 11]
    """
    factors = {factor.expr: factor for term in formula for factor in term.factors}
    width = {text: _width(factor, table) for text, factor in factors.items()}
    return sum(math.prod(width[factor.expr] for factor in term.factors) for term in formula)


def _width(factor: Factor, table: Columns) -> int:
    """Columns of a factor: levels minus one, or the number a call asks for; 1 for anything else."""
    if factor.eval_method.value == "lookup":
        return _level_count(table, factor.expr)
    if factor.eval_method.value != "python":
        return 1
    read = reading_of(factor.expr)
    return max([read.width, *(_level_count(table, name, coded=True) for name in read.factors if name)])


def _level_count(table: Columns, name: str, *, coded: bool = False) -> int:
    """Number of levels of a column, minus one."""
    if name not in table:
        return 1
    column = table[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return max(len(column.cat.categories) - 1, 1)
    return max(int(column.nunique()) - 1, 1) if coded else 1


def refuse_other_rows(terms: Iterable[Term], where: str) -> None:
    """Refuse a term whose value in a row depends on other rows: ``I(w - w.mean())``, ``x.rank()``.

    Such a statistic would be recomputed from the rows encoded next (new rows, one row with ``at=``), which changes the
    meaning of the coefficients. ``center()``, ``scale()``, ``poly()`` and splines remember the rows of the fit and are
    allowed.
    """
    if (told := depends_on_rows(terms, where)) is not None:
        raise told


def depends_on_rows(terms: Iterable[Term], where: str) -> FormulaError | None:
    """The error for the first term that depends on other rows; None if there is none."""
    found = (text for text in expressions_in(terms) if reading_of(text).looks_at_other_rows)
    return next((depends_on_other_rows(display_name(text), where) for text in found), None)


def computed_levels(encoding: Encoding) -> dict[str, tuple[Any, ...]]:
    """Levels of factors that are computed from columns, as in ``C(age >= 65)``."""
    return {text: levels for text, levels in encoding.levels.items() if None in reading_of(text).factors}


def refuse_levels(encoding: Encoding, where: str) -> None:
    """Refuse factors with a single level and levels that begin with two underscores: formulaic drops them silently.

    Raises ``DataError``: if there is one.
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
    """The error for values that are not levels of their factor."""
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


def misfit_of_coding(formula: Formula, table: Columns, where: str) -> FormulaError | None:
    """The error for a coding of C() that does not fit the column's levels; None if there is none."""
    for column, coding in (pair for text in sorted({*expressions_in(formula)}) for pair in codings_of(text)):
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
    """The reference level named by a treatment coding; None if it names none or is another coding."""
    called = coding.func if isinstance(coding, ast.Call) else coding
    if not isinstance(coding, ast.Call) or ast.unparse(called) not in _TREATMENT:
        return None
    given = [*coding.args[:1], *(word.value for word in coding.keywords if word.arg in ("base", "reference"))]
    return next((value.value for value in given if isinstance(value, ast.Constant)), None)
