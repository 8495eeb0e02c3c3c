"""Grams computed by the engine that holds the rows: DuckDB, Polars lazy, Dask, Spark, through narwhals.

A few thousand rows give units and levels are looked up; one scan then sums the products by cluster, and only
these sums come back. Where rows are missing or a sum is not finite a second scan finds out why (docs/scale.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from mlmed.data.cells import refuse_odd_cells
from mlmed.data.engines import engine_rows
from mlmed.data.frames import cluster_codes
from mlmed.data.grams import Grams, standardized
from mlmed.data.ids import refuse_infinite_ids
from mlmed.data.planning import (
    MOST_LEVELS,
    MOST_TEXTS,
    Learned,
    Plan,
    bad_column,
    complete_rows,
    count_rows,
    learn_equations,
    one_row,
    plan_sums,
    safe_frame,
)
from mlmed.data.streaming import is_streamed, streamed_grams, streams
from mlmed.errors import DataError, MlmedError, filtering
from mlmed.names import safe_name
from mlmed.system.model import ModelSpec

__all__ = ["lazy_frame", "pushed_grams", "sums_query"]

#: Columns of a query that is written out.
MOST_QUERIED = 64
_PATTERN, _COUNT, _BAD = "mlmed_pattern", "mlmed_n", "mlmed_bad"
_PRODUCT, _COLUMN = "mlmed_p", "mlmed_c"


def lazy_frame(data: Any) -> nw.LazyFrame[Any] | None:
    """The data as a lazy frame if an engine other than memory holds them, else None."""
    frame = nw.from_native(data, pass_through=True)
    return frame if isinstance(frame, nw.LazyFrame) else None


@engine_rows()
def pushed_grams(spec: ModelSpec, frame: nw.LazyFrame[Any]) -> Grams:
    """Cross-products by cluster, summed where the rows are.

    Raises
    ------
    DataError
        Unknown or non-numeric columns, infinite or constant values, fewer than two clusters.
    FormulaError
        If a term cannot be translated; it is named, with what to do.
    """
    frame = safe_frame(spec, frame)
    learned = learn_equations(spec, frame, most=MOST_TEXTS if streams(frame) else MOST_LEVELS)
    if is_streamed(frame, learned):
        return standardized(_with_dropped(spec, frame, streamed_grams(spec, frame, learned)))
    plan = plan_sums(spec, frame, learned)
    with filtering(ignore=RuntimeWarning):  # an infinite value is explained by our own error
        table = sums_query(spec, frame, plan).collect().to_pandas()
    with np.errstate(invalid="ignore"):  # sums that are not finite are explained below
        found = _arrays(spec, plan, table) if len(table) else None
    finite = found is not None and bool(np.isfinite(found.products).all() and not table[_BAD].sum())
    if found is None or not finite:
        count_rows(spec, frame, plan.complete)
        raise _not_finite(frame, plan)
    return standardized(_with_dropped(spec, frame, found))


def _with_dropped(spec: ModelSpec, frame: nw.LazyFrame[Any], grams: Grams) -> Grams:
    """The Grams with what is known of the rows that some equation could not use."""
    total = int(one_row(frame, n=nw.len())["n"])
    if all(grams.nobs(r) == total for r in range(len(grams.layout.equations))):
        return grams
    dropped, total = count_rows(spec, frame, complete_rows(spec, frame))
    return replace(grams, layout=replace(grams.layout, dropped=dropped, total=total))


def _arrays(spec: ModelSpec, plan: Plan, table: pd.DataFrame) -> Grams:
    """The table of sums as arrays, clusters sorted (engines return groups in any order)."""
    group = [safe_name(name) for name in spec.group]
    for name, safe in zip(spec.group, group, strict=True):
        refuse_odd_cells(table[safe], name)
    table = table.sort_values([*group, _PATTERN], kind="stable").reset_index(drop=True)
    refuse_infinite_ids(table, spec.group)
    codes, clusters = cluster_codes(table, tuple(group))
    clusters = clusters.set_names(list(spec.group))
    keys = np.unique(table[_PATTERN].to_numpy(dtype=np.int64))
    R, K = len(spec.equations), len(plan.layout.columns)
    patterns = tuple(tuple(bool(key >> r & 1) for r in range(R)) for key in keys)
    products = np.zeros((len(keys), K * (K + 1) // 2, len(clusters)))
    pattern = np.searchsorted(keys, table[_PATTERN].to_numpy(dtype=np.int64))
    products[pattern, 0, codes] = table[_COUNT].to_numpy(dtype=np.float64)
    for p in range(1, products.shape[1]):
        products[pattern, p, codes] = table[f"{_PRODUCT}{p}"].to_numpy(dtype=np.float64)
    total = round(float(products[:, 0].sum()))
    return Grams(replace(plan.layout, total=total), plan.shift, plan.scale, patterns, products, clusters)


def _not_finite(frame: nw.LazyFrame[Any], plan: Plan) -> MlmedError:
    """The error for a sum that is not finite, with the column that spoiled it."""
    for k, column in enumerate(plan.columns, start=1):
        for r in np.flatnonzero(plan.layout.used[:, k]):
            spoiled = nw.when(column.is_null() | ~column.is_finite()).then(nw.lit(1)).otherwise(nw.lit(0)).sum()
            if one_row(frame.filter(plan.complete[r]), n=spoiled)["n"]:
                return bad_column(plan.layout.columns[k], plan.layout.equations[r].name)
    return DataError("the rows have no finite sums; check missing values and cluster ids")


def _refuse_long_query(learned: Sequence[Learned]) -> None:
    """Refuse to write a query with more sums than engines read."""
    columns = len({name for own in learned for e in own.encodings for name in e.column_names})
    if columns > MOST_QUERIED:
        raise DataError(
            f"the formulas have {columns} columns, so that the query would have {columns * (columns + 1) // 2} sums; "
            "make the Grams with mlmed.grams(), which reads batches of rows then, or use fewer columns (merge levels)"
        )


@engine_rows()
def sums_query(spec: ModelSpec, frame: nw.LazyFrame[Any], plan: Plan | None = None) -> nw.LazyFrame[Any]:
    """The scan that sums, not yet run: one row per cluster and pattern with the sums of products."""
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
    for r, flag in enumerate(flags):
        pattern = pattern + nw.when(nw.col(flag)).then(nw.lit(1 << r)).otherwise(nw.lit(0))
    columns = {}
    for k, expression in enumerate(plan.columns, start=1):
        standard = (expression - float(plan.shift[k])) / float(plan.scale[k])
        if not used[:, k].all():  # rows of an equation without this column may miss it
            needed = nw.any_horizontal(
                *(nw.col(f"mlmed_ok{r}") for r in np.flatnonzero(used[:, k])), ignore_nulls=False
            )
            standard = nw.when(needed).then(standard).otherwise(nw.lit(0.0))
        columns[f"{_COLUMN}{k}"] = standard
    # some engines leave a NaN out of a sum, so values that are not finite are counted
    bad = nw.lit(0)
    for name, column in columns.items():
        if "(" in plan.layout.columns[int(name.removeprefix(_COLUMN))]:
            bad = bad + nw.when(column.is_null() | ~column.is_finite()).then(nw.lit(1)).otherwise(nw.lit(0))
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
