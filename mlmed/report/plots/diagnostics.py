"""Diagnostics: a search, a profile, influence of single clusters, location against scale, sensitivity."""

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
from collections.abc import Callable
from typing import TYPE_CHECKING

from mlmed.report.plots.axes import DARK

Array = NDArray[np.float64]
#: Largest correlation in the plane of R^2; beyond it the effect may diverge.
FARTHEST = 0.95


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
    """Log-likelihood below its maximum against the value of the effect, with a parabola of the same curvature.

    Parameters
    ----------
    curve : DataFrame
        value, drop.
    term : str
        The quantity.
    estimate, ends, level : float, (float, float), float
        Estimate, ends of the interval, and its coverage.
    note : str
        Second line of the caption.
    """
    from scipy.special import ndtri

    ax = one_panel(ax)
    drop = 0.5 * float(ndtri(0.5 + level / 2.0)) ** 2
    ax.plot(curve["value"], -curve["drop"], color=MAIN, label="profile likelihood")
    if curve["value"].min() < estimate < curve["value"].max():  # at an edge there is no curvature to match
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
    """One stem per cluster, the largest labelled.

    Parameters
    ----------
    changes : Series
        A value per cluster, with its name as index.
    term, unit : str
        The quantity that changes, and the unit of changes.
    label : int
        Number of labelled clusters.
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
        Labels of the axes.
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


def plot_over_rho(rows: pd.DataFrame, *, term: str, zero: float, level: float, ax: Axes | None = None) -> Axes:
    """The effect with its band over rho; the estimate at rho = 0 and the zero of the curve are marked.

    ``rows`` of one term: rho, estimate, conf_low, conf_high; ``ax`` is where to draw.
    """
    ax = one_panel(ax, 6.5, 4.2)
    rho = rows["rho"].to_numpy()
    ax.axhline(0.0, color=DARK, lw=0.8)
    ax.axvline(0.0, color=DARK, lw=0.8, ls=":")
    ax.fill_between(
        rho, rows["conf_low"], rows["conf_high"], color=MAIN, alpha=0.2, lw=0, label=f"{100 * level:g}% interval"
    )
    ax.plot(rho, rows["estimate"], color=MAIN, marker="o" if len(rho) == 1 else "", label=term)
    if np.isfinite(zero) and rho.min() <= zero <= rho.max():
        ax.plot([zero], [0.0], "o", color=ACCENT, label=f"zero at {zero:.3f}", zorder=3)
    ax.margins(x=0.0 if len(rho) > 1 else 0.05)
    ax.set_xlabel("rho, correlation of the errors of mediator and outcome")
    ax.set_ylabel(term)
    titled(ax, f"{term} if the errors are correlated, {100 * level:g}% interval")
    legend_in(ax)
    return ax


def plot_over_r2(
    effects: Callable[[Array], Array],
    *,
    term: str,
    left: tuple[float, float],
    total: bool,
    negative: bool,
    ax: Axes | None = None,
) -> Axes:
    """Contours of the effect over the shares of variance that an omitted cause of both would explain (eq. 88).

    Parameters
    ----------
    effects : function
        From correlations (R,) to effects (R,).
    term : str
        Its name.
    left : (float, float)
        1 - R^2 of mediator and outcome.
    total : bool
        Whether shares are of the total variance, not of the residual one.
    negative : bool
        Whether the omitted cause moves the two in opposite directions.
    """
    sign = -1.0 if negative else 1.0
    nodes = np.concatenate([np.linspace(0.0, 0.8, 33), np.linspace(0.8, FARTHEST, 16)[1:]])
    values = effects(sign * nodes)
    reach = left if total else (1.0, 1.0)
    x, y = (np.linspace(0.0, end, 201) for end in reach)
    rho = np.sqrt(np.outer(y, x) / (reach[0] * reach[1]))
    plane = np.where(rho <= FARTHEST, np.interp(rho, nodes, values), np.nan)
    ax = one_panel(ax, 5.6, 4.8)
    levels = _levels(nodes, values)
    if len(levels):
        lines = ax.contour(x, y, plane, levels=levels, colors=MAIN, linewidths=0.9, linestyles="solid")
        ax.clabel(lines, fontsize="small", fmt="%g")
    if values.min() < 0.0 < values.max():
        zero = ax.contour(x, y, plane, levels=[0.0], colors=ACCENT, linewidths=2.0)
        ax.clabel(zero, fontsize="medium", fmt=f"{term} = 0")
    of = "of all variance" if total else "of the unexplained variance"
    ax.set_xlabel(f"share {of} of the mediator, R2~" if total else f"share {of} of the mediator, R2*")
    ax.set_ylabel(f"share {of} of the outcome, R2~" if total else f"share {of} of the outcome, R2*")
    ways = "opposite directions" if negative else "the same direction"
    titled(ax, f"{term} if an omitted cause moves both in {ways}\n(along the axes, without one: {values[0]:.4g})")
    return ax


def _levels(nodes: Array, values: Array) -> Array:
    """Round contour values in the range of the effect for rho from .1 to .9; zero has its own line."""
    from matplotlib.ticker import MaxNLocator

    inner = values[(nodes >= 0.1) & (nodes <= 0.9)]
    ticks = np.asarray(MaxNLocator(8).tick_values(float(inner.min()), float(inner.max())))
    return ticks[(ticks > inner.min()) & (ticks < inner.max()) & (np.abs(ticks) > 1e-9 * np.abs(ticks).max())]
