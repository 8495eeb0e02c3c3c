"""How many columns a formula makes at least, known before any of them is made."""

from __future__ import annotations

import ast

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic.parser.types import Factor

from mlmed.calls import coded_columns
from mlmed.data.memory import refuse_columns, refuse_size
from mlmed.names import safe_name

__all__ = ["least_columns", "refuse_wide"]

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
