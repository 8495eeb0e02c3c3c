"""Triangular roots of the rows of every cluster: they keep the digits that cross-products lose (docs/math.md, eq. 3b).

A sum of squares holds its last digit at 1e-16 of itself. Where random slopes are hundreds of times the residual sd,
what they leave of a response within clusters is 1e-10 of its squares and less: six digits, then none. The triangular
factor of the same rows holds lengths and not squares, so it loses half as many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlmed.data.columns import MANY_COLUMNS
from mlmed.data.layout import Design, Layout

if TYPE_CHECKING:
    from mlmed.data.grams import Grams

__all__ = [
    "FEW_DIGITS",
    "NO_DIGITS",
    "ClusterRoots",
    "cross_roots",
    "equation_columns",
    "few_digits",
    "product_roots",
    "rest_share",
    "root_maps",
    "roots_from_rows",
    "triangular_roots",
]

Array = NDArray[np.float64]
Codes = NDArray[np.intp]

#: Share of the squares of a response that its predictors leave (``rest_share``), below which roots are taken:
#: derivatives made of cross-products then have rounding errors of 1e-16 / share, and the search needs 1e-11.
FEW_DIGITS = 1e-5
#: Share below which cross-products alone do not tell the residual variance to six digits.
NO_DIGITS = 1e-10
#: Length of a column, next to others of its cluster, that is the rounding error of zero, as a share of its length.
DEPENDENT = 1e-12
#: The same for a pivot of cross-products, a square.
DEPENDENT_SQUARE = 1e-13
#: Clusters whose products are looked at together: copies of them stay small.
CLUSTERS = 16_384


@dataclass(frozen=True, slots=True)
class ClusterRoots:
    """Triangular roots of all equations.

    Attributes
    ----------
    tables : tuple of R (J, k_r, k_r) arrays
        Upper-triangular roots of the columns of ``equation_columns``.
    of_rows : bool
        Whether they were made from rows; those of cross-products have lost what these have lost.
    """

    tables: tuple[Array, ...]
    of_rows: bool


def equation_columns(layout: Layout, equation: int) -> list[int]:
    """Gram columns of an equation in the order of its root: the constant, random effects, fixed effects, response."""
    own = layout.equations[equation]
    first = list(dict.fromkeys([0, *own.random_at, *own.fixed_at]))
    return [*(k for k in first if k != own.response_at), own.response_at]


def triangular_roots(columns: Sequence[Array], codes: Codes, n_clusters: int) -> Array:
    """Upper-triangular R_j with ``R_j'R_j`` the cross-products of the rows of cluster j, (J, k, k).

    Modified Gram-Schmidt, twice, which is as good as Householder's method. A column that others of its cluster make up
    has a row of zeros.

    Parameters
    ----------
    columns : sequence of k (N,) arrays
        The columns.
    codes : (N,) int array
        Cluster of every row, 0 to J - 1.
    n_clusters : int
        J.
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
    """Roots of the columns of a design in units of Grams."""
    found = []
    for r, rows in enumerate(design.members):
        chosen = slice(None) if rows.all() else rows
        columns = [
            design.values[k][chosen] if k == 0 else (design.values[k][chosen] - shift[k]) / scale[k]
            for k in equation_columns(design.layout, r)
        ]
        found.append(triangular_roots(columns, design.codes[chosen], len(design.clusters)))
    return ClusterRoots(tuple(found), of_rows=True)


def _own_products(grams: Grams, equation: int, columns: Sequence[int], part: slice = slice(None)) -> Array:
    """Cross-products of some columns on the rows of an equation, (k, k, J), of some clusters."""
    at = np.asarray(columns)
    high, low = np.maximum(at[:, None], at), np.minimum(at[:, None], at)
    chosen = [p for p, pattern in enumerate(grams.patterns) if pattern[equation]]
    place = high * (high + 1) // 2 + low
    if not isinstance(grams.sums, np.ndarray):
        rows = {int(k): np.sum([grams.row(p, int(k))[part] for p in chosen], axis=0) for k in np.unique(place)}
        return np.stack([[rows[int(k)] for k in row] for row in place])
    packed = grams.sums[chosen[0], :, part] if len(chosen) == 1 else grams.sums[chosen, :, part].sum(axis=0)
    return np.asarray(packed[place])


