"""Grams computed by the engine that holds the rows: DuckDB, Polars lazy, Dask, Spark, through narwhals.

Two passes: means, standard deviations, levels and counts first, then the sums of products by cluster.
Only cluster sums come back (docs/scale.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import coded_variables
from mlmed.data.encoding import encodings_of, stand_in
from mlmed.data.expressions import Kinds, column_expressions, factor_expression, variable_expression
from mlmed.data.frames import cluster_codes, shorten, unknown_column
from mlmed.data.grams import Grams
from mlmed.data.layout import INTERCEPT, Dropped, EquationLayout, Layout
from mlmed.errors import DataError
from mlmed.formula import Equation
from mlmed.model import ModelSpec
from mlmed.names import display_name

__all__ = ["lazy_frame", "pushed_grams", "sums_query"]

Array = NDArray[np.float64]
#: Levels above which a factor is refused.
MOST_LEVELS = 200
_PATTERN, _COUNT = "mlmed_pattern", "mlmed_n"


def lazy_frame(data: Any) -> nw.LazyFrame[Any] | None:
    """The data as a lazy frame if an engine other than memory holds them, else None."""
    frame = nw.from_native(data, pass_through=True)
    return frame if isinstance(frame, nw.LazyFrame) else None


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything the second pass needs.

    Attributes
    ----------
    layout : Layout
        Names, positions, encodings.
    columns : tuple of Expr
        Expression of every distinct column but the constant.
    complete : tuple of Expr
        Which rows each equation can use.
    shift, scale : (K,) arrays
        Moments of the distinct columns.
    """

    layout: Layout
    columns: tuple[nw.Expr, ...]
    complete: tuple[nw.Expr, ...]
    shift: Array
    scale: Array


