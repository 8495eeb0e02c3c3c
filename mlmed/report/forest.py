"""Forest plot of several sources (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlmed.report.labels import literal, pyplot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_forest"]

COLOURS = {"published": "0.45", "fit": "C0"}


def plot_forest(rows: pd.DataFrame, *, terms: Sequence[str], sources: Sequence[str], level: float) -> Figure:
    """A panel per term; a line per source.

    Parameters
    ----------
    rows : DataFrame
        term, source, kind, estimate, std_error, conf_low, conf_high; the kind ``truth`` is drawn as a vertical line,
        ``published`` in grey. Without an interval there is only a point.
    terms, sources : sequences of str
        Panels, and lines from the top, in order.
    level : float
        Coverage of the intervals, for the caption.
    """
    shown = [name for name in sources if (rows.loc[rows["source"] == name, "kind"] != "truth").any()]
    columns = min(len(terms), 3)
    lines = -(-len(terms) // columns)
    size = (1.6 + 2.6 * columns, 0.6 + lines * (0.7 + 0.27 * len(shown)))
    figure, axes = pyplot().subplots(lines, columns, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for ax, term in zip(axes.ravel(), terms, strict=False):
        _panel(ax, rows[rows["term"] == term], shown, term)
    for ax in axes.ravel()[len(terms) :]:
        ax.set_visible(False)
    truth = " vertical line: truth;" if (rows["kind"] == "truth").any() else ""
    grey = " grey: published;" if (rows["kind"] == "published").any() else ""
    figure.suptitle(f"{100 * level:g}% intervals;{truth}{grey}".rstrip(";"), fontsize="small")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, sources: list[str], term: str) -> None:
    numbers = rows[["estimate", "conf_low", "conf_high"]].to_numpy(dtype=float)
    for (estimate, low, high), source, kind in zip(numbers, rows["source"], rows["kind"], strict=True):
        if kind == "truth":
            ax.axvline(estimate, color="C3", lw=1, zorder=0)
            continue
        at, colour = sources.index(source), COLOURS[kind]
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([low, high], [at, at], color=colour, lw=1.5)
        ax.plot([estimate], [at], "o", color=colour, ms=4)
    ax.axvline(0.0, color="0.8", lw=0.8, ls=":", zorder=0)
    ax.set_yticks(range(len(sources)), [literal(name) for name in sources], fontsize="small")
    ax.set_ylim(len(sources) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(axis="x", labelsize="small")
    ax.margins(x=0.08)
    ax.set_title(literal(term), fontsize="medium")
