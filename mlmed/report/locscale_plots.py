"""Pictures of location-scale models (extra ``plots``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlmed.report.curve_plots import Positions, draw_band
from mlmed.report.labels import MEDIUM, literal, pyplot, wrapped
from mlmed.report.plots import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_along", "plot_ranked", "plot_scatter"]

#: Letters beside an axis, and below one.
HIGH, WIDE = int(3.2 * MEDIUM), int(4.4 * MEDIUM)


def plot_ranked(table: pd.DataFrame, *, group: str, label: str, centre: float, level: float) -> Axes:
    """Clusters from the smallest value to the largest, in colour where the interval leaves out the population's.

    Parameters
    ----------
    table : DataFrame
        group, estimate, conf_low, conf_high.
    group, label : str
        What the clusters are called, and what the values are.
    centre : float
        The population's value.
    level : float
        Coverage, for the caption.
    """
    ax = new_axes(7.0, 4.2)
    own = table.sort_values("estimate", kind="stable")
    rank = np.arange(1, len(own) + 1)
    apart = (own["conf_low"] > centre) | (own["conf_high"] < centre)
    ax.vlines(rank, own["conf_low"], own["conf_high"], colors=list(np.where(apart, "C0", "0.65")), lw=1.0)
    ax.plot(rank, own["estimate"], "o", color="k", ms=2.0, zorder=3)
    ax.axhline(centre, color="C3", lw=1.0, zorder=0, label=f"population {centre:.3g}")
    ax.margins(x=0.02)
    ax.set_xlabel(literal(wrapped(f"{group}, by rank", WIDE)))
    ax.set_ylabel(literal(wrapped(label, HIGH)))
    ax.set_title(f"{len(own)} clusters, {100 * level:g}% intervals", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return ax


def plot_scatter(table: pd.DataFrame, line: pd.DataFrame, *, labels: tuple[str, str], title: str) -> Axes:
    """A point per cluster and the line of the model.

    Parameters
    ----------
    table, line : DataFrame
        location, sd; the line has the median sd of clusters with that location.
    labels : (str, str)
        Of the axes.
    title : str
        What stands above.
    """
    ax = new_axes()
    ax.plot(table["location"], table["sd"], "o", color="C0", ms=4, alpha=0.6, mew=0, label="clusters")
    if len(line):
        ax.plot(line["location"], line["sd"], color="C3", label="median by the model")
        ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel(literal(wrapped(labels[0], WIDE)))
    ax.set_ylabel(literal(wrapped(labels[1], HIGH)))
    ax.set_title(literal(wrapped(title, WIDE)), fontsize="medium")
    return ax


def plot_along(
    table: pd.DataFrame, column: pd.Series, *, variable: str, response: str, interval: str, level: float
) -> list[Axes]:
    """Two panels, response and residual sd, over a predictor: lines with bands, or marks with bars for levels.

    Parameters
    ----------
    table : DataFrame
        estimate, conf_low, conf_high, sd, sd_conf_low, sd_conf_high.
    column : Series
        The values of the predictor, whatever it is called.
    variable, response : str
        Labels.
    interval : str
        ``"confidence"`` or ``"prediction"``, for the caption of the first panel.
    level : float
        Coverage, for the captions.
    """
    axes = pyplot().subplots(1, 2, figsize=(8.4, 3.6), layout="constrained")[1]
    percent = f"{100 * level:g}%"
    panels = (
        (("estimate", "conf_low", "conf_high"), f"expected {response}", f"{percent} {interval} interval"),
        (("sd", "sd_conf_low", "sd_conf_high"), f"residual sd of {response}", f"{percent} confidence interval"),
    )
    positions = Positions(column)
    for ax, (columns, label, caption) in zip(axes, panels, strict=True):
        draw_band(ax, positions, column, table[list(columns)])
        positions.label(ax, variable)
        ax.set_ylabel(literal(wrapped(label, HIGH)))
        ax.set_title(caption, fontsize="medium")
    return list(axes)
