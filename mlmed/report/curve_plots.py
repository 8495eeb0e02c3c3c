"""Pictures of expected responses along one predictor (extra ``plots``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.report.labels import MEDIUM, SMALL, figure_of, literal, longest_line, put_caption, wrapped
from mlmed.report.plots import new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Positions", "draw_band", "plot_curves", "plot_lines"]

#: Most clusters that get a colour and a name each.
NAMED = 8
#: Panels side by side, and the size of one in inches.
ACROSS, WIDTH, HEIGHT = 3, 4.2, 3.6
#: Letters of all levels that fit side by side under a panel, the fewest of a line, and the most lines of one level.
ROOM, LEAST, LINES = 34, 10, 3
#: Letters of a line in the legend.
NARROW = 20


def plot_curves(
    table: pd.DataFrame, *, variable: str, level: float, rows: pd.DataFrame | None = None, note: str = ""
) -> list[Axes]:
    """A panel per response: the line with its band, or a mark with its bar per level.

    Parameters
    ----------
    table : DataFrame
        response, the variable, estimate, conf_low, conf_high.
    variable : str
        What is on the horizontal axis.
    level : float
        Coverage, for the caption.
    rows : DataFrame, optional
        response, the variable, estimate: points of the data.
    note : str
        Second line of the caption.
    """
    axes, positions = _panels(table, variable)
    for ax, (response, part) in zip(axes, table.groupby("response", sort=False), strict=True):
        if rows is not None:
            own = rows[rows["response"] == response]
            ax.plot(positions(own[variable]), own["estimate"], ".", color="0.5", ms=3, alpha=_faint(len(own)), zorder=0)
        draw_band(ax, positions, part[variable], part[["estimate", "conf_low", "conf_high"]])
    put_caption(axes[0], f"expected response, {100 * level:g}% intervals\n{note}")
    return axes


def plot_lines(
    lines: pd.DataFrame, population: pd.DataFrame, *, variable: str, group: str, note: str = ""
) -> list[Axes]:
    """A panel per response: a line per cluster, the population's on top.

    Parameters
    ----------
    lines : DataFrame
        response, the variable, estimate, and the cluster as index; the rows of a cluster side by side, at the values of
        ``population``.
    population : DataFrame
        response, the variable, estimate.
    variable, group : str
        What is on the horizontal axis, and what the clusters are called.
    note : str
        Second line of the caption.
    """
    axes, positions = _panels(population, variable)
    first = population["response"].iloc[0]
    points = int((population["response"] == first).sum())
    names = lines.index[lines["response"] == first].tolist()[::points]
    named = len(names) <= NAMED
    for ax, (response, part) in zip(axes, population.groupby("response", sort=False), strict=True):
        x = positions(part[variable])
        curves = lines.loc[lines["response"] == response, "estimate"].to_numpy().reshape(len(names), len(x))
        for k, curve in enumerate(curves if named else ()):
            ax.plot(x, curve, lw=1, color=f"C{k + 1}")
        if not named:
            ax.plot(x, curves.T, lw=1, color="C0", alpha=_faint(len(names)))
        ax.plot(x, part["estimate"], color="k", lw=2.5)
    if named:
        _legend_beside(axes[min(len(axes), ACROSS) - 1], group, [*map(str, names), "population"])
    count = f"{len(names)} cluster{'s' if len(names) > 1 else ''}"
    put_caption(axes[0], f"{count} ({group}), population in black\n{note}")
    return axes


def _legend_beside(ax: Axes, title: str, names: list[str]) -> None:
    """The legend of all lines at the right end of a row of panels, and as much more width as it takes.

    A line has no label of its own: matplotlib would leave out those whose name starts with an underscore.
    """
    title, labels = wrapped(title, NARROW), [wrapped(name, NARROW, most=2) for name in names]
    figure = figure_of(ax)
    figure.set_figwidth(figure.get_figwidth() + max(longest_line(labels) / SMALL + 0.5, longest_line([title]) / MEDIUM))
    ax.legend(
        ax.get_lines(), [literal(label) for label in labels], frameon=False, fontsize="small", title=literal(title),
        loc="upper left", bbox_to_anchor=(1.0, 1.0),
    )  # fmt: skip


def draw_band(ax: Axes, positions: Positions, column: pd.Series, ends: pd.DataFrame) -> None:
    """A line with its band, or for the levels of a factor marks with bars; ``ends``: middle, lower, upper."""
    x, (middle, low, high) = positions(column), (ends.iloc[:, k] for k in range(3))
    if positions.levels:
        ax.vlines(x, low, high, color="C0", lw=1.5)
        ax.plot(x, middle, "o", color="C0")
    else:
        ax.fill_between(x, low, high, color="C0", alpha=0.25, lw=0)
        ax.plot(x, middle, color="C0", lw=2)


def _panels(table: pd.DataFrame, variable: str) -> tuple[list[Axes], Positions]:
    """A titled panel per response, and what puts values of the variable on the axis."""
    responses = list(dict.fromkeys(table["response"]))
    axes = new_panels(len(responses), columns=ACROSS, width=WIDTH, height=HEIGHT)
    positions = Positions(table[variable])
    for ax, response in zip(axes, responses, strict=True):
        ax.set_title(literal(wrapped(response, int(MEDIUM * (WIDTH - 0.8)))), fontsize="medium")
        positions.label(ax, variable)
    for ax in axes[::ACROSS]:
        ax.set_ylabel("expected response")
    return axes, positions


class Positions:
    """Where values of a variable stand: numbers as they are, levels of a factor at 0, 1, ..."""

    def __init__(self, column: pd.Series) -> None:
        self.levels = list(dict.fromkeys(map(str, column))) if _is_factor(column) else []

    def __call__(self, column: pd.Series) -> NDArray[np.float64]:
        """Positions of the values, (n,)."""
        if not self.levels:
            return column.to_numpy(dtype=np.float64)
        place = {name: float(k) for k, name in enumerate(self.levels)}
        return np.array([place.get(str(value), np.nan) for value in column])

    def label(self, ax: Axes, variable: str) -> None:
        """The name of the variable, and the levels of a factor where they stand."""
        ax.set_xlabel(literal(wrapped(variable, int(MEDIUM * (WIDTH - 0.8)))))
        if self.levels:
            self._label_levels(ax)
            ax.margins(x=0.1)

    def _label_levels(self, ax: Axes) -> None:
        """On one line if there is room, on several if they are few, otherwise aslant."""
        share = ROOM // len(self.levels)
        one_line = sum(map(len, self.levels)) <= ROOM
        aslant = not one_line and share < LEAST
        shown = (
            self.levels
            if one_line
            else [wrapped(name, max(share, 2 * LEAST * aslant), most=LINES) for name in self.levels]
        )
        ax.set_xticks(range(len(shown)), [literal(name) for name in shown], fontsize="small")
        for text in ax.get_xticklabels() if aslant else ():
            text.set(rotation=35, ha="right", rotation_mode="anchor")


def _is_factor(column: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)


def _faint(n: int) -> float:
    """Opacity at which n marks on top of each other still show a density."""
    return float(np.clip(12.0 / n**0.75, 0.06, 0.6))
