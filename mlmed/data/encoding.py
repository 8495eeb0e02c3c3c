"""Right-hand side + table -> numbers, and the encoding that repeats them on new rows, in memory or in an engine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from mlmed.data.layout import EquationLayout, Known
from mlmed.data.predictors import (
    check_fixed,
    check_predictors,
    check_random,
    known_of,
)
from mlmed.data.terms import Encoding, UnknownLevelError, is_expression, learn_terms, term_columns
from mlmed.errors import DataError, FormulaError, filtering
from mlmed.formula import Equation, formula_of
from mlmed.names import display_name, safe_name

Array = NDArray[np.float64]


def to_encodable(table: pd.DataFrame, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Columns as formulas see them, under safe names; those not in ``names`` are only renamed."""
    made = encodable_values(table, names)
    renamed = {name: safe for name in map(str, table.columns) if (safe := safe_name(name)) != name}
    return made.rename(columns=renamed) if renamed else made


def encodable_values(table: pd.DataFrame, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Truth values as numbers, factors without unused levels."""
    wanted = table.columns if names is None else frozenset(names)
    columns = {str(name): column for name, column in table.items() if name in wanted}
    changed = {name: made for name, column in columns.items() if (made := encodable(column)) is not column}
    return replaced(table, changed) if changed else table


def encodable(column: pd.Series) -> pd.Series:
    """The same for one column."""
    if isinstance(column.dtype, pd.BooleanDtype):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), index=column.index, name=column.name)
    return column.cat.remove_unused_categories() if isinstance(column.dtype, pd.CategoricalDtype) else column


def _memory(table: pd.DataFrame | Memory) -> Memory:
    return table if isinstance(table, Memory) else Memory.of(table)


def encode(
    text: str | Formula | Encoding, table: pd.DataFrame | Memory, *, where: str, finite: bool = True
) -> tuple[Array, Encoding]:
    """Turn a right-hand side into numbers, (n, columns), and the encoding that repeats it on new data.

    Raises ``FormulaError``: the formula cannot be evaluated or yields values that are not finite, a factor has a level
    unknown to its encoding, or a column is compared with a value that it cannot have; ``DataError``: a factor has a
    single level when its encoding is learned.
    """
    memory = _memory(table)
    columns, encoding = encode_columns(text, memory, where=where, finite=finite, sparse=False)
    return side_by_side(columns, memory), encoding


def side_by_side(columns: Sequence[Column], memory: Memory) -> Array:
    """Columns of all rows as one array, (n, columns)."""
    return np.stack(list(map(np.asarray, columns)), axis=1) if columns else np.empty((memory.n, 0))


def encode_columns(
    text: str | Formula | Encoding,
    table: pd.DataFrame | Memory,
    *,
    where: str,
    finite: bool = True,
    sparse: bool = True,
) -> tuple[list[Column], Encoding]:
    """The same as single columns; ``sparse``: mostly zero ones without their zeros."""
    memory = _memory(table)
    source = formula_of(text) if isinstance(text, str) else text
    terms, is_new = (source, True) if isinstance(source, Formula) else (source.formula, False)
    if isinstance(source, Formula):
        refuse_wide(source, memory.columns, memory.n, where, dense=not sparse)
        refuse_other_kinds(source, memory.columns, where)
    else:
        memory.states.update(source.states)
    computes = any(is_expression(factor) for term in terms for factor in term.factors)
    try:
        with np.errstate(all="ignore"), filtering(ignore=RuntimeWarning) if computes else nullcontext():
            encoding = learn_terms(source, memory) if isinstance(source, Formula) else source
            columns = term_columns(encoding, memory, sparse=sparse)
    except UnknownLevelError as error:
        raise unknown_level(text, where) from error
    except EVALUATION_ERRORS as error:
        raise _not_evaluated(terms, memory, where, error, is_new=is_new) from error
    if is_new:
        refuse_levels(encoding, where)
    for name, column in zip(encoding.column_names, columns, strict=True):
        _refuse_numbers(name, column, memory, where, finite=finite)
    return columns, encoding


def _not_evaluated(terms: Formula, memory: Memory, where: str, error: Exception, *, is_new: bool) -> FormulaError:
    """The error for a formula that cannot be evaluated."""
    told = (used_as_number, misfit_of_coding) if is_new else ()
    named = next(filter(None, (tell(terms, memory.columns, where) for tell in told)), None)
    said = display_name(str(error).splitlines()[0] if str(error) else type(error).__name__)
    other = FormulaError(f"cannot evaluate {display_name(str(terms))!r} in {where}: {said}; check the formula")
    return named or depends_on_rows(terms, where) or other


def _refuse_numbers(name: str, column: Column, memory: Memory, where: str, *, finite: bool) -> None:
    """Refuse complex numbers, whose imaginary part would be lost silently, and values that are not finite."""
    if np.iscomplexobj(column):
        raise DataError(
            f"{display_name(name)} in {where} has complex values; write what is meant as real numbers, such as its size"
        )
    if finite and not np.isfinite(column.values if isinstance(column, SparseColumn) else column).all():
        bad = ~np.isfinite(np.asarray(column))
        row = memory.index[int(np.argmax(bad))]
        raise FormulaError(
            f"{display_name(name)} in {where} is not a finite number in {int(bad.sum())} row(s), the first being "
            f"row {row}; check the transformation (for example the logarithm of a number that is not positive)"
        )


def response_values(equation: Equation, memory: Memory) -> Array:
    """Numbers of the left-hand side, (n,)."""
    if equation.response in memory.columns:
        return memory.columns[equation.response].to_numpy(dtype=np.float64)
    found = encode(f"0 + {equation.response}", memory, where=f"the response of {equation.text!r}")[0]
    if found.shape[1] != 1:
        raise FormulaError(
            f"the response {equation.name!r} makes {found.shape[1]} columns; choose one column or write I(...)"
        )
    return found[:, 0]


def _learned(
    equation: Equation, memory: Memory, *, random: bool = True, sparse: bool = False, finite: bool = True
) -> tuple[list[list[Column]], tuple[Encoding, ...]]:
    """Columns and encodings of the fixed part and of each random term."""
    texts = [equation.fixed, *(term.formula for term in equation.random if random)]
    where, found = repr(equation.text), []
    for text in texts:
        refuse_other_rows(formula_of(text), where)
        found.append(encode_columns(text, memory, where=where, finite=finite, sparse=sparse))
        check_fixed(equation, found[0][1].column_names)
    numbers, encodings = [own for own, _ in found], tuple(encoding for _, encoding in found)
    check_random(equation, [display_name(name) for encoding in encodings[1:] for name in encoding.column_names])
    return numbers, encodings


def learn_equation(
    equation: Equation, memory: Memory, *, random: bool = True, sparse: bool = False
) -> tuple[list[list[Column]], EquationLayout]:
    """Columns of the fixed part and of each random term, and the layout of the equation without column positions.

    ``memory``: complete rows of the equation; ``random``: whether the random terms are encoded; ``sparse``: whether
    columns that are mostly zero come without their zeros.

    Raises ``DataError``, ``FormulaError``: as ``encode``; or a predictor cannot be used, depends on other rows, or
    occurs twice.
    """
    check_predictors(equation, memory.columns)
    numbers, encodings = _learned(equation, memory, random=random, sparse=sparse)
    return numbers, EquationLayout.of(equation.name, encodings, known_of(equation, memory.columns))


def typed_rows(levels: Mapping[str, Sequence[Any]], values: Mapping[str, Any]) -> pd.DataFrame:
    """A table of values of variables as formulas see it; ``levels``: of factors (text or numbers)."""
    columns: dict[str, Any] = {}
    for name, own in values.items():
        known = levels.get(name)
        is_text = known is not None and not isinstance(known[0], float)
        columns[safe_name(name)] = pd.Categorical(own, list(known or ())) if is_text else np.array(own, np.float64)
    return pd.DataFrame(columns)


def stand_in(known: Known) -> Memory:
    """Artificial rows with the known means and sample standard deviations of numbers, and levels of factors.

    They stand in for the rows of pushed-down or stored Grams when an encoding is learned.
    """
    n = 2 * max([1, *map(len, known.levels.values())])
    half = np.repeat([-1.0, 1.0], n // 2) * np.sqrt((n - 1) / n)
    rows = {name: known.typical[name] + spread * half for name, spread in known.spread.items()}
    rows |= {name: [levels[k % len(levels)] for k in range(n)] for name, levels in known.levels.items()}
    return Memory.of(typed_rows(known.levels, rows))


def encodings_of(equation: Equation, memory: Memory) -> tuple[Encoding, ...]:
    """Encodings of the fixed part and of each random term, learned from stand-in rows."""
    return _learned(equation, memory, finite=False)[1]


def response_encoding(equation: Equation, memory: Memory) -> Encoding | None:
    """The encoding of a computed response; None for a plain column."""
    if equation.response_columns == {equation.name}:
        return None
    return encode_columns(f"0 + {equation.response}", memory, where=repr(equation.text), finite=False)[1]
