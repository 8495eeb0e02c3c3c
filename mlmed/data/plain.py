"""Equations without clusters + table -> matrices: what ordinary regressions are fitted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.compact import Compact
from mlmed.data.alike import refuse_alike
from mlmed.data.design import encode, learn_equation, refuse_intercept, response_values, to_encodable
from mlmed.data.evaluation import Memory
from mlmed.data.frames import refuse_infinite, replaced, select_columns, shorten
from mlmed.data.layout import EquationLayout
from mlmed.data.sizes import refuse_sizes
from mlmed.data.terms import Encoding
from mlmed.data.written_numbers import conversion, refusal_of_text, value_counts, written_numbers
from mlmed.errors import DataError
from mlmed.formula import Equation
from mlmed.names import safe_name

__all__ = [
    "PlainDesign",
    "complete_rows",
    "encode_each",
    "plain_design",
    "read_columns",
    "two_levels",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False)
class PlainDesign(Compact):
    """Numbers of one equation on its rows.

    Attributes
    ----------
    equation : Equation
        What was asked; its random terms play no part here.
    layout : EquationLayout
        Names, encodings, typical values and levels.
    y : (n,) array
        Response; for one with two levels 0 and 1.
    X : (n, p) array
        Fixed-effects columns.
    table : DataFrame of n rows
        The predictors as formulaic sees them, for encoding them again at other values.
    """

    equation: Equation
    layout: EquationLayout
    y: Array
    X: Array
    table: pd.DataFrame

    @property
    def names(self) -> tuple[str, ...]:
        """Column labels of X."""
        return self.layout.fixed


def read_columns(equations: Iterable[Equation], data: Any, *, keep: Iterable[str] = ()) -> pd.DataFrame:
    """The columns of several equations, and those in ``keep`` as they are, with a fresh index.

    Raises
    ------
    DataError
        Unknown columns, no rows, values that are infinite or of unusual size, two things that would be printed alike.
    """
    kept, equations = tuple(keep), tuple(equations)
    refuse_alike((equation, ()) for equation in equations)
    variables = frozenset(kept).union(*(equation.variables for equation in equations))
    refuse_intercept(variables)
    table = select_columns(data, variables, keep=kept)
    refuse_infinite(table)
    refuse_sizes(table, but=kept)
    return table


def complete_rows(table: pd.DataFrame, names: Iterable[str]) -> NDArray[np.bool_]:
    """Rows without a missing value in the named columns, (n,)."""
    return np.asarray(~table[sorted(names)].isna().to_numpy().any(axis=1))


def two_levels(column: pd.Series) -> tuple[Any, Any] | None:
    """The two values of a truth value, a factor or a number that has no more, in order; otherwise None."""
    known = column.dropna()
    if isinstance(column.dtype, pd.CategoricalDtype):
        found = [level for level in column.cat.categories if (known == level).any()]
    else:
        found = sorted(known.unique().tolist())
    return (found[0], found[1]) if len(found) == 2 else None


def plain_design(equation: Equation, table: pd.DataFrame, *, binary: bool = False) -> PlainDesign:
    """Encode one equation on a table whose rows are complete.

    Parameters
    ----------
    equation : Equation
        Its random terms are left out.
    table : DataFrame
        From ``read_columns``, complete rows only.
    binary : bool
        Whether a response with two levels that are not numbers may be coded as 0 and 1.

    Raises
    ------
    DataError, FormulaError
        A response that is not numeric, predictors that cannot be used, formulas that cannot be evaluated.
    """
    encodable = to_encodable(table[[name for name in table.columns if name in equation.variables]])
    memory = Memory(encodable)
    (fixed, *_), layout = learn_equation(equation, memory, random=False)
    refuse_alike([(equation, layout.encodings)])
    X = np.stack([np.asarray(column) for column in fixed], axis=1)
    y = _response(equation, table, memory, binary)
    if len(y) and np.all(y == y[0]):
        raise DataError(
            f"the response {equation.name!r} is constant ({y[0]:g}) in the rows of its equation; choose another one"
        )
    return PlainDesign(equation, layout, y, X, encodable)


def _response(equation: Equation, table: pd.DataFrame, memory: Memory, binary: bool) -> Array:
    name = equation.name
    column = table[name] if name in table.columns else None
    if column is None or pd.api.types.is_numeric_dtype(column.dtype):  # truth values are 0 and 1
        return response_values(equation, memory)
    if isinstance(column.dtype, pd.CategoricalDtype):
        counts = value_counts(column)
        if (found := written_numbers(counts)) is not None:
            raise DataError(f"the response {refusal_of_text(found, name, counts)}")
    levels = two_levels(column) if binary else None
    if levels is None:
        shown = f"type {column.dtype}, first value {str(column.iloc[0])!r}"
        raise DataError(
            f"the response {name!r} is not numeric ({shown}"
            + (f", {column.nunique()} categories" if binary else "")
            + f"); {conversion(column)}, or, with two categories, use mlmed.causal with family 'logit' or 'probit'"
        )
    return (column == levels[1]).to_numpy(dtype=np.float64)


def encode_each(
    encodings: Sequence[Encoding], layout: EquationLayout, table: pd.DataFrame, cases: Sequence[Mapping[str, Any]]
) -> Array:
    """Columns of several encodings side by side, (cases, n, p), once per set of values.

    Parameters
    ----------
    encodings : sequence of formulaic specs
        Of ``layout.encodings``; without any, p is 0.
    layout : EquationLayout
        Of the fitted equation.
    table : DataFrame
        ``PlainDesign.table`` of the rows.
    cases : sequence of mapping
        Variable -> value in every row; variables that the equation does not use are skipped. A factor takes one of its
        levels.

    Raises
    ------
    DataError
        A factor has no such level, or a number is needed.
    FormulaError
        A formula cannot be evaluated there.
    """
    n = len(table)
    rows = pd.concat([_with_values(layout, table, values) for values in cases], ignore_index=True)
    parts = [encode(encoding, rows, where=f"equation {layout.name}")[0] for encoding in encodings]
    columns = np.concatenate(parts, axis=1) if parts else np.empty((len(rows), 0))
    return columns.reshape(len(cases), n, columns.shape[1])


def _with_values(layout: EquationLayout, table: pd.DataFrame, values: Mapping[str, Any]) -> pd.DataFrame:
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in layout.typical:
            continue
        known = layout.levels.get(name)
        if known is not None and value not in known:
            raise DataError(f"{name} has no level {value!r}; its levels are {shorten(known)}")
        if isinstance(table[safe_name(name)].dtype, pd.CategoricalDtype):
            changed[safe_name(name)] = pd.Categorical([value], categories=list(known or ())).repeat(len(table))
        elif not isinstance(value, int | float | np.number | np.bool_):
            raise DataError(f"{name} holds numbers; found the value {value!r}. Give a number")
        else:
            changed[safe_name(name)] = np.full(len(table), float(value))
    return replaced(table, changed) if changed else table
