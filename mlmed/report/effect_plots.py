"""Pictures of random effects and of correlations (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlmed.names import labelled
from mlmed.report.labels import MEDIUM, SMALL, literal, longest_line, put_caption, wrapped
from mlmed.report.plots import new_axes, new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_caterpillar", "plot_correlation_forest"]

#: Most clusters whose ids fit beside their lines.
LABELLED = 40
#: Caterpillar panels side by side, and the width of one in inches.
ACROSS, WIDTH = 3, 3.4
#: Letters of a line beside the axis of correlations, and in its legend; inches of the axis itself.
BESIDE, NARROW, AXIS = 50, 24, 4.0
COLOURS = {"between": "C0", "within": "C3"}


def plot_caterpillar(ranef: pd.DataFrame, *, level: float) -> list[Axes]:
    """A panel per effect: clusters by rank with their intervals, in colour where the interval leaves out 0.

    Parameters
    ----------
    ranef : DataFrame
        group_var, effect, group, estimate, conf_low, conf_high.
    level : float
        Coverage, for the caption.
    """
    effects, group = list(dict.fromkeys(ranef["effect"])), str(ranef["group_var"].iloc[0])
    J = int((ranef["effect"] == effects[0]).sum())
    labelled = J <= LABELLED
    height = 1.0 + 0.16 * J if labelled else 4.5
    axes = new_panels(len(effects), columns=ACROSS, width=WIDTH, height=height)
    for ax, effect in zip(axes, effects, strict=True):
        own = ranef[ranef["effect"] == effect].sort_values("estimate", kind="stable")
        rank = np.arange(J)
        colours = np.where((own["conf_low"] > 0.0) | (own["conf_high"] < 0.0), "C0", "0.65")
        ax.hlines(rank, own["conf_low"], own["conf_high"], colors=list(colours), lw=1.5 if labelled else 0.8)
        ax.plot(own["estimate"], rank, "o", color="k", ms=3.0 if labelled else 1.2, zorder=3)
        ax.axvline(0.0, color="0.4", lw=0.8, ls=":", zorder=0)
        names = [literal(name) for name in own["group"]] if labelled else []
        ax.set_yticks(rank if labelled else [], names, fontsize="x-small")
        ax.set_ylim(-1, J)
        ax.set_title(literal(wrapped(effect, int(MEDIUM * (WIDTH - 0.4)))), fontsize="medium")
    for ax in axes[:: min(len(effects), ACROSS)]:
        ax.set_ylabel(literal(wrapped(group if labelled else f"{group}, by rank", int(MEDIUM * (height - 1.0)))))
    put_caption(axes[0], f"difference from the population, {100 * level:g}% intervals")
    return axes


def plot_correlation_forest(table: pd.DataFrame, *, group: str, level: float) -> Axes:
    """A line per correlation from the top, between clusters first.

    Parameters
    ----------
    table : DataFrame
        part, equation1, equation2, term1, term2, estimate, conf_low, conf_high.
    group : str
        What the clusters are called.
    level : float
        Coverage, for the caption.
    """
    n, named = len(table), len({*table["equation1"], *table["equation2"]}) > 1
    labels = [wrapped(_pair(row, named=named), BESIDE) for row in table.to_dict("records")]
    kinds = list(dict.fromkeys(table["part"]))
    names = {"between": f"between {group}", "within": "within (residuals)"}
    legend = [wrapped(names[kind], NARROW) for kind in kinds] if len(kinds) > 1 else []
    row_height = 0.1 + 0.16 * max(label.count("\n") + 1 for label in labels)
    beside = longest_line(labels) / SMALL + (longest_line(legend) / SMALL + 0.6 if legend else 0.0)
    ax = new_axes(AXIS + beside, 1.3 + row_height * n)
    for kind in kinds:
        at = np.flatnonzero(table["part"] == kind)
        own = table.iloc[at]
        ax.hlines(at, own["conf_low"], own["conf_high"], color=COLOURS[kind], lw=1.5)
        ax.plot(own["estimate"], at, "o", color=COLOURS[kind], ms=4.5, label=names[kind])
    ax.axvline(0.0, color="0.6", lw=0.8, ls=":", zorder=0)
    ax.set_yticks(range(n), [literal(label) for label in labels], fontsize="small")
    ax.set_ylim(n - 0.5, -0.5)
    ax.set_xlim(-1.02, 1.02)
    ax.set_xlabel("correlation")
    put_caption(ax, f"Correlations {' and '.join(names[kind] for kind in kinds)}, {100 * level:g}% intervals")
    if legend:
        marks, shown = ax.get_legend_handles_labels()[0], [literal(line) for line in legend]
        ax.legend(marks, shown, frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _pair(row: Mapping[Hashable, str], *, named: bool) -> str:
    first, second = row["term1"], row["term2"]
    if row["part"] == "within":
        return f"{row['equation1']}, {row['equation2']}"
    owners = (row["equation1"], row["equation2"]) if named else ("", "")
    return ", ".join(map(labelled, owners, (first, second)))
