"""Diagnostics: a search, a profile, what single clusters do, how location and scale of clusters go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.report.plots.axes import (
    ACCENT,
    FAINT,
    GREY,
    MAIN,
    across,
    along,
    legend_in,
    literal,
    one_panel,
    titled,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_influence", "plot_optimization", "plot_profile", "plot_scatter"]


def plot_profile(
    curve: pd.DataFrame,
    *,
    term: str,
    estimate: float,
    ends: tuple[float, float],
    level: float,
    note: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Log-likelihood below its maximum against the value of the effect; a parabola would be the normal theory.

    Parameters
    ----------
    curve : DataFrame
        value, drop.
    term : str
        The quantity.
    estimate, ends, level : float, (float, float), float
        At the maximum, of the interval, and its coverage.
    note : str
        Second line of the caption.
    """
    from scipy.special import ndtri

    ax = one_panel(ax)
    drop = 0.5 * float(ndtri(0.5 + level / 2.0)) ** 2
    ax.plot(curve["value"], -curve["drop"], color=MAIN, label="profile likelihood")
    if curve["value"].min() < estimate < curve["value"].max():  # at an edge there is a slope and no curvature to match
        near = curve.iloc[(curve["value"] - estimate).abs().argsort()[1:3]]
        bend = float((near["drop"] / (near["value"] - estimate) ** 2).mean())
        grid = np.linspace(curve["value"].min(), curve["value"].max(), 200)
        ax.plot(grid, -bend * (grid - estimate) ** 2, color=GREY, ls="--", label="parabola of the same curvature")
    ax.axhline(-drop, color=FAINT, lw=1)
    for end in ends:
        if np.isfinite(end):
            ax.plot([end, end], [-drop, -1.35 * drop], color=ACCENT, lw=1)
            ax.annotate(f"{end:.4g}", (end, -1.35 * drop), ha="center", va="top", color=ACCENT)
    ax.plot([estimate], [0.0], "o", color=MAIN)
    ax.annotate(f"{estimate:.4g}", (estimate, 0.0), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.set_ylim(-1.65 * drop, 0.18 * drop)
    ax.margins(x=0.08)
    ax.set_xlabel(literal(wrapped(term, across(ax))))
    ax.set_ylabel("log-likelihood below its maximum")
    titled(ax, f"Profile of {term}, {100 * level:g}% interval\n{note}")
    legend_in(ax, loc="lower center")
    return ax


def plot_influence(
    changes: pd.Series, *, term: str, unit: str, label: int, note: str = "", ax: Axes | None = None
) -> Axes:
    """One stem per cluster, the largest named.

    Parameters
    ----------
    changes : Series
        A value per cluster, its name as index.
    term, unit : str
        What changes, in what.
    label : int
        How many are named.
    note : str
        Second line of the caption.
    """
    ax = one_panel(ax, 7.0)
    order = np.arange(len(changes))
    ax.vlines(order, 0.0, changes, color=MAIN, lw=1)
    ax.plot(order, changes, ".", color=MAIN)
    ax.axhline(0.0, color=GREY, lw=0.8)
    for at in changes.abs().to_numpy().argsort()[::-1][:label]:
        value = float(changes.iloc[at])
        ax.annotate(
            literal(changes.index[at]), (at, value), xytext=(0, 4 if value > 0 else -4), textcoords="offset points",
            ha="center", va="bottom" if value > 0 else "top", fontsize="small",
        )  # fmt: skip
    ax.margins(y=0.15)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("cluster, in the order of the data")
    ax.set_ylabel(literal(wrapped(f"change of {term} {unit}", along(ax))))
    titled(ax, f"What leaving out one cluster does to {term}\n{note}")
    return ax


def plot_optimization(
    llf: NDArray[np.float64], accepted: NDArray[np.bool_], *, note: str = "", ax: Axes | None = None
) -> Axes:
    """Distance to the optimum by evaluation, log scale.

    Parameters
    ----------
    llf, accepted : (T,) arrays
        Log-likelihood of every evaluation, and whether the search moved there.
    note : str
        The caption.
    """
    ax = one_panel(ax)
    gap = np.clip(llf.max() - llf, 1e-12, None)
    ax.semilogy(np.arange(len(gap)), gap, color=GREY, zorder=1)
    ax.scatter(np.flatnonzero(accepted), gap[accepted], color=MAIN, zorder=2, label="accepted")
    if not accepted.all():
        ax.scatter(np.flatnonzero(~accepted), gap[~accepted], color=ACCENT, marker="x", label="rejected")
        legend_in(ax)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("evaluation of criterion, gradient and Hessian")
    ax.set_ylabel("log-likelihood below the optimum")
    titled(ax, note)
    return ax


def plot_scatter(
    table: pd.DataFrame, line: pd.DataFrame, *, labels: tuple[str, str], title: str, ax: Axes | None = None
) -> Axes:
    """A point per cluster and the line of the model.

    Parameters
    ----------
    table, line : DataFrame
        location, sd; the line has the median sd of clusters with that location.
    labels : (str, str)
        Of the axes.
    title : str
        The caption.
    """
    ax = one_panel(ax)
    ax.plot(table["location"], table["sd"], "o", color=MAIN, ms=4, alpha=0.6, mew=0, label="clusters")
    if len(line):
        ax.plot(line["location"], line["sd"], color=ACCENT, label="median by the model")
        legend_in(ax)
    ax.set_xlabel(literal(wrapped(labels[0], across(ax))))
    ax.set_ylabel(literal(wrapped(labels[1], along(ax))))
    titled(ax, title)
    return ax
