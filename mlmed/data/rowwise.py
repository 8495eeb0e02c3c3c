"""Refuse formulas whose value in a row depends on other rows: ``I(w - w.mean())``, ``x.rank()``, ``lag(x)``.

Such a statistic would be taken again from whatever rows are encoded next (new rows, one row with ``at=``), and the
coefficients would mean something else there. ``center()``, ``scale()``, ``poly()`` and splines remember the rows of
the fit and stay.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from formulaic import ModelSpec as Encoding
from formulaic.parser.types import Factor, Term
from numpy.typing import NDArray

from mlmed.calls import coded_columns
from mlmed.errors import FormulaError
from mlmed.names import FUNCTIONS, display_name
from mlmed.syntax import depends_on_other_rows

__all__ = ["depends_on_rows", "refuse_other_rows", "unclear_terms"]

Array = NDArray[np.float64]

#: Values of one row, evaluated among other rows, may differ by this share of the column's largest (vectorized functions
#: of numpy round differently at the end of an array).
SAME_VALUE = 1e-9
#: Columns whose extreme rows are looked at, at most.
MOST_COLUMNS = 4
#: Syntax that works row by row, whatever the columns are.
_PLAIN = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.List, ast.Tuple,
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def refuse_other_rows(
    encoding: Encoding, values: Array, table: pd.DataFrame, again: Callable[[pd.DataFrame], Array], *, where: str
) -> None:
    """Evaluate single rows again by themselves, where the syntax does not show that this changes nothing.

    Parameters
    ----------
    encoding : formulaic spec
        Learned from ``table``.
    values : (n, columns) array
        Its columns there.
    table : DataFrame of n rows
        The rows of the fit.
    again : callable
        Rows -> columns, by ``encoding``.
    where : str
        The formula, for the message.

    Raises
    ------
    FormulaError
        A term has another value in a row when other rows surround it.
    """
    spans = unclear_terms(encoding)
    if not spans or not len(table):
        return
    columns = np.concatenate([np.arange(span.start, span.stop) for _, span in spans])
    rows = _telling_rows(values[:, columns[:MOST_COLUMNS]])
    tolerance = SAME_VALUE * np.abs(np.where(np.isfinite(values), values, 0.0)).max(axis=0)
    groups = [rows[::-1], *([row] * 2 for row in rows)]
    for group in map(np.asarray, groups):
        try:
            found = again(table.iloc[group].reset_index(drop=True))
        except FormulaError as error:
            raise _depends(_first_unclear(spans[0][0]), where) from error
        with np.errstate(invalid="ignore"):
            same = (np.abs(found - values[group]) <= tolerance) | (np.isnan(found) & np.isnan(values[group]))
        same |= found == values[group]  # infinite ones
        for term, span in spans:
            if not same[:, span].all():
                raise _depends(_first_unclear(term), where)


def unclear_terms(encoding: Encoding) -> list[tuple[Term, slice]]:
    """Terms, and where their columns are, of which the syntax does not say that they work row by row."""
    return [(term, span) for term, span in encoding.term_slices.items() if _unclear(term)]


def depends_on_rows(terms: Iterable[Term], where: str) -> FormulaError | None:
    """What to say of columns of another length than the table, ``w.mean()``; None if the syntax explains none.

    A factor, ``C(g, np.eye(2))``, has the length of the table; its coding is at fault.
    """
    for term in terms:
        for factor in term.factors:
            if not _is_rowwise(factor) and not coded_columns(factor.expr):
                return _depends(factor, where)
    return None


def _telling_rows(values: Array) -> NDArray[np.intp]:
    """Rows where columns are smallest and largest, and one from the middle: a statistic of one row is its own value."""
    known = np.isfinite(values)
    low, high = np.where(known, values, np.inf).argmin(axis=0), np.where(known, values, -np.inf).argmax(axis=0)
    return np.unique(np.concatenate([low, high, [len(values) // 2]]))


def _first_unclear(term: Term) -> Factor:
    return next(factor for factor in term.factors if not _is_rowwise(factor))


def _depends(factor: Factor, where: str) -> FormulaError:
    return depends_on_other_rows(display_name(factor.expr), where)


def _unclear(term: Term) -> bool:
    return not all(map(_is_rowwise, term.factors))


def _is_rowwise(factor: Factor) -> bool:
    """Whether the syntax alone says that the value of a row depends on this row only (or on what a state remembers)."""
    if factor.eval_method.value != "python":
        return True
    return all(map(_is_plain, _nodes(ast.parse(factor.expr, mode="eval"))))


def _nodes(tree: ast.AST) -> list[ast.AST]:
    """Every node but the names in front of dots, which are judged with what they have behind the dot."""
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return [node for node in ast.walk(tree) if id(node) not in inner]


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.MatMult):
        return False
    if isinstance(node, ast.Attribute):
        if not isinstance(node.value, ast.Name) or node.value.id not in FUNCTIONS:
            return False
        known = getattr(np, node.attr, None) if node.value.id == "np" else None
        return node.value.id != "np" or isinstance(known, np.ufunc | int | float)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) or (isinstance(node.func, ast.Name) and node.func.id != "lag")
    return isinstance(node, _PLAIN)
