"""Expected responses along one predictor: of the population with errors, and of single clusters."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.design import complete_rows
from mlmed.data.frames import normalize, select_columns
from mlmed.data.levels import cluster_table, levels_of
from mlmed.data.values import is_numeric
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit, design_of
from mlmed.fit.names import shown_clusters
from mlmed.options import check_level, check_own_name, check_seed, check_text, is_whole
from mlmed.results.newdata import given_responses, own_effects, read_rows, rows_along, spaced
from mlmed.results.prediction import row_means, row_variances, with_limits
from mlmed.text import assigned, listed, shorten, shown

Indices = NDArray[np.intp]
RESERVED = ("response", "estimate", "std_error", "conf_low", "conf_high")
#: Half-width of a grid around the mean, in standard deviations, if there are no rows to give the range.
REACH = 2.0


@dataclass(frozen=True, slots=True)
class Line:
    """Rows that differ in one predictor.

    Attributes
    ----------
    variable : str
        The predictor.
    rows : DataFrame
        The predictor and the others, which are constant.
    numbers : (int, ...)
        Equations that use the predictor.
    held : frozenset of str
        Other predictors held by the user; the rest has its mean or first level.
    """

    variable: str
    rows: pd.DataFrame
    numbers: tuple[int, ...]
    held: frozenset[str] = frozenset()


def line_along(fitted: LmmFit, variable: str, *, at: Mapping[str, Any] | None, points: int | Sequence[Any]) -> Line:
    """Make the grid: ``points`` values over the range of a number, the levels of a factor, or given values.

    Raises
    ------
    EffectError
        No equation has the predictor, ``at`` names no predictor, or a value is not one finite number.
    """
    numbers = _equations_with(fitted, variable)
    rows, held = rows_along(
        [fitted.layout.equations[r] for r in reversed(numbers)],
        variable,
        at=at,
        points=points,
        between=lambda n: _spaced(fitted, numbers, variable, n),
        of=f" of the equations with {variable!r}",
    )
    return Line(variable, rows, numbers, held)


def _equations_with(fitted: LmmFit, variable: str) -> tuple[int, ...]:
    """Numbers of the equations with the predictor."""
    every = [equation.predictors for equation in fitted.spec.equations]
    check_text(variable, "variable", "a predictor")
    numbers = tuple(r for r, predictors in enumerate(every) if variable in [*predictors])
    if not numbers:
        known = frozenset().union(*every)
        raise EffectError(f"no equation has the predictor {variable!r}; there are {listed(known)}")
    check_own_name(variable, RESERVED, "a predictor")
    return numbers


def _spaced(fitted: LmmFit, numbers: tuple[int, ...], variable: str, points: int) -> list[Any]:
    """Space values over the range of the rows used; both values of a boolean."""
    if fitted.table is None:
        layout = fitted.layout.equations[numbers[0]]
        reach = REACH * layout.spread[variable]
        return list(np.linspace(layout.typical[variable] - reach, layout.typical[variable] + reach, points))
    equations = [fitted.spec.equations[r] for r in numbers]
    table = select_columns(fitted.table, frozenset().union(*(e.variables for e in equations)), keep=fitted.spec.group)
    used = np.logical_or.reduce([complete_rows(table, e.variables) for e in equations])
    return spaced(normalize(table[variable])[used], points)


def held_note(fitted: LmmFit, line: Line, own: Collection[str] = ()) -> str:
    """Say where other predictors are held: ``at w = 0.1, arm = tx; y given m = 2``; empty if none is.

    For predictors in ``own``, which vary over clusters, it gives the population's value. A response that is a predictor
    (the mediator m of y) is named apart: the slope of x in the equation of y is the direct effect.
    """
    mediators = {number: given_responses(fitted, number) for number in line.numbers}
    responses = {line.variable, *own}.union(*mediators.values())
    values = {str(name): line.rows[name].iloc[0] for name in line.rows if name != line.variable}
    others = {name: value for name, value in values.items() if name not in responses}
    notes = [f"at {assigned(others, 3)}"] if others else []
    if len(own):
        population = assigned({name: values[name] for name in sorted(own)}, 3)
        notes.append(f"clusters at their own {', '.join(sorted(own))}, population at {population}")
    for number, found in mediators.items():
        held = {name: float(values[name]) for name in found if name != line.variable and name not in own}
        if held:
            notes.append(f"{fitted.layout.equations[number].name} given {assigned(held, 3)}")
    return "; ".join(notes)


def conditional_table(fitted: LmmFit, line: Line, *, level: float) -> pd.DataFrame:
    """response, the variable, estimate, std_error, conf_low, conf_high: x'beta along a line, one block per response."""
    level = check_level(level)
    blocks = []
    for number in line.numbers:
        rows = read_rows(fitted, number, line.rows, clusters=False, between=True)
        estimate = row_means(fitted, number, rows, None)
        error = np.sqrt(row_variances(fitted, number, rows, None, new_row=False))
        block = pd.DataFrame(
            {"response": fitted.layout.equations[number].name, line.variable: line.rows[line.variable]}
        )
        blocks.append(block.assign(estimate=estimate, std_error=error))
    return with_limits(pd.concat(blocks, ignore_index=True), level)


