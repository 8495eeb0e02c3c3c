"""Pictures of a fitted model (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.intervals.sdcor import correlations_table
from mlmed.options import check_flag, check_list
from mlmed.report.curve_plots import plot_curves, plot_lines
from mlmed.report.effect_plots import plot_caterpillar, plot_correlation_forest
from mlmed.results.curves import (
    choose_clusters,
    cluster_lines,
    conditional_table,
    given_note,
    line_along,
    observed_points,
    own_values,
)
from mlmed.results.tables import ranef_table
from mlmed.text import shorten, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["conditional_plot", "correlations_plot", "ranef_plot", "spaghetti_plot"]


def conditional_plot(
    fitted: LmmFit,
    variable: str,
    *,
    at: Mapping[str, Any] | None,
    level: float,
    points: int | Sequence[Any],
    data: bool,
) -> list[Axes]:
    """Draw expected responses of the population along one predictor, a panel per response."""
    line = line_along(fitted, variable, at=at, points=points)
    rows = observed_points(fitted, line) if check_flag(data, "data") else None
    table = conditional_table(fitted, line, level=level)
    return plot_curves(table, variable=variable, level=level, rows=rows, note=given_note(fitted, line))


def spaghetti_plot(
    fitted: LmmFit,
    variable: str,
    *,
    clusters: int | Sequence[Any] | None,
    seed: int | None,
    at: Mapping[str, Any] | None,
    points: int | Sequence[Any],
) -> list[Axes]:
    """Draw expected responses of single clusters along one predictor, the population's on top."""
    chosen = choose_clusters(fitted, clusters, seed)
    line = line_along(fitted, variable, at=at, points=points)
    population = conditional_table(fitted, line, level=0.95)
    own = own_values(fitted, line)
    lines = cluster_lines(fitted, line, chosen, own)
    note = given_note(fitted, line, own.columns)
    return plot_lines(lines, population, variable=variable, group=fitted.group_name, note=note)


def ranef_plot(fitted: LmmFit, effect: str | Sequence[str] | None, *, level: float) -> list[Axes]:
    """Draw conditional modes by rank with their intervals, a panel per effect."""
    table = ranef_table(fitted, level=level)
    known = list(dict.fromkeys(table["effect"]))
    if effect is not None and not isinstance(effect, str):
        effect = check_list(effect, "effect", "names of random effects, or one name")
    asked = known if effect is None else [effect] if isinstance(effect, str) else list(effect)
    unknown = [name for name in asked if not isinstance(name, str) or name not in known]
    if unknown or not asked:
        found = f"no random effect {shown(unknown[0])}" if unknown else "no random effect was named"
        raise EffectError(f"{found}; there are {shorten(known, 20)}")
    parts = [table[table["effect"] == name] for name in dict.fromkeys(asked)]
    return plot_caterpillar(pd.concat(parts), level=level)


def correlations_plot(fitted: LmmFit, *, vcov: str, level: float) -> Axes:
    """Draw correlations between clusters and within."""
    table = correlations_table(fitted, vcov=vcov, level=level)
    if not len(table):
        raise EffectError(
            "the model has no correlation: one random effect, or independent ones, and independent residuals; "
            "write (1 + x | id), or the same label in two formulas, (1 |c| id)"
        )
    return plot_correlation_forest(table, group=fitted.group_name, level=level)
