"""Rows in the units of Grams: what resampling needs beyond cross-products, and the sums back to products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.data.layout import Design
from mlmed.errors import DataError

__all__ = ["Rows", "row_products", "unit_rows"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Products per row of rows and Grams of the same data, in units of one, may differ by this much.
SAME_DATA = 1e-6


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of all equations, ordered by pattern and cluster.

    Attributes
    ----------
    values : tuple of K (N,) arrays
        The columns in the units of the Grams; 0 where no equation of the row uses the column.
    codes : (N,) int array
        Cluster of each row, a position in ``Grams.clusters``.
    pattern : (N,) int array
        Position in ``Grams.patterns``.
    order : (N,) int array
        Position of each row in the Design.
    cells : (S,) int array
        ``pattern * J + cluster`` of every combination that has rows, ascending.
    starts : (S,) int array
        First row of each.
    shape : (int, int)
        Patterns and clusters, (P, J).
    """

    values: tuple[Array, ...]
    codes: Indices
    pattern: Indices
    order: Indices
    cells: Indices
    starts: Indices
    shape: tuple[int, int]


def unit_rows(design: Design, grams: Grams) -> Rows:
    """Rows of a design with the shift and scale of Grams that were made from the same data.

    Raises
    ------
    DataError
        If the Grams are of another model or of other rows, or all their products would not fit into memory.
    """
    P, J, known = len(grams.patterns), len(grams.clusters), grams.products  # refused before the same is made of rows
    codes, pattern = _clusters(design, grams), _patterns(design, grams)
    key = pattern * J + codes
    order = np.argsort(key, kind="stable")
    key, codes, pattern = key[order], codes[order], pattern[order]
    starts = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    used = np.array([design.layout.used[list(own)].any(axis=0) for own in grams.patterns])
    values = []
    for k, raw in enumerate(design.values):
        column = (raw[order] - grams.shift[k]) / grams.scale[k]
        values.append(column if used[:, k].all() else np.where(used[pattern, k], column, 0.0))
    rows = Rows(tuple(values), codes, pattern, order, key[starts], starts, (P, J))
    gap = np.abs(row_products(rows, values) - known).max(axis=1)
    if np.any(gap > SAME_DATA * np.maximum(known[:, 0], 1.0)):
        raise _other_data("the sums of products differ")
    return rows


def _other_data(why: str) -> DataError:
    return DataError(
        f"these rows are not those that the cross-products were made from ({why}); build the design from the data of "
        "the fit"
    )


def _clusters(design: Design, grams: Grams) -> Indices:
    """Cluster of every row as a position in ``grams.clusters``."""
    if design.layout.columns != grams.layout.columns:
        raise _other_data(f"columns {', '.join(design.layout.columns)} and {', '.join(grams.layout.columns)}")
    at = grams.clusters.get_indexer(design.clusters)
    if np.any(at < 0) or len(at) != len(grams.clusters):
        raise _other_data("other clusters")
    return np.asarray(at[design.codes], dtype=np.intp)


def _patterns(design: Design, grams: Grams) -> Indices:
    """Pattern of every row as a position in ``grams.patterns``."""
    weights = 1 << np.arange(len(design.members))
    known = np.array(grams.patterns) @ weights
    place = np.full(int(weights.sum()) + 1, -1, dtype=np.intp)
    place[known] = np.arange(len(known))
    pattern = place[weights @ design.members]
    if np.any(pattern < 0):
        raise _other_data("other missing values")
    return pattern


def row_products(
    rows: Rows, values: Sequence[Array], *, base: Array | None = None, changed: frozenset[int] | None = None
) -> Array:
    """Sums of products by pattern and cluster, (P, K * (K + 1) / 2, J), as in Grams.

    Parameters
    ----------
    rows : Rows
        Their order and cells.
    values : sequence of K (N,) arrays
        The columns, in the order of ``rows``.
    base : (P, K * (K + 1) / 2, J) array, optional
        Products that are known already; not modified.
    changed : set of int, optional
        Columns that differ from those of ``base``.
    """
    P, J = rows.shape
    K = len(values)
    out = np.zeros((K * (K + 1) // 2, P * J)) if base is None else base.transpose(1, 0, 2).reshape(-1, P * J).copy()
    for i in range(K):
        for j in range(i + 1):
            if changed is None or i in changed or j in changed:
                product = values[i] if j == 0 else values[i] * values[j]
                out[i * (i + 1) // 2 + j, rows.cells] = np.add.reduceat(product, rows.starts)
    return out.reshape(-1, P, J).transpose(1, 0, 2)
