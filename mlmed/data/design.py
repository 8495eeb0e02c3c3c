"""Equations + table -> Design: the distinct columns of all equations, who uses which, which rows count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic import ModelSpec as Encoding
from formulaic.errors import DataMismatchWarning, FormulaicError
from numpy.typing import NDArray

from mlmed.allowed import CONTEXT
from mlmed.data.alike import refuse_likeness
from mlmed.data.columns import MANY_COLUMNS, Column, SparseColumn, columns_of, completed, same_on
from mlmed.data.comparisons import refuse_other_kinds, used_as_number
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
from mlmed.data.rowwise import depends_on_rows, refuse_other_rows, unclear_terms
from mlmed.data.sizes import refuse_sizes
from mlmed.data.widths import refuse_wide
from mlmed.data.written_numbers import refusal_of_response, value_counts, written_numbers
from mlmed.errors import DataError, FormulaError, filtering
from mlmed.formula import Equation, formula_of
from mlmed.model import ModelSpec
from mlmed.names import display_name, safe_name

__all__ = [
    "build_design",
    "check_response",
    "encodable_values",
    "encode",
    "encode_columns",
    "learn_columns",
    "learn_encoding",
    "refuse_intercept",
    "response_values",
    "spread_column",
    "to_encodable",
]

Array = NDArray[np.float64]

#: What user formulas raise inside formulaic and numpy.
_EVALUATION_ERRORS = (
    FormulaicError,
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    TypeError,
    ValueError,
)


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
    table = replaced(table, {name: normalize(table[name]) for name in both})  # ids that are predictors, too
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
    equations = []
    for equation, rows in zip(spec.equations, complete, strict=True):
        check_response(equation, table)
        own = [name for name in table.columns if name in equation.variables]
        equations.append(_design_equation(equation, _usable(table[own], rows), rows[kept], columns))
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


def _usable(table: pd.DataFrame, rows: NDArray[np.bool_]) -> pd.DataFrame:
    """Complete rows under safe names, truth values as 0 and 1, categories that do not occur removed."""
    part = table if rows.all() else table.loc[rows]
    return to_encodable(part)


def to_encodable(table: pd.DataFrame) -> pd.DataFrame:
    """Columns as formulaic is to see them, under safe names."""
    renamed = {str(name): safe_name(str(name)) for name in table.columns if safe_name(str(name)) != name}
    made = encodable_values(table)
    return made.rename(columns=renamed) if renamed else made


def encodable_values(table: pd.DataFrame) -> pd.DataFrame:
    """Truth values as numbers, factors without levels that no row has."""
    changed: dict[str, Any] = {}
    for name in table.columns:
        kind = table[name].dtype
        if isinstance(kind, pd.BooleanDtype):
            changed[name] = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
        elif isinstance(kind, pd.CategoricalDtype):
            changed[name] = table[name].cat.remove_unused_categories()
    return replaced(table, changed) if changed else table


def _used_clusters(codes: NDArray[np.intp], clusters: pd.Index) -> tuple[NDArray[np.intp], pd.Index]:
    used = np.bincount(codes, minlength=len(clusters)) > 0
    if used.all():
        return codes, clusters
    return (np.cumsum(used) - 1)[codes], clusters[used]


def encode(
    text: str | Formula | Encoding, table: pd.DataFrame, *, where: str, finite: bool = True
) -> tuple[Array, Encoding]:
    """Turn a right-hand side into numbers, (n, columns), and the spec that repeats it on new data.

    Raises
    ------
    FormulaError
        If formulaic cannot evaluate the formula, it yields values that are not finite, a factor has a level that it
        did not have when it was learned, or a column is compared with what none of its values can be.
    DataError
        If a factor has a single level when it is learned.
    """
    matrix = _materialized(text, table, where, "numpy")
    numbers = _real(np.asarray(matrix), matrix.model_spec, where).reshape(len(table), -1)
    if finite:
        _refuse_not_finite(numbers, matrix.model_spec, table, where)
    return numbers, matrix.model_spec


def encode_columns(
    text: str | Formula | Encoding, table: pd.DataFrame, *, where: str, finite: bool = True
) -> tuple[list[Column], Encoding]:
    """The same column by column, those that are mostly zero without their zeros."""
    matrix = _materialized(text, table, where, "sparse")
    if np.iscomplexobj(matrix):
        _real(matrix.toarray(), matrix.model_spec, where)
    if finite and not np.isfinite(matrix.data).all():
        _refuse_not_finite(matrix.toarray(), matrix.model_spec, table, where)
    return columns_of(matrix), matrix.model_spec


def _materialized(text: str | Formula | Encoding, table: pd.DataFrame, where: str, output: str) -> Any:
    """What formulaic makes of a right-hand side."""
    source = formula_of(text) if isinstance(text, str) else text
    if isinstance(source, Formula):
        refuse_wide(source, table, where, dense=output == "numpy")
        refuse_other_kinds(source, table, where)
    try:
        with np.errstate(all="ignore"), filtering(ignore=RuntimeWarning, error=(DataMismatchWarning,)):
            matrix = source.get_model_matrix(table, context=CONTEXT, na_action="ignore", output=output)
    except DataMismatchWarning as error:
        raise unknown_level(text, where) from error
    except _EVALUATION_ERRORS as error:
        named = used_as_number(source, table, where) if isinstance(source, Formula) else None
        named = named or (misfit_of_coding(source, table, where) if isinstance(source, Formula) else None)
        if named is not None:
            raise named from error
        if not isinstance(error, FormulaicError):  # every factor has been evaluated, but they are no columns of a table
            terms = text.formula if isinstance(text, Encoding) else source
            if (told := depends_on_rows(terms, where)) is not None:
                raise told from error
        shown = display_name(str(text.formula if isinstance(text, Encoding) else text))
        said = display_name(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise FormulaError(f"cannot evaluate {shown!r} in {where}: {said}; check the formula") from error
    if not isinstance(text, Encoding):
        refuse_levels(matrix.model_spec, where)
    return matrix


def _real(numbers: NDArray[Any], spec: Encoding, where: str) -> Array:
    """Columns as double precision, which would lose the imaginary part of a complex one silently."""
    if not np.iscomplexobj(numbers):
        return numbers.astype(np.float64, copy=False)
    complex_at = np.flatnonzero(np.atleast_1d(numbers.imag.any(axis=0)))
    shown = display_name(spec.column_names[int(complex_at[0])] if len(complex_at) else str(spec.formula))
    raise DataError(f"{shown} in {where} has complex values; write what is meant as real numbers, such as its size")


def _refuse_not_finite(numbers: Array, spec: Encoding, table: pd.DataFrame, where: str) -> None:
    for k, name in enumerate(spec.column_names):
        bad = ~np.isfinite(numbers[:, k])
        if bad.any():
            row = table.index[int(np.argmax(bad))]
            raise FormulaError(
                f"{display_name(name)} in {where} is not a finite number in {int(bad.sum())} row(s), the first being "
                f"row {row}; check the transformation (for example the logarithm of a number that is not positive)"
            )


def learn_encoding(text: str, table: pd.DataFrame, *, where: str) -> tuple[Array, Encoding]:
    """Turn a right-hand side into numbers for the first time: ``encode`` and refuse what depends on other rows.

    Raises
    ------
    FormulaError
        As ``encode``; or a term takes its value in a row from other rows.
    """
    numbers, spec = encode(text, table, where=where, finite=False)
    refuse_other_rows(spec, numbers, table, lambda rows: encode(spec, rows, where=where, finite=False)[0], where=where)
    _refuse_not_finite(numbers, spec, table, where)
    return numbers, spec


def learn_columns(text: str, table: pd.DataFrame, *, where: str) -> tuple[list[Column], Encoding]:
    """The same column by column, those that are mostly zero without their zeros."""
    _, spec = encode_columns(text, table, where=where, finite=False)
    if unclear_terms(spec):
        numbers, spec = learn_encoding(text, table, where=where)
        return list(numbers.T), spec
    return encode_columns(spec, table, where=where)[0], spec


def response_values(equation: Equation, table: pd.DataFrame) -> Array:
    """Numbers of the left-hand side, (n,)."""
    name, safe = equation.name, equation.response
    if safe in table.columns:
        values = table[safe].to_numpy(dtype=np.float64)
    else:
        found = encode(f"0 + {safe}", table, where=f"the response of {equation.text!r}")[0]
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


def _design_equation(
    equation: Equation, table: pd.DataFrame, rows: NDArray[np.bool_], columns: _Columns
) -> EquationLayout:
    everywhere = bool(rows.all())

    def place(name: str, values: Column) -> int:
        if name == INTERCEPT:
            return 0
        spread = values if everywhere else spread_column(values, rows)
        return columns.place(name, spread, rows, equation.name)

    response = place(equation.response, response_values(equation, table))
    check_predictors(equation, table)
    fixed, spec = _learn_columns(equation.fixed, equation, table)
    check_fixed(equation, spec.column_names)
    fixed_at = tuple(place(name, column) for name, column in zip(spec.column_names, fixed, strict=True))
    random_names: list[str] = []
    random_at: list[int] = []
    terms: list[int] = []
    encodings = [spec]
    for number, term in enumerate(equation.random):
        numbers, term_spec = _learn_columns(term.formula, equation, table)
        encodings.append(term_spec)
        for name, column in zip(term_spec.column_names, numbers, strict=True):
            random_names.append(display_name(name))
            random_at.append(place(name, column))
            terms.append(number)
    check_random(equation, random_names)
    typical, spread, levels = typical_values(equation, table)
    return EquationLayout(
        name=equation.name,
        fixed=tuple(map(display_name, spec.column_names)),
        random=tuple(random_names),
        fixed_at=fixed_at,
        random_at=tuple(random_at),
        response_at=response,
        terms=tuple(terms),
        encodings=tuple(encodings),
        typical=typical,
        spread=spread,
        levels=levels,
        observed=observed_values(equation, table, typical),
    )


def _learn_columns(text: str, equation: Equation, table: pd.DataFrame) -> tuple[list[Column], Encoding]:
    """Columns of a right-hand side; those of factors with many levels without their zeros."""
    where = repr(equation.text)
    if level_count(equation, table) < MANY_COLUMNS:
        numbers, spec = learn_encoding(text, table, where=where)
        return list(numbers.T), spec
    return learn_columns(text, table, where=where)


def spread_column(values: Column, rows: NDArray[np.bool_]) -> Column:
    """A column of some rows, (n,) flags, on all rows; undefined elsewhere."""
    if rows.all():
        return values
    if isinstance(values, SparseColumn):
        return values.spread(rows)
    out = np.full(len(rows), np.nan)
    out[rows] = values
    return out
