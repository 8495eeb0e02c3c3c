"""Equations + table -> Design: distinct columns of all equations, which equation uses which columns and rows.

Without clusters a design is the matrix of an ordinary regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.columns import MANY_COLUMNS, Column, SparseColumn, completed, same_on
from mlmed.data.encoding import encodable, encode, learn_equation, response_values, side_by_side, to_encodable
from mlmed.data.evaluation import Memory
from mlmed.data.frames import normalize, replaced, selected_columns
from mlmed.data.ids import cluster_codes
from mlmed.data.layout import (
    INTERCEPT,
    Design,
    Dropped,
    EquationLayout,
    Layout,
    column_labels,
    refuse_alike,
    refuse_likeness,
)
from mlmed.data.predictors import (
    level_count,
)
from mlmed.data.terms import Encoding
from mlmed.data.values import (
    conversion,
    refusal_of_response,
    refusal_of_text,
    refuse_unusual,
    value_counts,
    written_numbers,
)
from mlmed.errors import DataError, FormulaError
from mlmed.formula import Equation
from mlmed.names import safe_name
from mlmed.system.system import System
from mlmed.text import Compact, shorten

Array = NDArray[np.float64]


@dataclass(slots=True)
class _Columns:
    """Distinct columns so far, by expression; merged when two equations mean the same numbers.

    The key is formulaic's name, preceded by the equation for columns with numbers of one equation only.
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


def build_design(spec: System, data: Any) -> Design:
    """Read the table once and encode every equation on its own complete rows.

    Raises ``DataError``: unknown or non-numeric columns, infinite or all-missing values, constant columns, fewer than
    two clusters; ``FormulaError``: if a formula cannot be evaluated on the data.
    """
    table = _usual_columns(spec.equations, data, spec.group)
    codes, clusters = cluster_codes(table, spec.group)
    both = frozenset(spec.group) & frozenset().union(*(equation.predictors for equation in spec.equations))
    table |= {name: normalize(table[name]) for name in both}  # ids that are also predictors
    known = codes >= 0
    if not known.any():
        raise DataError(f"the cluster id {':'.join(spec.group)} is missing in every row; check the column")
    own = [sorted(equation.variables - equation.group_columns) for equation in spec.equations]
    missing = {name: np.asarray(pd.isna(table[name].array)) for name in sorted(frozenset().union(*own))}
    complete = [_complete_rows(equation, missing) & known for equation in spec.equations]
    for equation, rows in zip(spec.equations, complete, strict=True):
        if not rows.any():
            raise DataError(
                f"equation {equation.name} has no row that is complete and whose cluster id {':'.join(spec.group)} is "
                f"known ({int((~known).sum())} of {len(known)} ids are missing); check the column of ids"
            )
    dropped = tuple(
        rows_left_out(equation.name, {name: missing[name] for name in names}, rows, known)
        for equation, names, rows in zip(spec.equations, own, complete, strict=True)
        if not rows.all()
    )
    kept = np.logical_or.reduce(complete)
    columns = _Columns({("", INTERCEPT): 0}, [np.ones(int(kept.sum()))], [np.ones(int(kept.sum()), dtype=bool)])
    used = sorted(frozenset().union(*(equation.predictors | equation.response_columns for equation in spec.equations)))
    equations, memories = [], {}
    for equation, rows in zip(spec.equations, complete, strict=True):
        check_response(equation, table)
        key = rows.tobytes()
        if key not in memories:  # equations with the same rows share computed columns
            own_rows = (table[name] if rows.all() else table[name][rows] for name in used)
            memories[key] = Memory({safe_name(str(one.name)): encodable(one) for one in own_rows}, np.flatnonzero(rows))
        equations.append(_design_equation(equation, memories[key], rows[kept], columns))
    refuse_likeness(spec, equations)
    codes, clusters = _used_clusters(codes[kept], clusters)
    layout = Layout(spec.equations, column_labels(columns.names), tuple(equations), dropped, len(known))
    members = np.stack(complete)[:, kept]
    return Design(layout, tuple(columns.values), members, codes, clusters, np.flatnonzero(kept))


def refuse_intercept(variables: frozenset[str]) -> None:
    """Refuse a column called Intercept, which would be confused with the constant."""
    if INTERCEPT in variables:
        raise FormulaError(f"a column called {INTERCEPT} cannot be told from the constant; rename it")


def _usual_columns(equations: Sequence[Equation], data: Any, keep: Sequence[str]) -> dict[str, pd.Series]:
    variables = frozenset(keep).union(*(equation.variables for equation in equations))
    refuse_intercept(variables)
    columns = selected_columns(data, variables, keep=keep)
    refuse_unusual(columns, but=keep)
    return columns


