"""A right-hand side and a table -> numbers, and the encoding that repeats them on new rows, in memory or not."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from numpy.typing import NDArray

from mlmed.data.checks import (
    depends_on_rows,
    misfit_of_coding,
    refuse_levels,
    refuse_other_kinds,
    refuse_other_rows,
    refuse_wide,
    unknown_level,
    used_as_number,
)
from mlmed.data.columns import Column, SparseColumn
from mlmed.data.evaluation import EVALUATION_ERRORS, Memory
from mlmed.data.frames import replaced
from mlmed.data.layout import EquationLayout
from mlmed.data.predictors import (
    check_fixed,
    check_predictors,
    check_random,
    observed_values,
    typical_values,
)
from mlmed.data.terms import Encoding, UnknownLevelError, is_expression, learn_terms, term_columns
from mlmed.errors import DataError, FormulaError, filtering
from mlmed.formula import Equation, formula_of
from mlmed.names import display_name, safe_name

__all__ = [
    "encodable_values",
    "encode",
    "encode_columns",
    "encodings_of",
    "learn_columns",
    "learn_encoding",
    "learn_equation",
    "response_encoding",
    "response_values",
    "stand_in",
    "to_encodable",
]

Array = NDArray[np.float64]


def to_encodable(table: pd.DataFrame, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Columns as formulas see them, under safe names; others stay what they are."""
    made = encodable_values(table, names)
    renamed = {str(name): safe_name(str(name)) for name in table.columns if safe_name(str(name)) != name}
    return made.rename(columns=renamed) if renamed else made


