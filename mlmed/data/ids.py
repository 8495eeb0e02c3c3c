"""Cluster ids that say less than they seem to: rounded ones, ones that look alike, numberings that start anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.errors import DataError

__all__ = ["lookalikes", "numbering_passes", "refuse_rounded", "whole_number"]

Codes = NDArray[np.intp]
#: Share of the numbers from the lowest to its highest that a pass must have to be a numbering that starts anew.
DENSE = 0.8


def refuse_rounded(column: pd.Series) -> None:
    """Refuse floating-point ids so large that neighbouring whole numbers are one float, and infinite ones.

    Raises
    ------
    DataError
        An id of 2^53 and more in double precision (2^24 in single precision), or an infinite one.
    """
    values, bits = _floats(column)
    large = np.unique(values[np.abs(values) >= 2.0**bits])
    if not len(large):
        return
    if np.isinf(large).any():
        raise DataError(
            f"column {column.name!r} has {int(np.isinf(values).sum())} infinite value(s); replace or remove them"
        )
    raise DataError(
        f"the ids in column {column.name!r} are floating-point numbers of 2^{bits} ({2**bits:,}) and more (e.g. "
        f"{int(large[0])}), where different whole numbers become the same float, so that clusters may have been merged "
        "when the table was made. Read the column as whole numbers or text, as with dtype={"
        f"{column.name!r}: 'Int64'}} in pandas.read_csv (a single missing id makes pandas choose floats)"
    )


def _floats(column: pd.Series) -> tuple[NDArray[np.float64], int]:
    """The floating-point numbers among the known values, and up to which power of two they are exact."""
    known = column.dropna()
    if isinstance(known.dtype, pd.CategoricalDtype):
        known = pd.Series(known.cat.categories)
    if pd.api.types.is_float_dtype(known.dtype):
        return known.to_numpy(dtype=np.float64), np.finfo(known.to_numpy().dtype).nmant + 1
    if not pd.api.types.is_object_dtype(known.dtype):
        return np.empty(0), 53
    found = [value for value in known if isinstance(value, float | np.floating)]
    least = min((np.finfo(type(value)).nmant for value in found if isinstance(value, np.floating)), default=52)
    return np.array(found, dtype=np.float64), least + 1


def whole_number(text: str) -> int | None:
    """The whole number that a text writes, or None."""
    stripped = text.strip()
    digits = stripped[1:] if stripped[:1] in ("+", "-") else stripped
    return int(stripped) if digits.isascii() and digits.isdigit() else None


def lookalikes(ids: pd.Index) -> tuple[Any, Any] | None:
    """Two ids that differ only in blanks around them, in zeros in front, or as number and text; or None."""
    if not pd.api.types.is_object_dtype(ids.dtype) and not pd.api.types.is_string_dtype(ids.dtype):
        return None
    seen: dict[str, Any] = {}
    for value in ids:
        if isinstance(value, str):
            number = whole_number(value)
            key = value.strip() if number is None else str(number)
        elif isinstance(value, int | np.integer) and not isinstance(value, bool):
            key = str(value)
        else:
            continue
        first = seen.setdefault(key, value)
        if isinstance(first, str) != isinstance(value, str) or first != value:
            return first, value
    return None


def numbering_passes(codes: Codes, ids: pd.Index) -> tuple[Codes, Codes] | None:
    """Runs of rows with one id, if the ids are numbers that are counted up again and again in the order of the rows.

    A run is a stretch of rows with one id, a pass a stretch of runs with ascending ids. The numbering starts anew
    if there are at least two passes, every pass has most of the numbers from the lowest of all to its own highest,
    and the median run has at least two rows (a diary sorted by day has runs of one row).

    Parameters
    ----------
    codes : (n,) int array
        Position of each row's id in ``ids``; -1 where it is missing.
    ids : Index of length J
        Numbers, or texts that write whole numbers.

    Returns
    -------
    (rows, passes) or None
        First row of each run, and the pass of each run, (runs,) each, among rows with an id.
    """
    own = codes[codes >= 0]
    starts = np.flatnonzero(np.append(True, own[1:] != own[:-1])) if len(own) else np.empty(0, dtype=np.intp)
    if len(starts) <= len(ids):  # every id has one run
        return None
    numbers = _whole_numbers(ids)
    if numbers is None or np.median(np.diff(np.append(starts, len(own)))) < 2:
        return None
    counted = numbers[own[starts]]
    passes = np.cumsum(np.append(False, counted[1:] < counted[:-1]))
    sizes = np.bincount(passes)
    highest = np.full(len(sizes), counted.min())
    np.maximum.at(highest, passes, counted)
    dense = sizes >= DENSE * (highest - counted.min() + 1)
    return (starts, passes) if len(sizes) > 1 and sizes.min() > 1 and dense.all() else None


def _whole_numbers(ids: pd.Index) -> NDArray[np.int64] | None:
    """Ids as whole numbers, (J,); None if they are anything else."""
    if pd.api.types.is_bool_dtype(ids.dtype):
        return None
    if pd.api.types.is_numeric_dtype(ids.dtype):
        values = ids.to_numpy(dtype=np.float64)
        found = values.astype(np.int64) if np.all(np.abs(values) < 2**53) else None
        return found if found is not None and np.array_equal(found, values) else None
    numbers = [whole_number(text) if isinstance(text, str) else None for text in ids]
    if any(number is None or abs(number) >= 2**53 for number in numbers):
        return None
    return np.array(numbers, dtype=np.int64)
