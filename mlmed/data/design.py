"""Equations + table -> Design: the distinct columns of all equations, who uses which, which rows count."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from formulaic import Formula
from formulaic import ModelSpec as Encoding
from formulaic.errors import FormulaicError
from numpy.typing import NDArray

from mlmed.data.frames import cluster_codes, is_numeric, refuse_infinite, select_columns
from mlmed.data.layout import INTERCEPT, Design, Dropped, EquationLayout, Layout
from mlmed.errors import DataError, FormulaError
from mlmed.formula import Equation, display_name
from mlmed.model import ModelSpec

__all__ = ["build_design", "encode"]

Array = NDArray[np.float64]


@dataclass(slots=True)
class _Columns:
    """Distinct columns met so far; merged when two equations mean the same numbers."""

    names: list[str]
    values: list[Array]
    rows: list[NDArray[np.bool_]]

    def place(self, name: str, values: Array, rows: NDArray[np.bool_], equation: str) -> int:
        for key in (name, f"{equation}:{name}"):
            if key not in self.names:
                break
            at = self.names.index(key)
            shared = self.rows[at] & rows
            if np.array_equal(self.values[at][shared], values[shared]):
                if not np.array_equal(self.rows[at], rows):
                    self.values[at] = np.where(self.rows[at], self.values[at], values)
                    self.rows[at] = self.rows[at] | rows
                return at
        self.names.append(key)
        self.values.append(values)
        self.rows.append(rows)
        return len(self.names) - 1


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
    table = select_columns(data, variables)
    refuse_infinite(table)
    codes, clusters = cluster_codes(table, spec.group)
    known = codes >= 0
    complete = [_complete_rows(equation, table, spec.group) & known for equation in spec.equations]
    dropped = tuple(
        _dropped(equation, table, rows, known, spec.group)
        for equation, rows in zip(spec.equations, complete, strict=True)
        if not rows.all()
    )
    kept = np.logical_or.reduce(complete)
    columns = _Columns(["1"], [np.ones(int(kept.sum()))], [np.ones(int(kept.sum()), dtype=bool)])
    equations = tuple(
        _design_equation(equation, table if rows.all() else table[rows], rows[kept], columns)
        for equation, rows in zip(spec.equations, complete, strict=True)
    )
    codes, clusters = _used_clusters(codes[kept], clusters)
    layout = Layout(tuple(columns.names), equations, dropped, len(table))
    return Design(layout, tuple(columns.values), np.stack(complete)[:, kept], codes, clusters)


def _complete_rows(equation: Equation, table: pd.DataFrame, group: tuple[str, ...]) -> NDArray[np.bool_]:
    names = sorted(equation.variables - set(group))
    missing = table[names].isna()
    for name in names:
        if missing[name].all():
            raise DataError(f"column {name!r} has only missing values; equation {equation.name} cannot use it")
    rows = ~missing.to_numpy().any(axis=1)
    if not rows.any():
        counts = ", ".join(f"{name}: {int(missing[name].sum())}" for name in names if missing[name].any())
        raise DataError(f"equation {equation.name} has no complete row (missing values by column: {counts})")
    return np.asarray(rows)


def _dropped(
    equation: Equation,
    table: pd.DataFrame,
    rows: NDArray[np.bool_],
    known: NDArray[np.bool_],
    group: tuple[str, ...],
) -> Dropped:
    names = sorted(equation.variables - set(group))
    counts = table.loc[known, names].isna().sum()
    missing = {str(name): int(count) for name, count in counts.items() if count}
    return Dropped(equation.name, len(table), int(rows.sum()), int((~known).sum()), missing)


def _used_clusters(codes: NDArray[np.intp], clusters: pd.Index) -> tuple[NDArray[np.intp], pd.Index]:
    used = np.bincount(codes, minlength=len(clusters)) > 0
    if int(used.sum()) < 2:
        raise DataError(
            f"the data have {int(used.sum())} cluster(s) with complete rows; a multilevel model needs at least two "
            f"(cluster variable {clusters.name})"
        )
    if used.all():
        return codes, clusters
    return (np.cumsum(used) - 1)[codes], clusters[used]


def encode(text: str | Encoding, table: pd.DataFrame, *, where: str) -> tuple[Array, Encoding]:
    """Turn a right-hand side into numbers, (n, columns), and the spec that repeats it on new data.

    Raises
    ------
    FormulaError
        If formulaic cannot evaluate the formula, or it yields values that are not finite.
    """
    try:
        source = Formula(text) if isinstance(text, str) else text
        matrix = source.get_model_matrix(table, na_action="ignore", output="numpy")
    except (FormulaicError, NameError, TypeError, ValueError) as error:
        shown = text if isinstance(text, str) else str(text.formula)
        raise FormulaError(f"cannot evaluate {shown!r} in {where}: {error}") from error
    numbers = np.asarray(matrix, dtype=np.float64).reshape(len(table), -1)
    names = matrix.model_spec.column_names
    for k, name in enumerate(names):
        bad = ~np.isfinite(numbers[:, k])
        if bad.any():
            row = table.index[int(np.argmax(bad))]
            raise FormulaError(
                f"{name} in {where} is not a finite number in {int(bad.sum())} row(s), the first being row {row}; "
                "check the transformation (for example the logarithm of a number that is not positive)"
            )
    return numbers, matrix.model_spec


def _response(equation: Equation, table: pd.DataFrame) -> Array:
    name = equation.name
    if name in table.columns:
        if not is_numeric(table[name]):
            raise DataError(
                f"the response {name!r} is not numeric (type {table[name].dtype}, first value "
                f"{table[name].iloc[0]!r}); linear mixed models need numbers"
            )
        values = table[name].to_numpy(dtype=np.float64)
    else:
        values = encode(f"0 + {equation.response}", table, where=f"the response of {equation.text!r}")[0][:, 0]
    if np.ptp(values) == 0.0:
        raise DataError(f"the response {name!r} is constant ({values[0]:g}) in the rows of its equation")
    return values


def _design_equation(
    equation: Equation, table: pd.DataFrame, rows: NDArray[np.bool_], columns: _Columns
) -> EquationLayout:
    everywhere = bool(rows.all())

    def place(name: str, values: Array) -> int:
        if name == INTERCEPT:
            return 0
        spread = values if everywhere else _spread(values, rows)
        return columns.place(name, spread, rows, equation.name)

    response = place(equation.name, _response(equation, table))
    fixed, spec = encode(equation.fixed, table, where=repr(equation.text))
    fixed_names = tuple(map(display_name, spec.column_names))
    _check_fixed(equation, fixed, fixed_names)
    fixed_at = tuple(place(name, column) for name, column in zip(fixed_names, fixed.T, strict=True))
    random_names: list[str] = []
    random_at: list[int] = []
    terms: list[int] = []
    encodings = [spec]
    for number, term in enumerate(equation.random):
        numbers, term_spec = encode(term.formula, table, where=repr(equation.text))
        encodings.append(term_spec)
        for name, column in zip(map(display_name, term_spec.column_names), numbers.T, strict=True):
            random_names.append(name)
            random_at.append(place(name, column))
            terms.append(number)
    _check_random(equation, random_names)
    typical, levels = _typical(equation, table)
    return EquationLayout(
        name=equation.name,
        fixed=fixed_names,
        random=tuple(random_names),
        fixed_at=fixed_at,
        random_at=tuple(random_at),
        response_at=response,
        terms=tuple(terms),
        encodings=tuple(encodings),
        typical=typical,
        levels=levels,
    )


def _typical(equation: Equation, table: pd.DataFrame) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
    typical: dict[str, Any] = {}
    levels: dict[str, tuple[Any, ...]] = {}
    for name in sorted(equation.variables - {group for term in equation.random for group in term.group}):
        column = table[name]
        if is_numeric(column):
            typical[name] = float(column.mean())
        else:
            kind = column.dtype
            known = kind.categories if isinstance(kind, pd.CategoricalDtype) else pd.unique(column)
            levels[name] = tuple(known) if isinstance(kind, pd.CategoricalDtype) else tuple(sorted(known))
            typical[name] = levels[name][0]
    return typical, levels


def _spread(values: Array, rows: NDArray[np.bool_]) -> Array:
    out = np.full(len(rows), np.nan)
    out[rows] = values
    return out


def _check_fixed(equation: Equation, fixed: Array, names: tuple[str, ...]) -> None:
    if not names:
        raise FormulaError(f"{equation.text!r} has no fixed effect; at least an intercept is needed")
    for name, column in zip(names, fixed.T, strict=True):
        if name != INTERCEPT and INTERCEPT in names and np.ptp(column) == 0.0:
            raise DataError(
                f"the predictor {name!r} is constant ({column[0]:g}) in the rows of equation {equation.name}, so its "
                "effect cannot be told from the intercept; remove it"
            )


def _check_random(equation: Equation, names: list[str]) -> None:
    if not names:
        raise FormulaError(f"{equation.text!r} has a random term without effects; write at least (1 | id)")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FormulaError(
            f"{equation.text!r} has the random effect {', '.join(twice)} in two terms; their variances cannot be told "
            "apart (write (0 + x | id) for a slope without another intercept)"
        )
