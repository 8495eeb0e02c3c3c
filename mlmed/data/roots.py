"""Triangular roots of the rows of every cluster, which keep digits that cross-products lose (docs/math.md, eq. 3b).

A sum of squares is exact to 1e-16 of itself. With random slopes of hundreds of residual sds, the residual squares
within clusters are 1e-10 of those of the response or less, which leaves six digits or none. The triangular factor of
the rows holds lengths, not squares, and loses half as many digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import Design, Layout

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

#: Residual share of the squares of a response below which cross-products do not determine the residual variance to six
#: digits.
NO_DIGITS = 1e-10
#: Share of a column's length, after projection on other columns of its cluster, that is rounding error of zero.
DEPENDENT = 1e-12
#: The same for a squared length, a pivot of cross-products.
DEPENDENT_SQUARE = 1e-13


@dataclass(frozen=True, slots=True)
class ClusterRoots:
    """Triangular roots of all equations."""

    tables: tuple[Array, ...]  #: (J, k_r, k_r): Upper-triangular roots of the columns of ``equation_columns``.
    of_rows: bool  #: Whether they were computed from rows, not from cross-products, which have lost digits.


def equation_columns(layout: Layout, equation: int) -> list[int]:
    """Gram columns of an equation in the order of its root: the constant, random effects, fixed effects, response."""
    own = layout.equations[equation]
    first = list(dict.fromkeys([0, *own.random_at, *own.fixed_at]))
    return [*(k for k in first if k != own.response_at), own.response_at]


def triangular_roots(columns: Sequence[Array], codes: Codes, n_clusters: int) -> Array:
    """Upper-triangular R_j with ``R_j'R_j`` the cross-products of the rows of cluster j, (J, k, k).

    Modified Gram-Schmidt, twice, as accurate as Householder's method. A column that depends linearly on earlier ones in
    its cluster has a row of zeros.

    ``columns``: k (N,) arrays; ``codes`` (N,): cluster of every row, 0 to J - 1; ``n_clusters``: J.
    """

    def summed(products: Array) -> Array:
        return np.asarray(np.bincount(codes, weights=products, minlength=n_clusters), dtype=np.float64)

    k = len(columns)
    roots = np.zeros((n_clusters, k, k))
    directions: list[Array] = []
    for at, column in enumerate(columns):
        size, left = np.sqrt(summed(column * column)), column
        for _ in range(2):
            for before, direction in enumerate(directions):
                part = summed(direction * left)
                roots[:, before, at] += part
                left = left - part[codes] * direction
        length = np.sqrt(summed(left * left))
        length[length <= DEPENDENT * size] = 0.0
        roots[:, at, at] = length
        directions.append(left * np.divide(1.0, length, out=np.zeros_like(length), where=length > 0.0)[codes])
    return roots


def roots_from_rows(design: Design, shift: Array, scale: Array) -> ClusterRoots:
    """Roots of the columns of a design in the units of its Grams."""
    found = []
    for r, rows in enumerate(design.members):
        chosen = slice(None) if rows.all() else rows
        columns = [
            design.values[k][chosen] if k == 0 else (design.values[k][chosen] - shift[k]) / scale[k]
            for k in equation_columns(design.layout, r)
        ]
        found.append(triangular_roots(columns, design.codes[chosen], len(design.clusters)))
    return ClusterRoots(tuple(found), of_rows=True)


def _eliminated(rest: Array, steps: int, roots: Array | None = None) -> Array:
    """Eliminate ``steps`` columns from cross-products (k, k, J), in place; ``roots`` (J, k, k) receives the factor."""
    sizes = np.einsum("kkj->kj", rest).copy()
    for k in range(steps):
        pivot = rest[k, k]
        real = pivot > DEPENDENT_SQUARE * sizes[k]
        row = rest[k, k:] * np.divide(1.0, np.sqrt(np.where(real, pivot, 1.0)), out=np.zeros_like(pivot), where=real)
        rest[k + 1 :, k + 1 :] -= row[1:, None] * row[1:]
        if roots is not None:
            roots[:, k, k:] = row.T
    return rest


def left_within(parts: Iterable[Array], steps: int) -> float:
    """Residual share of the last column after the first ``steps`` columns by cluster and the others over all rows.

    ``parts`` (k, k, j): cross-products of some clusters each; modified.
    """
    total, whole = 0.0, np.zeros((1, 1))
    for products in parts:
        total += float(products[-1, -1].sum())
        whole = whole + _eliminated(products, steps)[steps:, steps:].sum(axis=2)
    if total <= 0.0:
        return 1.0
    rest = _eliminated(whole[:, :, None], len(whole) - 1)[-1, -1]
    return max(float(rest[0]), 0.0) / total


def cross_roots(products: Array) -> Array:
    """Upper-triangular roots (J, k, k) of cross-products (k, k, J), as ``triangular_roots`` of rows.

    Digits lost in the products stay lost.
    """
    roots = np.zeros(products.shape[::-1])
    _eliminated(products.copy(), len(products), roots)
    return roots


def root_maps(roots: Array, maps: Array) -> Array:
    """Roots (J, k', k') of the columns ``W @ maps``, (k, k'), from those of W, (J, k, k)."""
    J, k, _ = roots.shape
    pseudo = (roots @ maps).reshape(J * k, -1)
    return triangular_roots(list(np.ascontiguousarray(pseudo.T)), np.repeat(np.arange(J), k), J)