def _complete_rows(equation: Equation, missing: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_]:
    names = sorted(equation.variables - equation.group_columns)
    for name in names:
        if missing[name].all():
            raise DataError(
                f"column {name!r} has only missing values, so equation {equation.name} cannot use it; check how it was "
                "read, or remove it"
            )
    rows = ~np.logical_or.reduce([missing[name] for name in names])
    if not rows.any():
        counts = ", ".join(f"{name}: {int(missing[name].sum())}" for name in names if missing[name].any())
        raise DataError(
            f"equation {equation.name} has no complete row (missing values by column: {counts}); remove a column that "
            "is mostly missing"
        )
    return np.asarray(rows, dtype=np.bool_)


def rows_left_out(
    name: str, missing: Mapping[str, NDArray[np.bool_]], rows: NDArray[np.bool_], known: NDArray[np.bool_]
) -> Dropped:
    """Count the rows an equation cannot use, by reason.

    ``name``: the response; ``missing`` (n,): rows without a value, by column; ``rows``, ``known`` (n,): rows used, and
    rows with a cluster id.
    """
    counts = {column: int((own & known).sum()) for column, own in missing.items()}
    found = {column: count for column, count in counts.items() if count}
    return Dropped(name, len(rows), int(rows.sum()), int((~known).sum()), found)


def _used_clusters(codes: NDArray[np.intp], clusters: pd.Index) -> tuple[NDArray[np.intp], pd.Index]:
    used = np.bincount(codes, minlength=len(clusters)) > 0
    if used.all():
        return codes, clusters
    return (np.cumsum(used) - 1)[codes], clusters[used]


def check_response(equation: Equation, table: Mapping[str, pd.Series] | pd.DataFrame) -> None:
    """Refuse a response that is not numeric, or is computed from numbers stored as text."""
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
    sparse = level_count(equation, memory.columns) >= MANY_COLUMNS
    numbers, layout = learn_equation(equation, memory, sparse=sparse)
    for own, encoding in zip(numbers, layout.encodings, strict=True):
        place(encoding.column_names, own)
    return layout.placed(placed, equation.response)


def spread_column(values: Column, rows: NDArray[np.bool_]) -> Column:
    """A column of the flagged rows, (n,), on all rows; undefined elsewhere."""
    if rows.all():
        return values
    if isinstance(values, SparseColumn):
        return values.spread(rows)
    out = np.full(len(rows), np.nan)
    out[rows] = values
    return out


@dataclass(frozen=True, slots=True, repr=False)
class PlainDesign(Compact):
    """Numbers of one equation on its rows."""

    equation: Equation  #: The equation; its random terms are ignored.
    layout: EquationLayout  #: Names, encodings, typical values and levels.
    y: Array  #: (n,): Response; two levels are 0 and 1.
    X: Array  #: (n, p): Fixed-effects columns.
    table: pd.DataFrame  #: The predictors as formulaic sees them, to encode them at other values.

    @property
    def names(self) -> tuple[str, ...]:
        """Column labels of X."""
        return self.layout.fixed


def read_columns(equations: Iterable[Equation], data: Any, *, keep: Iterable[str] = ()) -> pd.DataFrame:
    """The columns of several equations, and those in ``keep`` unchanged, with a fresh index.

    Raises ``DataError``: unknown columns, no rows, values that are infinite or of unusual size, two different columns
    with one label.
    """
    equations = tuple(equations)
    refuse_alike((equation, ()) for equation in equations)
    return pd.DataFrame(_usual_columns(equations, data, tuple(keep)))


def complete_rows(table: pd.DataFrame, names: Iterable[str]) -> NDArray[np.bool_]:
    """Rows without a missing value in the named columns, (n,)."""
    return np.asarray(~table[sorted(names)].isna().to_numpy().any(axis=1))


def two_levels(column: pd.Series) -> tuple[Any, Any] | None:
    """The two values of a binary column (truth values, factor or numbers), in order; otherwise None."""
    known = column.dropna()
    if isinstance(column.dtype, pd.CategoricalDtype):
        found = [level for level in column.cat.categories if (known == level).any()]
    else:
        found = sorted(known.unique().tolist())
    return (found[0], found[1]) if len(found) == 2 else None


def plain_design(equation: Equation, table: pd.DataFrame, *, binary: bool = False) -> PlainDesign:
    """Encode one equation on a table whose rows are complete.

    ``equation``: its random terms are ignored; ``table``: from ``read_columns``, complete rows only; ``binary``:
    whether a non-numeric response with two levels is coded as 0 and 1.

    Raises ``DataError``, ``FormulaError``: a response that is not numeric, predictors that cannot be used, formulas
    that cannot be evaluated.
    """
    encodable = to_encodable(table[[name for name in table.columns if name in equation.variables]])
    memory = Memory.of(encodable)
    (fixed, *_), layout = learn_equation(equation, memory, random=False)
    refuse_alike([(equation, layout.encodings)])
    X = side_by_side(fixed, memory)
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

    ``encodings``: of ``layout.encodings``; without any, p is 0; ``layout``: of the fitted equation; ``table``:
    ``PlainDesign.table`` of the rows; ``cases``: variable -> value for all rows (a level, for a factor); variables that
    the equation does not use are skipped.

    Raises ``DataError``: a factor has no such level, or a number is needed; ``FormulaError``: a formula cannot be
    evaluated there.
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
