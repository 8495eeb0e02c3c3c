"""What a formula must not ask of the columns that it finds, said before its columns are made."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.parser.types import Factor, Term

from mlmed.data.evaluation import looks_at_other_rows, tree_of
from mlmed.data.terms import Encoding
from mlmed.data.values import is_numeric
from mlmed.errors import DataError, FormulaError
from mlmed.limits import refuse_columns, refuse_size
from mlmed.names import display_name, safe_name
from mlmed.syntax import coded_columns, codings_of, depends_on_other_rows, has_coded_expression
from mlmed.text import shorten, typed

__all__ = [
    "computed_levels",
    "depends_on_rows",
    "least_columns",
    "misfit_of_coding",
    "refuse_levels",
    "refuse_other_kinds",
    "refuse_other_rows",
    "refuse_wide",
    "unknown_level",
    "used_as_number",
]

_EQUAL = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
#: Methods of a column, and functions of numpy, that compare it; True if they ask for equality.
_COMPARING = {
    **dict.fromkeys(("isin", "eq", "ne", "equal", "not_equal"), True),
    **dict.fromkeys(("lt", "le", "gt", "ge", "between", "less", "less_equal", "greater", "greater_equal"), False),
}
#: Calls that take levels.
_OF_LEVELS = frozenset({"C", "I", "hashed", "where", *(name for name, equal in _COMPARING.items() if equal)})


def refuse_other_kinds(source: Formula, table: pd.DataFrame, where: str) -> None:
    """Refuse comparisons of a column of levels with anything else, and of a column of numbers with text.

    Parameters
    ----------
    source : Formula
        A right-hand side that is about to be learned.
    table : DataFrame
        Its columns as formulaic sees them.
    where : str
        The formula, for the message.

    Raises
    ------
    FormulaError
        A plain column is compared with a literal that is none of its levels, or of another kind, or with a column of
        another kind; or its levels have no order and are asked for one.
    """
    for factor in _written(source):
        tree, shown = ast.parse(factor.expr, mode="eval"), f"{display_name(factor.expr)!r} in {where}"
        for name, values, equal in _comparisons(tree):
            if name in table.columns:
                _check(table[name], values, equal, shown)
        for left, right in _sides(tree):
            names = _column(left), _column(right)
            if all(name in table.columns for name in names):
                _check_columns(table[names[0]], table[names[1]], shown)


def used_as_number(source: Formula, table: pd.DataFrame, where: str) -> FormulaError | None:
    """The error for a column of levels in arithmetic or in a function of numbers, if the formula has one."""
    for factor in _written(source):
        tree = ast.parse(factor.expr, mode="eval")
        for name in _computed(tree):
            if name in table.columns and isinstance(table[name].dtype, pd.CategoricalDtype):
                return FormulaError(
                    f"{display_name(factor.expr)!r} in {where} computes with {_described(table[name])}, which are no "
                    f"numbers. {_cure(name)}"
                )
    return None


def _written(source: Formula) -> Iterator[Factor]:
    """Factors that are expressions of Python."""
    return (factor for term in source for factor in term.factors if factor.eval_method.value == "python")


def _comparisons(tree: ast.AST) -> Iterator[tuple[str, list[Any], bool]]:
    """Column, the literals that it is compared with, and whether for equality."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for operator, (left, right) in zip(node.ops, _adjacent(node), strict=True):
                for column, other in ((left, right), (right, left)):
                    if name := _column(column):
                        yield name, _literals(other), isinstance(operator, _EQUAL)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _COMPARING:
            owner = _column(node.func.value)
            operands = [*node.args, *(word.value for word in node.keywords)]
            sides = operands if owner == "np" else [node.func.value, *operands]
            values = [value for side in sides for value in _literals(side)]
            yield from ((name, values, _COMPARING[node.func.attr]) for name in filter(None, map(_column, sides)))


