"""Refuse comparisons that no row can pass: ``arm == 1`` with a column of levels, ``x == 'a'`` with one of numbers.

pandas answers them with False everywhere and without a word, so a predictor or a response would be another than meant.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pandas as pd
from formulaic import Formula
from formulaic.parser.types import Factor

from mlmed.data.frames import is_numeric, shorten
from mlmed.errors import FormulaError
from mlmed.names import display_name

__all__ = ["refuse_other_kinds", "used_as_number"]

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
