"""Lines: expected responses along a predictor, a design's power along its size, a study's errors along a covariance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.report.plots.axes import (
    FAINT,
    GREY,
    MAIN,
    MEDIUM,
    SMALL,
    Panels,
    across,
    along,
    intervals_of,
    legend_in,
    literal,
    longest_line,
    new_panels,
    one_panel,
    style_of,
    titled,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Most clusters with a colour and a label each.
NAMED = 8
#: The size of a panel in inches.
WIDTH, HEIGHT = 4.2, 3.6
#: Letters of levels that fit on an inch of axis, fewest letters of a line, most lines of a level.
ROOM, LEAST, LINES = 10, 10, 3
#: Letters of a line in a legend.
NARROW = 20
#: Half the width of a 95% Monte Carlo interval, in standard errors.
TWO = 1.96


def plot_curves(
    table: pd.DataFrame,
    *,
    variable: str,
    level: float,
    rows: pd.DataFrame | None = None,
    note: str = "",
    ax: Axes | Sequence[Axes] | None = None,
) -> list[Axes]:
    """A panel per response: the line with its band, or a mark with its bar per level.

    Parameters
    ----------
    table : DataFrame
        response, the variable, estimate, conf_low, conf_high.
    variable : str
        Variable on the horizontal axis.
    level : float
        Coverage, for the caption.
    rows : DataFrame, optional
        response, the variable, estimate: points of the data.
    note : str
        Second line of the caption.
    """
    panels, positions = _panels(ax, table, variable)
    for one, (response, part) in zip(panels.axes, table.groupby("response", sort=False), strict=True):
        if rows is not None:
            own = rows[rows["response"] == response]
            one.plot(
                positions(own[variable]), own["estimate"], ".", color="0.5", ms=3, alpha=_faint(len(own)), zorder=0
            )
        _band(one, positions, part[variable], part[["estimate", "conf_low", "conf_high"]])
    panels.caption(f"expected response, {intervals_of(level)}\n{note}")
    return panels.axes


def plot_lines(
    lines: pd.DataFrame,
    population: pd.DataFrame,
    *,
    variable: str,
    group: str,
    note: str = "",
    ax: Axes | Sequence[Axes] | None = None,
) -> list[Axes]:
    """A panel per response: a line per cluster, the population's on top.

    Parameters
    ----------
    lines : DataFrame
        response, the variable, estimate, with the cluster as index; rows sorted by cluster, at the values of
        ``population``.
    population : DataFrame
        response, the variable, estimate.
    variable, group : str
        Variable on the horizontal axis, and cluster variable.
    note : str
        Second line of the caption.
    """
    panels, positions = _panels(ax, population, variable)
    first = population["response"].iloc[0]
    points = int((population["response"] == first).sum())
    names = lines.index[lines["response"] == first].tolist()[::points]
    named = len(names) <= NAMED
    for one, (response, part) in zip(panels.axes, population.groupby("response", sort=False), strict=True):
        x = positions(part[variable])
        curves = lines.loc[lines["response"] == response, "estimate"].to_numpy().reshape(len(names), len(x))
        for k, curve in enumerate(curves if named else ()):
            one.plot(x, curve, lw=1.2, **style_of(k))
        if not named:
            one.plot(x, curves.T, lw=1, color=MAIN, alpha=_faint(len(names)))
        one.plot(x, part["estimate"], color="k", lw=2.5)
    if named:
        _name_lines(panels, group, [*map(str, names), "population"])
    count = f"{len(names)} cluster{'s' if len(names) > 1 else ''}"
    panels.caption(f"{count} ({group}), population in black\n{note}")
    return panels.axes


def _name_lines(panels: Panels, title: str, names: list[str]) -> None:
    """Draw the legend of all lines right of a row of panels, widening the figure.

    On axes of the user it stands where there is room. Lines have no labels of their own: matplotlib omits those that
    start with an underscore.
    """
    title, labels = wrapped(title, NARROW), [wrapped(name, NARROW, most=2) for name in names]
    ax = panels.axes[panels.columns - 1]
    place: dict[str, Any] = {"frameon": True, "framealpha": 0.8, "edgecolor": "none"}
    if panels.own:
        wider = max(longest_line(labels) / SMALL + 0.5, longest_line([title]) / MEDIUM)
        panels.figure.set_figwidth(panels.figure.get_figwidth() + wider)
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
    legend_in(ax, handles=ax.get_lines(), labels=[literal(label) for label in labels], title=literal(title), **place)


def plot_along(
    table: pd.DataFrame,
    column: pd.Series,
    *,
    variable: str,
    response: str,
    interval: str,
    level: float,
    note: str = "",
    ax: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Two panels, response and residual sd, over a predictor: lines with bands, or marks with bars for levels.

    Parameters
    ----------
    table : DataFrame
        estimate, conf_low, conf_high, sd, sd_conf_low, sd_conf_high.
    column : Series
        Values of the predictor.
    variable, response : str
        Labels.
    interval : str
        ``"confidence"`` or ``"prediction"``, for the title of the first panel.
    level : float
        Coverage, for the titles.
    note : str
        The caption.
    """
    panels = new_panels(ax, ["response", "residual sd"], width=WIDTH, height=HEIGHT)
    percent, positions = f"{100 * level:g}%", _Positions(column)
    shown = (
        (("estimate", "conf_low", "conf_high"), f"expected {response}", f"{percent} {interval} interval"),
        (("sd", "sd_conf_low", "sd_conf_high"), f"residual sd of {response}", f"{percent} confidence interval"),
    )
    for one, (columns, label, title) in zip(panels.axes, shown, strict=True):
        _band(one, positions, column, table[list(columns)])
        positions.label(one, variable)
        one.set_ylabel(literal(wrapped(label, along(one))))
        titled(one, title)
    if note:
        panels.caption(note)
    return panels.axes


