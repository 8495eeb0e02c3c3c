"""Densities of observed over simulated data (extra ``plots``); only the kernel densities are computed here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import EffectError
from mlmed.report.labels import MEDIUM, literal, put_caption, wrapped
from mlmed.report.plots import new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Panel", "plot_panels"]

Array = NDArray[np.float64]
#: Points of a density, and values above which they are counted in bins first.
POINTS, MANY, BINS = 200, 5000, 2000
#: How far beyond the data a density is drawn, as a share of their range.
MARGIN = 0.05
#: Panels side by side, and the size of one in inches.
ACROSS, WIDTH, HEIGHT = 3, 4.2, 3.4
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


def plot_panels(panels: Sequence[Panel], *, density: str, title: str) -> list[Axes]:
    """A panel per response: simulated sets as thin lines, the data as a thick one.

    Raises
    ------
    EffectError
        If there is nothing that a density could be drawn of.
    """
    for panel in panels:
        _refuse_flat(panel, density)
    axes = new_panels(len(panels), columns=ACROSS, width=WIDTH, height=HEIGHT)
    for ax, panel in zip(axes, panels, strict=True):
        log = density == "cluster-sd"
        _draw(ax, panel, log=log)
        label = LABELS[density].format(panel.name) + (" (log axis)" if log else "")
        ax.set_xlabel(literal(wrapped(label, int(MEDIUM * (WIDTH - 0.4)))))
        ax.set_yticks([])
        ax.set_ylim(bottom=0.0)
    for ax in axes[::ACROSS]:
        ax.set_ylabel("density")
    axes[0].legend(frameon=False, fontsize="small")
    put_caption(axes[0], title)
    return axes


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
        ax.plot(at, _density(values, grid), color="C0", lw=0.6, alpha=0.4)
    ax.plot([], [], color="C0", lw=1.2, label="simulated")  # one faint line would not be seen in the legend
    ax.plot(at, _density(sets[0], grid), color="k", lw=1.8, label="observed")
    ax.margins(x=0.0)
    if log:
        _log_axis(ax)


def _log_axis(ax: Axes) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, or evenly where there would be too few, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)) if high > 10.0 * low else MaxNLocator(5))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _density(values: Array, grid: Array) -> Array:
    """Gaussian kernel density with Scott's bandwidth; many values are binned first, finely against the bandwidth."""
    from scipy.stats import gaussian_kde

    if len(values) <= MANY:
        return np.asarray(gaussian_kde(values)(grid))
    counts, edges = np.histogram(values, bins=BINS)
    used = counts > 0
    centres = 0.5 * (edges[1:] + edges[:-1])
    kernel = gaussian_kde(centres[used], bw_method=len(values) ** -0.2, weights=counts[used])
    return np.asarray(kernel(grid))
