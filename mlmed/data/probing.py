"""Columns of a formula at chosen values and in new rows, given the observed values.

A formula is known where there are rows: slopes are computed between observed values, and halfway between the two values
of a binary number (1 and 2) columns are the mean of those at both, as for a 0/1 column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlmed.data.encoding import encode, to_encodable, typed_rows
from mlmed.data.frames import replaced
from mlmed.data.layout import EquationLayout
from mlmed.data.predictors import are_few, transformed_in
from mlmed.data.terms import Encoding
from mlmed.data.values import refusal_of_text, value_counts, written_numbers
from mlmed.errors import DataError, FormulaError
from mlmed.formula import term_variables
from mlmed.names import display_name, safe_name
from mlmed.text import display_level, shorten

Array = NDArray[np.float64]

#: Relative deviation from a straight line that still counts as straight.
STRAIGHT = 1e-8
#: Points between two neighbouring values at which jumps are searched.
FINE = 101


def reads(layout: EquationLayout, variable: str) -> bool:
    """Whether a fixed term contains the variable (or equals it, for a response such as ``np.log(m)``)."""
    encoding = layout.encodings[0]
    named = map(display_name, encoding.column_names)
    return any(variable in term_variables(term) for term in encoding.terms) or variable in named


def transforms(layout: EquationLayout, variable: str) -> bool:
    """Whether any term, fixed or random, transforms a variable beyond shift and scale."""
    return variable in transformed_in(term for encoding in layout.encodings for term in encoding.terms)


def rows_of(layout: EquationLayout, values: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """A table of values of the equation's variables as formulaic sees it; other variables are skipped."""
    return typed_rows(layout.levels, {name: values[name] for name in layout.typical})


def columns_at(layout: EquationLayout, table: pd.DataFrame, *, skip: str = "") -> list[Array]:
    """Columns of the fixed part and of each random term at rows of values, (n, columns) each.

    ``layout``: of the fitted equation; ``table``: its variables as formulaic sees them; variables with two values are
    interpolated between them, except ``skip``.

    Raises ``FormulaError``: a formula cannot be evaluated there.
    """
    rows, owner, weight = spread_rows(layout, table, skip=skip)
    where = f"equation {layout.name}"
    found = [encode(encoding, rows, where=where)[0] for encoding in layout.encodings]
    return [gathered(numbers, owner, weight) for numbers in found]


def spread_rows(
    layout: EquationLayout, table: pd.DataFrame, *, skip: str = ""
) -> tuple[pd.DataFrame, NDArray[np.intp], Array]:
    """Rows between the two values of a variable as weighted rows at these values.

    Returns
    -------
    table, owner, weight
        The expanded rows, the original row of each, and its weight.
    """
    owner, weight = np.arange(len(table)), np.ones(len(table))
    for name, values in layout.observed.items():
        column = safe_name(name)
        if len(values) != 2 or name == skip or column not in table.columns:
            continue
        low, high = values
        at = table[column].to_numpy(dtype=np.float64)
        between = (at > low) & (at < high)
        if not between.any():
            continue
        share = np.where(between, (at - low) / (high - low), 0.0)
        ends = table.assign(**{column: np.where(between, low, at)}), table[between].assign(**{column: high})
        table = pd.concat(ends, ignore_index=True)
        owner = np.concatenate([owner, owner[between]])
        weight = np.concatenate([weight * (1.0 - share), (weight * share)[between]])
    return table, owner, weight


def gathered(numbers: Array, owner: NDArray[np.intp], weight: Array) -> Array:
    """Weighted sums by original row, (n, columns)."""
    if len(owner) == int(owner.max(initial=-1)) + 1:
        return numbers
    out = np.zeros((int(owner.max()) + 1, numbers.shape[1]))
    np.add.at(out, owner, weight[:, None] * numbers)
    return out


def is_straight(values: ArrayLike, columns: list[Array]) -> bool:
    """Whether columns at ascending values of a variable lie on straight lines."""
    at = np.asarray(values, dtype=np.float64)
    share = ((at - at[0]) / (at[-1] - at[0]))[:, None]
    for numbers in columns:
        line = numbers[0] + share * (numbers[-1] - numbers[0])
        if np.any(np.abs(numbers - line) > STRAIGHT * np.abs(numbers).max(axis=0)):
            return False
    return True


