"""Pictures of intervals (extra ``plots``); every function draws on the axes it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlmed.report.labels import literal, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["new_axes", "new_panels", "plot_draws", "plot_influence", "plot_profile"]


def new_axes(width: float = 6.0, height: float = 4.0) -> Axes:
    """Axes of their own."""
    axes: Axes = pyplot().subplots(figsize=(width, height), layout="constrained")[1]
    return axes


def new_panels(n: int, *, columns: int, width: float, height: float, sharey: bool = False) -> list[Axes]:
    """Axes of n panels of a size in inches, row by row; only those that are used are shown."""
    across = min(n, columns)
    down = -(-n // across)
    size = (width * across, height * down)
    made = pyplot().subplots(down, across, figsize=size, squeeze=False, sharey=sharey, layout="constrained")
    every = made[1].ravel()
    for ax in every[n:]:
        ax.set_visible(False)
    return list(every[:n])


def plot_profile(curve: pd.DataFrame, *, term: str, estimate: float, ends: tuple[float, float], level: float) -> Axes:
    """Log-likelihood below its maximum against the value of the effect; a parabola would be the normal theory."""
    from scipy.special import ndtri

    ax = new_axes()
    drop = 0.5 * float(ndtri(0.5 + level / 2.0)) ** 2
    ax.plot(curve["value"], -curve["drop"], color="C0", label="profile likelihood")
    if curve["value"].min() < estimate < curve["value"].max():  # at an edge there is a slope and no curvature to match
        near = curve.iloc[(curve["value"] - estimate).abs().argsort()[1:3]]
        bend = float((near["drop"] / (near["value"] - estimate) ** 2).mean())
        grid = np.linspace(curve["value"].min(), curve["value"].max(), 200)
        ax.plot(grid, -bend * (grid - estimate) ** 2, color="0.6", ls="--", label="parabola of the same curvature")
    ax.axhline(-drop, color="0.8", lw=1)
    for end in ends:
        if np.isfinite(end):
            ax.plot([end, end], [-drop, -1.35 * drop], color="C3", lw=1)
            ax.annotate(f"{end:.4g}", (end, -1.35 * drop), ha="center", va="top", color="C3")
    ax.plot([estimate], [0.0], "o", color="C0")
    ax.annotate(f"{estimate:.4g}", (estimate, 0.0), xytext=(0, 6), textcoords="offset points", ha="center")
    ax.set_ylim(-1.65 * drop, 0.18 * drop)
    ax.margins(x=0.08)
    ax.set_xlabel(literal(term))
    ax.set_ylabel("log-likelihood below its maximum")
    ax.set_title(f"Profile of {literal(term)}, {100 * level:g}% interval", fontsize="medium")
    ax.legend(frameon=False, fontsize="small", loc="lower center")
    return ax


def plot_draws(draws: pd.Series, *, estimate: float, low: float, high: float, title: str) -> Axes:
    """Histogram of draws with the estimate and the interval."""
    ax = new_axes()
    kept = draws.dropna()
    ax.hist(kept, bins="auto", color="C0", alpha=0.6)
    ax.axvline(estimate, color="k", lw=1, label=f"estimate {estimate:.4g}")
    if np.isfinite(low) and np.isfinite(high):
        ax.axvspan(low, high, color="C3", alpha=0.12, label=f"interval {low:.4g} to {high:.4g}")
    ax.set_xlabel(literal(draws.name))
    ax.set_ylabel("draws")
    ax.set_title(literal(title), fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_influence(changes: pd.Series, *, term: str, unit: str, label: int) -> Axes:
    """One stem per cluster, the largest named."""
    ax = new_axes(7.0)
    order = np.arange(len(changes))
    ax.vlines(order, 0.0, changes, color="C0", lw=1)
    ax.plot(order, changes, ".", color="C0")
    ax.axhline(0.0, color="0.6", lw=0.8)
    for at in changes.abs().to_numpy().argsort()[::-1][:label]:
        value = float(changes.iloc[at])
        ax.annotate(
            literal(changes.index[at]), (at, value), xytext=(0, 4 if value > 0 else -4), textcoords="offset points",
            ha="center", va="bottom" if value > 0 else "top", fontsize="small",
        )  # fmt: skip
    ax.margins(y=0.15)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("cluster, in the order of the data")
    ax.set_ylabel(literal(f"change of {term} {unit}"))
    ax.set_title(literal(f"What leaving out one cluster does to {term}"), fontsize="medium")
    return ax
