"""Check cells and columns: one value per cell, finite numbers of usual size, no numbers stored as text."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.errors import DataError
from mlmed.limits import unusual_size
from mlmed.text import shorten, shown

#: Most bits of a whole number within the range of floats.
MOST_BITS = 1024


def refuse_odd_cells(column: pd.Series, name: str) -> None:
    """Refuse a column, called ``name``, with unusable cells.

    Raises ``DataError``: a cell holds several values (list, dict, array, table), half a character (a lone surrogate), a
    signaling NaN, or a whole number beyond the range of floats. The first of them is shown.
    """
    kind = column.dtype
    if isinstance(kind, pd.ArrowDtype) and _is_nested(kind):
        raise DataError(f"column {name!r} has the type {kind}: {_SEVERAL}")
    if isinstance(kind, pd.CategoricalDtype):
        _refuse_among(name, kind.categories.to_numpy() if _is_free(kind.categories.dtype) else ())
    elif _is_free(kind):
        _refuse_among(name, column.to_numpy(dtype=object))


_SEVERAL = "a cell has to hold one value; take the parts that are needed as columns of their own"


def _is_free(kind: Any) -> bool:
    """Whether cells may hold any object, or text (which may have half characters)."""
    return pd.api.types.is_object_dtype(kind) or (isinstance(kind, pd.StringDtype) and kind.storage == "python")


def _is_nested(kind: pd.ArrowDtype) -> bool:
    import pyarrow as pa

    inner = kind.pyarrow_dtype
    return bool(pa.types.is_nested(inner)) and not pa.types.is_dictionary(inner)


def _refuse_among(name: Any, values: Iterable[Any]) -> None:
    values = list(values)
    types = set(map(type, values))
    for one in types:
        wrong = _wrong_with(one)
        if wrong is None:
            continue
        test, why = wrong
        found = next((row for row, value in enumerate(values) if type(value) is one and test(value)), None)
        if found is not None:
            raise DataError(f"column {name!r} holds {shown(values[found])} in row {found}: {why}")


def _wrong_with(kind: type) -> tuple[Any, str] | None:
    """A test for unusable values of a type, and the reason; None if there is none."""
    if issubclass(kind, str):
        return _is_half, "a part of a character that cannot be written; read the table with its own encoding"
    if issubclass(kind, Decimal):
        return Decimal.is_snan, "a signaling NaN, with which nothing can be computed; make it NaN if it is missing"
    if issubclass(kind, Integral) and not issubclass(kind, np.integer | bool):
        return _is_huge, "more than any float can hold; scale the column, or write ids as text"
    if not issubclass(kind, Hashable) or issubclass(kind, frozenset | np.ndarray | type):
        return (lambda value: True), _SEVERAL
    return None


def _is_half(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)


def _is_huge(number: Any) -> bool:
    return int(number).bit_length() > MOST_BITS - 1


#: Text that converts to a number.
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
#: Text that a person reads as a number: with a decimal comma, thousands, a currency sign, a percent sign.
READ_AS_NUMBER = re.compile(
    r"[+-]?[$€£]?\s?[+-]?(\d{1,3}([ ,.'\u00a0\u202f]\d{3})+([.,]\d+)?|\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?\s?[%€$£]?"
)
#: Marks of missing values that are no words, lower case; ``.a`` to ``.z`` are Stata's, ``#...`` SPSS's and Excel's.
MARKS = frozenset(
    [
        *(".", "..", "-", "--", "?", "*", "#n/a", "#null!", "#value!", "#div/0!", "#num!", "#ref!", "#name?"),
        *(f".{letter}" for letter in string.ascii_lowercase),
    ]
)
#: Words that are marks of missing values, too, among numbers.
MISSING = MARKS | {"", "na", "n/a", "nan", "none", "null", "(null)", "missing", "inf", "-inf"}


@dataclass(frozen=True, slots=True)
class WrittenNumbers:
    """A column of text that was meant to hold numbers."""

    numbers: tuple[str, ...]  #: Distinct values that convert to numbers.
    others: tuple[str, ...]  #: Distinct values that do not.


def written_numbers(values: Iterable[Any]) -> WrittenNumbers | None:
    """Tell numbers that were read as text from the levels of a factor.

    They are numbers if most distinct values, marks of missing values apart, read as numbers, and some value does not
    convert, some is no whole number, or two are the same number. Codes, whole numbers with one spelling each ("1", "2",
    "3"), are levels.

    Examples
    --------
    >>> written_numbers(["12", "7.5", "."])
    WrittenNumbers(numbers=('12', '7.5'), others=('.',))
    >>> written_numbers(["1", "2", "3"]) is written_numbers(["low", "high", "1"]) is None
    True
    """
    texts = list(values)
    if not texts or not all(isinstance(value, str) for value in texts):
        return None
    numbers = [NUMBER.fullmatch(text.strip()) is not None for text in texts]
    convert = tuple(itertools.compress(texts, numbers))
    others = tuple(text for text, is_number in zip(texts, numbers, strict=True) if not is_number)
    rest = [text for text in others if not READ_AS_NUMBER.fullmatch(text.strip())]
    words = sum(text.strip().lower() not in MISSING for text in rest)
    if len(texts) - len(rest) <= words:
        return None
    codes = all(float(text).is_integer() and "." not in text for text in convert)
    if not others and codes and len({float(text) for text in convert}) == len(convert):
        return None
    return WrittenNumbers(convert, others)


def value_counts(column: pd.Series) -> dict[Any, int]:
    """How often each known value occurs, the most frequent first."""
    counts = column.value_counts()
    return {value: int(n) for value, n in counts.items() if n}


def refusal_of_text(found: WrittenNumbers, name: str, counts: Mapping[Any, int], *, more: bool = False) -> str:
    """The message for numbers stored as text in column ``name``, and the remedy.

    ``found``: the values; ``counts``: number of rows by value; ``more``: whether there are further values.
    """
    total = f"{'more than ' if more else ''}{len(counts)} different values"
    if not found.others:
        some = shorten(map(repr, found.numbers), 3)
        return f"{name!r} is text with {total}, all of them numbers, such as {some}. Convert the column to numbers"
    culprits = sorted(found.others, key=lambda text: (-counts[text], text))
    each = [f"{text!r}{_rows(counts[text])}" for text in culprits]
    return (
        f"{name!r} is text with {total}, of which these do not convert to numbers: {shorten(each, 5)}. Make those that "
        "stand for missing values missing (missing= of read_table(), --missing), correct the others (decimal commas, "
        "units), and convert the column to numbers"
    )


def _rows(number: int) -> str:
    return f" ({number} row{'s' if number != 1 else ''})"


def conversion(column: pd.Series) -> str:
    """How to convert a column to numbers; with code, if its categories hold numbers."""
    known = column.dropna()
    values = list(known.unique())
    numbers = [float(v) for v in values if isinstance(v, Real) or (isinstance(v, str) and NUMBER.fullmatch(v.strip()))]
    if not values or len(numbers) < len(values):
        return "convert it to numbers"
    whole = all(number.is_integer() for number in numbers) and known.size == column.size
    return f"convert it to numbers, data[{str(column.name)!r}].astype({'int' if whole else 'float'})"


def refusal_of_response(column: pd.Series) -> DataError:
    """The error for a response that is not numeric."""
    known = column.dropna()
    counts = value_counts(known) if isinstance(known.dtype, pd.CategoricalDtype) else {}
    found = written_numbers(sorted(counts, key=str))
    if found is not None:
        return DataError(f"the response {refusal_of_text(found, str(column.name), counts)}")
    first = repr(str(known.iloc[0])) if len(known) else "missing, as all are"
    labels = ", or keep the codes of labelled values (codes= of read_table(), --codes)" if counts else ""
    first = repr(str(known.iloc[0])) if len(known) else "missing, as all are"
    return DataError(
        f"the response {str(column.name)!r} is not numeric (type {column.dtype}, first value {first}"
        f"{f', {len(counts)} categories' if counts else ''}); a linear model needs numbers, so {conversion(column)}"
        f"{labels}"
    )


def is_numeric(column: pd.Series) -> bool:
    """Whether a selected column holds numbers (truth values do not count)."""
    return bool(pd.api.types.is_numeric_dtype(column.dtype)) and not pd.api.types.is_bool_dtype(column.dtype)


def refuse_infinite(table: Mapping[str, pd.Series] | pd.DataFrame) -> None:
    """Raise ``DataError`` for the first infinite value, naming column, row and value."""
    for name, values in _numbers_of(table):
        infinite = np.isinf(values)
        if infinite.any():
            row = int(np.argmax(infinite))
            raise DataError(
                f"column {name!r} has {int(infinite.sum())} infinite value(s), the first in row {row} "
                f"({float(values[row])}); replace or remove them"
            )


def refuse_unusual(table: Mapping[str, pd.Series] | pd.DataFrame, *, but: Iterable[str] = ()) -> None:
    """Raise ``DataError`` for infinite values or numbers of unusual size; ``but``: columns of ids, not checked."""
    sizes = {name: _size_of(values) for name, values in _numbers_of(table)}
    if np.inf in sizes.values():
        refuse_infinite(table)
    for name in sizes.keys() - frozenset(but):
        if (error := unusual_size(name, sizes[name])) is not None:
            raise error


def _numbers_of(table: Mapping[str, pd.Series] | pd.DataFrame) -> Iterator[tuple[str, NDArray[np.float64]]]:
    return ((str(name), column.to_numpy()) for name, column in table.items() if column.dtype == np.float64)


def _size_of(values: NDArray[np.float64]) -> float:
    """The largest absolute value; 0 if all are missing."""
    low, high = float(values.min()), float(values.max())
    if np.isnan(low):  # only then a copy is needed
        known = values[~np.isnan(values)]
        low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    return max(abs(low), abs(high))