def jump_around(layout: EquationLayout, row: pd.DataFrame, name: str) -> tuple[float, float] | None:
    """The neighbouring observed values around that of ``row`` if columns jump between them; otherwise None.

    Columns at values in between are unknown then. With only two values columns are interpolated instead.

    ``row``: variables as formulaic sees them; ``name``: a variable held at its mean, which need not be observed.
    """
    values, at = np.array(layout.observed.get(name, ())), float(row[safe_name(name)].iloc[0])
    if len(values) < 3 or at in values or not values[0] < at < values[-1]:
        return None
    above = int(np.searchsorted(values, at))
    around = values[above - 1 : above + 1]
    return (float(around[0]), float(around[1])) if _jumps(layout, row, name, around) else None


def is_unknown(layout: EquationLayout, name: str, value: float) -> bool:
    """Whether columns of a transformed variable are unknown at an unobserved value.

    They are unknown outside the range of two values; with few values (``are_few``) outside their range if columns jump
    anywhere, as indicators, codes and roundings do, and between neighbours where columns jump. Many values are a scale
    on which the formula holds everywhere, as for logarithms and curves.
    """
    values = np.array(layout.observed.get(name, ()))
    if len(values) < 2 or value in values or not are_few(values):
        return False
    outside = not values[0] < value < values[-1]
    if len(values) == 2:
        return outside
    plain = {other: layout.spread.get(other, 0.0) for other in layout.typical.keys() - layout.observed.keys()}
    others = {  # away from means, at which products may be 0
        other: typical + plain[other] if plain.get(other) else typical for other, typical in layout.typical.items()
    }
    row = rows_of(layout, {other: [held] for other, held in {**others, name: value}.items()})
    try:
        columns_at(layout, row)
    except FormulaError:  # a pole or an unknown level: reported where it is evaluated
        return False
    if not outside:
        return jump_around(layout, row, name) is not None
    return _jumps(layout, row, name, values)


def _jumps(layout: EquationLayout, row: pd.DataFrame, name: str, values: Array) -> bool:
    """Whether columns jump, or have a pole, between any two neighbours of ascending values."""
    fine = np.linspace(values[:-1], values[1:], FINE)
    rows = row.iloc[np.zeros(fine.size, dtype=int)].reset_index(drop=True).assign(**{safe_name(name): fine.ravel()})
    try:
        columns = np.concatenate(columns_at(layout, rows), axis=1).reshape(*fine.shape, -1)
    except FormulaError:
        return True
    steps = np.abs(np.diff(columns, axis=0)).max(axis=0)
    size = np.abs(columns).max(axis=0)
    change = np.abs(columns[-1] - columns[0])
    return bool(np.any((change > STRAIGHT * size) & (steps > 0.5 * change)))


def pooled(layouts: Sequence[EquationLayout]) -> tuple[EquationLayout, ...]:
    """Merge the observed values of all equations, so that each has the neighbours of the others' means."""

    def with_all(layout: EquationLayout) -> EquationLayout:
        many = [name for name, values in layout.observed.items() if not are_few(values)]
        known = {name: [v for other in layouts for v in other.observed.get(name, ())] for name in many}
        return replace(layout, observed={**layout.observed, **{n: tuple(sorted(set(v))) for n, v in known.items()}})

    return tuple(map(with_all, layouts))


#: pandas' names for kinds of numbers that compare equal.
NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")


