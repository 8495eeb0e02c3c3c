"""Picture of causal effects (extra ``plots``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlmed.report.labels import literal
from mlmed.report.plots import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_effects"]

#: Effect, its row for the treated, its row for the control group.
LINES = (("ACME", "acme_treated", "acme_control"), ("ADE", "ade_treated", "ade_control"), ("Total effect", "total", ""))
APART = 0.12


def plot_effects(table: pd.DataFrame, *, title: str) -> Axes:
    """One line per effect from the top: treated filled, control open, intervals as bars; one mark where they agree.

    Parameters
    ----------
    table : DataFrame
        term, estimate, conf_low, conf_high.
    title : str
        What stands above.
    """
    ax = new_axes(6.0, 3.2)
    rows = {str(term): row for term, (_, row) in zip(table["term"], table.iterrows(), strict=True)}
    twofold = False
    for position, (_, treated, control) in enumerate(reversed(LINES)):
        both = bool(control) and not _same(rows[treated], rows[control])
        twofold = twofold or both
        _mark(ax, rows[treated], position + APART * both, face="C0")
        if both:
            _mark(ax, rows[control], position - APART, face="white")
    ax.axvline(0.0, color="0.6", lw=0.8)
    ax.set_yticks(range(len(LINES)), [name for name, *_ in reversed(LINES)])
    ax.set_ylim(-0.5, len(LINES) - 0.5)
    if twofold:
        ax.plot([], [], "o", color="C0", label="treated")
        ax.plot([], [], "o", color="C0", markerfacecolor="white", label="control")
        ax.legend(frameon=False, fontsize="small")
    ax.set_xlabel("effect on the expected outcome")
    ax.set_title(literal(title), fontsize="medium")
    return ax


def _same(left: pd.Series, right: pd.Series) -> bool:
    names = ["estimate", "conf_low", "conf_high"]
    return bool(np.allclose(left[names].astype(float), right[names].astype(float), equal_nan=True))


def _mark(ax: Axes, row: pd.Series, height: float, *, face: str) -> None:
    if np.isfinite(row["conf_low"]) and np.isfinite(row["conf_high"]):
        ax.plot([row["conf_low"], row["conf_high"]], [height, height], color="C0", lw=1.5, zorder=1)
    ax.plot([row["estimate"]], [height], "o", color="C0", markerfacecolor=face, zorder=2)
