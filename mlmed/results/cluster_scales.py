"""Data for pictures of location-scale models: clusters on the scale of the response or its sd, lines of new rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.layout import INTERCEPT
from mlmed.errors import EffectError
from mlmed.fit.names import shown_clusters
from mlmed.fit.quadrature import QuadratureFit
from mlmed.intervals.sdcor import sdcor_of
from mlmed.options import check_level, check_text
from mlmed.quadrature.posterior import NewColumns
from mlmed.results.newdata import rows_along, spaced
from mlmed.results.prediction import scale_values
from mlmed.results.tables import ranef_table, root_table
from mlmed.text import listed, shorten

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A random effect and how it is shown.

    Attributes
    ----------
    name : str
        As in ``ranef()``.
    at : int
        Its position among the random effects (u, t).
    label : str
        Axis label of the values.
    centre : float
        The population's value.
    """

    name: str
    at: int
    label: str
    centre: float


@dataclass(frozen=True, slots=True)
class Scatter:
    """Data for ``plot_scatter``.

    Attributes
    ----------
    table, line : DataFrame
        location, sd: of the clusters, and along the line of the model; the line is empty without a correlation.
    labels : (str, str)
        Labels of the axes.
    title : str
        The correlation with its interval.
    """

    table: pd.DataFrame
    line: pd.DataFrame
    labels: tuple[str, str]
    title: str


def chosen_effect(fit: QuadratureFit, name: str) -> Chosen:
    """Find an effect by name.

    Raises
    ------
    EffectError
        Unknown name.
    """
    names, q = fit.random_names, fit.problem.structure.q
    if check_text(name, "an effect", "a random effect") not in names:
        raise EffectError(f"there is no random effect {name!r}; there are {shorten(names, 20)}")
    at = names.index(name)
    if at < q:
        return Chosen(name, at, f"{name}, difference from the population", 0.0)
    own = fit.rows.scale.random_names[at - q]
    centre = float(np.exp(_fixed_part(fit, own) @ fit.estimates.tau))
    where = " where scale predictors are 0" if len(fit.rows.scale.fixed_names) > 1 else ""
    label = f"residual sd{where}" if own == INTERCEPT else f"factor of the residual sd per unit of {own}"
    return Chosen(name, at, label, centre)


def _fixed_part(fit: QuadratureFit, name: str) -> Array:
    """Unit vector (k,) of the scale's fixed effect with this name; all 0 if there is none."""
    return np.array([float(fixed == name) for fixed in fit.rows.scale.fixed_names])


def cluster_table(fit: QuadratureFit, chosen: Chosen, *, level: float) -> pd.DataFrame:
    """group, estimate, conf_low, conf_high: location effects as in ``ranef``, scale effects as sds or factors."""
    level = check_level(level)
    J, q, d = fit.problem.J, fit.problem.structure.q, fit.problem.structure.d
    if chosen.at < q:
        own = ranef_table(fit, level=level).iloc[chosen.at * J : (chosen.at + 1) * J]
        return own[["group", "estimate", "conf_low", "conf_high"]].reset_index(drop=True)
    W = np.tile(_fixed_part(fit, fit.rows.scale.random_names[chosen.at - q]), (J, 1))
    V = np.tile(np.eye(d)[chosen.at - q], (J, 1))
    found = scale_values(
        fit, NewColumns(np.zeros((J, fit.problem.p)), np.zeros((J, q)), W, V, np.arange(J)), level=level
    )
    shown = found[["sd", "sd_conf_low", "sd_conf_high"]].set_axis(["estimate", "conf_low", "conf_high"], axis=1)
    shown.insert(0, "group", shown_clusters(fit.clusters))
    return shown


def scatter_data(fit: QuadratureFit, location: str | None, scale: str | None) -> Scatter:
    """Location effect and sd of every cluster, with the regression line that G implies.

    Raises
    ------
    EffectError
        An effect is unknown, or one of the two parts has none.
    """
    names, q, d = fit.random_names, fit.problem.structure.q, fit.problem.structure.d
    if not (q and d):
        missing = "the scale" if q else "the location"
        raise EffectError(f"{missing} has no random effects, so its clusters do not differ; use plot.ranef()")
    x = chosen_effect(fit, names[0] if location is None else location)
    y = chosen_effect(fit, names[q] if scale is None else scale)
    if x.at >= q or y.at < q:
        raise EffectError(
            f"location= takes an effect of the location and scale= one of the scale; found {x.name!r} and {y.name!r}"
        )
    table = pd.DataFrame({"location": fit.posterior.mean[:, x.at]})
    table["sd"] = cluster_table(fit, y, level=0.95)["estimate"]
    G, term = fit.estimates.G, f"cor({x.name},{y.name})"
    line = pd.DataFrame({"location": [], "sd": []}, dtype=float)
    if term not in sdcor_of(fit):
        return Scatter(table, line, (x.label, y.label), "independent: the terms have no label in common")
    if G[x.at, x.at] > 0.0:
        grid = np.linspace(table["location"].min(), table["location"].max(), 100)
        line = pd.DataFrame({"location": grid, "sd": y.centre * np.exp(G[y.at, x.at] / G[x.at, x.at] * grid)})
    row = root_table(fit, vcov=fit.usual, level=0.95).set_index("term").loc[term]
    limits = "" if np.isnan(row["conf_low"]) else f" ({row['conf_low']:.2f} to {row['conf_high']:.2f})"
    return Scatter(table, line, (x.label, y.label), f"{term} = {row['estimate']:.2f}{limits}")


def scale_line(fit: QuadratureFit, variable: str, *, at: Mapping[str, Any] | None, points: Any) -> pd.DataFrame:
    """Make rows that differ in one predictor, over its range or levels; others are typical or held by ``at``.

    Raises
    ------
    EffectError
        Neither formula has the predictor, ``at`` names no predictor, or gives one no single value.
    """
    layouts = fit.rows.scale.layout, fit.rows.location.layout
    known = {name for layout in layouts for name in layout.typical}
    if check_text(variable, "variable", "a predictor") not in known:
        raise EffectError(f"neither formula has the predictor {variable!r}; there are {listed(known)}")
    table = fit.rows.table
    return rows_along(layouts, variable, at=at, points=points, between=lambda n: spaced(table[variable], n))[0]