def pushed_grams(spec: ModelSpec, frame: nw.LazyFrame[Any]) -> Grams:
    """Cross-products by cluster, summed where the rows are.

    Raises
    ------
    DataError
        Unknown or non-numeric columns, infinite or constant values, fewer than two clusters.
    FormulaError
        If a term cannot be translated; it is named, with what to do.
    """
    plan = _plan(spec, frame)
    table = sums_query(spec, frame, plan).collect().to_pandas()
    if not len(table):
        raise DataError("no row can be used by any equation; check missing values and cluster ids")
    table = table.sort_values([*spec.group, _PATTERN], kind="stable").reset_index(drop=True)
    codes, clusters = cluster_codes(table, spec.group)
    if len(clusters) < 2:
        raise DataError(
            f"the data have {len(clusters)} cluster with complete rows; a multilevel model needs at least two"
        )
    keys = np.unique(table[_PATTERN].to_numpy(dtype=np.int64))
    R, K = len(spec.equations), len(plan.layout.columns)
    patterns = tuple(tuple(bool(key >> r & 1) for r in range(R)) for key in keys)
    products = np.zeros((len(keys), K * (K + 1) // 2, len(clusters)))
    for target, key in zip(products, keys, strict=True):
        rows = table[_PATTERN].to_numpy(dtype=np.int64) == key
        target[0, codes[rows]] = table.loc[rows, _COUNT].to_numpy(dtype=np.float64)
        for p in range(1, len(target)):
            target[p, codes[rows]] = table.loc[rows, f"p{p}"].to_numpy(dtype=np.float64)
    return Grams(plan.layout, plan.shift, plan.scale, patterns, products, clusters)


def sums_query(spec: ModelSpec, frame: nw.LazyFrame[Any], plan: _Plan | None = None) -> nw.LazyFrame[Any]:
    """The second pass, not yet run: one row per cluster and pattern with the sums of products."""
    plan = plan or _plan(spec, frame)
    known = nw.all_horizontal(*(_present(nw.col(g), frame.collect_schema()[g]) for g in spec.group), ignore_nulls=False)
    pattern = nw.lit(0)
    for r, complete in enumerate(plan.complete):
        pattern = pattern + nw.when(complete).then(nw.lit(1 << r)).otherwise(nw.lit(0))
    used = plan.layout.used
    columns = {}
    for k, expression in enumerate(plan.columns, start=1):
        needed = nw.any_horizontal(*(plan.complete[r] for r in np.flatnonzero(used[:, k])), ignore_nulls=False)
        standard = (expression - float(plan.shift[k])) / float(plan.scale[k])
        columns[f"c{k}"] = nw.when(needed).then(standard).otherwise(nw.lit(0.0))
    wide = frame.filter(known).with_columns(pattern.alias(_PATTERN), **columns).filter(nw.col(_PATTERN) > 0)
    products = {}
    for i in range(1, len(plan.layout.columns)):
        for j in range(i + 1):
            left = nw.col(f"c{i}")
            products[f"p{i * (i + 1) // 2 + j}"] = left if j == 0 else left * nw.col(f"c{j}")
    # products become columns first: inside the aggregation some engines take hundreds of times longer
    wide = wide.with_columns(**products).select(*spec.group, _PATTERN, *products)
    sums = [nw.col(name).sum() for name in products]
    return wide.group_by(*spec.group, _PATTERN).agg(nw.len().alias(_COUNT), *sums)


def _present(column: nw.Expr, kind: Any) -> nw.Expr:
    return ~column.is_null() & ~column.is_nan() if kind.is_float() else ~column.is_null()


def _plan(spec: ModelSpec, frame: nw.LazyFrame[Any]) -> _Plan:
    schema = frame.collect_schema()
    for name in sorted(frozenset().union(*(e.variables for e in spec.equations))):
        if name not in schema.names():
            raise unknown_column(name, list(schema.names()))
    known = nw.all_horizontal(*(_present(nw.col(g), schema[g]) for g in spec.group), ignore_nulls=False)
    complete = tuple(
        nw.all_horizontal(
            known, *(_present(nw.col(v), schema[v]) for v in sorted(e.variables - e.group_columns)), ignore_nulls=False
        )
        for e in spec.equations
    )
    dropped, total = _count_rows(spec, frame, known, complete)
    names, expressions, equations = ["1"], [], []
    shift, scale = [0.0], [1.0]
    for equation, rows in zip(spec.equations, complete, strict=True):
        own, columns, moments = _plan_equation(equation, frame, rows, names)
        equations.append(own)
        expressions += columns
        shift += [mean for mean, _ in moments]
        scale += [sd for _, sd in moments]
    layout = Layout(spec.equations, tuple(names), tuple(equations), dropped, total)
    return _Plan(layout, tuple(expressions), complete, np.array(shift), np.array(scale))


def _one_row(frame: nw.LazyFrame[Any], **expressions: nw.Expr) -> dict[str, float]:
    """Aggregates of a lazy frame as numbers; null becomes NaN."""
    row = frame.select(**expressions).collect().to_pandas().iloc[0]
    return {str(name): float("nan") if pd.isna(value) else float(value) for name, value in row.items()}


def _as_count(condition: nw.Expr) -> nw.Expr:
    return nw.when(condition).then(nw.lit(1)).otherwise(nw.lit(0)).sum()


def _count_rows(
    spec: ModelSpec, frame: nw.LazyFrame[Any], known: nw.Expr, complete: tuple[nw.Expr, ...]
) -> tuple[tuple[Dropped, ...], int]:
    schema = frame.collect_schema()
    asked = {"total": nw.len(), "known": _as_count(known)}
    variables = sorted(frozenset().union(*(e.variables - e.group_columns for e in spec.equations)))
    for r, rows in enumerate(complete):
        asked[f"used{r}"] = _as_count(rows)
    for v, name in enumerate(variables):
        asked[f"missing{v}"] = _as_count(known & ~_present(nw.col(name), schema[name]))
        if schema[name].is_float():
            asked[f"infinite{v}"] = _as_count(_present(nw.col(name), schema[name]) & ~nw.col(name).is_finite())
    found = _one_row(frame, **asked)
    total = int(np.nan_to_num(found["total"]))
    if not total:
        raise DataError("the data have no rows; check the file or the filter that made them")
    for v, name in enumerate(variables):
        if found.get(f"infinite{v}", 0.0) > 0:
            raise DataError(
                f"column {name!r} has {int(found[f'infinite{v}'])} infinite value(s); replace or remove them"
            )
        if found[f"missing{v}"] == found["known"]:
            raise DataError(f"column {name!r} has only missing values; check how it was read, or remove it")
    dropped = []
    for r, equation in enumerate(spec.equations):
        used = int(found[f"used{r}"])
        if not used:
            raise DataError(f"equation {equation.name} has no complete row; remove a column that is mostly missing")
        own = equation.variables - equation.group_columns
        missing = {
            n: int(found[f"missing{v}"]) for v, n in enumerate(variables) if n in own and found[f"missing{v}"] > 0
        }
        if used < total:
            dropped.append(Dropped(equation.name, total, used, total - int(found["known"]), missing))
    return tuple(dropped), total


def _plan_equation(
    equation: Equation, frame: nw.LazyFrame[Any], rows: nw.Expr, names: list[str]
) -> tuple[EquationLayout, list[nw.Expr], list[tuple[float, float]]]:
    """Encodings and expressions of one equation; new distinct columns are appended to ``names``."""
    usable = frame.filter(rows)
    kinds = _kinds(equation, usable)
    encodings = encodings_of(equation, stand_in(dict(kinds.typical), dict(kinds.spread), dict(kinds.levels)))
    found = {equation.response: _response_expression(equation, frame, kinds)}
    for encoding in encodings:
        found.update(column_expressions(equation, encoding, kinds))
    moments = _moments(equation, usable, found)
    new, values, placed = [], [], {INTERCEPT: 0}
    for name, expression in found.items():
        # a centred column means other numbers in an equation with other rows, so it is not shared
        stateful = any(f"{call}(" in name for call in ("center", "scale", "standardize"))
        label = f"{equation.name}:{display_name(name)}" if stateful else display_name(name)
        if label not in names:
            names.append(label)
            new.append(expression)
            values.append(moments[name])
        placed[name] = names.index(label)
    random = [(t, name) for t, encoding in enumerate(encodings[1:]) for name in encoding.column_names]
    fixed = list(encodings[0].column_names)
    typical = {**{n: known[0] for n, known in kinds.levels.items()}, **kinds.typical}
    layout = EquationLayout(
        name=equation.name,
        fixed=tuple(map(display_name, fixed)),
        random=tuple(display_name(name) for _, name in random),
        fixed_at=tuple(placed[name] for name in fixed),
        random_at=tuple(placed[name] for _, name in random),
        response_at=placed[equation.response],
        terms=tuple(t for t, _ in random),
        encodings=encodings,
        typical=typical,
        spread=dict(kinds.spread),
        levels=dict(kinds.levels),
    )
    return layout, new, values


def _kinds(equation: Equation, usable: nw.LazyFrame[Any]) -> Kinds:
    schema = usable.collect_schema()
    coded = coded_variables(equation)
    numeric, levels = [], {}
    for name in sorted(equation.predictors):
        kind = schema[name]
        if isinstance(kind, nw.String | nw.Categorical | nw.Enum):
            levels[name] = _levels(usable, name, nw.col(name).cast(nw.String), str)
        elif not (kind.is_numeric() or isinstance(kind, nw.Boolean)):
            raise DataError(
                f"column {name!r} has the type {kind}, which is neither numbers nor text; convert it to numbers"
            )
        elif name in coded:
            levels[name] = _levels(usable, name, variable_expression(name), float)
        else:
            numeric.append(name)
    asked = {f"m{k}": variable_expression(name).mean() for k, name in enumerate(numeric)}
    asked |= {f"s{k}": variable_expression(name).std() for k, name in enumerate(numeric)}
    found = _one_row(usable, **asked) if asked else {}
    return Kinds(
        {name: found[f"m{k}"] for k, name in enumerate(numeric)},
        {name: found[f"s{k}"] for k, name in enumerate(numeric)},
        levels,
    )


def _levels(usable: nw.LazyFrame[Any], name: str, column: nw.Expr, kind: type) -> tuple[Any, ...]:
    found = usable.select(column.alias("level")).unique().head(MOST_LEVELS + 1).collect().to_pandas()["level"]
    levels = tuple(sorted(kind(value) for value in found))
    if len(levels) > MOST_LEVELS:
        raise DataError(
            f"column {name!r} has more than {MOST_LEVELS} levels ({shorten(levels, 3)}); convert it if they are numbers"
        )
    if len(levels) < 2:
        raise DataError(f"the predictor {name!r} is constant ({shorten(levels)}); remove it")
    return levels


def _response_expression(equation: Equation, frame: nw.LazyFrame[Any], kinds: Kinds) -> nw.Expr:
    schema = frame.collect_schema()
    if equation.name not in schema.names():
        return factor_expression(equation.response, kinds)
    kind = schema[equation.name]
    if not kind.is_numeric():
        raise DataError(
            f"the response {equation.name!r} is not numeric (type {kind}); linear mixed models need numbers; convert it"
        )
    return variable_expression(equation.name)


def _moments(
    equation: Equation, usable: nw.LazyFrame[Any], found: dict[str, nw.Expr]
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of every column over the rows of the equation."""
    asked: dict[str, nw.Expr] = {}
    wide = usable.select(**{f"v{k}": expression for k, expression in enumerate(found.values())})
    for k in range(len(found)):
        column = nw.col(f"v{k}")
        asked |= {f"m{k}": column.mean(), f"s{k}": column.std(), f"low{k}": column.min(), f"high{k}": column.max()}
        asked[f"bad{k}"] = _as_count(column.is_null() | column.is_nan() | ~column.is_finite())
    values = _one_row(wide, **asked)
    out: dict[str, tuple[float, float]] = {}
    for k, name in enumerate(found):
        shown = display_name(name)
        if values[f"bad{k}"] > 0:
            raise DataError(
                f"{shown} in equation {equation.name} is not a finite number in {int(values[f'bad{k}'])} row(s); check "
                "the transformation (for example the logarithm of a number that is not positive)"
            )
        if values[f"low{k}"] == values[f"high{k}"]:
            what = "response" if name == equation.response else "predictor"
            raise DataError(
                f"the {what} {shown!r} is constant ({values[f'low{k}']:g}) in equation {equation.name}; remove it"
            )
        out[name] = values[f"m{k}"], values[f"s{k}"]
    return out
