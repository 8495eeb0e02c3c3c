"""Sufficient statistics: cross-products of the distinct columns per cluster (docs/math.md, eq. 3).

After the Grams exist nothing reads a row again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.compact import Compact
from mlmed.data.layout import Design, Layout
from mlmed.data.predictors import snapped
from mlmed.data.roots import ClusterRoots, equation_columns, few_digits, product_roots, root_maps, roots_from_rows
from mlmed.data.sizes import unusual_size
from mlmed.errors import DataError
from mlmed.formula import Equation
from mlmed.model import ModelSpec

__all__ = ["Grams", "accumulate", "equation_gram", "grams_for", "rebased", "standardized", "two_values", "unpacked"]

Array = NDArray[np.float64]

#: Sums of squares may differ by this share from those of a column with two values; they are rounding errors.
TWO_VALUES = 1e-9


@dataclass(frozen=True, slots=True, repr=False)
class Grams(Compact):
    """Cross-products per cluster and pattern of usable equations.

    Attributes
    ----------
    layout : Layout
        Names and encodings of the K distinct columns; the constant first.
    shift, scale : (K,) arrays
        Every column was replaced by (column - shift) / scale before summing; 0 and 1 for the constant.
    patterns : tuple of tuple of bool
        Which equations a row of the pattern belongs to.
    products : (P, K * (K + 1) / 2, J) array
        Sums of products, lower triangle row by row; the first is the number of rows.
    clusters : Index of length J
        Cluster ids.
    roots : ClusterRoots or None
        Triangular roots of the rows of every equation, where the products have lost digits of them.
    """

    layout: Layout
    shift: Array
    scale: Array
    patterns: tuple[tuple[bool, ...], ...]
    products: Array
    clusters: pd.Index
    roots: ClusterRoots | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the distinct columns."""
        return self.layout.columns

    def nobs(self, equation: int) -> int:
        """Rows of one equation."""
        chosen = [p for p, pattern in enumerate(self.patterns) if pattern[equation]]
        return round(float(self.products[chosen, 0, :].sum()))

    @property
    def rows_per_cluster(self) -> NDArray[np.int64]:
        """Rows of any equation in each cluster, (J,)."""
        return self.products[:, 0, :].sum(axis=0).round().astype(np.int64)


def _moments(name: str, values: Array, rows: NDArray[np.bool_] | None) -> tuple[float, float]:
    used = values if rows is None else values[rows]
    error = unusual_size(name, float(np.abs(used).max()))
    if error is not None:
        raise error
    shift = float(used.mean())
    centred = used - shift
    scale = float(np.sqrt(centred @ centred / len(used)))
    if scale <= 1e-14 * abs(shift):  # constant: its size is its unit
        return 0.0, abs(shift) if shift != 0.0 else 1.0
    return shift, scale