def encodable_values(table: pd.DataFrame, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Truth values as numbers, factors without levels that no row has."""
    changed: dict[str, Any] = {}
    for name in table.columns if names is None else names:
        column = table[name]
        if isinstance(column.dtype, pd.BooleanDtype):
            changed[name] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        elif isinstance(column.dtype, pd.CategoricalDtype):
            changed[name] = column.cat.remove_unused_categories()
    return replaced(table, changed) if changed else table


def encode(
    text: str | Formula | Encoding, table: pd.DataFrame | Memory, *, where: str, finite: bool = True
) -> tuple[Array, Encoding]:
    """Turn a right-hand side into numbers, (n, columns), and the encoding that repeats it on new data.

    Raises
    ------
    FormulaError
        If the formula cannot be evaluated, it yields values that are not finite, a factor has a level that it
        did not have when it was learned, or a column is compared with what none of its values can be.
    DataError
        If a factor has a single level when it is learned.
    """
    columns, encoding = encode_columns(text, table, where=where, finite=finite, sparse=False)
    n = len(table.table if isinstance(table, Memory) else table)
    return np.stack([np.asarray(one) for one in columns], axis=1) if columns else np.empty((n, 0)), encoding


def encode_columns(
    text: str | Formula | Encoding,
    table: pd.DataFrame | Memory,
    *,
    where: str,
    finite: bool = True,
    sparse: bool = True,
) -> tuple[list[Column], Encoding]:
    """The same column by column; ``sparse``: those that are mostly zero without their zeros."""
    memory = table if isinstance(table, Memory) else Memory(table)
    source = formula_of(text) if isinstance(text, str) else text
    if isinstance(source, Formula):
        refuse_wide(source, memory.table, where, dense=not sparse)
        refuse_other_kinds(source, memory.table, where)
    else:
        memory.states.update(source.states)
    terms = source if isinstance(source, Formula) else source.formula
    computes = any(is_expression(factor) for term in terms for factor in term.factors)
    try:
        with np.errstate(all="ignore"), filtering(ignore=RuntimeWarning) if computes else nullcontext():
            encoding = learn_terms(source, memory) if isinstance(source, Formula) else source
            columns = term_columns(encoding, memory, sparse=sparse)
    except UnknownLevelError as error:
        raise unknown_level(text, where) from error
    except EVALUATION_ERRORS as error:
        raise _not_evaluated(terms, memory, where, error, is_new=isinstance(source, Formula)) from error
    if isinstance(source, Formula):
        refuse_levels(encoding, where)
    _refuse_complex(columns, encoding, where)
    if finite:
        _refuse_not_finite(columns, encoding, memory.table, where)
    return columns, encoding


def _not_evaluated(terms: Formula, memory: Memory, where: str, error: Exception, *, is_new: bool) -> FormulaError:
    """What is said of a formula that has no value."""
    told = (used_as_number, misfit_of_coding) if is_new else ()
    named = next(filter(None, (tell(terms, memory.table, where) for tell in told)), None)
    said = display_name(str(error).splitlines()[0] if str(error) else type(error).__name__)
    other = FormulaError(f"cannot evaluate {display_name(str(terms))!r} in {where}: {said}; check the formula")
    return named or depends_on_rows(terms, where) or other


def _refuse_complex(columns: list[Column], encoding: Encoding, where: str) -> None:
    """Double precision would lose the imaginary part silently."""
    for name, column in zip(encoding.column_names, columns, strict=True):
        if np.iscomplexobj(column):
            raise DataError(
                f"{display_name(name)} in {where} has complex values; write what is meant as real numbers, such as its "
                "size"
            )


def _refuse_not_finite(columns: list[Column], encoding: Encoding, table: pd.DataFrame, where: str) -> None:
    for name, column in zip(encoding.column_names, columns, strict=True):
        finite = np.isfinite(column.values if isinstance(column, SparseColumn) else column)
        if not finite.all():
            bad = ~np.isfinite(np.asarray(column))
            row = table.index[int(np.argmax(bad))]
            raise FormulaError(
                f"{display_name(name)} in {where} is not a finite number in {int(bad.sum())} row(s), the first being "
                f"row {row}; check the transformation (for example the logarithm of a number that is not positive)"
            )


def learn_encoding(text: str, table: pd.DataFrame | Memory, *, where: str) -> tuple[Array, Encoding]:
    """Turn a right-hand side into numbers for the first time: ``encode`` and refuse what depends on other rows.

    Raises
    ------
    FormulaError
        As ``encode``; or a term takes its value in a row from other rows.
    """
    refuse_other_rows(formula_of(text), where)
    return encode(text, table, where=where)


def learn_columns(
    text: str, table: pd.DataFrame | Memory, *, where: str, sparse: bool
) -> tuple[list[Column], Encoding]:
    """The same column by column; ``sparse``: those that are mostly zero without their zeros."""
    refuse_other_rows(formula_of(text), where)
    return encode_columns(text, table, where=where, sparse=sparse)


def response_values(equation: Equation, table: pd.DataFrame | Memory) -> Array:
    """Numbers of the left-hand side, (n,)."""
    name, safe = equation.name, equation.response
    memory = table if isinstance(table, Memory) else Memory(table)
    if safe in memory.table.columns:
        values = memory.table[safe].to_numpy(dtype=np.float64)
    else:
        found = encode(f"0 + {safe}", memory, where=f"the response of {equation.text!r}")[0]
        if found.shape[1] != 1:
            raise FormulaError(
                f"the response {name!r} makes {found.shape[1]} columns; choose one column or write I(...)"
            )
        values = found[:, 0]
    return values


def learn_equation(
    equation: Equation, memory: Memory, *, random: bool = True, sparse: bool = False
) -> tuple[list[list[Column]], EquationLayout]:
    """Columns of the fixed part and of each random term, and what is known of the equation; its columns have no places.

    Parameters
    ----------
    equation : Equation
        What was asked.
    memory : Memory
        Its complete rows.
    random : bool
        Whether the random terms are encoded.
    sparse : bool
        Whether columns that are mostly zero come without their zeros.

    Raises
    ------
    DataError, FormulaError
        As ``encode``; or a predictor cannot be used, or an effect is there twice.
    """
    check_predictors(equation, memory.table)
    where = repr(equation.text)
    texts = [equation.fixed, *(term.formula for term in equation.random if random)]
    learned = []
    for text in texts:
        learned.append(learn_columns(text, memory, where=where, sparse=sparse))
        check_fixed(equation, learned[0][1].column_names)
    numbers, encodings = [own for own, _ in learned], [encoding for _, encoding in learned]
    check_random(equation, [display_name(name) for encoding in encodings[1:] for name in encoding.column_names])
    known = typical_values(equation, memory.table)
    observed = observed_values(equation, memory.table, known[0])
    return numbers, EquationLayout.of(equation.name, encodings, known, observed)


def stand_in(typical: dict[str, Any], spread: dict[str, float], levels: dict[str, tuple[Any, ...]]) -> pd.DataFrame:
    """A table whose columns have the given means, sample standard deviations and levels.

    Parameters
    ----------
    typical : dict
        Means of numeric variables (entries of factors are not used).
    spread : dict
        Standard deviations of numeric variables.
    levels : dict
        Levels of factors.
    """
    n = 2 * max([1, *(len(known) for known in levels.values())])
    half = np.repeat([-1.0, 1.0], n // 2) * np.sqrt((n - 1) / n)
    columns: dict[str, Any] = {}
    for name in sorted({*typical, *levels}):
        known = levels.get(name)
        if known is None:
            columns[safe_name(name)] = typical[name] + spread[name] * half
        else:
            cycle = [known[k % len(known)] for k in range(n)]
            is_number = isinstance(known[0], float)
            columns[safe_name(name)] = np.array(cycle) if is_number else pd.Categorical(cycle, categories=list(known))
    return pd.DataFrame(columns, index=pd.RangeIndex(n))


def encodings_of(equation: Equation, table: pd.DataFrame) -> tuple[Encoding, ...]:
    """Those of the fixed part and of each random term, learned from a stand-in table.

    Raises
    ------
    FormulaError
        A term takes its value in a row from other rows.
    """
    texts = [equation.fixed, *(term.formula for term in equation.random)]
    for text in texts:
        refuse_other_rows(formula_of(text), repr(equation.text))
    return tuple(encode_columns(text, table, where=repr(equation.text), finite=False)[1] for text in texts)


def response_encoding(equation: Equation, table: pd.DataFrame) -> Encoding | None:
    """The same of a response that is computed; None if it is a column as it stands."""
    if equation.response_columns == {equation.name}:
        return None
    return encode_columns(f"0 + {equation.response}", table, where=repr(equation.text), finite=False)[1]
