"""Equations + table -> Design: the distinct columns of all equations, who uses which, which rows count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from numpy.typing import NDArray

from mlmed.data.alike import refuse_likeness
from mlmed.data.columns import MANY_COLUMNS, Column, SparseColumn, completed, same_on
from mlmed.data.comparisons import refuse_other_kinds, used_as_number
from mlmed.data.evaluation import EVALUATION_ERRORS, Memory
from mlmed.data.factors import misfit_of_coding, refuse_levels, unknown_level
from mlmed.data.frames import cluster_codes, normalize, refuse_infinite, replaced, select_columns
from mlmed.data.layout import INTERCEPT, Design, Dropped, EquationLayout, Layout, column_labels
from mlmed.data.predictors import (
    check_fixed,
    check_predictors,
    check_random,
    level_count,
    observed_values,
    typical_values,
)
from mlmed.data.rowwise import depends_on_rows, refuse_other_rows
from mlmed.data.sizes import refuse_sizes
from mlmed.data.terms import Encoding, UnknownLevelError, is_expression, learn_terms, term_columns
from mlmed.data.widths import refuse_wide
from mlmed.data.written_numbers import refusal_of_response, value_counts, written_numbers
from mlmed.errors import DataError, FormulaError, filtering
from mlmed.formula import Equation, formula_of
from mlmed.names import display_name, safe_name
from mlmed.system.model import ModelSpec

__all__ = [
    "build_design",
    "check_response",
    "encodable_values",
    "encode",
    "encode_columns",
    "learn_columns",
    "learn_encoding",
    "learn_equation",
    "refuse_intercept",
    "response_values",
    "spread_column",
    "to_encodable",
]

Array = NDArray[np.float64]


@dataclass(slots=True)
class _Columns:
    """Distinct columns met so far by their expressions; merged when two equations mean the same numbers.

    A key is formulaic's name, and before it the equation where its numbers are those of one equation only.
    """

    names: dict[tuple[str, str], int]
    values: list[Column]
    rows: list[NDArray[np.bool_]]

    def place(self, name: str, values: Column, rows: NDArray[np.bool_], equation: str) -> int:
        for key in (("", name), (equation, name)):
            if key not in self.names:
                break
            at = self.names[key]
            if same_on(self.values[at], values, self.rows[at] & rows):
                if not np.array_equal(self.rows[at], rows):
                    self.values[at] = completed(self.values[at], values, self.rows[at])
                    self.rows[at] = self.rows[at] | rows
                return at
        self.names[key] = len(self.values)
        self.values.append(values)
        self.rows.append(rows)
        return self.names[key]


def build_design(spec: ModelSpec, data: Any) -> Design:
    """Read the table once and encode every equation on its own complete rows.

    Raises
    ------
    DataError
        Unknown or non-numeric columns, infinite or all-missing values, constant columns, fewer than two clusters.
    FormulaError
        If a formula cannot be evaluated on the data.
    """
    variables = frozenset().union(*(equation.variables for equation in spec.equations))
    refuse_intercept(variables)
    table = select_columns(data, variables, keep=spec.group)
    refuse_infinite(table)
    refuse_sizes(table, but=spec.group)
    codes, clusters = cluster_codes(table, spec.group)
    both = [name for name in spec.group if any(name in equation.predictors for equation in spec.equations)]
    if both:  # ids that are predictors, too
        table = replaced(table, {name: normalize(table[name]) for name in both})
    known = codes >= 0
    if not known.any():
        raise DataError(f"the cluster id {':'.join(spec.group)} is missing in every row; check the column")
    complete = [_complete_rows(equation, table) & known for equation in spec.equations]
    for equation, rows in zip(spec.equations, complete, strict=True):
        if not rows.any():
            raise DataError(
                f"equation {equation.name} has no row that is complete and whose cluster id {':'.join(spec.group)} is "
                f"known ({int((~known).sum())} of {len(known)} ids are missing); check the column of ids"
            )
    dropped = tuple(
        _dropped(equation, table, rows, known)
        for equation, rows in zip(spec.equations, complete, strict=True)
        if not rows.all()
    )
    kept = np.logical_or.reduce(complete)
    columns = _Columns({("", INTERCEPT): 0}, [np.ones(int(kept.sum()))], [np.ones(int(kept.sum()), dtype=bool)])
    used = sorted(frozenset().union(*(equation.predictors | equation.response_columns for equation in spec.equations)))
    equations, memories = [], {}
    for equation, rows in zip(spec.equations, complete, strict=True):
        check_response(equation, table)
        key = rows.tobytes()
        if key not in memories:  # equations with the same rows share what is computed of them
            memories[key] = Memory(_usable(table, used, rows))
        equations.append(_design_equation(equation, memories[key], rows[kept], columns))
    refuse_likeness(spec, equations)
    codes, clusters = _used_clusters(codes[kept], clusters)
    layout = Layout(spec.equations, column_labels(columns.names), tuple(equations), dropped, len(table))
    members = np.stack(complete)[:, kept]
    return Design(layout, tuple(columns.values), members, codes, clusters, np.flatnonzero(kept))


def refuse_intercept(variables: frozenset[str]) -> None:
    """A column called Intercept cannot be told from the constant."""
    if INTERCEPT in variables:
        raise FormulaError(f"a column called {INTERCEPT} cannot be told from the constant; rename it")


def _complete_rows(equation: Equation, table: pd.DataFrame) -> NDArray[np.bool_]:
    names = sorted(equation.variables - equation.group_columns)
    missing = {name: pd.isna(table[name].array) for name in names}
    for name in names:
        if missing[name].all():
            raise DataError(
                f"column {name!r} has only missing values, so equation {equation.name} cannot use it; check how it was "
                "read, or remove it"
            )
    rows = ~np.logical_or.reduce(list(missing.values()))
    if not rows.any():
        counts = ", ".join(f"{name}: {int(own.sum())}" for name, own in missing.items() if own.any())
        raise DataError(
            f"equation {equation.name} has no complete row (missing values by column: {counts}); remove a column that "
            "is mostly missing"
        )
    return np.asarray(rows, dtype=np.bool_)


def _dropped(equation: Equation, table: pd.DataFrame, rows: NDArray[np.bool_], known: NDArray[np.bool_]) -> Dropped:
    names = sorted(equation.variables - equation.group_columns)
    counts = table.loc[known, names].isna().sum()
    missing = {str(name): int(count) for name, count in counts.items() if count}
    return Dropped(equation.name, len(table), int(rows.sum()), int((~known).sum()), missing)


def _usable(table: pd.DataFrame, names: Sequence[str], rows: NDArray[np.bool_]) -> pd.DataFrame:
    """Some columns of complete rows under safe names, truth values as 0 and 1, categories that do not occur removed."""
    return to_encodable(table if rows.all() else table.loc[rows], names)


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


def _used_clusters(codes: NDArray[np.intp], clusters: pd.Index) -> tuple[NDArray[np.intp], pd.Index]:
    used = np.bincount(codes, minlength=len(clusters)) > 0
    if used.all():
        return codes, clusters
    return (np.cumsum(used) - 1)[codes], clusters[used]


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


def check_response(equation: Equation, table: pd.DataFrame) -> None:
    """Refuse a response that is not numeric, and one that is computed from text that holds numbers."""
    for name in sorted(equation.response_columns):
        column = table[name]
        if name == equation.name and not pd.api.types.is_numeric_dtype(column.dtype):  # truth values are 0 and 1
            raise refusal_of_response(column)
        if isinstance(column.dtype, pd.CategoricalDtype) and written_numbers(value_counts(column)) is not None:
            raise refusal_of_response(column)


def _design_equation(equation: Equation, memory: Memory, rows: NDArray[np.bool_], columns: _Columns) -> EquationLayout:
    placed = {INTERCEPT: 0}

    def place(names: Sequence[str], values: Sequence[Column]) -> None:
        for name, column in zip(names, values, strict=True):
            if name not in placed:
                placed[name] = columns.place(name, spread_column(column, rows), rows, equation.name)

    place([equation.response], [response_values(equation, memory)])
    sparse = level_count(equation, memory.table) >= MANY_COLUMNS
    numbers, layout = learn_equation(equation, memory, sparse=sparse)
    for own, encoding in zip(numbers, layout.encodings, strict=True):
        place(encoding.column_names, own)
    known = layout.typical, layout.spread, layout.levels
    return EquationLayout.of(
        equation.name, layout.encodings, known, layout.observed, response=equation.response, placed=placed
    )


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


def spread_column(values: Column, rows: NDArray[np.bool_]) -> Column:
    """A column of some rows, (n,) flags, on all rows; undefined elsewhere."""
    if rows.all():
        return values
    if isinstance(values, SparseColumn):
        return values.spread(rows)
    out = np.full(len(rows), np.nan)
    out[rows] = values
    return out
