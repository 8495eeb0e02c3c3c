"""Grams computed by the engine that holds the rows, through narwhals, or from batches of its rows.

Units come from a sample of rows, levels from a look-up; one scan then sums the products by cluster and returns only the
sums. If rows are missing or a sum is not finite, a second scan finds out why (docs/scale.md). Queries with the products
of many columns are too long for engines: then batches of rows are fetched and summed in memory.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from mlmed.data.columns import MOSTLY_ZERO, Column, SparseColumn, completed
from mlmed.data.design import spread_column
from mlmed.data.encoding import encodable, encode_columns
from mlmed.data.evaluation import Memory
from mlmed.data.expressions import is_translated
from mlmed.data.frames import engine_rows, normalize, selected_columns
from mlmed.data.grams import Grams, pattern_sums, standardized
from mlmed.data.ids import cluster_codes, refuse_infinite_ids
from mlmed.data.layout import Design, EquationLayout, Layout
from mlmed.data.planning import (
    MOST_LEVELS,
    MOST_TEXTS,
    SAMPLE,
    Learned,
    Plan,
    as_count,
    bad_column,
    complete_rows,
    count_rows,
    flag,
    laid_out,
    learn_equations,
    one_row,
    plan_sums,
    safe_frame,
)
from mlmed.data.values import refuse_odd_cells
from mlmed.errors import DataError, MlmedError, filtering
from mlmed.limits import LARGEST
from mlmed.names import safe_name
from mlmed.system.system import System

Array = NDArray[np.float64]
#: Most columns of one query.
MOST_QUERIED = 64
_PATTERN, _COUNT, _BAD = "mlmed_pattern", "mlmed_n", "mlmed_bad"
_PRODUCT, _COLUMN = "mlmed_p", "mlmed_c"


@engine_rows()
def pushed_grams(spec: System, frame: nw.LazyFrame[Any]) -> Grams:
    """Cross-products by cluster, summed by the engine.

    Raises ``DataError``: unknown or non-numeric columns, infinite or constant values, fewer than two clusters;
    ``FormulaError``: a term cannot be translated; it is named, with what to do.
    """
    frame = safe_frame(spec, frame)
    learned = learn_equations(spec, frame, most=MOST_TEXTS if streams(frame) else MOST_LEVELS)
    if is_streamed(frame, learned):
        return standardized(_with_dropped(spec, frame, streamed_grams(spec, frame, learned)))
    plan = plan_sums(spec, frame, learned)
    with filtering(ignore=RuntimeWarning):  # our own error explains infinite values
        table = sums_query(spec, frame, plan).collect().to_pandas()
    with np.errstate(invalid="ignore"):  # sums that are not finite are explained below
        found = _arrays(spec, plan, table) if len(table) else None
    finite = found is not None and bool(np.isfinite(found.products).all() and not table[_BAD].sum())
    if found is None or not finite:
        count_rows(spec, frame, plan.complete)
        raise _not_finite(frame, plan)
    return standardized(_with_dropped(spec, frame, found))


def _with_dropped(spec: System, frame: nw.LazyFrame[Any], grams: Grams) -> Grams:
    """The Grams with counts of the rows that equations could not use."""
    total = int(one_row(frame, n=nw.len())["n"])
    if all(grams.nobs(r) == total for r in range(len(grams.layout.equations))):
        return grams
    dropped, total = count_rows(spec, frame, complete_rows(spec, frame))
    return replace(grams, layout=replace(grams.layout, dropped=dropped, total=total))


def _arrays(spec: System, plan: Plan, table: pd.DataFrame) -> Grams:
    """The table of sums as arrays, clusters sorted (engines return groups in any order)."""
    group = [safe_name(name) for name in spec.group]
    for name, safe in zip(spec.group, group, strict=True):
        refuse_odd_cells(table[safe], name)
    table = table.sort_values([*group, _PATTERN], kind="stable").reset_index(drop=True)
    refuse_infinite_ids(table, spec.group)
    R, K = len(spec.equations), len(plan.layout.columns)
    keys, pattern = np.unique(table[_PATTERN].to_numpy(dtype=np.int64), return_inverse=True)
    patterns = tuple(tuple(bool(key >> r & 1) for r in range(R)) for key in keys)
    names = [_COUNT, *(f"{_PRODUCT}{p}" for p in range(1, K * (K + 1) // 2))]
    products, clusters = unstacked(table, group, pattern, names)
    layout = replace(plan.layout, total=round(float(products[:, 0].sum())))
    return Grams(layout, plan.shift, plan.scale, patterns, products, clusters.set_names(list(spec.group)))


def unstacked(
    table: pd.DataFrame, group: Sequence[str], pattern: NDArray[np.intp], names: Sequence[str]
) -> tuple[Array, pd.Index]:
    """Sums as in ``Grams`` and the clusters, from a table with one row per cluster and pattern number."""
    codes, clusters = cluster_codes(table, tuple(group))
    products = np.zeros((int(pattern.max()) + 1, len(names), len(clusters)))
    if len(np.unique(pattern * len(clusters) + codes)) < len(table):
        raise DataError("a cluster is there twice")
    for p, name in enumerate(names):
        products[pattern, p, codes] = table[name].to_numpy(dtype=np.float64)
    return products, clusters


def _not_finite(frame: nw.LazyFrame[Any], plan: Plan) -> MlmedError:
    """The error for a sum that is not finite, naming the column."""
    for k, column in enumerate(plan.columns, start=1):
        for r in np.flatnonzero(plan.layout.used[:, k]):
            spoiled = as_count(column.is_null() | ~column.is_finite())
            if one_row(frame.filter(plan.complete[r]), n=spoiled)["n"]:
                return bad_column(plan.layout.columns[k], plan.layout.equations[r].name)
    return DataError("the rows have no finite sums; check missing values and cluster ids")


def _refuse_long_query(learned: Sequence[Learned]) -> None:
    """Refuse a query with more sums than engines read."""
    columns = len({name for own in learned for e in own.encodings for name in e.column_names})
    if columns > MOST_QUERIED:
        raise DataError(
            f"the formulas have {columns} columns, so that the query would have {columns * (columns + 1) // 2} sums; "
            "make the Grams with mlmed.grams(), which reads batches of rows then, or use fewer columns (merge levels)"
        )


@engine_rows()
def sums_query(spec: System, frame: nw.LazyFrame[Any], plan: Plan | None = None) -> nw.LazyFrame[Any]:
    """The summing scan, not yet run: one row per cluster and pattern with the sums of products."""
    if plan is None:
        frame = safe_frame(spec, frame)
        learned = learn_equations(spec, frame)
        _refuse_long_query(learned)
        plan = plan_sums(spec, frame, learned)
    group = [safe_name(g) for g in spec.group]
    used = plan.layout.used
    flags = {f"mlmed_ok{r}": complete for r, complete in enumerate(plan.complete)}
    wide = frame.with_columns(**flags).filter(nw.any_horizontal(*map(nw.col, flags), ignore_nulls=False))
    pattern = nw.lit(0)
    for r, known in enumerate(flags):
        pattern = pattern + flag(nw.col(known), 1 << r)
    columns = {}
    for k, expression in enumerate(plan.columns, start=1):
        standard = (expression - float(plan.shift[k])) / float(plan.scale[k])
        if not used[:, k].all():  # it may be missing in rows of other equations
            needed = nw.any_horizontal(
                *(nw.col(f"mlmed_ok{r}") for r in np.flatnonzero(used[:, k])), ignore_nulls=False
            )
            standard = nw.when(needed).then(standard).otherwise(nw.lit(0.0))
        columns[f"{_COLUMN}{k}"] = standard
    # some engines skip NaN in sums, so values that are not finite are counted
    bad = nw.lit(0)
    for name, column in columns.items():
        if "(" in plan.layout.columns[int(name.removeprefix(_COLUMN))]:
            bad = bad + flag(column.is_null() | ~column.is_finite())
    wide = wide.with_columns(pattern.alias(_PATTERN), bad.alias(_BAD), **columns)
    products = {}
    for i in range(1, len(plan.layout.columns)):
        for j in range(i + 1):
            left = nw.col(f"{_COLUMN}{i}")
            products[f"{_PRODUCT}{i * (i + 1) // 2 + j}"] = left if j == 0 else left * nw.col(f"{_COLUMN}{j}")
    # products become columns first: inside the aggregation some engines take hundreds of times longer
    wide = wide.with_columns(**products).select(*group, _PATTERN, _BAD, *products)
    sums = [nw.col(name).sum() for name in (_BAD, *products)]
    return wide.group_by(*group, _PATTERN).agg(nw.len().alias(_COUNT), *sums)


Pattern = tuple[bool, ...]
Units = tuple[Array, Array, frozenset[int]]

#: Columns of all equations from which rows are fetched in batches.
MOST_PUSHED = 16
#: Rows per batch, where the engine lets us choose.
BATCH = 131_072


def streams(frame: nw.LazyFrame[Any]) -> bool:
    """Whether the engine returns rows in batches."""
    native, engine = frame.to_native(), frame.implementation
    arrow = any(hasattr(native, name) for name in ("to_arrow_reader", "to_pyarrow_batches"))
    return engine.is_dask() or engine.is_polars() or arrow


def is_streamed(frame: nw.LazyFrame[Any], learned: Sequence[Learned]) -> bool:
    """Whether rows are fetched: there are many columns, or some the engine does not compute, and it returns batches.

    Raises ``FormulaError``: a column cannot be computed batch by batch either.
    """
    many = sum(len(e.column_names) for own in learned for e in own.encodings) >= MOST_PUSHED
    translated = [is_translated(part, own.known) for own in learned for part in own.parts]
    return (many or not all(translated)) and streams(frame)


def _batches(frame: nw.LazyFrame[Any]) -> Generator[nw.DataFrame[Any]]:
    """Rows of a lazy frame in batches."""
    native: Any = frame.to_native()
    if frame.implementation.is_dask():
        parts: Any = (part.compute() for part in native.partitions)
    elif frame.implementation.is_polars():
        has = hasattr(native, "collect_batches")  # since 1.34
        parts = native.collect_batches(chunk_size=BATCH) if has else [native.collect()]
    else:
        import pyarrow as pa

        reader = native.to_arrow_reader(BATCH) if hasattr(native, "to_arrow_reader") else _of_ibis(native)
        parts = (pa.Table.from_batches([batch]) for batch in reader)
    held: list[nw.DataFrame[Any]] = []
    for part in parts:  # merge small parts, so that the first batch gives units
        held.append(nw.from_native(part, eager_only=True))
        if sum(map(len, held)) >= SAMPLE:
            yield nw.concat(held)
            held = []
    if sum(map(len, held)):
        yield nw.concat(held)


def _of_ibis(native: Any) -> Any:
    """Batches of an Ibis table; all rows at once where Ibis calls a DuckDB method removed in 2.0."""
    backend = native.get_backend()
    if backend.name == "duckdb" and not hasattr(backend.con, "fetch_record_batch"):
        return native.to_pyarrow().to_batches(BATCH)
    return native.to_pyarrow_batches(chunk_size=BATCH)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """How rows become a design."""

    spec: System  #: The equations.
    learned: tuple[Learned, ...]  #: Levels, moments and encodings of each.
    layout: Layout  #: Names and positions of the columns.
    clusters: pd.Index  #: Ids of all clusters.

    def design(self, batch: nw.DataFrame[Any]) -> Design:
        """The design of a batch, whose rows are all used by some equation."""
        wanted = {safe_name(name) for own in self.learned for name in own.equation.variables}
        predictors = {safe_name(name) for own in self.learned for name in own.equation.predictors}
        group = frozenset(map(safe_name, self.spec.group))
        table = selected_columns(batch, wanted, keep=group)
        table |= {name: normalize(table[name]) for name in group & predictors}
        codes = self._codes(batch)
        members = np.stack([self._complete(own, table) & (codes >= 0) for own in self.learned])
        n, K = len(codes), len(self.layout.columns)
        values: list[Column] = [np.ones(n), *(np.zeros(n) for _ in range(1, K))]
        rows = [np.zeros(n, dtype=bool)] * K
        for own, layout, mine in zip(self.learned, self.layout.equations, members, strict=True):
            for at, column in _columns(own, layout, table, mine):
                values[at] = completed(values[at], column, rows[at]) if rows[at].any() else column
                rows[at] = rows[at] | mine
        return Design(self.layout, tuple(values), members, codes, self.clusters, np.arange(n))

    def _codes(self, batch: nw.DataFrame[Any]) -> NDArray[np.intp]:
        group = tuple(map(safe_name, self.spec.group))
        codes, labels = cluster_codes(batch.select(*group).to_pandas(), group)
        place = np.append(self.clusters.get_indexer(labels.set_names(self.clusters.names)), -1)
        found: NDArray[np.intp] = place[codes]
        if np.any(found[codes >= 0] < 0):
            raise DataError("the engine gave other rows when it was asked again; give it a table that does not change")
        return found

    def _complete(self, own: Learned, table: Mapping[str, pd.Series]) -> NDArray[np.bool_]:
        names = map(safe_name, own.equation.variables - own.equation.group_columns)
        return np.logical_and.reduce([table[name].notna().to_numpy() for name in names])


def _columns(
    own: Learned, layout: EquationLayout, table: Mapping[str, pd.Series], rows: NDArray[np.bool_]
) -> Iterator[tuple[int, Column]]:
    """Positions and columns of one equation, without the constant, on the rows of a batch; factors have all levels."""
    if not rows.any():
        return
    columns = {name: encodable(column if rows.all() else column[rows]) for name, column in table.items()}
    for shown, levels in own.known.levels.items():
        if isinstance(levels[0], str):
            texts = columns[safe_name(shown)].astype(object).map(str)
            columns[safe_name(shown)] = pd.Series(pd.Categorical(texts, list(levels)), texts.index)
    memory, where = Memory(columns, np.flatnonzero(rows)), repr(own.equation.text)
    if own.response is None:
        yield layout.response_at, spread_column(columns[own.equation.response].to_numpy(dtype=np.float64), rows)
    else:
        response, _ = encode_columns(own.response, memory, where=where, finite=False, sparse=False)
        yield layout.response_at, spread_column(response[0], rows)
    for encoding, at in zip(own.encodings, layout.places, strict=True):
        found, _ = encode_columns(encoding, memory, where=where, finite=False, sparse=bool(own.known.levels))
        yield from ((k, spread_column(column, rows)) for k, column in zip(at, found, strict=True) if k)


def _with_sparse(design: Design, sparse: frozenset[int]) -> Design:
    """The same design with exactly the columns in ``sparse`` stored sparse."""
    columns = (_as_sparse(c) if k in sparse else np.asarray(c) for k, c in enumerate(design.values))
    return replace(design, values=tuple(columns))


def _as_sparse(column: Column) -> SparseColumn:
    if isinstance(column, SparseColumn):
        return column
    at = np.flatnonzero(column)
    return SparseColumn(at, column[at], len(column))


def streamed_grams(spec: System, frame: nw.LazyFrame[Any], learned: tuple[Learned, ...]) -> Grams:
    """Cross-products by cluster, from batches of rows; units come from the first rows.

    Raises ``DataError``, ``FormulaError``: as ``pushed_grams``.
    """
    usable = frame.filter(nw.any_horizontal(*complete_rows(spec, frame), ignore_nulls=False))
    reading = _Reading(spec, learned, laid_out(spec, learned)[0], _clusters(spec, usable))
    with closing(_batches(usable)) as batches:  # an engine answers nothing else before it is closed
        found = _summed(reading, batches)
    if isinstance(found, MlmedError):
        count_rows(spec, frame, complete_rows(spec, frame))  # infinite values of a variable
        raise found
    return found


def _summed(reading: _Reading, batches: Iterator[nw.DataFrame[Any]]) -> Grams | MlmedError:
    """Sums of all batches, or the error for a column that is not finite."""
    found: dict[Pattern, Any] = {}
    units: Units | MlmedError | None = None
    for batch in batches:
        design = reading.design(batch)
        units = units or _units(design, _indicators(reading.learned, reading.layout))
        if isinstance(units, MlmedError):
            return units
        shift, scale, sparse = units
        design = _with_sparse(design, sparse)
        patterns = sorted({tuple(map(bool, own)) for own in np.unique(design.members, axis=1).T})
        sums = pattern_sums(design, patterns, shift, scale)
        if not np.isfinite(sums if isinstance(sums, np.ndarray) else sums.data).all():
            return _spoiled_by(design)
        for number, pattern in enumerate(patterns):
            part: Any = _of_pattern(sums, number, len(patterns))
            found[pattern] = part if pattern not in found else found[pattern] + part
    if units is None or isinstance(units, MlmedError):
        return DataError("the engine gave no rows when it was asked again; give it a table that does not change")
    order = sorted(found)
    tables = [found[pattern] for pattern in order]
    whole: Any = vstack(tables, format="csr") if units[2] else np.stack(tables)
    made = Grams(reading.layout, units[0], units[1], tuple(order), whole, reading.clusters)
    return replace(made, layout=replace(made.layout, total=int(made.rows_per_cluster.sum())))


def _of_pattern(sums: Array | csr_array, number: int, patterns: int) -> Array | csr_array:
    if isinstance(sums, np.ndarray):
        return np.asarray(sums[number])
    n = sums.shape[0] // patterns
    return sums[number * n : (number + 1) * n]


def _clusters(spec: System, usable: nw.LazyFrame[Any]) -> pd.Index:
    """All ids, sorted."""
    group = [safe_name(name) for name in spec.group]
    table = usable.select(*group).unique().collect().to_pandas().sort_values(group, kind="stable", ignore_index=True)
    refuse_infinite_ids(table, spec.group)
    return cluster_codes(table, tuple(group))[1].set_names(list(spec.group))


def _indicators(learned: tuple[Learned, ...], layout: Layout) -> frozenset[int]:
    """Positions of the columns of terms with factors."""
    return frozenset(
        at
        for own, equation in zip(learned, layout.equations, strict=True)
        for encoding, places in zip(own.encodings, equation.places, strict=True)
        for column, at in zip(encoding.columns, places, strict=True)
        if any(piece.is_level for piece in column.pieces)
    )


def _units(sample: Design, indicators: frozenset[int]) -> Units | MlmedError:
    """Shift and scale of every column from a sample, and which columns are stored sparse.

    Any constants give the same fit; these only preserve digits.
    """
    used, K = sample.layout.used, len(sample.values)
    shift, scale = np.zeros(K), np.ones(K)
    sparse = {
        k for k in indicators if np.count_nonzero(np.asarray(sample.values[k])) <= MOSTLY_ZERO * len(sample.codes)
    }
    for k in range(1, K):
        owner = int(np.flatnonzero(used[:, k])[0])
        values = np.asarray(sample.values[k])[sample.members[used[:, k]].any(axis=0)]
        mean = float(values.mean()) if len(values) else 0.0
        if not abs(mean) <= LARGEST:
            return bad_column(sample.layout.columns[k], sample.layout.equations[owner].name)
        shift[k] = 0.0 if k in sparse else mean
        spread = float(np.sqrt(np.mean((values - shift[k]) ** 2))) if len(values) else 0.0
        scale[k] = spread if spread > 1e-12 * abs(mean) else abs(mean) or 1.0
    return shift, scale, frozenset(sparse)


def _spoiled_by(design: Design) -> MlmedError:
    """The error for the first column that is not finite."""
    for r, equation in enumerate(design.layout.equations):
        for k in np.flatnonzero(design.layout.used[r]):
            values = np.asarray(design.values[k])[design.members[r]]
            if not (np.abs(values) <= LARGEST).all():
                return bad_column(design.layout.columns[k], equation.name)
    return DataError("the rows have no finite sums; check missing values and cluster ids")
