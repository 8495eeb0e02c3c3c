"""Columns of text that hold numbers: which of their values do not convert, and what to say of them."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import pandas as pd

from mlmed.data.frames import shorten
from mlmed.errors import DataError

__all__ = [
    "MARKS",
    "NUMBER",
    "WrittenNumbers",
    "conversion",
    "refusal_of_response",
    "refusal_of_text",
    "value_counts",
    "written_numbers",
]

#: What converts to a number as it stands.
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
#: What a person reads as a number: a decimal comma, thousands, a currency before, a percent sign behind.
READ_AS_NUMBER = re.compile(
    r"[+-]?[$€£]?\s?[+-]?(\d{1,3}([ ,.'\u00a0\u202f]\d{3})+([.,]\d+)?|\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?\s?[%€$£]?"
)
#: Marks of missing values that are no words, in lower case; ``.a`` to ``.z`` are Stata's, ``#...`` SPSS's and Excel's.
MARKS = frozenset(
    [
        *(".", "..", "-", "--", "?", "*", "#n/a", "#null!", "#value!", "#div/0!", "#num!", "#ref!", "#name?"),
        *(f".{letter}" for letter in string.ascii_lowercase),
    ]
)
#: Among numbers, these words are none either.
MISSING = MARKS | {"", "na", "n/a", "nan", "none", "null", "(null)", "missing", "inf", "-inf"}


@dataclass(frozen=True, slots=True)
class WrittenNumbers:
    """A column of text that was meant to hold numbers.

    Attributes
    ----------
    numbers : tuple of str
        Different values that convert.
    others : tuple of str
        Those that do not.
    """

    numbers: tuple[str, ...]
    others: tuple[str, ...]


def written_numbers(values: Iterable[Any]) -> WrittenNumbers | None:
    """Tell numbers that were read as text from the levels of a factor.

    They are numbers if most of the different values, marks of missing ones apart, read as numbers, and if they are
    not just codes: some value does not convert, some is not a whole number, or two are the same number. Codes, whole
    numbers each written in one way ("1", "2", "3"), are levels.

    Parameters
    ----------
    values : iterable
        Different values of a column.

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
    """What was found in column ``name`` and what to do.

    Parameters
    ----------
    found : WrittenNumbers
        What the values are.
    name : str
        The column.
    counts : mapping
        In how many rows every value is.
    more : bool
        Whether these are not all values.
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
    """How a column that is no number is made one: what to write where its values are numbers, stored as categories."""
    known = column.dropna()
    values = list(known.unique())
    numbers = [float(v) for v in values if isinstance(v, Real) or (isinstance(v, str) and NUMBER.fullmatch(v.strip()))]
    if not values or len(numbers) < len(values):
        return "convert it to numbers"
    whole = all(number.is_integer() for number in numbers) and known.size == column.size
    return f"convert it to numbers, data[{str(column.name)!r}].astype({'int' if whole else 'float'})"


def refusal_of_response(column: pd.Series) -> DataError:
    """The error for a response that is text, categories or something else than numbers."""
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
