"""Nested tables, numbers and texts as ``{path: value}``; a number carries what differences of it are measured by."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from validation.lock.adapter import GROUPS, KEYS

__all__ = ["Leaf", "Number", "flatten"]

#: Between the parts of a path; the row of a table is [in brackets], its column begins with a dot.
SEPARATOR = " / "
#: Longer vectors, and tables of more rows, are described instead of kept.
LONG_VECTOR, LONG_TABLE = 12, 48
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
FIRST = 5
#: Columns in the unit of the estimate, which is known to a share of its standard error at best.
IN_UNITS = re.compile(r"^(estimate|conf_low|conf_high|change)$")
ERROR = "std_error"


@dataclass(frozen=True, slots=True)
class Number:
    """A number and its size, at least its own absolute value."""

    value: float
    size: float

    @staticmethod
    def of(value: float, size: float = 0.0) -> Number:
        """With a size that is a number."""
        own = abs(value) if math.isfinite(value) else 0.0
        return Number(value, max(own, size) if math.isfinite(size) else own)


Leaf = Number | str


def flatten(value: Any, path: str, *, firsts: bool = True) -> Iterator[tuple[str, Leaf]]:
    """Every number and text inside of a value.

    Parameters
    ----------
    value : object
        Table, series, array, mapping, list, number, text or None.
    path : str
        Where it is.
    firsts : bool
        Whether the description of a long vector begins with its first values; not if they are rows that are not ours
        to print.
    """
    if isinstance(value, str):
        if value:
            yield path, value
    elif value is None or value is pd.NaT:
        yield path, "None"
    elif isinstance(value, pd.DataFrame):
        yield from _table(value, path, firsts)
    elif isinstance(value, pd.Series):
        yield from _series(value, path, firsts)
    elif isinstance(value, Mapping):
        for key, inside in value.items():
            yield from flatten(inside, _join(path, str(key)), firsts=firsts)
    elif isinstance(value, np.ndarray) and value.ndim:
        yield from _array(value, path, firsts)
    elif isinstance(value, list | tuple | pd.Index):
        yield from _list(list(value), path, firsts)
    elif isinstance(value, bool | np.bool_ | int | float | np.number):
        yield path, Number.of(float(value))
    else:
        yield path, str(value)


def _join(*parts: str) -> str:
    return SEPARATOR.join(parts)


def _is_numeric(values: pd.Series) -> bool:
    return values.dtype.kind in "iufb"


def _list(values: list[Any], path: str, firsts: bool) -> Iterator[tuple[str, Leaf]]:
    """Rows that are dictionaries make a table; numbers a vector; texts stand in one text."""
    if values and all(isinstance(one, Mapping) for one in values):
        yield from _table(pd.DataFrame(values), path, firsts)
    elif values and all(isinstance(one, int | float | np.number) for one in values):
        yield from _array(np.array(values, dtype=float), path, firsts)
    elif values and all(isinstance(one, str) for one in values):
        yield path, "\n".join(values)
    else:
        for at, inside in enumerate(values):
            yield from flatten(inside, _join(path, str(at)), firsts=firsts)


def _array(values: np.ndarray, path: str, firsts: bool) -> Iterator[tuple[str, Leaf]]:
    if values.ndim > 1:
        yield from _array(values.ravel(), path, firsts)
    elif values.size > LONG_VECTOR:
        yield from _described(values.astype(float), path, firsts)
    else:
        size = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
        for at, one in enumerate(values.astype(float)):
            yield _join(path, f"[{at}]"), Number.of(float(one), size)


def _described(values: np.ndarray, path: str, firsts: bool) -> Iterator[tuple[str, Leaf]]:
    """A long vector: how many, quantiles, mean, a wave over the order, the first values."""
    known = values[np.isfinite(values)]
    yield _join(path, "count"), Number.of(float(values.size))
    yield _join(path, "finite"), Number.of(float(known.size))
    if not known.size:
        return
    spread = float(np.sqrt(np.mean(known**2)))
    for share, one in zip(QUANTILES, np.quantile(known, QUANTILES), strict=True):
        yield _join(path, f"quantile {share:g}"), Number.of(float(one), spread)
    yield _join(path, "mean"), Number.of(float(known.mean()), spread)
    yield _join(path, "wave"), Number.of(float(np.mean(known * np.cos(np.arange(known.size)))), spread)
    if firsts:
        for at, one in enumerate(values[:FIRST]):
            yield _join(path, f"[{at}]"), Number.of(float(one), spread)


def _series(values: pd.Series, path: str, firsts: bool) -> Iterator[tuple[str, Leaf]]:
    if len(values) > LONG_TABLE and _is_numeric(values):
        yield from _described(values.to_numpy(dtype=float), path, firsts)
        return
    for label, one in zip(_unique([str(at) for at in values.index]), values, strict=True):
        yield from flatten(one, _join(path, f"[{label}]"), firsts=firsts)


def _unique(labels: list[str]) -> list[str]:
    """Labels, a repeated one with its number."""
    seen: Counter[str] = Counter()
    out = []
    for label in labels:
        seen[label] += 1
        out.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return out


def _table(frame: pd.DataFrame, path: str, firsts: bool) -> Iterator[tuple[str, Leaf]]:
    labels = [str(column) for column in frame.columns]
    square = len(frame) > 1 and [str(at) for at in frame.index] == labels
    if square and all(_is_numeric(frame[column]) for column in frame):
        yield from _matrix(frame.to_numpy(dtype=float), labels, path)
        return
    frame = frame.set_axis(labels, axis=1)
    yield _join(path, "columns"), " ".join(labels)
    if len(frame) > LONG_TABLE:
        yield from _long(frame, path, firsts)
        return
    keys = next((key for key in KEYS if set(key) <= set(labels)), ())
    if keys:
        names = _unique([" | ".join(str(one) for one in row) for row in frame[list(keys)].itertuples(index=False)])
        yield _join(path, "rows"), "\n".join(names)
    else:
        names = _unique([str(at) for at in frame.index])
    for name, (_, row) in zip(names, frame.iterrows(), strict=True):
        error = _float(row.get(ERROR))
        for column in labels:
            if column in keys:
                continue
            yield from _cell(row[column], column, error, _join(path, f"[{name}]", f".{column}"))


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float | np.number) and not isinstance(value, bool) else math.nan


def _cell(value: Any, column: str, error: float, path: str) -> Iterator[tuple[str, Leaf]]:
    number = _float(value)
    if IN_UNITS.match(column) and math.isfinite(error):
        yield path, Number.of(number, abs(error))
    elif column == "statistic":
        yield path, Number.of(number, 1.0)
    elif column == "p_value" and 0.0 < number < 1.0:  # its relative error is that of the statistic times z^2
        yield path, Number.of(number, number * max(1.0, -2.0 * math.log(number)))
    else:
        yield from flatten(value, path)


def _matrix(values: np.ndarray, labels: list[str], path: str) -> Iterator[tuple[str, Leaf]]:
    """The lower triangle; an entry is measured against the two on the diagonal."""
    yield _join(path, "rows"), "\n".join(labels)
    root = np.sqrt(np.abs(np.diag(values)))
    for i, first in enumerate(labels):
        for j, second in enumerate(labels[: i + 1]):
            yield _join(path, f"[{first}]", f"[{second}]"), Number.of(float(values[i, j]), float(root[i] * root[j]))
    if not np.array_equal(values, values.T, equal_nan=True):
        skew = np.nanmax(np.abs(values - values.T) / np.where(np.outer(root, root) > 0, np.outer(root, root), 1.0))
        yield _join(path, "is symmetric to 1e-12"), Number.of(float(skew < 1e-12))


def _long(frame: pd.DataFrame, path: str, firsts: bool) -> Iterator[tuple[str, Leaf]]:
    """Columns of a long table, apart for each effect, term or response."""
    yield _join(path, "count"), Number.of(float(len(frame)))
    by = next((column for column in GROUPS if column in frame and not _is_numeric(frame[column])), None)
    pieces = [("", frame)] if by is None else [(f"[{name}]", part) for name, part in frame.groupby(by, sort=False)]
    for name, part in pieces:
        for column in part:
            where = _join(path, *filter(None, (name, f".{column}")))
            if column == by:
                continue
            if _is_numeric(part[column]):
                yield from _described(part[column].to_numpy(dtype=float), where, firsts)
            elif part[column].map(lambda one: isinstance(one, str)).all():
                texts = Counter(text for text in part[column] if text)
                if texts and len(texts) <= LONG_TABLE:
                    yield where, "\n".join(f"{count} x {text}" for text, count in sorted(texts.items()))
