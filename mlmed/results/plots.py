"""Pictures of a fit (extra ``plots``): ``fit.plot.ranef()``. Each returns the axes that it drew on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlmed.fit.lmm import LmmFit
from mlmed.options import Density, Of, own_words
from mlmed.results.abilities import Held, can, only
from mlmed.results.inference import kind_of
from mlmed.results.pictures import conditional_plot, correlations_plot, ranef_plot, spaghetti_plot
from mlmed.results.predictive import check_plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plots"]


@dataclass(frozen=True)
class Plots:
    """Pictures of a fit; ``dir(fit.plot)`` lists those that it has.

    Attributes
    ----------
    results : Results
        What is drawn.
    """

    results: Held

    @property
    def fit(self) -> Any:
        """The fitted model."""
        return self.results.fit

    @property
    def catalogue(self) -> Any:
        """What effects it has."""
        return self.results.catalogue

    def __dir__(self) -> list[str]:
        """Pictures of this fit."""
        return [name for name in super().__dir__() if can(getattr(type(self), name, None), self)]

    @only(LmmFit)
    def conditional(
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
        return conditional_plot(self.fit, variable, at=at, level=level, points=points, data=data)

    @only(LmmFit)
    def spaghetti(
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
        return spaghetti_plot(self.fit, variable, clusters=clusters, seed=seed, at=at, points=points)

    @only(LmmFit)
    def ranef(self, effect: str | Sequence[str] | None = None, *, level: float = 0.95) -> list[Axes]:
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
        return ranef_plot(self.fit, effect, level=level)

    @only(LmmFit)
    def correlations(self, *, vcov: str | None = None, level: float = 0.95) -> Axes:
        """Forest plot of ``correlations``, between clusters and within.

        Raises
        ------
        EffectError
            The model has no correlation.
        """
        return correlations_plot(self.fit, vcov=kind_of(self.fit, vcov), level=level)

    @own_words
    @only(LmmFit)
    def predictive(
        self, n: int = 50, *, seed: int | None = None, density: Density = "value", of: Of = "population"
    ) -> list[Axes]:
        """Density of every observed response over those of n simulated sets (extra ``plots``), as ``pp_check`` of brms.

        Parameters
        ----------
        n : int
            Simulated sets, one thin line each.
        seed, of
            As in ``simulate``.
        density : {"value", "cluster-mean", "cluster-sd"}
            Of what: the values, the means of the clusters, or the standard deviations within clusters
            (log axis). Clusters that differ in their sds show in the last one; see ``mlmed.location_scale``.

        Returns
        -------
        list of Axes
            One panel per response.
        """
        return check_plot(self.fit, n, seed=seed, density=density, of=of)
