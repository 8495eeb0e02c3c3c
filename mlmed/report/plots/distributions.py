"""Distributions: observed over simulated data, residuals, draws; only the kernel densities are computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.errors import EffectError
from mlmed.report.plots.axes import ACCENT, MAIN, across, legend_in, literal, new_panels, one_panel, titled, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = NDArray[np.float64]
#: Points of a density, and number of values above which they are binned first.
POINTS, MANY, BINS = 200, 5000, 2000
#: Margin of a density beyond the data, as a share of their range.
MARGIN = 0.05
#: The size of a panel in inches.
WIDTH, HEIGHT = 4.2, 3.4
LABELS = {"value": "{}", "cluster-mean": "mean of {} in a cluster", "cluster-sd": "sd of {} in a cluster"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One response.

    Attributes
    ----------
    name : str
        The response.
    observed : (n,) array
        Its values, or those of its clusters.
    simulated : tuple of arrays
        The same of every simulated set.
    """

    name: str
    observed: Array
    simulated: tuple[Array, ...]


def plot_densities(
    shown: Sequence[Panel], *, density: str, title: str, ax: Axes | Sequence[Axes] | None = None
) -> list[Axes]:
    """A panel per response: simulated sets as thin lines, the data as a thick one.

    Parameters
    ----------
    shown : sequence of Panel
        One per response.
    density : {"value", "cluster-mean", "cluster-sd"}
        What the density is of.
    title : str
        The caption.

    Raises
    ------
    EffectError
        Fewer than 3 values, or values that do not differ.
    """
    for own in shown:
        _refuse_flat(own, density)
    panels = new_panels(ax, [own.name for own in shown], width=WIDTH, height=HEIGHT)
    for one, own in zip(panels.axes, shown, strict=True):
        log = density == "cluster-sd"
        _draw(one, own, log=log)
        label = LABELS[density].format(own.name) + (" (log axis)" if log else "")
        _label(one, label)
    for one in panels.leftmost:
        one.set_ylabel("density")
    legend_in(panels.first)
    panels.caption(title)
    return panels.axes


def plot_residuals(
    residuals: Mapping[str, Array], *, title: str, ax: Axes | Sequence[Axes] | None = None
) -> list[Axes]:
    """A panel per response: the density of its residuals over the normal one of the same standard deviation.

    Parameters
    ----------
    residuals : mapping of str to (n,) array
        By response.
    title : str
        The caption.

    Raises
    ------
    EffectError
        Fewer than 3 residuals, or residuals that do not differ.
    """
    for name, values in residuals.items():
        if len(values) < 3 or not np.ptp(values) > 0.0:
            raise EffectError(f"{len(values)} residuals of {name} that do not differ (or fewer than 3) have no density")
    panels = new_panels(ax, list(residuals), width=WIDTH, height=HEIGHT)
    for one, (name, values) in zip(panels.axes, residuals.items(), strict=True):
        sd = float(np.sqrt(np.mean(values**2)))
        reach = (1.0 + MARGIN) * max(4.0 * sd, float(np.abs(values).max()))
        grid = np.linspace(-reach, reach, POINTS)
        height = np.exp(-0.5 * (grid / sd) ** 2) / (sd * np.sqrt(2.0 * np.pi))
        one.plot(grid, height, color=MAIN, lw=1.2, ls="--", label=f"normal, sd {sd:.3g}")
        one.plot(grid, _density(values, grid), color="k", lw=1.8, label="residuals")
        one.margins(x=0.0)
        one.set_ylim(top=1.25 * one.get_ylim()[1])
        _label(one, f"residual of {name}")
        legend_in(one, loc="upper left")
    for one in panels.leftmost:
        one.set_ylabel("density")
    panels.caption(title)
    return panels.axes


def plot_draws(
    draws: pd.Series, *, estimate: float, low: float, high: float, title: str, ax: Axes | None = None
) -> Axes:
    """Histogram of draws with the estimate and the interval.

    Parameters
    ----------
    draws : Series
        Missing ones are left out.
    estimate, low, high : float
        The estimate, and the ends of the interval.
    title : str
        The caption.
    """
    ax = one_panel(ax)
    kept = draws.dropna()
    ax.hist(kept, bins="auto", color=MAIN, alpha=0.6)
    ax.axvline(estimate, color="k", lw=1, label=f"estimate {estimate:.4g}")
    if np.isfinite(low) and np.isfinite(high):
        ax.axvspan(low, high, color=ACCENT, alpha=0.12, label=f"interval {low:.4g} to {high:.4g}")
    ax.set_xlabel(literal(wrapped(str(draws.name), across(ax))))
    ax.set_ylabel("draws")
    titled(ax, title)
    legend_in(ax)
    return ax


def _label(ax: Axes, label: str) -> None:
    ax.set_xlabel(literal(wrapped(label, across(ax))))
    ax.set_yticks([])
    ax.set_ylim(bottom=0.0)


def _refuse_flat(panel: Panel, density: str) -> None:
    values = panel.observed
    if len(values) < 3 or np.ptp(values) <= 1e-9 * np.abs(values).max():
        what = LABELS[density].format(panel.name)
        raise EffectError(
            f"{len(values)} values of the {what} that do not differ (or fewer than 3) have no density to draw; "
            "use another density, or predictive_check()"
        )


def _draw(ax: Axes, panel: Panel, *, log: bool) -> None:
    sets = [np.log(values) if log else values for values in (panel.observed, *panel.simulated)]
    low, high = min(values.min() for values in sets), max(values.max() for values in sets)
    margin = MARGIN * (high - low)
    grid = np.linspace(low - margin, high + margin, POINTS)
    at = np.exp(grid) if log else grid
    for values in sets[1:]:
        ax.plot(at, _density(values, grid), color=MAIN, lw=0.6, alpha=0.4)
    ax.plot([], [], color=MAIN, lw=1.2, label="simulated")  # a faint line would not show in the legend
    ax.plot(at, _density(sets[0], grid), color="k", lw=1.8, label="observed")
    ax.margins(x=0.0)
    if log:
        _log_axis(ax)


def _log_axis(ax: Axes) -> None:
    """Set ticks at 1, 2 and 5 times powers of ten, or evenly if too few, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high > 10.0 * low else MaxNLocator(5))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _density(values: Array, grid: Array) -> Array:
    """Gaussian kernel density with Scott's bandwidth; many values are binned first, finer than the bandwidth."""
    from scipy.stats import gaussian_kde

    if len(values) <= MANY:
        return np.asarray(gaussian_kde(values)(grid))
    counts, edges = np.histogram(values, bins=BINS)
    used = counts > 0
    centres = 0.5 * (edges[1:] + edges[:-1])
    kernel = gaussian_kde(centres[used], bw_method=len(values) ** -0.2, weights=counts[used])
    return np.asarray(kernel(grid))