def _band(ax: Axes, positions: _Positions, column: pd.Series, ends: pd.DataFrame) -> None:
    """Draw a line with its band, or marks with bars for levels of a factor; ``ends``: middle, lower, upper."""
    x, (middle, low, high) = positions(column), (ends.iloc[:, k] for k in range(3))
    if positions.levels:
        ax.vlines(x, low, high, color=MAIN, lw=1.5)
        ax.plot(x, middle, "o", color=MAIN)
    else:
        ax.fill_between(x, low, high, color=MAIN, alpha=0.25, lw=0)
        ax.plot(x, middle, color=MAIN, lw=2)


def _panels(ax: Axes | Sequence[Axes] | None, table: pd.DataFrame, variable: str) -> tuple[Panels, _Positions]:
    """Make a titled panel per response, and the positions of the variable's values."""
    responses = list(dict.fromkeys(table["response"]))
    panels = new_panels(ax, responses, width=WIDTH, height=HEIGHT)
    positions = _Positions(table[variable])
    for one, response in zip(panels.axes, responses, strict=True):
        titled(one, str(response))
        positions.label(one, variable)
    for one in panels.leftmost:
        one.set_ylabel("expected response")
    return panels, positions


class _Positions:
    """Positions of a variable's values: numbers themselves, levels of a factor at 0, 1, ..."""

    def __init__(self, column: pd.Series) -> None:
        self.levels = list(dict.fromkeys(map(str, column))) if _is_factor(column) else []

    def __call__(self, column: pd.Series) -> NDArray[np.float64]:
        """Positions of the values, (n,)."""
        if not self.levels:
            return column.to_numpy(dtype=np.float64)
        place = {name: float(k) for k, name in enumerate(self.levels)}
        return np.array([place.get(str(value), np.nan) for value in column])

    def label(self, ax: Axes, variable: str) -> None:
        """Label the axis with the variable, and the levels of a factor at their positions."""
        ax.set_xlabel(literal(wrapped(variable, across(ax))))
        if self.levels:
            self._label_levels(ax)
            ax.margins(x=0.1)

    def _label_levels(self, ax: Axes) -> None:
        """Label levels on one line if there is room, on several if they are few, otherwise rotated."""
        room = int(ROOM * across(ax) / MEDIUM)
        share = room // len(self.levels)
        one_line = sum(map(len, self.levels)) <= room
        aslant = not one_line and share < LEAST
        width = max(share, 2 * LEAST * aslant)
        shown = self.levels if one_line else [wrapped(name, width, most=LINES) for name in self.levels]
        ax.set_xticks(range(len(shown)), [literal(name) for name in shown], fontsize="small")
        for text in ax.get_xticklabels() if aslant else ():
            text.set(rotation=35, ha="right", rotation_mode="anchor")


