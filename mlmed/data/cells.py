"""What a cell of a table may hold: one value that can be compared, written and, if it is a number, computed with."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from decimal import Decimal
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from mlmed.errors import DataError
from mlmed.options import shown

__all__ = ["refuse_odd_cells"]

#: Bits of a whole number that a float can hold.
MOST_BITS = 1024


def refuse_odd_cells(column: pd.Series, name: str) -> None:
    """Refuse a column, called ``name``, with cells that nothing can be done with.

    Raises
    ------
    DataError
        Cells hold several values (lists, dicts, arrays, tables), half a character (a lone surrogate), a signaling NaN,
        or a whole number that no float can hold. The first of them is shown.
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
    """Whether cells may hold any object; text that pandas keeps as such may have half characters, too."""
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
    """What may be wrong with values of a type, and why it is."""
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
