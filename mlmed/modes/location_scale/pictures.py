"""Pictures of a location-scale model (extra ``plots``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlmed.modes.location_scale.clusters import chosen_effect, cluster_table, default_effect, scatter_data
from mlmed.modes.location_scale.newdata import line_along
from mlmed.modes.location_scale.prediction import predict_table
from mlmed.modes.location_scale.values import Values
from mlmed.options import check_level
from mlmed.report.locscale_plots import plot_along, plot_ranked, plot_scatter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

__all__ = ["Pictures"]


@dataclass(frozen=True)
class Pictures(Values):
    """Pictures; every method returns the axes that it drew on.

    Attributes
    ----------
    fit : Fit
        Rows, arrays and optimum behind the numbers.
    """

    def plot_ranef(self, effect: str | None = None, *, level: float = 0.95) -> Axes:
        """Clusters ranked by one of their effects, with intervals.

        Parameters
        ----------
        effect : str, optional
            Named as in ``ranef()``; by default the scale's first, otherwise the location's. Effects of the location
            are differences from the population. Those of the scale are shown on the sd scale, with the fixed effect:
            ``sigma:Intercept`` is the residual sd of a cluster, a slope its factor per unit.
        level : float
            Coverage of the intervals, a proportion.

        Raises
        ------
        EffectError
            Unknown effect.
        """
        chosen = chosen_effect(self.fit, default_effect(self.fit) if effect is None else effect)
        table = cluster_table(self.fit, self._law, chosen, level=level)
        return plot_ranked(
            table, group=":".join(self.fit.rows.group), label=chosen.label, centre=chosen.centre, level=level
        )

    def plot_location_scale(self, location: str | None = None, scale: str | None = None) -> Axes:
        """Clusters' location effect against their residual sd, and the line that the model draws through them.

        Parameters
        ----------
        location, scale : str, optional
            Random effects, named as in ``ranef()``; by default the first of each.

        Raises
        ------
        EffectError
            Unknown effect, or the location or the scale has none.
        """
        data = scatter_data(self.fit, self._law, location, scale)
        return plot_scatter(data.table, data.line, labels=data.labels, title=data.title)

    def plot_prediction(
        self,
        variable: str,
        *,
        at: Mapping[str, Any] | None = None,
        interval: str = "confidence",
        level: float = 0.95,
        points: int = 100,
    ) -> list[Axes]:
        """Expected response and residual sd of the population over one predictor, with intervals; two panels.

        Parameters
        ----------
        variable : str
            A predictor of either formula.
        at : mapping, optional
            Values at which other predictors are held; by default their mean or first level.
        interval : {"confidence", "prediction"}
            Of the response, as in ``predict``.
        level : float
            Coverage of the intervals, a proportion.
        points : int
            Values over the range of a number; a factor has its levels.

        Raises
        ------
        EffectError
            Neither formula has the predictor.
        """
        level = check_level(level)
        line = line_along(self.fit.rows, variable, at=at, points=points)
        options: dict[str, Any] = {"level": "population", "interval": interval, "coverage": level}
        table = predict_table(self.fit, self._law, line, **options, between=True)
        response = self.fit.rows.equations[0].name
        return plot_along(table, line[variable], variable=variable, response=response, interval=interval, level=level)