def as_fitted(equation: EquationLayout, table: pd.DataFrame, wanted: frozenset[str]) -> pd.DataFrame:
    """Convert new columns to the types and levels of the fit; refuse new levels."""
    changed: dict[str, Any] = {}
    for name in sorted(wanted):
        column, levels = table[name], equation.levels.get(name)
        if levels is None:
            if not pd.api.types.is_numeric_dtype(column.dtype):
                if isinstance(column.dtype, pd.CategoricalDtype):
                    counts = value_counts(column)
                    if (found := written_numbers(counts)) is not None:
                        raise DataError(
                            f"column {refusal_of_text(found, name, counts)}, as in the data of equation {equation.name}"
                        )
                raise DataError(
                    f"column {name!r} held numbers in the data of equation {equation.name}; here it has "
                    f"{str(column.iloc[0])!r} (type {column.dtype}); convert it"
                )
            continue
        new = [value for value in pd.unique(column) if value not in levels]
        if new:
            raise DataError(
                f"column {name!r} has the level {display_level(new[0])!r}, which was not in the data of equation "
                f"{equation.name} (levels: {shorten(levels)}); its effect is unknown, so remove those rows"
            )
        if not isinstance(levels[0], float):
            # plain values: of a categorical column pandas would take unused categories for entries
            changed[name] = pd.Categorical(column.astype(object), categories=list(levels))
    return replaced(table, changed)


def encode_as_fitted(
    equation: EquationLayout, table: pd.DataFrame, wanted: frozenset[str], *, where: str, between: bool = False
) -> list[NDArray[np.float64]]:
    """Columns of the fixed part and of each random term for complete new rows, (n, columns) each.

    ``equation``: of the fit; ``table``: new rows; ``wanted``: predictors of the equation; ``where``: for messages;
    ``between``: whether rows hold means, so that transformed variables with two values are interpolated.

    Raises ``DataError``: a column has another type than in the fit, a new level, or a value beyond the ends of a
    spline; ``FormulaError``: a formula cannot be evaluated on the new rows.
    """
    encodable = to_encodable(as_fitted(equation, table, wanted))
    if not between:
        return [_encode_again(encoding, encodable, where) for encoding in equation.encodings]
    rows, owner, weight = spread_rows(equation, encodable)
    return [gathered(_encode_again(encoding, rows, where), owner, weight) for encoding in equation.encodings]


def _encode_again(encoding: Encoding, table: pd.DataFrame, where: str) -> NDArray[np.float64]:
    try:
        return encode(encoding, table, where=where)[0]
    except FormulaError as error:
        reason = _beyond_spline(encoding, error)
        if not reason:
            raise
        raise DataError(f"{reason} in {where}; remove those rows") from error


def _beyond_spline(encoding: Encoding, error: FormulaError) -> str:
    """The message for values outside the fitted range of a spline; otherwise empty."""
    failed = error.__cause__
    if failed is None or not isinstance(failed.__cause__, ValueError):
        return ""
    for call, state in encoding.states.items():
        if "lower_bound" in state and call in str(failed):
            low, high = state["lower_bound"], state["upper_bound"]
            return (
                f"a new value is outside the range of the data that were fitted, {low:.6g} to {high:.6g}, where "
                f"{display_name(call)} is not defined,"
            )
    return ""


def known_clusters(clusters: pd.Index, labels: pd.Index) -> NDArray[np.intp]:
    """Positions of cluster ids among those of the fit, (n,); -1 for new clusters.

    Raises ``DataError``: no id is known, and they are of another type, such as text for numbers.
    """
    if not len(labels):
        return np.empty(0, dtype=np.intp)
    at = np.asarray(clusters.get_indexer(labels), dtype=np.intp)
    if (at >= 0).any():
        return at
    for k, name in enumerate(clusters.names):
        old, new = clusters.get_level_values(k), labels.get_level_values(k)
        if _kind(old) != _kind(new):
            raise DataError(
                f"no cluster of the new rows is in the fit: the ids in column {name!r} are {_kind(old)} in the fit "
                f"({_some(old)}) and {_kind(new)} here ({_some(new)}); convert the column to the type of the fit"
            )
    return at


def _kind(ids: pd.Index) -> str:
    """A word for the type of ids, one for all kinds of numbers."""
    found = str(pd.api.types.infer_dtype(ids, skipna=True))
    return "numbers" if found in NUMBERS else "text" if found == "string" else f"of type {found}"


def _some(ids: pd.Index) -> str:
    return shorten(map(repr, pd.unique(ids)[:3].tolist()))
