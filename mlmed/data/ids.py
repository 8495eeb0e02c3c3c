"""Cluster ids that say less than they seem to: rounded, mixed or looking alike, numberings that start anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.errors import DataError
from mlmed.names import safe_name

__all__ = [
    "Passes",
    "case_twins",
    "lookalikes",
    "numbering_passes",
    "refuse_infinite_ids",
    "refuse_mixed",
    "refuse_rounded",
    "refuse_spellings",
    "whole_number",
]

Codes = NDArray[np.intp]
#: Share of the numbers from the lowest to its highest that a pass must have to be a numbering that starts anew.
DENSE = 0.8
#: Text that is a whole number, with or without a decimal point.
WHOLE = r"\s*[+-]?\d+(?:\.0*)?\s*"


def refuse_mixed(column: pd.Series) -> None:
    """Refuse ids of several kinds: pandas reads a long file in pieces, of which some hold 1 and some "1".

    Raises
    ------
    DataError
        Numbers beside text, or truth values, dates or anything else of another type.
    """
    known = column.dropna()
    if isinstance(known.dtype, pd.CategoricalDtype):
        known = pd.Series(known.cat.categories)
    if not pd.api.types.is_object_dtype(known.dtype):
        return
    types = dict.fromkeys(map(type, known))
    kinds: dict[str, type] = {}
    for found in types:
        kinds.setdefault(_kind(found), found)
    if len(kinds) < 2:
        return
    first, second = (next(value for value in known if type(value) is found) for found in list(kinds.values())[:2])
    raise DataError(
        f"the ids in column {column.name!r} mix {' and '.join(kinds)} (such as {first!r} and {second!r}), so that one "
        f"cluster may pass for two. Read the column as one type, as with dtype={{{column.name!r}: str}} in "
        "pandas.read_csv, which otherwise types a long file piece by piece, or convert it with "
        f"data[{column.name!r}].astype(str)"
    )


def _kind(found: type) -> str:
    """A word for values that are equal to each other where they mean the same."""
    if issubclass(found, bool | np.bool_):
        return "truth values"
    if issubclass(found, Number | np.number):
        return "numbers"
    return "text" if issubclass(found, str) else f"values of type {found.__name__}"


def refuse_spellings(ids: pd.Index) -> None:
    """Refuse ids of text of which two are one whole number, 1 and 1.0, as when parts of a file went through floats.

    Raises
    ------
    DataError
        If there are any.
    """
    if not pd.api.types.is_object_dtype(ids.dtype) and not pd.api.types.is_string_dtype(ids.dtype):
        return
    texts = pd.Series([value for value in ids if isinstance(value, str)], dtype=object)
    whole = texts[texts.str.fullmatch(WHOLE).astype(bool)]
    pointed = whole.str.contains(".", regex=False).astype(bool)
    bare = whole.str.strip().str.replace(r"\.0*$", "", regex=True)
    twice = whole[pointed & bare.duplicated(keep=False)]
    if len(twice):
        first, second = whole[bare == bare.loc[twice.index[0]]].iloc[:2]
        raise DataError(
            f"{len(twice)} of the {len(ids)} ids in column {ids.name!r} are written in two ways, such as {first!r} and "
            f"{second!r}, so that one cluster would pass for two. Write them alike, as by "
            f"data[{ids.name!r}].str.replace(r'\\.0*$', '', regex=True)"
        )


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


#: Digits of an id that is read as a number; Python refuses to read more than 4,300.
LONGEST_ID = 1_000


def whole_number(text: str) -> int | None:
    """The whole number that a text writes, or None."""
    stripped = text.strip()
    digits = stripped[1:] if stripped[:1] in ("+", "-") else stripped
    return int(stripped) if len(digits) <= LONGEST_ID and digits.isascii() and digits.isdigit() else None


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


def case_twins(ids: pd.Index) -> tuple[str, str] | None:
    """Two ids that differ only in upper and lower case; or None."""
    if not pd.api.types.is_object_dtype(ids.dtype) and not pd.api.types.is_string_dtype(ids.dtype):
        return None
    texts = [value for value in ids if isinstance(value, str)]
    if len(set(map(str.casefold, texts))) == len(texts):  # nearly always, and quickly seen of a million ids
        return None
    seen: dict[str, str] = {}
    for value in texts:
        if (first := seen.setdefault(value.casefold(), value)) != value:
            return first, value
    return None


@dataclass(frozen=True, slots=True)
class Passes:
    """Runs of rows with one id, in the order of the rows; ids are counted up again and again.

    Attributes
    ----------
    starts : (R,) int array
        First row of each run.
    ids : (R,) int array
        Its id.
    number : (R,) int array
        The pass that it belongs to, from 0.
    """

    starts: Codes
    ids: NDArray[np.int64]
    number: Codes


def numbering_passes(ids: pd.Series) -> Passes | None:
    """Passes of ids that are numbers and are counted up again and again in the order of the rows; otherwise None.

    A run is a stretch of rows with one id, a pass a stretch of runs with ascending ids. The numbering starts anew
    if there are at least two passes, every pass has most of the numbers from the lowest of all to its own highest,
    and runs have at least two rows on average (a diary sorted by day has runs of one row).

    Parameters
    ----------
    ids : Series of n values
        None missing; numbers, or texts that write whole numbers.
    """
    values = ids.to_numpy()
    if not len(values):
        return None
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    if len(values) < 2 * len(starts):
        return None
    numbers = _whole_numbers(pd.Index(values[starts]))
    if numbers is None or len(np.unique(numbers)) == len(numbers):  # every id has one run
        return None
    lowest = numbers.min()
    number = np.cumsum(np.append(False, numbers[1:] < numbers[:-1]))
    sizes = np.bincount(number)
    highest = np.full(len(sizes), lowest)
    np.maximum.at(highest, number, numbers)
    dense = sizes >= DENSE * (highest - lowest + 1)
    return Passes(starts, numbers, number) if sizes.min() > 1 and dense.all() else None


def _whole_numbers(ids: pd.Index) -> NDArray[np.int64] | None:
    """Ids as whole numbers; None if they are anything else."""
    if pd.api.types.is_bool_dtype(ids.dtype):
        return None
    if pd.api.types.is_numeric_dtype(ids.dtype):
        values = ids.to_numpy(dtype=np.float64)
        found = values.astype(np.int64) if np.all(np.abs(values) < 2**53) else None
        return found if found is not None and np.array_equal(found, values) else None
    numbers = [whole_number(value) if isinstance(value, str) else value for value in ids]
    exact = [int(number) for number in numbers if isinstance(number, int | np.integer) and -(2**53) < number < 2**53]
    return np.array(exact, dtype=np.int64) if len(exact) == len(numbers) else None


def refuse_infinite_ids(table: pd.DataFrame, group: Sequence[str]) -> None:
    """Refuse ids of an engine that are not finite; ``table`` has them under safe names."""
    for name in group:
        column = table[safe_name(name)]
        if column.dtype == np.float64 and np.isinf(column).any():
            raise DataError(f"column {name!r} has infinite value(s); replace or remove them")
