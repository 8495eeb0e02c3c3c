"""Sufficient statistics: cross-products of the distinct columns per cluster (docs/math.md, eq. 3).

Fits read Grams only, no rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import block_diag, coo_array, csr_array, vstack

from mlmed.allowed import STATEFUL
from mlmed.data.checks import computed_levels
from mlmed.data.columns import (
    MANY_COLUMNS,
    Column,
    Entries,
    SparseColumn,
    block_products,
    joined,
    pair_at,
    sparse_products,
)
from mlmed.data.layout import Design, Dropped, EquationLayout, Layout
from mlmed.data.predictors import called_functions, snapped, some_values
from mlmed.data.roots import (
    ClusterRoots,
    cross_roots,
    equation_columns,
    left_within,
    root_maps,
    roots_from_rows,
)
from mlmed.errors import DataError
from mlmed.formula import Equation
from mlmed.limits import refuse_products, unusual_size
from mlmed.system.system import System
from mlmed.text import Compact

Array = NDArray[np.float64]

#: Relative rounding error allowed in the sums of a column with two values.
TWO_VALUES = 1e-9
#: Residual share of the squares of a response (``rest_share``) below which roots are used: derivatives from
#: cross-products have rounding errors of 1e-16 / share, and the search needs 1e-11.
FEW_DIGITS = 1e-5
#: Clusters per block of products, so that copies stay small.
CLUSTERS = 16_384


@dataclass(frozen=True, slots=True, repr=False)
class Grams(Compact):
    """Cross-products per cluster and pattern of usable equations."""

    layout: Layout  #: Names and encodings of the K distinct columns; the constant first.
    #: (K,): Columns are summed as (column - shift) / scale; 0 and 1 for the constant.
    shift: Array
    scale: Array
    patterns: tuple[tuple[bool, ...], ...]  #: Which equations a row of the pattern belongs to.
    #: (P, K * (K + 1) / 2, J): Sums of products, lower triangle row by row; the first is the number of rows. Sparse
    #: where most of many columns are indicators; these have the shift 0.
    sums: Array | csr_array
    clusters: pd.Index  #: Cluster ids.
    #: Triangular roots of the rows of every equation, where products have lost digits.
    roots: ClusterRoots | None = None

    @property
    def products(self) -> Array:
        """All sums as an array, (P, K * (K + 1) / 2, J).

        Raises ``DataError``: if it would not fit.
        """
        if isinstance(self.sums, np.ndarray):
            return self.sums
        refuse_products(len(self.columns), len(self.patterns), len(self.clusters))
        return self.sums.toarray().reshape(len(self.patterns), -1, len(self.clusters))

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the distinct columns."""
        return self.layout.columns

    @property
    def counts(self) -> Array:
        """Rows by pattern and cluster, (P, J)."""
        return np.stack([self.row(p, 0) for p in range(len(self.patterns))])

    def row(self, pattern: int, product: int) -> Array:
        """One product of one pattern by cluster, (J,)."""
        if isinstance(self.sums, np.ndarray):
            return self.sums[pattern, product]
        at = pattern * (self.sums.shape[0] // len(self.patterns)) + product
        out = np.zeros(self.sums.shape[1])
        own = slice(self.sums.indptr[at], self.sums.indptr[at + 1])
        out[self.sums.indices[own]] = self.sums.data[own]
        return out

    def nobs(self, equation: int) -> int:
        """Rows of one equation."""
        chosen = [p for p, pattern in enumerate(self.patterns) if pattern[equation]]
        return round(float(self.counts[chosen].sum()))

    @property
    def rows_per_cluster(self) -> NDArray[np.int64]:
        """Rows of any equation in each cluster, (J,)."""
        return self.counts.sum(axis=0).round().astype(np.int64)


def _moments(name: str, values: Column, rows: NDArray[np.bool_] | None) -> tuple[float, float]:
    if isinstance(values, SparseColumn):
        return _sparse_moments(name, values, rows)
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


def _sparse_moments(name: str, column: SparseColumn, rows: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Moments of a sparse column; the shift is 0 so that zeros stay zeros."""
    used = column if rows is None else column.among(rows)
    error = unusual_size(name, float(np.abs(used.values).max(initial=0.0)))
    if error is not None:
        raise error
    return 0.0, float(np.sqrt(used.values @ used.values / len(used))) or 1.0


def accumulate(design: Design) -> Grams:
    """Shift, scale, multiply and sum by cluster: one pass over the rows."""
    members, layout = design.members, design.layout
    K = len(layout.columns)
    used = layout.used
    shift, scale = np.zeros(K), np.ones(K)
    for k in range(1, K):
        rows = np.asarray(members[used[:, k]].any(axis=0))
        shift[k], scale[k] = _moments(layout.columns[k], design.values[k], None if rows.all() else rows)
    everywhere = bool(members.all())
    keys = np.zeros(1, dtype=np.int64) if everywhere else np.unique((1 << np.arange(len(members))) @ members)
    patterns = tuple(tuple(bool(everywhere or key >> r & 1) for r in range(len(members))) for key in keys)
    made = Grams(layout, shift, scale, patterns, pattern_sums(design, patterns, shift, scale), design.clusters)
    return replace(made, roots=roots_from_rows(design, shift, scale)) if _wants_roots(made) else made


def _wants_roots(grams: Grams) -> bool:
    """Whether products have too few digits of residuals within clusters, or of the columns with random effects.

    Never for many columns: roots, a matrix per cluster, would not fit into memory.
    """
    if len(grams.columns) >= MANY_COLUMNS:
        return False
    equations = range(len(grams.layout.equations))
    return any(min(rest_share(grams, r), _varying_share(grams, r)) <= FEW_DIGITS for r in equations)


def _varying_share(grams: Grams, equation: int) -> float:
    """Smallest share of variance in the mean square of a random-effects column; 1 where an intercept takes the mean."""
    effects = [*grams.layout.equations[equation].random_at]
    if not effects or 0 in effects:
        return 1.0
    return float(1.0 / (1.0 + ((grams.shift / grams.scale)[effects] ** 2).max()))


def _own_products(grams: Grams, equation: int, columns: Sequence[int], part: slice = slice(None)) -> Array:
    """Cross-products of some columns on the rows of an equation, (k, k, J), for the clusters in ``part``."""
    at = np.asarray(columns)
    high, low = np.maximum(at[:, None], at), np.minimum(at[:, None], at)
    chosen = [p for p, pattern in enumerate(grams.patterns) if pattern[equation]]
    place = high * (high + 1) // 2 + low
    if not isinstance(grams.sums, np.ndarray):
        rows = {int(k): np.sum([grams.row(p, int(k))[part] for p in chosen], axis=0) for k in np.unique(place)}
        return np.stack([[rows[int(k)] for k in row] for row in place])
    packed = grams.sums[chosen[0], :, part] if len(chosen) == 1 else grams.sums[chosen, :, part].sum(axis=0)
    return np.asarray(packed[place])


def rest_share(grams: Grams, equation: int) -> float:
    """Residual share of the squares of a response; columns with random effects are regressed out cluster by cluster.

    Computed from cross-products, so known to about 1e-16. Of many columns only those with random effects are used.
    """
    own = grams.layout.equations[equation]
    effects = [k for k in dict.fromkeys(own.random_at) if k != own.response_at]
    several = equation_columns(grams.layout, equation) if len(grams.columns) < MANY_COLUMNS else [0]
    others = [k for k in several if k not in (*effects, own.response_at)]
    columns = [*effects, *others, own.response_at]
    maps = np.eye(len(columns))  # random effects of the original columns, not of the shifted ones
    maps[columns.index(0), : len(effects)] += (grams.shift / grams.scale)[effects]
    starts = range(0, len(grams.clusters), CLUSTERS)
    parts = (_own_products(grams, equation, columns, slice(start, start + CLUSTERS)) for start in starts)
    if 0 not in effects:
        parts = (np.einsum("ka,klj,lb->abj", maps, products, maps, optimize=True) for products in parts)
    return left_within(parts, len(effects))


def product_roots(grams: Grams) -> ClusterRoots:
    """Roots from cross-products, without rows; lost digits stay lost."""
    equations = range(len(grams.layout.equations))
    tables = [cross_roots(_own_products(grams, r, equation_columns(grams.layout, r))) for r in equations]
    return ClusterRoots(tuple(tables), of_rows=False)


def pattern_sums(design: Design, patterns: Sequence[tuple[bool, ...]], shift: Array, scale: Array) -> Array | csr_array:
    """Sums of products by pattern, as in ``Grams``; sparse if a column of the design is.

    Raises ``DataError``: they would not fit into memory.
    """
    J, K = len(design.clusters), len(design.values)
    parts = [_part(design, pattern, shift, scale) for pattern in patterns]
    if any(isinstance(column, SparseColumn) for column in design.values):
        shape = K * (K + 1) // 2, J
        tables = [sparse_products(one.whole(), one.entries(), one.codes, J, shape) for one in parts]
        return vstack(tables, format="csr")
    refuse_products(K, len(patterns), J)
    out = np.zeros((len(patterns), K * (K + 1) // 2, J))
    for target, one in zip(out, parts, strict=True):
        _sum_products(one.whole(), one.codes, target)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The rows of one pattern, all or the flagged ones, and the columns that its equations use, by position."""

    columns: dict[int, Column]
    codes: NDArray[np.intp]
    rows: NDArray[np.bool_] | None
    shift: Array
    scale: Array

    def whole(self) -> dict[int, Array]:
        """Dense columns by position."""
        found = {}
        for k, column in self.columns.items():
            if not isinstance(column, SparseColumn):
                values = column if self.rows is None else column[self.rows]
                found[k] = values if k == 0 else (values - self.shift[k]) / self.scale[k]
        return found

    def entries(self) -> Entries:
        """Entries of the sparse columns."""
        parts = []
        for k, column in self.columns.items():
            if isinstance(column, SparseColumn):
                own = column if self.rows is None else column.among(self.rows)
                parts.append(Entries(own.at, np.full(len(own.at), k), own.values / self.scale[k]))
        return joined(parts)


def _part(design: Design, pattern: tuple[bool, ...], shift: Array, scale: Array) -> _Part:
    own = np.asarray((design.members == np.array(pattern)[:, None]).all(axis=0))
    rows = None if own.all() else own
    used = np.flatnonzero(design.layout.used[list(pattern)].any(axis=0))
    codes = design.codes if rows is None else design.codes[rows]
    return _Part({int(k): design.values[k] for k in used}, codes, rows, shift, scale)


def _sum_products(columns: dict[int, Array], codes: NDArray[np.intp], out: Array) -> None:
    """Sums of the products of one pattern, (K * (K + 1) / 2, J)."""
    if len(columns) >= MANY_COLUMNS:
        at = np.array(list(columns))
        high, low = np.tril_indices(len(at))
        out[pair_at(at[high], at[low])] = block_products(columns, codes, out.shape[1])
        return
    for i, left in columns.items():
        for j, right in columns.items():
            if j <= i:
                weights = None if i == 0 else left if j == 0 else left * right
                out[i * (i + 1) // 2 + j] = np.bincount(codes, weights=weights, minlength=out.shape[1])


def column_sums(grams: Grams, equation: int, k: int, other: int = 0) -> Array:
    """Sums of column k, or of its products with ``other``, over the rows of one equation by cluster, (J,)."""
    chosen = [p for p, pattern in enumerate(grams.patterns) if pattern[equation]]
    at = int(pair_at(k, other))
    return np.sum([grams.row(p, at) for p in chosen], axis=0)


def total_gram(grams: Grams, equation: int, *others: int) -> Array:
    """Cross-products over all rows of an equation (that ``others`` use, too), (K, K)."""
    chosen = [p for p, pattern in enumerate(grams.patterns) if all(pattern[r] for r in (equation, *others))]
    packed = grams.sums.sum(axis=-1).reshape(len(grams.patterns), -1)[chosen].sum(axis=0)
    return unpacked(packed[:, None])[:, :, 0]


def two_values(grams: Grams, equation: int, column: int) -> tuple[float, float] | None:
    """The two values of a column in the rows of an equation, from sums; None if it has more, or cannot be told.

    With the values l and h, z^2 = (l + h) z - l h in every row and, summed, in every cluster. Three clusters with
    different means check the two unknowns; with fewer the answer is None.
    """
    n, sums, squares = (column_sums(grams, equation, *at) for at in ((0,), (column,), (column, column)))
    rows = n > 0.0
    n, sums, squares = n[rows], sums[rows], squares[rows]
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
    high, low = np.tril_indices(K)
    full[high, low] = full[low, high] = packed
    return full


def grams_for(spec: System, grams: Grams) -> Grams:
    """Check that existing Grams were made for these equations.

    Raises ``DataError``: the equations differ in more than the labels of their random terms.
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


def rebased(grams: Grams, shift: Array, scale: Array) -> Array | csr_array:
    """Products of the columns as ``(column - shift) / scale`` instead of the Grams' own units (eq. 18).

    Columns that a pattern does not use stay zero.
    """
    if np.array_equal(shift, grams.shift) and np.array_equal(scale, grams.scale):
        return grams.sums
    maps = [_moving(grams, pattern, shift, scale) for pattern in grams.patterns]
    if isinstance(grams.sums, np.ndarray):
        return np.stack([one @ packed for one, packed in zip(maps, grams.sums, strict=True)])
    return block_diag(maps, "csr") @ grams.sums


def _moving(grams: Grams, pattern: tuple[bool, ...], shift: Array, scale: Array) -> csr_array:
    """The sparse map from products of one pattern to those in other units: products of t_k w_k + d_k w_0."""
    used = np.asarray(grams.layout.used[list(pattern)].any(axis=0))
    t, d = _moved_columns(grams, shift, scale, used)
    high, low = np.tril_indices(len(t))
    place, constant = pair_at(high, low), np.zeros_like(high)
    parts = [(t[high] * t[low], low, high), (t[high] * d[low], high, constant)]
    parts += [(d[high] * t[low], low, constant), (d[high] * d[low], constant, constant)]
    weight = np.concatenate([w for w, _, _ in parts])
    column = np.concatenate([pair_at(i, j) for _, i, j in parts])
    row = np.tile(place, len(parts))
    kept = weight != 0.0
    weight, row, column = weight[kept], row[kept], column[kept]
    return coo_array((weight, (row, column)), shape=(len(place), len(place))).tocsr()


def _moved_columns(grams: Grams, shift: Array, scale: Array, used: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Coefficients of columns in other units, ``t_k w_k + d_k w_0``, (K,) each; zero for unused columns."""
    return np.where(used, grams.scale / scale, 0.0), np.where(used, (grams.shift - shift) / scale, 0.0)


def _rebased_roots(grams: Grams, shift: Array, scale: Array) -> ClusterRoots | None:
    """Roots of the same columns in other units."""
    if grams.roots is None:
        return None
    t, d = _moved_columns(grams, shift, scale, np.ones(len(scale), dtype=bool))
    T = np.diag(t)
    T[0] += d
    columns = [equation_columns(grams.layout, r) for r in range(len(grams.roots.tables))]
    tables = (root_maps(own, T[np.ix_(at, at)]) for own, at in zip(grams.roots.tables, columns, strict=True))
    return replace(grams.roots, tables=tuple(tables))


def standardized(grams: Grams) -> Grams:
    """The same Grams with every column centred and scaled by its own moments over all rows (eq. 18)."""
    used, is_sparse = grams.layout.used, not isinstance(grams.sums, np.ndarray)
    shift, scale = grams.shift.copy(), grams.scale.copy()
    for k in range(1, len(grams.columns)):
        mean, variance, squares = _column_moments(grams, k, [p for p in grams.patterns if used[list(p), k].any()])
        if variance > 1e-14 * squares:  # a constant column keeps its units
            keep = is_sparse and shift[k] == 0.0  # a sparse column keeps its zeros
            shift[k] = 0.0 if keep else grams.shift[k] + grams.scale[k] * mean
            scale[k] = grams.scale[k] * np.sqrt(squares if keep else variance)
    equations = []
    for r, equation in enumerate(grams.layout.equations):
        typical = dict(equation.typical)
        for name in equation.spread:
            if (at := equation.column_of(name)) is not None:
                mean = _column_moments(grams, at, [p for p in grams.patterns if p[r]])[0]
                mean = float(grams.shift[at] + grams.scale[at] * mean)
                typical[name] = snapped(mean, equation.observed.get(name, ()))
        equations.append(replace(equation, typical=typical))
    layout = replace(grams.layout, equations=tuple(equations))
    products, roots = rebased(grams, shift, scale), _rebased_roots(grams, shift, scale)
    made = Grams(layout, shift, scale, grams.patterns, products, grams.clusters, roots)
    return replace(made, roots=product_roots(made)) if roots is None and _wants_roots(made) else made


def _column_moments(grams: Grams, k: int, patterns: list[tuple[bool, ...]]) -> tuple[float, float, float]:
    """Mean, variance and mean square of Gram column k over the rows of some patterns."""
    rows = [grams.patterns.index(pattern) for pattern in patterns]
    first = k * (k + 1) // 2
    n, total, squares = (sum(float(grams.row(p, at).sum()) for p in rows) for at in (0, first, first + k))
    return total / n, squares / n - (total / n) ** 2, squares / n


def _refuse_means(grams: Grams) -> None:
    """Refuse center() and scale(), whose numbers differ between shards."""
    for equation in grams.layout.asked:
        for name in sorted(called_functions(equation) & STATEFUL):
            raise DataError(
                f"{name}(...) in {equation.text!r} means other numbers in every shard, so the Grams "
                "do not add up; make it a column before (centring is not needed, it is done inside)"
            )


def add_grams(left: Grams, right: Grams) -> Grams:
    """Grams of the rows of both; clusters may overlap.

    Raises ``DataError``: they were made for different equations, or a factor has different levels.
    """
    if not isinstance(right, Grams):
        raise DataError(f"Grams can be added to Grams; found {type(right).__name__}")
    coding = [
        [(e.fixed, e.random, e.levels, list(map(computed_levels, e.encodings))) for e in grams.layout.equations]
        for grams in (left, right)
    ]
    texts = [[e.text for e in grams.layout.asked] for grams in (left, right)]
    if left.columns != right.columns or coding[0] != coding[1] or texts[0] != texts[1]:
        differing = sorted({*left.columns} ^ {*right.columns})
        raise DataError(
            f"these Grams have other columns or equations ({', '.join(differing) or 'formulas or levels differ'}); "
            "make them with the same formulas, and with the same levels of every factor in every shard"
        )
    _refuse_means(left)
    clusters = left.clusters.append(right.clusters[~right.clusters.isin(left.clusters)])
    patterns = tuple(sorted({*left.patterns, *right.patterns}))
    parts = (left, replace(right, sums=rebased(right, left.shift, left.scale)))
    if all(isinstance(grams.sums, np.ndarray) for grams in parts):
        sums: Any = np.zeros((len(patterns), left.products.shape[1], len(clusters)))
        for grams in parts:
            at = clusters.get_indexer(grams.clusters)
            for pattern, packed in zip(grams.patterns, grams.products, strict=True):
                sums[patterns.index(pattern)][:, at] += packed
    else:
        sums = _added(parts, patterns, clusters)
    layout = _joined_layout(left, right)
    return Grams(layout, left.shift, left.scale, patterns, sums, clusters)


def _added(parts: Sequence[Grams], patterns: tuple[tuple[bool, ...], ...], clusters: pd.Index) -> csr_array:
    """Sums of all parts, at least one of them sparse."""
    K = len(parts[0].columns)
    n = K * (K + 1) // 2
    found: list[coo_array] = []
    for grams in parts:
        flat = grams.sums
        own = coo_array(flat.reshape(-1, flat.shape[-1]) if isinstance(flat, np.ndarray) else flat)
        place = np.array([patterns.index(pattern) for pattern in grams.patterns])
        at = clusters.get_indexer(grams.clusters)
        row = place[own.row // n] * n + own.row % n
        found.append(coo_array((own.data, (row, at[own.col])), shape=(len(patterns) * n, len(clusters))))
    return found[0].tocsr() + found[1].tocsr()


def _joined_layout(left: Grams, right: Grams) -> Layout:
    counts = [[grams.nobs(r) for grams in (left, right)] for r in range(len(left.layout.equations))]
    equations = tuple(
        _joined_equation(one, two, n, m)
        for one, two, (n, m) in zip(left.layout.equations, right.layout.equations, counts, strict=True)
    )
    total = left.layout.total + right.layout.total
    dropped = []
    for r, equation in enumerate(equations):
        own = [d for grams in (left, right) for d in grams.layout.dropped if d.equation == equation.name]
        if own:
            missing: dict[str, int] = {}
            for part in own:
                for name, count in part.missing.items():
                    missing[name] = missing.get(name, 0) + count
            dropped.append(Dropped(equation.name, total, sum(counts[r]), sum(d.missing_cluster for d in own), missing))
    return replace(left.layout, equations=equations, dropped=tuple(dropped), total=total)


def _joined_equation(one: EquationLayout, two: EquationLayout, n: int, m: int) -> EquationLayout:
    """Pooled means, standard deviations and observed values; encodings do not depend on them (see ``add_grams``)."""
    typical, spread = dict(one.typical), dict(one.spread)
    for name in one.spread:
        mean = (n * one.typical[name] + m * two.typical[name]) / (n + m)
        ss = (n - 1) * one.spread[name] ** 2 + (m - 1) * two.spread[name] ** 2
        ss += n * (one.typical[name] - mean) ** 2 + m * (two.typical[name] - mean) ** 2
        typical[name], spread[name] = mean, float(np.sqrt(ss / (n + m - 1)))
    both = one.observed.keys() & two.observed.keys()
    observed = {}
    for name in sorted(both):
        values = np.array([*one.observed[name], *two.observed[name]])
        typical[name] = snapped(typical[name], values)
        observed[name] = some_values(values, typical[name])
    return replace(one, typical=typical, spread=spread, observed=observed)
