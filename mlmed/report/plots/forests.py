"""Forests: an interval per effect, per cluster, per correlation, per method."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlmed.names import labelled
from mlmed.report.plots.axes import (
    ACCENT,
    DARK,
    GREY,
    MAIN,
    SMALL,
    across,
    along,
    intervals_of,
    legend_in,
    literal,
    longest_line,
    new_panels,
    one_panel,
    titled,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: Most clusters with ids beside their lines, and inches of each.
LABELLED, HIGH = 40, 0.085
#: The width of a caterpillar in inches.
WIDTH = 3.4
#: Letters of a line beside the axis of correlations, and in its legend; inches of the axis itself.
BESIDE, NARROW, AXIS = 50, 24, 4.0
PARTS = {"between": MAIN, "within": ACCENT}
SOURCES = {"published": "0.45", "fit": MAIN}
#: Distance of the two marks of one line.
APART = 0.12


# -- effects ---------------------------------------------------------------------------------------------------------


def plot_effects(
    table: pd.DataFrame,
    *,
    lines: Sequence[tuple[str, str, str]],
    title: str,
    label: str = "effect",
    null: float = 0.0,
    ax: Axes | None = None,
) -> Axes:
    """One line per effect from the top, with its interval as a bar; grey without an interval.

    Parameters
    ----------
    table : DataFrame
        term, estimate, conf_low, conf_high.
    lines : sequence of (str, str, str)
        Label, term, and term of the control group or "". With one, the treated have filled marks and controls open ones
        beside them, unless both are equal.
    title, label : str
        The caption, and the label of the axis.
    null : float
        Value of no effect, drawn as a line.
    """
    ax = one_panel(ax, 6.0, 1.7 + 0.5 * len(lines))
    rows = {str(row["term"]): row for row in table.to_dict("records")}
    twofold = False
    for position, (_, treated, control) in enumerate(reversed(lines)):
        both = bool(control) and not _same(rows[treated], rows[control])
        twofold = twofold or both
        _mark(ax, rows[treated], position + APART * both)
        if both:
            _mark(ax, rows[control], position - APART, face="white")
    ax.axvline(null, color=GREY, lw=0.8)
    ax.set_yticks(range(len(lines)), [literal(name) for name, *_ in reversed(lines)])
    ax.set_ylim(-0.5, len(lines) - 0.5)
    if twofold:
        ax.plot([], [], "o", color=MAIN, label="treated")
        ax.plot([], [], "o", color=MAIN, markerfacecolor="white", label="control")
        legend_in(ax)
    ax.set_xlabel(label)
    titled(ax, title)
    return ax


def _same(left: Mapping[Hashable, float], right: Mapping[Hashable, float]) -> bool:
    names = ("estimate", "conf_low", "conf_high")
    first, second = ([float(row[name]) for name in names] for row in (left, right))
    return bool(np.allclose(first, second, equal_nan=True))


def _mark(ax: Axes, row: Mapping[Hashable, float], height: float, *, face: str = "") -> None:
    known = bool(np.isfinite(row["conf_low"]) and np.isfinite(row["conf_high"]))
    if known:
        ax.plot([row["conf_low"], row["conf_high"]], [height, height], color=MAIN, lw=1.5, zorder=1)
    colour = MAIN if known else GREY
    ax.plot([row["estimate"]], [height], "o", color=colour, markerfacecolor=face or colour, zorder=2)


# -- clusters --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ranked:
    """An effect of the clusters.

    Attributes
    ----------
    name : str
        The random effect.
    table : DataFrame
        group, estimate, conf_low, conf_high.
    label : str
        Label of the axis; empty for differences from the population.
    centre : float
        The population's value.
    """

    name: str
    table: pd.DataFrame
    label: str = ""
    centre: float = 0.0


def plot_caterpillars(
    effects: Sequence[Ranked], *, group: str, level: float, ax: Axes | Sequence[Axes] | None = None
) -> list[Axes]:
    """A panel per effect: clusters by rank with intervals, coloured if these exclude the population.

    Parameters
    ----------
    effects : sequence of Ranked
        The effects.
    group : str
        Name of the cluster variable.
    level : float
        Coverage, for the caption.
    """
    J = len(effects[0].table)
    height = 1.0 + 0.16 * J if J <= LABELLED else 4.5
    panels = new_panels(ax, [one.name for one in effects], width=WIDTH, height=height)
    for one, effect in zip(panels.axes, effects, strict=True):
        named = J <= LABELLED and one.get_window_extent().height / one.figure.dpi >= HIGH * J
        _caterpillar(one, effect, named=named)
        if one in panels.leftmost:
            one.set_ylabel(literal(wrapped(group if named else f"{group}, by rank", along(one))))
    plain = not any(one.label for one in effects)
    what = "difference from population" if plain else f"{J} clusters, line: population"
    panels.caption(f"{what}, {intervals_of(level)}")
    return panels.axes


def _caterpillar(ax: Axes, effect: Ranked, *, named: bool) -> None:
    own, rank = effect.table.sort_values("estimate", kind="stable"), np.arange(len(effect.table))
    apart = (own["conf_low"] > effect.centre) | (own["conf_high"] < effect.centre)
    colours = list(np.where(apart, MAIN, "0.65"))
    ax.hlines(rank, own["conf_low"], own["conf_high"], colors=colours, lw=1.5 if named else 0.8)
    ax.plot(own["estimate"], rank, "o", color="k", ms=3.0 if named else 1.2, zorder=3)
    ax.axvline(effect.centre, color=ACCENT if effect.centre else DARK, lw=0.8, ls=":", zorder=0)
    ax.set_yticks(rank if named else [], [literal(name) for name in own["group"]] if named else [], fontsize="x-small")
    ax.set_ylim(-1, len(own))
    if effect.label:
        centre = f" (population {effect.centre:.3g})" if effect.centre else ""
        ax.set_xlabel(literal(wrapped(f"{effect.label}{centre}", across(ax))))
    titled(ax, effect.name)


# -- correlations ----------------------------------------------------------------------------------------------------


def plot_correlations(table: pd.DataFrame, *, group: str, level: float, ax: Axes | None = None) -> Axes:
    """A line per correlation from the top, between clusters first.

    Parameters
    ----------
    table : DataFrame
        part, equation1, equation2, term1, term2, estimate, conf_low, conf_high.
    group : str
        Name of the cluster variable.
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
    panels = new_panels(ax, ["correlations"], width=AXIS + beside, height=1.3 + row_height * n)
    ax = panels.first
    for kind in kinds:
        at = np.flatnonzero(table["part"] == kind)
        own = table.iloc[at]
        ax.hlines(at, own["conf_low"], own["conf_high"], color=PARTS[kind], lw=1.5)
        ax.plot(own["estimate"], at, "os"[kind == "within"], color=PARTS[kind], ms=4.5, label=names[kind])
    ax.axvline(0.0, color=GREY, lw=0.8, ls=":", zorder=0)
    ax.set_yticks(range(n), [literal(label) for label in labels], fontsize="small")
    ax.set_ylim(n - 0.5, -0.5)
    ax.set_xlim(-1.02, 1.02)
    ax.set_xlabel("correlation")
    panels.caption(f"Correlations {' and '.join(names[kind] for kind in kinds)}, {intervals_of(level)}")
    if legend:
        marks, place = ax.get_legend_handles_labels()[0], {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        legend_in(ax, handles=marks, labels=list(map(literal, legend)), **(place if panels.own else {}))
    return ax


def _pair(row: Mapping[Hashable, str], *, named: bool) -> str:
    first, second = row["term1"], row["term2"]
    if row["part"] == "within":
        return f"{row['equation1']}, {row['equation2']}"
    owners = (row["equation1"], row["equation2"]) if named else ("", "")
    return ", ".join(map(labelled, owners, (first, second)))


# -- methods ---------------------------------------------------------------------------------------------------------


def plot_comparison(
    rows: pd.DataFrame,
    *,
    terms: Sequence[str],
    sources: Sequence[str],
    level: float,
    ax: Axes | Sequence[Axes] | None = None,
) -> list[Axes]:
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
    labels = [wrapped(name, BESIDE) for name in shown]
    beside = longest_line(labels) / SMALL / min(len(terms), 3)
    panels = new_panels(ax, terms, width=2.4 + beside, height=0.9 + 0.27 * len(shown), sharey=True)
    for one, term in zip(panels.axes, terms, strict=True):
        _panel(one, rows[rows["term"] == term], shown)
        titled(one, term)
        if one in panels.leftmost:
            one.set_yticks(range(len(shown)), list(map(literal, labels)), fontsize="small")
        elif not panels.own:
            one.set_yticks([])
    truth = " vertical line: truth;" if (rows["kind"] == "truth").any() else ""
    grey = " grey: published;" if (rows["kind"] == "published").any() else ""
    panels.caption(f"{intervals_of(level)};{truth}{grey}".rstrip(";"))
    return panels.axes


def _panel(ax: Axes, rows: pd.DataFrame, sources: list[str]) -> None:
    numbers = rows[["estimate", "conf_low", "conf_high"]].to_numpy(dtype=float)
    for (estimate, low, high), source, kind in zip(numbers, rows["source"], rows["kind"], strict=True):
        if kind == "truth":
            ax.axvline(estimate, color=ACCENT, lw=1, zorder=0)
            continue
        at, colour = sources.index(source), SOURCES[kind]
        if np.isfinite(low) and np.isfinite(high):
            ax.plot([low, high], [at, at], color=colour, lw=1.5)
        ax.plot([estimate], [at], "o", color=colour, ms=4)
    ax.axvline(0.0, color="0.8", lw=0.8, ls=":", zorder=0)
    ax.set_ylim(len(sources) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=5)
    ax.tick_params(axis="x", labelsize="small")
    ax.margins(x=0.08)
