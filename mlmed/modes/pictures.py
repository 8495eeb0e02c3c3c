"""Pictures of a fitted model (extra ``plots``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from mlmed.data.frames import shorten
from mlmed.errors import EffectError
from mlmed.modes.curves import (
    choose_clusters,
    cluster_lines,
    conditional_table,
    given_note,
    line_along,
    observed_points,
    own_values,
)
from mlmed.modes.sdcor import correlations_table
from mlmed.modes.values import Values
from mlmed.options import check_flag, check_list, shown
from mlmed.report.curve_plots import plot_curves, plot_lines
from mlmed.report.effect_plots import plot_caterpillar, plot_correlation_forest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Pictures"]


@dataclass(frozen=True)
class Pictures(Values):
    """Pictures; every method returns the axes that it drew on.

    Attributes
    ----------
    fitted : Fitted
        Specification, sufficient statistics and optimum behind the numbers; called, ``fit.fitted()``, fitted values.
    """

    def plot_conditional(
        self,
        variable: str,
        *,
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        points: int | Sequence[Any] = 50,
        data: bool = False,
    ) -> list[Axes]:
        """Draw ``conditional_effects``, a panel per response; ``data``: with the rows that were used.

        A response that is a predictor of another one (a mediator) is held; the caption says at what.
        """
        line = line_along(self.fitted, variable, at=at, points=points)
        rows = observed_points(self.fitted, line) if check_flag(data, "data") else None
        table = conditional_table(self.fitted, line, level=level)
        return plot_curves(table, variable=variable, level=level, rows=rows, note=given_note(self.fitted, line))

    def plot_spaghetti(
        self,
        variable: str,
        *,
        clusters: int | Sequence[Any] | None = None,
        seed: int | None = None,
        at: Mapping[str, Any] | None = None,
        points: int | Sequence[Any] = 50,
    ) -> list[Axes]:
        """Expected responses of single clusters along one predictor, others held; the population's on top.

        Predictors that are the same in all rows of a cluster (the arm of a trial) have the cluster's own value, unless
        ``at`` holds them; the population's line has their mean or first level, as the caption says.

        Parameters
        ----------
        variable : str
            The predictor. Responses whose equations do not have it are left out.
        clusters : int or sequence, optional
            Ids (also as ``ranef()`` shows them), or a number of clusters drawn at random; by default all. Up to 8 get a
            colour and a name each.
        seed : int, optional
            Required where clusters are drawn.
        at, points
            As in ``conditional_effects``. Every line runs over the whole range, also beyond the rows of its cluster.
            A fit without rows (stored Grams, an engine) holds the clusters' own predictors, too.

        Raises
        ------
        EffectError
            Unknown predictor or cluster, or no seed where one is needed.
        """
        chosen = choose_clusters(self.fitted, clusters, seed)
        line = line_along(self.fitted, variable, at=at, points=points)
        population = conditional_table(self.fitted, line, level=0.95)
        own = own_values(self.fitted, line)
        lines = cluster_lines(self.fitted, line, chosen, own)
        note = given_note(self.fitted, line, own.columns)
        return plot_lines(lines, population, variable=variable, group=self.fitted.group_name, note=note)

    def plot_ranef(self, effect: str | Sequence[str] | None = None, *, level: float = 0.95) -> list[Axes]:
        """Caterpillar plot of ``ranef``: clusters by rank with their intervals, a panel per effect.

        Parameters
        ----------
        effect : str or sequence of str, optional
            Random effects, named as in ``ranef()``; by default all.
        level : float
            Coverage of the intervals, a proportion.

        Raises
        ------
        EffectError
            Unknown effect.
        """
        table = self.ranef(level=level)
        known = list(dict.fromkeys(table["effect"]))
        if effect is not None and not isinstance(effect, str):
            effect = check_list(effect, "effect", "names of random effects, or one name")
        asked = known if effect is None else [effect] if isinstance(effect, str) else list(effect)
        unknown = [name for name in asked if not isinstance(name, str) or name not in known]
        if unknown or not asked:
            found = f"no random effect {shown(unknown[0])}" if unknown else "no random effect was named"
            raise EffectError(f"{found}; there are {shorten(known, 20)}")
        parts = [table[table["effect"] == name] for name in dict.fromkeys(asked)]
        return plot_caterpillar(pd.concat(parts), level=level)

    def plot_correlations(self, *, vcov: str = "block", level: float = 0.95) -> Axes:
        """Forest plot of ``correlations``, between clusters and within.

        Raises
        ------
        EffectError
            The model has no correlation.
        """
        table = correlations_table(self.fitted, vcov=vcov, level=level)
        if not len(table):
            raise EffectError(
                "the model has no correlation: one random effect, or independent ones, and independent residuals; "
                "write (1 + x | id), or the same label in two formulas, (1 |c| id)"
            )
        return plot_correlation_forest(table, group=self.fitted.group_name, level=level)
