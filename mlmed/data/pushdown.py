"""Grams computed by the engine that holds the rows: DuckDB, Polars lazy, Dask, Spark, through narwhals.

A few thousand rows give units and levels are looked up; one scan then sums the products by cluster, and only
these sums come back. Where rows are missing or a sum is not finite a second scan finds out why (docs/scale.md).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd

from mlmed.data.frames import cluster_codes
from mlmed.data.grams import Grams, rebased
from mlmed.data.planning import Plan, bad_column, count_rows, mean_and_sd, one_row, plan_sums
from mlmed.errors import DataError
from mlmed.model import ModelSpec

__all__ = ["lazy_frame", "pushed_grams", "sums_query"]

_PATTERN, _COUNT = "mlmed_pattern", "mlmed_n"


def lazy_frame(data: Any) -> nw.LazyFrame[Any] | None:
    """The data as a lazy frame if an engine other than memory holds them, else None."""
    frame = nw.from_native(data, pass_through=True)
    return frame if isinstance(frame, nw.LazyFrame) else None


def pushed_grams(spec: ModelSpec, frame: nw.LazyFrame[Any]) -> Grams:
    """Cross-products by cluster, summed where the rows are.

    Raises
    ------
    DataError
        Unknown or non-numeric columns, infinite or constant values, fewer than two clusters.
    FormulaError
        If a term cannot be translated; it is named, with what to do.
    """
    plan = plan_sums(spec, frame)
    table = sums_query(spec, frame, plan).collect().to_pandas()
    found = _arrays(spec, plan, table) if len(table) else None
    finite = found is not None and bool(np.isfinite(found.products).all())
    if found is None or not finite or _rows_missing(found, frame):
        dropped, total = count_rows(spec, frame, plan.complete)
        if found is None or not finite:
            raise _not_finite(frame, plan)
        found = replace(found, layout=replace(found.layout, dropped=dropped, total=total))
    for r, equation in enumerate(spec.equations):
        used = int((found.products[[p for p, pat in enumerate(found.patterns) if pat[r]], 0].sum(axis=0) > 0).sum())
        if used < 2:
            raise DataError(
                f"equation {equation.name} has {used} cluster with complete rows; a multilevel model needs at least two"
            )
    return _in_own_units(found)


def _rows_missing(grams: Grams, frame: nw.LazyFrame[Any]) -> bool:
    """Whether some equation could not use every row of the table."""
    total = int(one_row(frame, n=nw.len())["n"])
    return any(grams.nobs(r) < total for r in range(len(grams.layout.equations)))


def _arrays(spec: ModelSpec, plan: Plan, table: pd.DataFrame) -> Grams:
    """The table of sums as arrays, clusters sorted (engines return groups in any order)."""
    table = table.sort_values([*spec.group, _PATTERN], kind="stable").reset_index(drop=True)
    codes, clusters = cluster_codes(table, spec.group)
    keys = np.unique(table[_PATTERN].to_numpy(dtype=np.int64))
    R, K = len(spec.equations), len(plan.layout.columns)
    patterns = tuple(tuple(bool(key >> r & 1) for r in range(R)) for key in keys)
    products = np.zeros((len(keys), K * (K + 1) // 2, len(clusters)))
    pattern = np.searchsorted(keys, table[_PATTERN].to_numpy(dtype=np.int64))
    products[pattern, 0, codes] = table[_COUNT].to_numpy(dtype=np.float64)
    for p in range(1, products.shape[1]):
        products[pattern, p, codes] = table[f"p{p}"].to_numpy(dtype=np.float64)
    total = round(float(products[:, 0].sum()))
    return Grams(replace(plan.layout, total=total), plan.shift, plan.scale, patterns, products, clusters)


def _not_finite(frame: nw.LazyFrame[Any], plan: Plan) -> DataError:
    """The error for a sum that is not finite, with the column that spoiled it."""
    for k, column in enumerate(plan.columns, start=1):
        for r in np.flatnonzero(plan.layout.used[:, k]):
            mean, _ = mean_and_sd(frame.filter(plan.complete[r]), [column])[0]
            if not np.isfinite(mean):
                return bad_column(plan.layout.columns[k], plan.layout.equations[r].name)
    return DataError("the rows have no finite sums; check missing values and cluster ids")


def _in_own_units(grams: Grams) -> Grams:
    """Means and standard deviations of all rows in place of those of the sample; typical values likewise."""
    used = grams.layout.used
    shift, scale = grams.shift.copy(), grams.scale.copy()
    for k in range(1, len(grams.columns)):
        mean, variance, squares = _column_moments(grams, k, [p for p in grams.patterns if used[list(p), k].any()])
        shift[k] = grams.shift[k] + grams.scale[k] * mean
        if variance <= 1e-24 * max(squares, 1e-300):
            raise DataError(
                f"the column {grams.columns[k]!r} is constant ({shift[k]:g}); remove it, or choose another response"
            )
        scale[k] = grams.scale[k] * np.sqrt(variance)
    equations = []
    for r, equation in enumerate(grams.layout.equations):
        typical = dict(equation.typical)
        for name in set(equation.spread) & set(grams.columns):
            k = grams.columns.index(name)
            if used[r, k]:
                mean = _column_moments(grams, k, [p for p in grams.patterns if p[r]])[0]
                typical[name] = float(grams.shift[k] + grams.scale[k] * mean)
        equations.append(replace(equation, typical=typical))
    layout = replace(grams.layout, equations=tuple(equations))
    return Grams(layout, shift, scale, grams.patterns, rebased(grams, shift, scale), grams.clusters)


def _column_moments(grams: Grams, k: int, patterns: list[tuple[bool, ...]]) -> tuple[float, float, float]:
    """Mean, variance and mean square of Gram column k over the rows of some patterns."""
    rows = [grams.patterns.index(pattern) for pattern in patterns]
    first = k * (k + 1) // 2
    n, total, squares = (float(grams.products[rows, at].sum()) for at in (0, first, first + k))
    return total / n, squares / n - (total / n) ** 2, squares / n


def sums_query(spec: ModelSpec, frame: nw.LazyFrame[Any], plan: Plan | None = None) -> nw.LazyFrame[Any]:
    """The scan that sums, not yet run: one row per cluster and pattern with the sums of products."""
    plan = plan or plan_sums(spec, frame)
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
        columns[f"c{k}"] = standard
    wide = wide.with_columns(pattern.alias(_PATTERN), **columns)
    products = {}
    for i in range(1, len(plan.layout.columns)):
        for j in range(i + 1):
            left = nw.col(f"c{i}")
            products[f"p{i * (i + 1) // 2 + j}"] = left if j == 0 else left * nw.col(f"c{j}")
    # products become columns first: inside the aggregation some engines take hundreds of times longer
    wide = wide.with_columns(**products).select(*spec.group, _PATTERN, *products)
    sums = [nw.col(name).sum() for name in products]
    return wide.group_by(*spec.group, _PATTERN).agg(nw.len().alias(_COUNT), *sums)
