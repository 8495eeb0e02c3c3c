"""Sparse columns, such as indicators of levels, and sums of products by cluster.

All products of K columns are K (K + 1) / 2 numbers per cluster. With indicators nearly all are zero, so sums of sparse
columns are a sparse table with the same rows; sums of dense columns use BLAS.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy.sparse import coo_array, csr_array

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Number of distinct columns from which a design is wide: its products are summed block by block.
MANY_COLUMNS = 32
#: A column of a wide design is stored sparse if at most this share of its rows is not zero.
MOSTLY_ZERO = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class SparseColumn:
    """A column without its zeros, convertible to a NumPy array."""

    at: Indices  #: (m,): Rows that are not zero, ascending.
    values: Array  #: (m,): Their values.
    size: int  #: Rows of the column.

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
        """The column on the flagged rows, (n,), renumbered from 0."""
        kept = rows[self.at]
        place = np.cumsum(rows) - 1
        return SparseColumn(place[self.at[kept]], self.values[kept], int(rows.sum()))

    def spread(self, rows: NDArray[np.bool_]) -> SparseColumn:
        """The column on a larger set of rows: its values on the flagged rows, zero elsewhere."""
        return SparseColumn(np.flatnonzero(rows)[self.at], self.values, len(rows))


Column = Array | SparseColumn


def same_on(one: Column, two: Column, rows: NDArray[np.bool_]) -> bool:
    """Whether two columns have the same values on the flagged rows, (n,)."""
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


#: Numbers per block, of rows as of products.
BLOCK = 1 << 20


def pair_at(i: Indices | int, j: Indices | int) -> Indices:
    """Position of the product of columns i and j among all products, lower triangle row by row."""
    high, low = np.maximum(i, j), np.minimum(i, j)
    return np.asarray(high * (high + 1) // 2 + low, dtype=np.intp)


def block_products(columns: Mapping[int, Array], codes: Indices, J: int) -> Array:
    """Sums of products of d dense columns by cluster, (d * (d + 1) / 2, J): one matrix product per cluster.

    ``columns``: (n,) arrays by ascending positions; ``codes`` (n,): cluster of every row; ``J``: clusters.
    """
    d = len(columns)
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=J)
    starts = np.cumsum(sizes) - sizes
    lower = np.tril_indices(d)
    out = np.zeros((d * (d + 1) // 2, J))
    for size in np.unique(sizes[sizes > 0]):  # clusters of one size make one batch
        clusters = np.flatnonzero(sizes == size)
        step = max(BLOCK // (d * max(int(size), d)), 1)
        for first in range(0, len(clusters), step):
            part = clusters[first : first + step]
            rows = order[starts[part][:, None] + np.arange(size)]
            own = np.empty((d, *rows.shape))
            for target, values in zip(own, columns.values(), strict=True):
                np.take(values, rows, out=target)
            left = own.transpose(1, 0, 2)
            out[:, part] = np.matmul(left, left.transpose(0, 2, 1))[:, *lower].T
    return out


@dataclass(frozen=True, slots=True)
class Entries:
    """Nonzero entries of some sparse columns."""

    #: (m,): Row among those summed, and position of the column.
    row: Indices
    column: Indices
    value: Array  #: (m,): The value.


def joined(parts: Sequence[Entries]) -> Entries:
    """Entries of several columns."""
    nothing = Entries(np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp), np.zeros(0))
    listed = [nothing, *parts]
    row, column, value = (np.concatenate([getattr(one, name) for one in listed]) for name in Entries.__slots__)
    return Entries(row, column, value)


def sparse_products(
    whole: Mapping[int, Array], entries: Entries, codes: Indices, J: int, shape: tuple[int, int]
) -> csr_array:
    """Sums of all products by cluster where some columns are sparse; ``shape``: products and clusters.

    ``whole``: dense (n,) columns by position; ``entries``: the sparse ones; ``codes`` (n,): cluster of every row;
    ``J``: clusters.
    """
    parts = [_of_whole(whole, codes, J), *_of_entries(entries, codes)]
    cell, inverse = np.unique(entries.column * np.intp(J) + codes[entries.row], return_inverse=True)
    column, cluster = cell // J, cell % J
    for k, values in whole.items():
        own = np.bincount(inverse, weights=entries.value * values[entries.row], minlength=len(cell))
        parts.append((np.asarray(own, dtype=np.float64), pair_at(column, k), cluster))
    sums, place, cluster = map(np.concatenate, zip(*parts, strict=True))
    return coo_array((sums, (place, cluster)), shape=shape).tocsr()  # sums at one place are added


def _of_whole(whole: Mapping[int, Array], codes: Indices, J: int) -> tuple[Array, Indices, Indices]:
    at = np.array(list(whole), dtype=np.intp)
    high, low = np.tril_indices(len(at))
    sums = block_products(whole, codes, J)
    place = np.repeat(pair_at(at[high], at[low]), J)
    return sums.ravel(), place, np.tile(np.arange(J), len(sums))


def _of_entries(entries: Entries, codes: Indices) -> Iterator[tuple[Array, Indices, Indices]]:
    """Products of sparse columns with each other: of entries of one row that are 0, 1, 2, ... positions apart."""
    order = np.argsort(entries.row, kind="stable")
    row, column, value = entries.row[order], entries.column[order], entries.value[order]
    for apart in range(len(row)):
        same = np.flatnonzero(row[apart:] == row[: len(row) - apart])
        if not len(same):
            return
        yield value[same] * value[same + apart], pair_at(column[same], column[same + apart]), codes[row[same]]