def accumulate(design: Design) -> Grams:
    """Shift, scale, multiply and sum by cluster: one pass over the rows."""
    members, layout = design.members, design.layout
    K, J = len(layout.columns), len(design.clusters)
    used = layout.used
    shift, scale = np.zeros(K), np.ones(K)
    for k in range(1, K):
        rows = np.asarray(members[used[:, k]].any(axis=0))
        shift[k], scale[k] = _moments(layout.columns[k], design.values[k], None if rows.all() else rows)
    everywhere = bool(members.all())
    keys = np.zeros(1, dtype=np.int64) if everywhere else np.unique((1 << np.arange(len(members))) @ members)
    patterns = tuple(tuple(bool(everywhere or key >> r & 1) for r in range(len(members))) for key in keys)
    products = np.zeros((len(patterns), K * (K + 1) // 2, J))
    for target, pattern in zip(products, patterns, strict=True):
        chosen = None if everywhere else np.asarray((members == np.array(pattern)[:, None]).all(axis=0))
        columns = np.asarray(used[list(pattern)].any(axis=0))
        _sum_products(design, columns, chosen, shift, scale, target)
    made = Grams(layout, shift, scale, patterns, products, design.clusters)
    return replace(made, roots=roots_from_rows(design, shift, scale)) if few_digits(made) else made


def _sum_products(
    design: Design,
    used: NDArray[np.bool_],
    rows: NDArray[np.bool_] | None,
    shift: Array,
    scale: Array,
    out: Array,
) -> None:
    codes = design.codes if rows is None else design.codes[rows]
    J = out.shape[1]
    columns: dict[int, Array] = {}
    for k in np.flatnonzero(used):
        values = design.values[k] if rows is None else design.values[k][rows]
        columns[int(k)] = values if k == 0 else (values - shift[k]) / scale[k]
    for i, left in columns.items():
        for j, right in columns.items():
            if j <= i:
                weights = None if i == 0 else left if j == 0 else left * right
                out[i * (i + 1) // 2 + j] = np.bincount(codes, weights=weights, minlength=J)


def equation_gram(grams: Grams, equation: int) -> Array:
    """Cross-products of all rows of one equation, (K, K, J)."""
    chosen = [p for p, pattern in enumerate(grams.patterns) if pattern[equation]]
    return unpacked(grams.products[chosen[0]] if len(chosen) == 1 else grams.products[chosen].sum(axis=0))


def two_values(grams: Grams, equation: int, column: int) -> tuple[float, float] | None:
    """The two values of a column, if it has no more in the rows of an equation; read from sums, without the rows.

    With the values l and h every row has z^2 = (l + h) z - l h, and so have the sums of every cluster. Two unknowns are
    told from three clusters with different means; with fewer the answer is None.
    """
    full = equation_gram(grams, equation)
    rows = full[0, 0] > 0.0
    n, sums, squares = full[0, 0, rows], full[0, column, rows], full[column, column, rows]
    if len(np.unique(np.round(sums / n, 6))) < 3:
        return None
    line = np.column_stack([sums, n]) / n[:, None]
    (total, product), *_ = np.linalg.lstsq(line, squares / n, rcond=None)
    gap = np.abs(line @ np.array([total, product]) - squares / n).max()
    width = total**2 + 4.0 * product
    if gap > TWO_VALUES * (squares / n).max() or width <= 0.0:
        return None
    ends = grams.shift[column] + grams.scale[column] * (total + np.array([-1.0, 1.0]) * np.sqrt(width)) / 2.0
    digits = 9 - int(np.floor(np.log10(np.abs(ends).max())))  # a value of 0 comes out as a rounding error
    return round(float(ends[0]), digits) + 0.0, round(float(ends[1]), digits) + 0.0  # not -0


def unpacked(packed: Array) -> Array:
    """Lower triangles row by row, (K * (K + 1) / 2, J), as matrices, (K, K, J)."""
    K = (int(np.sqrt(8 * len(packed) + 1)) - 1) // 2
    full = np.empty((K, K, packed.shape[1]))
    for i in range(K):
        for j in range(i + 1):
            full[i, j] = full[j, i] = packed[i * (i + 1) // 2 + j]
    return full


def grams_for(spec: ModelSpec, grams: Grams) -> Grams:
    """Grams that were made before, if they were made for these equations.

    Raises
    ------
    DataError
        If the equations differ in more than the labels of their random terms.
    """

    def essence(equation: Equation) -> tuple[Any, ...]:
        return equation.response, equation.fixed, tuple((term.formula, term.group) for term in equation.random)

    made, asked = grams.layout.asked, spec.equations
    if tuple(map(essence, made)) != tuple(map(essence, asked)):
        raise DataError(
            f"these Grams were made for {'; '.join(e.text for e in made)}, not for "
            f"{'; '.join(e.text for e in asked)}; make new ones from the data with mlmed.grams()"
        )
    return standardized(grams)


def rebased(grams: Grams, shift: Array, scale: Array) -> Array:
    """Products of the columns as ``(column - shift) / scale`` instead of the Grams' own units (eq. 18).

    Every pattern keeps the columns it does not use at zero.
    """
    K = len(grams.columns)
    if np.array_equal(shift, grams.shift) and np.array_equal(scale, grams.scale):
        return grams.products
    pairs = [(i, j) for i in range(K) for j in range(i + 1)]
    out = np.empty_like(grams.products)
    for packed, target, pattern in zip(grams.products, out, grams.patterns, strict=True):
        T = _moved_columns(grams, shift, scale, np.asarray(grams.layout.used[list(pattern)].any(axis=0)))
        full = np.empty((K, K, packed.shape[1]))
        for p, (i, j) in enumerate(pairs):
            full[i, j] = full[j, i] = packed[p]
        moved = np.einsum("ka,klj,lb->abj", T, full, T, optimize=True)
        for p, (i, j) in enumerate(pairs):
            target[p] = moved[i, j]
    return out


def _moved_columns(grams: Grams, shift: Array, scale: Array, used: NDArray[np.bool_]) -> Array:
    """(K, K) map of the columns to other units, zero for columns that are not used."""
    T = np.diag(np.where(used, grams.scale / scale, 0.0))
    T[0] += np.where(used, (grams.shift - shift) / scale, 0.0)  # column k gains a multiple of the constant
    return np.asarray(T)


def _rebased_roots(grams: Grams, shift: Array, scale: Array) -> ClusterRoots | None:
    """Roots of the same columns in other units."""
    if grams.roots is None:
        return None
    T = _moved_columns(grams, shift, scale, np.ones(len(scale), dtype=bool))
    columns = [equation_columns(grams.layout, r) for r in range(len(grams.roots.tables))]
    tables = (root_maps(own, T[np.ix_(at, at)]) for own, at in zip(grams.roots.tables, columns, strict=True))
    return replace(grams.roots, tables=tuple(tables))


def standardized(grams: Grams) -> Grams:
    """The same Grams with every column centred and scaled by its own moments over all rows (eq. 18)."""
    used = grams.layout.used
    shift, scale = grams.shift.copy(), grams.scale.copy()
    for k in range(1, len(grams.columns)):
        mean, variance, squares = _column_moments(grams, k, [p for p in grams.patterns if used[list(p), k].any()])
        if variance > 1e-14 * squares:  # a constant column keeps its units
            shift[k] = grams.shift[k] + grams.scale[k] * mean
            scale[k] = grams.scale[k] * np.sqrt(variance)
    equations = []
    for r, equation in enumerate(grams.layout.equations):
        typical = dict(equation.typical)
        for name in set(equation.spread) & set(grams.columns):
            k = grams.columns.index(name)
            if used[r, k]:
                mean = _column_moments(grams, k, [p for p in grams.patterns if p[r]])[0]
                mean = float(grams.shift[k] + grams.scale[k] * mean)
                typical[name] = snapped(mean, equation.observed.get(name, ()))
        equations.append(replace(equation, typical=typical))
    layout = replace(grams.layout, equations=tuple(equations))
    products, roots = rebased(grams, shift, scale), _rebased_roots(grams, shift, scale)
    made = Grams(layout, shift, scale, grams.patterns, products, grams.clusters, roots)
    return replace(made, roots=product_roots(made)) if roots is None and few_digits(made) else made


def _column_moments(grams: Grams, k: int, patterns: list[tuple[bool, ...]]) -> tuple[float, float, float]:
    """Mean, variance and mean square of Gram column k over the rows of some patterns."""
    rows = [grams.patterns.index(pattern) for pattern in patterns]
    first = k * (k + 1) // 2
    n, total, squares = (float(grams.products[rows, at].sum()) for at in (0, first, first + k))
    return total / n, squares / n - (total / n) ** 2, squares / n
