"""Expected responses along one predictor: of the population with errors, and of single clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.frames import is_numeric, select_columns, shorten
from mlmed.effects.delta import check_level
from mlmed.errors import EffectError
from mlmed.modes.checks import check_seed
from mlmed.modes.fitting import Fitted
from mlmed.modes.newdata import own_effects, read_rows
from mlmed.modes.prediction import row_means, row_variances, with_limits
from mlmed.modes.tables import shown_clusters

__all__ = ["Line", "choose_clusters", "cluster_lines", "conditional_table", "line_along", "observed_points"]

Indices = NDArray[np.intp]
RESERVED = ("response", "group", "estimate", "std_error", "lower", "upper")
#: Standard deviations on both sides of the mean that a grid covers where there are no rows to see the range of.
REACH = 2.0


@dataclass(frozen=True, slots=True)
class Line:
    """Rows that differ in one predictor.

    Attributes
    ----------
    variable : str
        The predictor.
    rows : DataFrame
        It and the others, which are constant.
    numbers : (int, ...)
        Equations that use the predictor.
    is_factor : bool
        Whether it has levels.
    """

    variable: str
    rows: pd.DataFrame
    numbers: tuple[int, ...]
    is_factor: bool


def line_along(fitted: Fitted, variable: str, *, at: Mapping[str, Any] | None, points: int | Sequence[Any]) -> Line:
    """The grid: ``points`` values over the range of a number, the levels of a factor, or the values given.

    Raises
    ------
    EffectError
        No equation has the predictor, or ``at`` names something that is none.
    """
    equations = fitted.spec.equations
    numbers = tuple(r for r, equation in enumerate(equations) if variable in equation.predictors)
    used = sorted(frozenset().union(*(equations[r].predictors for r in numbers)))
    if not numbers:
        every = sorted(frozenset().union(*(equation.predictors for equation in equations)))
        raise EffectError(f"no equation has the predictor {variable!r}; there are {shorten(every, 20) or 'none'}")
    if variable in RESERVED:
        raise EffectError(f"a predictor called {variable!r} cannot be told from a column of the table; rename it")
    unknown = [name for name in at or {} if name not in used or name == variable]
    if unknown:
        others = [name for name in used if name != variable]
        raise EffectError(
            f"at= names {unknown[0]!r}, which is not another predictor of the equations with {variable!r}; there are "
            f"{shorten(others, 20) or 'none'}"
        )
    levels = fitted.layout.equations[numbers[0]].levels.get(variable)
    typical = {k: v for r in reversed(numbers) for k, v in fitted.layout.equations[r].typical.items()}
    fixed = {name: (at or {}).get(name, typical[name]) for name in used if name != variable}
    rows = pd.DataFrame({variable: _grid(fitted, numbers[0], variable, points), **fixed})
    return Line(variable, rows, numbers, levels is not None)


def _grid(fitted: Fitted, number: int, variable: str, points: int | Sequence[Any]) -> list[Any]:
    layout = fitted.layout.equations[number]
    if isinstance(points, Sequence | np.ndarray) and not isinstance(points, str) and len(points):
        return list(points)
    if not isinstance(points, int | np.integer) or isinstance(points, bool) or points < 2:
        raise EffectError(f"points is a number of points, at least 2, or their values; found {points!r}")
    if variable in layout.levels:
        return list(layout.levels[variable])
    low, high = _range(fitted, number, variable)
    return list(np.linspace(low, high, int(points)))


def _range(fitted: Fitted, number: int, variable: str) -> tuple[float, float]:
    if fitted.table is None:
        layout = fitted.layout.equations[number]
        reach = REACH * layout.spread[variable]
        return layout.typical[variable] - reach, layout.typical[variable] + reach
    values = select_columns(fitted.table, {variable})[variable].to_numpy(dtype=np.float64, na_value=np.nan)
    return float(np.nanmin(values)), float(np.nanmax(values))


def conditional_table(fitted: Fitted, line: Line, *, level: float) -> pd.DataFrame:
    """response, the variable, estimate, std_error, lower, upper: x'beta along a line, one block per response."""
    check_level(level)
    blocks = []
    for number in line.numbers:
        rows = read_rows(fitted, number, line.rows, clusters=False)
        estimate = row_means(fitted, number, rows, None)
        error = np.sqrt(row_variances(fitted, number, rows, None, new_row=False))
        block = pd.DataFrame(
            {"response": fitted.layout.equations[number].name, line.variable: line.rows[line.variable]}
        )
        blocks.append(block.assign(estimate=estimate, std_error=error))
    return with_limits(pd.concat(blocks, ignore_index=True), level)


def choose_clusters(fitted: Fitted, clusters: int | Sequence[Any] | None, seed: int | None) -> Indices:
    """Positions of all clusters, of a number of them drawn at random, or of those with the given ids."""
    J = len(fitted.clusters)
    if clusters is None:
        return np.arange(J)
    if isinstance(clusters, int | np.integer):
        if isinstance(clusters, bool) or not 1 <= clusters <= J:
            raise EffectError(f"clusters is a number from 1 to {J}, or a list of ids; found {clusters!r}")
        rng = np.random.default_rng(check_seed(seed, "a choice of clusters"))
        return np.sort(rng.choice(J, size=int(clusters), replace=False))
    if isinstance(clusters, str):
        raise EffectError(f"clusters is a list of ids, such as [{clusters!r}], or a number of them")
    wanted = list(clusters)
    found = fitted.clusters.get_indexer(pd.Index(wanted))
    if not wanted or np.any(found < 0):
        missing = [name for name, k in zip(wanted, found, strict=True) if k < 0]
        raise EffectError(
            f"there is no cluster {shorten(missing)} in the fit ({fitted.group_name}: "
            f"{shorten(shown_clusters(fitted.clusters))})"
        )
    return np.asarray(found, dtype=np.intp)


def cluster_lines(fitted: Fitted, line: Line, chosen: Indices) -> pd.DataFrame:
    """response, group, the variable, estimate: X beta + Z u along a line, for every chosen cluster."""
    modes, labels = fitted.law().modes[chosen], shown_clusters(fitted.clusters)[chosen]
    grid, blocks = line.rows[line.variable], []
    for number in line.numbers:
        rows = read_rows(fitted, number, line.rows, clusters=False)
        u = modes[:, own_effects(fitted, number)[1]]
        lines = row_means(fitted, number, rows, None) + u @ rows.Z.T  # (clusters, points)
        block = {"response": fitted.layout.equations[number].name, "group": np.repeat(labels, len(grid))}
        block |= {line.variable: pd.concat([grid] * len(chosen), ignore_index=True), "estimate": lines.ravel()}
        blocks.append(pd.DataFrame(block))
    return pd.concat(blocks, ignore_index=True)


def observed_points(fitted: Fitted, line: Line) -> pd.DataFrame:
    """response, the variable, value: the rows that an equation used.

    Raises
    ------
    EffectError
        The fit has no rows.
    """
    responses = fitted(level="population") + fitted.residuals(level="population")
    frame = responses.to_frame() if isinstance(responses, pd.Series) else responses
    column = select_columns(fitted.table, {line.variable})[line.variable]
    x = column.astype(np.float64) if is_numeric(column) else column
    blocks = []
    for number in line.numbers:
        name = fitted.layout.equations[number].name
        block = pd.DataFrame({"response": name, line.variable: x.array, "value": frame[name].to_numpy()})
        blocks.append(block[block["value"].notna()])
    return pd.concat(blocks, ignore_index=True)