def _eliminated(rest: Array, steps: int, roots: Array | None = None) -> Array:
    """Cross-products (k, k, J) after ``steps`` columns, in place; ``roots`` (J, k, k) takes the rows of the factor."""
    sizes = np.einsum("kkj->kj", rest).copy()
    for k in range(steps):
        pivot = rest[k, k]
        real = pivot > DEPENDENT_SQUARE * sizes[k]
        row = rest[k, k:] * np.divide(1.0, np.sqrt(np.where(real, pivot, 1.0)), out=np.zeros_like(pivot), where=real)
        rest[k + 1 :, k + 1 :] -= row[1:, None] * row[1:]
        if roots is not None:
            roots[:, k, k:] = row.T
    return rest


def rest_share(grams: Grams, equation: int) -> float:
    """Share of the squares of a response that its predictors leave, those with random effects cluster by cluster.

    It is made from cross-products, so it is known to about 1e-16. Of many columns only those with random effects are
    looked at.
    """
    own = grams.layout.equations[equation]
    effects = [k for k in dict.fromkeys(own.random_at) if k != own.response_at]
    several = equation_columns(grams.layout, equation) if len(grams.columns) < MANY_COLUMNS else [0]
    others = [k for k in several if k not in (*effects, own.response_at)]
    columns = [*effects, *others, own.response_at]
    whole = np.eye(len(columns))  # random effects of columns as they are, not as Grams have shifted them
    whole[columns.index(0), : len(effects)] += (grams.shift / grams.scale)[effects]
    return _left_within(grams, equation, columns, len(effects), whole)


def _left_within(grams: Grams, equation: int, columns: Sequence[int], steps: int, maps: Array) -> float:
    """Share of the last column that the first ``steps`` leave within clusters, and the others of all rows together.

    The columns are those of the Grams times ``maps``.
    """
    total, whole = 0.0, np.zeros((len(columns) - steps,) * 2)
    for start in range(0, len(grams.clusters), CLUSTERS):
        products = _own_products(grams, equation, columns, slice(start, start + CLUSTERS))
        if 0 not in columns[:steps]:
            products = np.einsum("ka,klj,lb->abj", maps, products, maps, optimize=True)
        total += float(products[-1, -1].sum())
        whole += _eliminated(products, steps)[steps:, steps:].sum(axis=2)
    if total <= 0.0:
        return 1.0
    rest = _eliminated(whole[:, :, None], len(whole) - 1)[-1, -1]
    return max(float(rest[0]), 0.0) / total


def product_roots(grams: Grams) -> ClusterRoots:
    """Roots from cross-products, for want of rows: what these have lost is not brought back."""
    found = []
    for r in range(len(grams.layout.equations)):
        found.append(cross_roots(_own_products(grams, r, equation_columns(grams.layout, r))))
    return ClusterRoots(tuple(found), of_rows=False)


def cross_roots(products: Array) -> Array:
    """Upper-triangular roots (J, k, k) of cross-products (k, k, J), as ``triangular_roots`` has them of rows."""
    roots = np.zeros(products.shape[::-1])
    _eliminated(products.copy(), len(products), roots)
    return roots


def few_digits(grams: Grams) -> bool:
    """Whether cross-products hold too few digits of what random effects leave of a response, or of their columns."""
    return any(
        min(rest_share(grams, r), _varying_share(grams, r)) <= FEW_DIGITS for r in range(len(grams.layout.equations))
    )


def _varying_share(grams: Grams, equation: int) -> float:
    """Smallest share of the squares of a column with random effects that varies, where no intercept takes its mean."""
    effects = [*grams.layout.equations[equation].random_at]
    if not effects or 0 in effects:
        return 1.0
    return float(1.0 / (1.0 + ((grams.shift / grams.scale)[effects] ** 2).max()))


def root_maps(roots: Array, maps: Array) -> Array:
    """Roots (J, k', k') of the columns ``W @ maps``, (k, k'), from those of W, (J, k, k)."""
    J, k, _ = roots.shape
    pseudo = (roots @ maps).reshape(J * k, -1)
    return triangular_roots(list(np.ascontiguousarray(pseudo.T)), np.repeat(np.arange(J), k), J)
