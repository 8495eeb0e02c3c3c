"""New rows in the columns of both formulas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import complete_rows
from mlmed.data.frames import normalize, replaced, select_columns
from mlmed.data.ids import cluster_codes
from mlmed.data.probing import encode_as_fitted, known_clusters
from mlmed.data.values import refuse_infinite
from mlmed.effects.moderators import refuse_unreached
from mlmed.errors import EffectError
from mlmed.formula import Equation
from mlmed.options import MOST_POINTS, check_count, check_text
from mlmed.quadrature.posterior import NewColumns
from mlmed.quadrature.rows import Part, Rows
from mlmed.results.grid import check_held, refuse_held_jumps
from mlmed.text import listed

__all__ = ["line_along", "own_columns", "read_columns"]

Array = NDArray[np.float64]


def own_columns(rows: Rows, *, clusters: bool) -> NewColumns:
    """The rows of the fit themselves."""
    location, scale = rows.location, rows.scale
    return NewColumns(location.fixed, location.random, scale.fixed, scale.random, rows.codes if clusters else None)


def read_columns(
    rows: Rows, newdata: Any, *, clusters: bool, between: bool = False
) -> tuple[NewColumns, NDArray[np.bool_]]:
    """Encode new rows as those of the fit were; ``between``: they hold means.

    Returns
    -------
    columns, complete
        The rows without a missing predictor, and which of all rows they are.

    Raises
    ------
    DataError
        A column is missing, has another type than in the fit, a level that was not there, or a value beyond the ends
        of a spline; or all cluster ids are of another type.
    """
    wanted = frozenset().union(*(equation.predictors for equation in rows.equations))
    group = rows.group if clusters else ()
    table = select_columns(newdata, {*wanted, *group}, keep=group)
    refuse_infinite(table)
    codes, labels = cluster_codes(table, group) if clusters else (np.full(len(table), -1), pd.Index([]))
    table = replaced(table, {name: normalize(table[name]) for name in group if name in wanted})
    complete = complete_rows(table, wanted)
    known = np.append(known_clusters(rows.clusters, labels), -1)
    at = known[codes[complete]]  # a missing id has the code -1, which is the last entry
    usable = table.loc[np.flatnonzero(complete)]
    X, Z = _encoded(rows.equations[0], rows.location, usable, between)
    W, V = _encoded(rows.equations[1], rows.scale, usable, between)
    return NewColumns(X, Z, W, V, at if clusters else None), complete


def _encoded(equation: Equation, part: Part, table: pd.DataFrame, between: bool) -> tuple[Array, Array]:
    if not len(table):
        return np.empty((0, len(part.fixed_names))), np.empty((0, len(part.random_names)))
    wanted = equation.predictors
    where = repr(equation.text)
    X, *Z = encode_as_fitted(part.layout, table[sorted(wanted)], wanted, where=where, between=between)
    return X, np.concatenate(Z, axis=1) if Z else np.empty((len(table), 0))


def line_along(rows: Rows, variable: str, *, at: Mapping[str, Any] | None, points: int) -> pd.DataFrame:
    """Rows that differ in one predictor, over its range or its levels; all others typical, or as ``at`` has them.

    Raises
    ------
    EffectError
        Neither formula has the predictor, or ``at`` names something that is none or holds it at no single value.
    """
    layouts = (rows.scale.layout, rows.location.layout)
    typical = {name: value for layout in layouts for name, value in layout.typical.items()}
    levels = {name: found for layout in layouts for name, found in layout.levels.items()}
    if check_text(variable, "variable", "a predictor") not in typical:
        raise EffectError(f"neither formula has the predictor {variable!r}; there are {listed(typical)}")
    held = check_held(at, [name for name in typical if name != variable], levels)
    refuse_unreached(held, layouts)
    points = check_count(points, "points", name="points", least=2, most=MOST_POINTS)
    if variable in levels:
        grid: Any = list(levels[variable])
    else:
        column = rows.table[variable].to_numpy(dtype=np.float64)
        grid = np.linspace(column.min(), column.max(), points)
    fixed = {name: value for name, value in {**typical, **held}.items() if name != variable}
    refuse_held_jumps(layouts, {**fixed, variable: grid[0]}, free=fixed.keys() - held.keys())
    return pd.DataFrame({variable: grid, **fixed})
