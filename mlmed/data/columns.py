"""Columns of a design that are zero in most rows, such as indicators of a factor's levels: only the others are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["MANY_COLUMNS", "MOSTLY_ZERO", "Column", "SparseColumn", "completed", "same_on"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Distinct columns from which a design is taken for a wide one, whose products are summed block by block.
MANY_COLUMNS = 32
#: Share of rows in which a column of a wide design may differ from zero to be kept without its zeros.
MOSTLY_ZERO = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class SparseColumn:
    """A column without its zeros; NumPy takes it for an array.

    Attributes
    ----------
    at : (m,) int array
        Rows that are not zero, ascending.
    values : (m,) array
        Their values.
    size : int
        Rows of the column.
    """

    at: Indices
    values: Array
    size: int

    @property
    def shape(self) -> tuple[int]:
        """Rows."""
        return (self.size,)

    def __len__(self) -> int:
        return self.size

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        out = np.zeros(self.size)
        out[self.at] = self.values
        return out if dtype is None else out.astype(dtype)

    def __getitem__(self, index: Any) -> Array:
        found: Array = np.asarray(self)[index]
        return found

    def among(self, rows: NDArray[np.bool_]) -> SparseColumn:
        """The column on some rows, (n,) flags; these rows are numbered anew."""
        kept = rows[self.at]
        place = np.cumsum(rows) - 1
        return SparseColumn(place[self.at[kept]], self.values[kept], int(rows.sum()))

    def spread(self, rows: NDArray[np.bool_]) -> SparseColumn:
        """The column on more rows, of which it has those that are flagged; elsewhere it is zero."""
        return SparseColumn(np.flatnonzero(rows)[self.at], self.values, len(rows))


Column = Array | SparseColumn


def same_on(one: Column, two: Column, rows: NDArray[np.bool_]) -> bool:
    """Whether two columns have the same values on some rows, (n,) flags."""
    if one is two:
        return True
    if isinstance(one, SparseColumn) and isinstance(two, SparseColumn):
        one, two = one.among(rows), two.among(rows)
        return np.array_equal(one.at, two.at) and np.array_equal(one.values, two.values)
    return np.array_equal(one[rows], two[rows])


def completed(one: Column, two: Column, rows: NDArray[np.bool_]) -> Column:
    """The first column on the flagged rows, (n,), and the second one on the rest."""
    if not isinstance(one, SparseColumn) or not isinstance(two, SparseColumn):
        return np.where(rows, one, two)
    own, rest = rows[one.at], ~rows[two.at]
    at = np.concatenate([one.at[own], two.at[rest]])
    order = np.argsort(at)
    return SparseColumn(at[order], np.concatenate([one.values[own], two.values[rest]])[order], len(one))