def choose_clusters(fitted: LmmFit, clusters: Any, seed: int | None) -> Indices:
    """Positions of all clusters, of a random number of them, or of given ids, each once.

    Ids may be written as tables show them: ``"1:0"`` for the combination ``(1, 0)``.
    """
    J = len(fitted.clusters)
    if clusters is None:
        return np.arange(J)
    if isinstance(clusters, str):
        raise EffectError(f"clusters is a list of ids, such as [{clusters!r}], or a number of them")
    if not isinstance(clusters, Collection) or getattr(clusters, "shape", None) == ():
        if not is_whole(clusters) or not 1 <= clusters <= J:
            raise EffectError(f"clusters is a number from 1 to {J}, or a list of ids; found {shown(clusters)}")
        rng = np.random.default_rng(check_seed(seed, "a choice of clusters"))
        return np.sort(rng.choice(J, size=int(clusters), replace=False))
    return _positions(fitted, list(clusters))


def _positions(fitted: LmmFit, wanted: list[Any]) -> Indices:
    """Find ids, first as they are, then as tables show them."""
    places = {name: k for k, name in enumerate(fitted.clusters)}
    shown = [str(name) for name in shown_clusters(fitted.clusters)]
    found: list[int] = []
    missing: list[str] = []
    for name in wanted:
        exact = isinstance(name, Hashable) and name in places
        alike = (
            [places[name]] if exact else [k for k, text in enumerate(shown) if isinstance(name, str) and text == name]
        )
        if len(alike) == 1:
            found += alike
        else:
            missing.append(repr(name))
    if missing or not wanted:
        what = f"there is no cluster {shorten(missing)} in the fit" if missing else "no cluster was named"
        raise EffectError(f"{what} ({fitted.group_name}: {shorten(map(repr, fitted.clusters))})")
    return np.array(list(dict.fromkeys(found)), dtype=np.intp)


def own_values(fitted: LmmFit, line: Line) -> pd.DataFrame:
    """Values (J, variables) of predictors that are constant within clusters, except those held by the user.

    No columns if there are none, or if the fit has no rows.

    Raises
    ------
    EffectError
        The data frame was changed after the fit.
    """
    free = [str(name) for name in line.rows if name != line.variable and name not in line.held]
    if fitted.table is None or not free:
        return pd.DataFrame(index=range(len(fitted.clusters)))
    design = design_of(fitted, "the clusters' own values of predictors", "hold all of them with at=")
    table = select_columns(fitted.table, free).iloc[design.at].reset_index(drop=True)
    levels = levels_of(table, design.codes, free)
    return cluster_table(table, design.codes, [name for name in free if levels[name] == 2])


def cluster_lines(fitted: LmmFit, line: Line, chosen: Indices, own: pd.DataFrame) -> pd.DataFrame:
    """response, the variable, estimate: X beta + Z u along a line; the index is the id of each chosen cluster.

    ``own`` (J, variables) replaces values of the line; the line of a cluster with a missing value is NaN.
    """
    modes, labels = fitted.law().modes[chosen], shown_clusters(fitted.clusters)[chosen]
    points, blocks = len(line.rows), []
    every = pd.concat([line.rows] * len(chosen), ignore_index=True)
    for name in own:
        every[name] = own[name].iloc[np.repeat(chosen, points)].array
    for number in line.numbers:
        rows = read_rows(fitted, number, every, clusters=False, between=True)
        u = np.repeat(modes[:, own_effects(fitted, number)[1]], points, axis=0)[rows.complete]
        estimate = np.full(len(every), np.nan)
        estimate[rows.complete] = row_means(fitted, number, rows, None) + np.vecdot(rows.Z, u)
        block = {"response": fitted.layout.equations[number].name, line.variable: every[line.variable].array}
        blocks.append(pd.DataFrame(block | {"estimate": estimate}, index=np.repeat(labels, points)))
    return pd.concat(blocks)


def observed_points(fitted: LmmFit, line: Line) -> pd.DataFrame:
    """response, the variable, estimate: values of the rows that an equation used.

    Raises
    ------
    EffectError
        The fit has no rows.
    """
    responses = fitted.fitted(of="population") + fitted.residuals(of="population")
    frame = responses.to_frame() if isinstance(responses, pd.Series) else responses
    column = select_columns(fitted.table, {line.variable})[line.variable]
    x = column.astype(np.float64) if is_numeric(column) else column
    blocks = []
    for number in line.numbers:
        name = fitted.layout.equations[number].name
        block = pd.DataFrame({"response": name, line.variable: x.array, "estimate": frame[name].to_numpy()})
        blocks.append(block[block["estimate"].notna()])
    return pd.concat(blocks, ignore_index=True)