def _sides(tree: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    return (pair for node in ast.walk(tree) if isinstance(node, ast.Compare) for pair in _adjacent(node))


def _adjacent(node: ast.Compare) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What stands on both sides of every sign of a comparison."""
    return pairwise([node.left, *node.comparators])


def _column(node: ast.expr) -> str:
    """The name of a plain column, also of one in ``I()``; otherwise nothing."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "I" and len(node.args) == 1:
        return _column(node.args[0])
    return node.id if isinstance(node, ast.Name) else ""


def _literals(node: ast.expr) -> list[Any]:
    """Numbers and texts that are written out; nothing for what has to be computed."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return []
    found = list(value) if isinstance(value, list | tuple | set) else [value]
    return [one for one in found if isinstance(one, str | int | float)]


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


def _check_columns(left: pd.Series, right: pd.Series, shown: str) -> None:
    for column, other in ((left, right), (right, left)):
        if _is_text(column) and is_numeric(other):
            raise FormulaError(
                f"{shown} compares {_described(column)}, with the numbers of the column "
                f"{display_name(str(other.name))!r}, and no text is a number. {_cure(str(column.name))}"
            )


def _is_text(column: pd.Series) -> bool:
    if not isinstance(column.dtype, pd.CategoricalDtype):
        return False
    return all(isinstance(level, str) for level in column.cat.categories)


def _described(column: pd.Series) -> str:
    levels = shorten(map(repr, column.cat.categories.tolist()))
    return f"the column {display_name(str(column.name))!r}, which holds text or categories with the levels {levels}"


def _cure(name: str) -> str:
    shown = display_name(name)
    return (
        "Compare it with its levels as they are written, or convert it to numbers; if they are value labels of a Stata "
        f"or SPSS file, codes=[{shown!r}] of read_table() or --codes {shown} keeps its numbers"
    )


def _computed(tree: ast.AST) -> Iterator[str]:
    """Names that stand in arithmetic or are given to a function of numbers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp):
            operands = [node.left, node.right]
        elif isinstance(node, ast.UnaryOp):
            operands = [node.operand]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) not in _OF_LEVELS:
            operands = [*node.args, *(word.value for word in node.keywords)]
        else:
            continue
        yield from filter(None, map(_column, operands))


#: Arguments that say how many columns a call makes.
_SIZES = frozenset({"degree", "df", "levels"})


def refuse_wide(formula: Formula, table: pd.DataFrame, where: str, *, dense: bool) -> None:
    """Refuse formulas whose columns would not fit, before memory is asked for.

    Parameters
    ----------
    formula : Formula
        One right-hand side.
    table : DataFrame
        Encodable rows.
    where : str
        What has it, for the message.
    dense : bool
        Whether columns will be made with their zeros.

    Raises
    ------
    DataError
        With the number of columns and the memory that they need.
    """
    width = least_columns(formula, table)
    refuse_columns(width, where)
    if dense:
        refuse_size(
            8.0 * width * len(table),
            f"{where}: at least {width} columns of {len(table)} rows",
            "use fewer columns: merge the levels of factors, or lower the degrees of splines and polynomials",
        )


def least_columns(formula: Formula, table: pd.DataFrame) -> int:
    """Columns that the terms of a formula make at least, the constant among them: products of those of their factors.

    Examples
    --------
    >>> table = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "g": pd.Categorical(list("abcd"))})
    >>> [least_columns(Formula(text), table) for text in ("x + g", "C(x):g", "bs(x, df=5):poly(x, 2)")]
    [5, 10, 11]
    """
    known: dict[str, int] = {}
    total = 0
    for term in formula:
        for factor in term.factors:
            if factor.expr not in known:
                known[factor.expr] = _width(factor, table)
        total += int(np.prod([float(known[factor.expr]) for factor in term.factors], initial=1.0))
    return total


def _width(factor: Factor, table: pd.DataFrame) -> int:
    """Columns of a factor: those of its levels but one, or what a call is asked for; 1 for anything else."""
    if factor.eval_method.value == "lookup":
        return _levels(table, factor.expr)
    if factor.eval_method.value != "python":
        return 1
    coded = coded_columns(factor.expr)
    if coded:
        return max(_levels(table, safe_name(name), coded=True) for name in coded)
    tree = ast.parse(factor.expr, mode="eval").body
    if not isinstance(tree, ast.Call):
        return 1
    sizes = [word.value for word in tree.keywords if word.arg in _SIZES] + tree.args[1:2]
    numbers = [one.value for one in sizes if isinstance(one, ast.Constant) and isinstance(one.value, int)]
    called = tree.func.id if isinstance(tree.func, ast.Name) else ""
    return max([1, *numbers]) if called in ("bs", "cs", "cr", "cc", "poly", "hashed") else 1


def _levels(table: pd.DataFrame, name: str, *, coded: bool = False) -> int:
    if name not in table.columns:
        return 1
    column = table[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return max(len(column.cat.categories) - 1, 1)
    return max(int(column.nunique()) - 1, 1) if coded else 1


def refuse_other_rows(terms: Iterable[Term], where: str) -> None:
    """Refuse a term whose value in a row depends on other rows.

    Raises
    ------
    FormulaError
        There is one; ``where`` says in which formula.
    """
    if (told := depends_on_rows(terms, where)) is not None:
        raise told


def depends_on_rows(terms: Iterable[Term], where: str) -> FormulaError | None:
    """The error for the first term that takes its values from other rows; None if there is none."""
    for term in terms:
        for factor in term.factors:
            if factor.eval_method.value == "python" and looks_at_other_rows(tree_of(factor.expr)):
                return depends_on_other_rows(display_name(factor.expr), where)
    return None


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
