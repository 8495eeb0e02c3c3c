"""Pictures of sensitivity analyses (extra ``plots``): over rho, and over the shares of variance behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.report.plots.axes import ACCENT, DARK, MAIN, legend_in, one_panel, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_over_r2", "plot_over_rho"]

Array = NDArray[np.float64]
#: Correlations beyond this are left out of the plane of R^2, where the effect may run off to infinity.
FARTHEST = 0.95


def plot_over_rho(rows: pd.DataFrame, *, term: str, zero: float, level: float, ax: Axes | None = None) -> Axes:
    """The effect with its band over rho; the estimate at rho = 0 and the zero of the curve are marked.

    ``rows`` are those of one term: rho, estimate, conf_low, conf_high; ``ax`` is where to draw.
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
        The effect at correlations, (R,) to (R,).
    term : str
        Its name.
    left : (float, float)
        1 - R^2 of mediator and outcome: what is left to explain.
    total : bool
        Shares of the whole variance rather than of what is left.
    negative : bool
        The omitted cause moves the two in opposite directions.
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
    """Round values that the effect takes for rho from .1 to .9; zero is left to its own line."""
    from matplotlib.ticker import MaxNLocator

    inner = values[(nodes >= 0.1) & (nodes <= 0.9)]
    ticks = np.asarray(MaxNLocator(8).tick_values(float(inner.min()), float(inner.max())))
    return ticks[(ticks > inner.min()) & (ticks < inner.max()) & (np.abs(ticks) > 1e-9 * np.abs(ticks).max())]
