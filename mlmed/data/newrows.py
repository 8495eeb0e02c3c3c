"""New rows with the kinds, levels and clusters that the rows of a fit had."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import encode, to_encodable
from mlmed.data.frames import replaced, shorten
from mlmed.data.layout import EquationLayout
from mlmed.data.probing import gathered, spread_rows
from mlmed.data.terms import Encoding
from mlmed.data.written_numbers import refusal_of_text, value_counts, written_numbers
from mlmed.errors import DataError, FormulaError
from mlmed.names import display_level, display_name

__all__ = ["as_fitted", "encode_as_fitted", "known_clusters"]

#: What pandas calls the kinds of numbers that are equal to each other.
NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")


def as_fitted(equation: EquationLayout, table: pd.DataFrame, wanted: frozenset[str]) -> pd.DataFrame:
    """Give new columns the kinds and levels of the fit; refuse what was not there."""
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
            # plain values: pandas takes the categories of a column for entries, also those that no row has
            changed[name] = pd.Categorical(column.astype(object), categories=list(levels))
    return replaced(table, changed)


def encode_as_fitted(
    equation: EquationLayout, table: pd.DataFrame, wanted: frozenset[str], *, where: str, between: bool = False
) -> list[NDArray[np.float64]]:
    """Complete new rows in the columns of the fixed part and of each random term, (n, columns) each.

    Parameters
    ----------
    equation : EquationLayout
        Of the fit.
    table : DataFrame of n rows
        New rows.
    wanted : set of str
        Predictors of the equation.
    where : str
        For messages.
    between : bool
        Whether rows hold means: a transformed variable that has two values is then interpolated between them.

    Raises
    ------
    DataError
        A column has another type than in the fit, a level that was not there, or a value beyond the ends of a spline.
    FormulaError
        If a formula cannot be evaluated on the new rows.
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
    """What is said of values outside the fitted range of a spline, which is remembered; otherwise nothing."""
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
    """Position of new cluster ids among those of the fit, (n,); -1 where they are new.

    Raises
    ------
    DataError
        No id is known, and the new ones are of another type, such as text for numbers.
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
    """A word for the type of ids; all kinds of numbers are one."""
    found = str(pd.api.types.infer_dtype(ids, skipna=True))
    return "numbers" if found in NUMBERS else "text" if found == "string" else f"of type {found}"


def _some(ids: pd.Index) -> str:
    return shorten(map(repr, pd.unique(ids)[:3].tolist()))