def _is_factor(column: pd.Series) -> bool:
    return not pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_bool_dtype(column.dtype)


def _faint(n: int) -> float:
    """Opacity at which n overlapping marks still show their density."""
    return float(np.clip(30.0 / n**0.75, 0.1, 0.6))


# -- simulated designs -----------------------------------------------------------------------------------------------


def plot_power(table: pd.DataFrame, *, term: str, value: str, title: str, ax: Axes | None = None) -> Axes:
    """Power or coverage against the number of clusters, one line per cluster size.

    Parameters
    ----------
    table : DataFrame
        n_clusters, cluster_size, the value and its ``_mcse``.
    term, value, title : str
        Tested term, ``"power"`` or ``"coverage"``, and the caption.
    """
    ax = one_panel(ax)
    for k, (size, rows) in enumerate(table.groupby("cluster_size")):
        ordered = rows.sort_values("n_clusters")
        ax.errorbar(
            ordered["n_clusters"], ordered[value], TWO * ordered[f"{value}_mcse"], marker="os^D"[k % 4], capsize=3,
            label=f"{size} rows a cluster", **style_of(k),
        )  # fmt: skip
    if value == "power":
        ax.axhline(0.8, color=FAINT, lw=1, ls="--")
        ax.set_ylim(0.0, 1.03)
    ax.set_xticks(sorted(table["n_clusters"].unique()))
    ax.set_xlabel("clusters")
    ax.set_ylabel(f"{value} of {term}")
    titled(ax, title)
    legend_in(ax)
    return ax


def plot_study(table: pd.DataFrame, *, value: str, level: float, title: str, ax: Axes | None = None) -> Axes:
    """Bias, spread, error or coverage against cov(a_j, b_j), one line per estimator.

    Parameters
    ----------
    table : DataFrame
        estimator, cov_ab, the value and its ``_mcse``.
    value : str
        Column to draw.
    level : float
        Nominal coverage.
    title : str
        The caption.
    """
    ax = one_panel(ax)
    estimators = list(table["estimator"].unique())
    known = np.sort(table["cov_ab"].unique())
    apart = 0.006 * float(np.ptp(known)) if len(known) > 1 else 0.002  # keeps markers from overlapping
    if value == "bias":
        ax.plot(known, -known, color=GREY, ls=":", label="-cov($a_j$, $b_j$)", zorder=0)
        ax.axhline(0.0, color=FAINT, lw=1, zorder=0)
    if value == "coverage":
        ax.axhline(level, color=GREY, ls=":", zorder=0)
    for k, estimator in enumerate(estimators):
        rows = table[table["estimator"] == estimator].sort_values("cov_ab")
        shift = apart * (k - 0.5 * (len(estimators) - 1))
        ax.errorbar(
            rows["cov_ab"] + shift, rows[value], TWO * rows[f"{value}_mcse"], marker="os^D"[k % 4], ms=5, capsize=3,
            label=estimator, **style_of(k),
        )  # fmt: skip
    ax.set_xlabel("cov($a_j$, $b_j$)")
    ax.set_ylabel(f"{value} of the indirect effect")
    titled(ax, title)
    legend_in(ax)
    return ax
