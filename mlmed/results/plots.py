"""Pictures of a fit (extra ``plots``): ``fit.plot.ranef()``, or a page of them, ``fit.plot()``.

A picture of one panel returns its ``Axes``; one with a panel per response, effect or term returns a list, even of one.
``ax=`` takes what the picture returns; without it a new figure is made. The caption names held values, coverage and
number of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, singledispatch
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.layout import INTERCEPT
from mlmed.effects.catalogue import Effects, FormSet
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.quadrature import QuadratureFit
from mlmed.fit.resampling import source_of
from mlmed.fit.system import SystemFit
from mlmed.intervals.sdcor import correlations_table
from mlmed.names import labelled
from mlmed.options import Density, Of, check_flag, check_level, check_list, own_words
from mlmed.report.plots.axes import intervals_of, new_panels
from mlmed.report.plots.diagnostics import plot_scatter
from mlmed.report.plots.distributions import plot_densities, plot_residuals
from mlmed.report.plots.forests import Ranked, plot_caterpillars, plot_correlations, plot_effects
from mlmed.report.plots.lines import plot_along, plot_curves, plot_lines
from mlmed.results import criterion, inference
from mlmed.results.abilities import Held, can, listed, only
from mlmed.results.cluster_scales import chosen_effect, cluster_table, scale_line, scatter_data
from mlmed.results.curves import (
    choose_clusters,
    cluster_lines,
    conditional_table,
    held_note,
    line_along,
    observed_points,
    own_values,
)
from mlmed.results.prediction import scale_predictions
from mlmed.results.predictive import densities
from mlmed.results.record import optimization
from mlmed.results.tables import ranef_table
from mlmed.text import assigned, display_level, shorten, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = NDArray[np.float64]
#: Effects with a value for treated and one for controls: label of the line, and the two terms.
TWOFOLD = (
    ("ACME", "acme_treated", "acme_control"),
    ("ADE", "ade_treated", "ade_control"),
    ("Total effect", "total", ""),
)
#: Captions: clusters of predicted and simulated responses.
WHOSE = {"population": "new clusters", "cluster": "the clusters of the data"}
#: Caterpillar plots on a page; width and height of its panels in inches.
MOST, WIDTH, HEIGHT = 2, 4.2, 3.8


@dataclass(frozen=True)
class Plots:
    """Pictures of a fit: ``dir(fit.plot)`` lists them, ``fit.plot()`` draws a page of them.

    Each returns the ``Axes`` it drew on, or a list with one per panel; ``ax=`` takes the same.

    Attributes
    ----------
    results : Results
        The fit and its effects.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> [name for name in ("effects", "ranef", "spaghetti") if name in dir(fit.plot)]
    ['ranef', 'spaghetti']
    """

    #: Where they stand among the names of results.
    place: ClassVar[str] = "plot."

    results: Held

    @property
    def fit(self) -> Any:
        """The fitted model."""
        return self.results.fit

    @property
    def catalogue(self) -> Any:
        """The effects it defines."""
        return self.results.catalogue

    def __dir__(self) -> list[str]:
        """List the pictures of this fit."""
        names = set(super().__dir__()) - {"fit", "catalogue", "results", "place"}
        return [name for name in names if can(getattr(type(self), name, None), self)]

    def __call__(self, *, level: float = 0.95, ax: Sequence[Axes] | None = None) -> list[Axes]:
        """Draw a page of what the fit has: effects, clusters by rank, residuals, location against scale.

        Parameters
        ----------
        level : float
            Coverage of the intervals, a proportion.
        ax : sequence of Axes, optional
            Where to draw, as many as there are panels.

        Returns
        -------
        list of Axes

        Raises
        ------
        EffectError
            The fit has none of these pictures.
        """
        found = self._page(check_level(level))
        if not found:
            raise EffectError(f"there is no page of pictures of this: {self.fit.kind}")
        panels = new_panels(ax, list(found), width=WIDTH, height=HEIGHT)
        for one, draw in zip(panels.axes, found.values(), strict=True):
            draw(ax=one)
        return panels.axes

    def _page(self, level: float) -> dict[str, Callable[..., Any]]:
        """Map the names of panels to the functions that draw them."""
        out: dict[str, Callable[..., Any]] = {}
        if not inference.effects_reason(self):
            out["effects"] = partial(self.effects, level=level)
        parts = [(self.fit, "", MOST)]
        if isinstance(self.fit, SystemFit):  # all equations but that of path c
            named = zip(self.fit.components.items(), self.fit.prefixes, strict=True)
            parts = [(fit, prefix, 1) for (role, fit), prefix in named if role != "reduced"]
        for fit, prefix, most in parts:
            leading = _leading(fit)[:most]
            for one in _ranked(fit, level) if leading else ():
                if one.name in leading:
                    own = replace(one, name=labelled(prefix, one.name))
                    out[own.name] = partial(plot_caterpillars, [own], group=fit.group_name, level=level)
            for name, values in _residuals(fit).items():
                title = "residuals within clusters"
                out[f"residuals of {name}"] = partial(plot_residuals, {name: values}, title=title)
        if isinstance(self.fit, QuadratureFit) and _has_both(self.fit):
            out["location and scale"] = self.location_scale
        return out

    # -- effects -------------------------------------------------------------------------------------------

    @listed(inference.has_effects)
    def effects(
        self,
        interval: Any = None,
        *,
        terms: str | Sequence[str] | None = None,
        level: float = 0.95,
        ax: Axes | None = None,
        **options: Any,
    ) -> Axes:
        """Forest plot of ``effects``: a line per effect, grey if it has no interval.

        Effects of ``causal`` share a line for treated and control.

        Parameters
        ----------
        interval, **options
            As in ``effects`` (``at``, ``n``, ``seed``, ``vcov``, ...).
        terms : str or sequence of str, optional
            Effects to draw; by default all, the direct effect once; of ``causal`` ACME, ADE and the total effect.
        level : float
            Coverage of the intervals, a proportion.
        ax : Axes, optional
            Where to draw.

        Returns
        -------
        Axes

        Raises
        ------
        EffectError
            Unknown term, or whatever ``effects`` refuses.
        """
        given = options if interval is None else {"interval": interval, **options}
        table = inference.effects(self, level=level, **given)
        there = [str(term) for term in table["term"]]
        twofold = terms is None and {term for line in TWOFOLD for term in line[1:] if term} <= set(there)
        lines = TWOFOLD if twofold else [(term, term, "") for term in _chosen(terms, there)]
        first = ", ".join(filter(None, [self._contrast(), intervals_of(level, *self._made_by(interval, options))]))
        at, drawn = options.get("at"), {term for line in lines for term in line[1:] if term}
        defined = self.catalogue.effects(self.fit, at)
        known = defined.quantities
        label, null = "effect on the expected outcome" if twofold else "estimate", 0.0
        if {known[term].kind for term in drawn if term in known} & {"sd", "factor"}:
            label, null = "residual sd, or factor of it per unit (line: 1)", 1.0
        places = self._places(defined.forms, drawn) if isinstance(defined, FormSet) and defined.forms else []
        held = f"at {', '.join(places)}" if places else f"at {assigned(at)}" if at else ""
        return plot_effects(table, lines=lines, title=f"{first}\n{held}", label=label, null=null, ax=ax)

    def _contrast(self) -> str:
        """Say the treatment and the values that are compared."""
        contrast = getattr(self.catalogue, "contrast", None)
        return "" if contrast is None else f"{self.catalogue.treatment}: {' to '.join(map(display_level, contrast))}"

    def _made_by(self, interval: Any, options: Mapping[str, Any]) -> Iterator[str]:
        """Yield the kind of interval and the number of draws."""
        if interval is not None:
            name = str(getattr(interval, "name", interval))
            usual = self.catalogue.intervals.get(name, {}).get("n")
            n = getattr(interval, "n", options.get("n", usual))
            yield name
            yield "" if n is None else f"{n:,} draws"

    def _places(self, forms: Effects, drawn: set[str]) -> list[str]:
        """List where effects are taken; the values that are compared only if the first line does not say them."""
        own = {*forms.names}
        found = forms.places(
            drawn if drawn <= own else {name for name in own if not name.startswith("cov")}
        )  # whose place may differ
        return [
            place for place in found if not (self._contrast() and place.startswith(f"{self.catalogue.treatment} from "))
        ]

    @own_words
    @only(source_of)
    def bootstrap(
        self,
        term: str | None = None,
        n: int = 1000,
        *,
        seed: int | None = None,
        ends: str = "percentile",
        level: float = 0.95,
        ax: Axes | None = None,
        **options: Any,
    ) -> Axes:
        """Histogram of bootstrap draws of one term, with its interval.

        Parameters
        ----------
        term : str, optional
            By default the indirect effect, or else the first term.
        n, seed, **options
            As in ``bootstrap`` (``kind``, ``within``, ``at``, ...). To draw several terms call ``fit.bootstrap(...)``
            once and its ``plot`` for each.
        ends, level
            Construction of the interval from the draws, and its coverage.
        ax : Axes, optional
            Where to draw.

        Returns
        -------
        Axes

        Raises
        ------
        EffectError
            Unknown term, or whatever ``bootstrap`` refuses.
        """
        found = inference.bootstrap(self, n, seed=seed, **options)
        return found.plot(term, ends=ends, level=level, ax=ax)

    @only(LmmFit)
    def profile(
        self,
        expression: str,
        *,
        level: float = 0.95,
        points: int = 20,
        at: Mapping[str, Any] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw the profile likelihood of a quantity with its interval.

        Parameters
        ----------
        expression, level, points, at
            As in ``profile``.
        ax : Axes, optional
            Where to draw.

        Returns
        -------
        Axes

        Raises
        ------
        EffectError
            As ``profile``.
        """
        return criterion.profile(self, expression, level=level, points=points, at=at).plot(ax=ax)

    @only(LmmFit)
    def influence(
        self,
        term: str | None = None,
        *,
        label: int = 3,
        refit: bool | None = None,
        vcov: str | None = None,
        n_jobs: int | None = None,
        at: Mapping[str, Any] | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Change of one term when each cluster is left out, the ``label`` largest labelled.

        Parameters
        ----------
        term : str, optional
            By default the indirect effect, or else the first term.
        label : int
            Number of labelled clusters.
        refit, vcov, n_jobs, at
            As in ``influence``.
        ax : Axes, optional
            Where to draw.

        Returns
        -------
        Axes

        Raises
        ------
        EffectError
            Unknown term.
        """
        found = criterion.influence(self, refit=refit, vcov=vcov, n_jobs=n_jobs, at=at)
        return found.plot(term, label=label, ax=ax)

    @only(LmmFit)
    def optimization(self, *, ax: Axes | None = None) -> Axes:
        """Draw the distance to the optimum by evaluation, on a log scale.

        Parameters
        ----------
        ax : Axes, optional
            Where to draw.

        Returns
        -------
        Axes
        """
        return optimization(self).plot(ax=ax)

    # -- along a predictor ---------------------------------------------------------------------------------

    @only(LmmFit)
    def conditional(
        self,
        variable: str,
        *,
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        points: int | Sequence[Any] = 50,
        data: bool = False,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> list[Axes]:
        """Draw ``conditional_effects``, a panel per response.

        A response that is a predictor of another one (a mediator) is held, too; the caption says at what.

        Parameters
        ----------
        variable, at, level, points
            As in ``conditional_effects``.
        data : bool
            Also draw the rows that were used.
        ax : Axes or sequence of Axes, optional
            Where to draw, as many as there are panels.

        Returns
        -------
        list of Axes

        Raises
        ------
        EffectError
            As ``conditional_effects``; or ``data=True`` and the fit has no rows.
        """
        line = line_along(self.fit, variable, at=at, points=points)
        rows = observed_points(self.fit, line) if check_flag(data, "data") else None
        table = conditional_table(self.fit, line, level=level)
        return plot_curves(table, variable=variable, level=level, rows=rows, note=held_note(self.fit, line), ax=ax)

    @only(LmmFit)
    def spaghetti(
        self,
        variable: str,
        *,
        clusters: int | Sequence[Any] | None = None,
        seed: int | None = None,
        at: Mapping[str, Any] | None = None,
        points: int | Sequence[Any] = 50,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> list[Axes]:
        """Expected responses of single clusters along one predictor, others held; the population's on top.

        Predictors that are constant within clusters (the arm of a trial) take each cluster's own value unless ``at``
        holds them; the population's line has their mean or first level, as the caption says.

        Parameters
        ----------
        variable : str
            The predictor. Responses whose equations lack it are left out.
        clusters : int or sequence, optional
            Ids (also as ``ranef()`` shows them), or a number of clusters drawn at random; by default all. Up to 8 get a
            colour and a label each.
        seed : int, optional
            Required if clusters are drawn.
        at, points
            As in ``conditional_effects``. Every line covers the whole range, also beyond the rows of its cluster.
            A fit without rows (stored Grams, an engine) holds predictors of the clusters, too.
        ax : Axes or sequence of Axes, optional
            Where to draw, as many as there are panels.

        Returns
        -------
        list of Axes

        Raises
        ------
        EffectError
            Unknown predictor or cluster, or no seed where one is needed.
        """
        chosen = choose_clusters(self.fit, clusters, seed)
        line = line_along(self.fit, variable, at=at, points=points)
        population = conditional_table(self.fit, line, level=0.95)
        own = own_values(self.fit, line)
        lines = cluster_lines(self.fit, line, chosen, own)
        note = held_note(self.fit, line, own.columns)
        return plot_lines(lines, population, variable=variable, group=self.fit.group_name, note=note, ax=ax)

    @only(QuadratureFit)
    def prediction(
        self,
        variable: str,
        *,
        at: Mapping[str, Any] | None = None,
        interval: str = "confidence",
        level: float = 0.95,
        points: int | Sequence[Any] = 100,
        ax: Sequence[Axes] | None = None,
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
        points : int or sequence
            Number of values over the range of a number, or the values; a factor has its levels.
        ax : sequence of Axes, optional
            Where to draw, two panels.

        Returns
        -------
        list of Axes

        Raises
        ------
        EffectError
            Neither formula has the predictor.
        """
        fit, level = self.fit, check_level(level)
        line = scale_line(fit, variable, at=at, points=points)
        table = scale_predictions(fit, line, of="population", interval=interval, level=level, between=True)
        others = {str(name): line[name].iloc[0] for name in line if name != variable}
        note = f"at {assigned(others, 3)}" if others else ""
        labels = {"variable": variable, "response": fit.rows.equations[0].name, "interval": interval}
        return plot_along(table, line[variable], **labels, level=level, note=note, ax=ax)

    # -- clusters ------------------------------------------------------------------------------------------

    @only(LmmFit, QuadratureFit)
    def ranef(
        self,
        effect: str | Sequence[str] | None = None,
        *,
        level: float = 0.95,
        ax: Axes | Sequence[Axes] | None = None,
    ) -> list[Axes]:
        """Caterpillar plot of ``ranef``: clusters by rank with their intervals, a panel per effect.

        Parameters
        ----------
        effect : str or sequence of str, optional
            Random effects, named as in ``ranef()``; by default all. They are differences from the population, except
            in the scale of a location-scale model: ``sigma~Intercept`` is the residual sd of a cluster, a slope its
            factor per unit, the fixed effect included.
        level : float
            Coverage of the intervals, a proportion.
        ax : Axes or sequence of Axes, optional
            Where to draw, as many as there are panels.

        Returns
        -------
        list of Axes

        Raises
        ------
        EffectError
            Unknown effect.
        """
        if effect is not None and not isinstance(effect, str):
            effect = check_list(effect, "effect", "names of random effects, or one name")
        found = {one.name: one for one in _ranked(self.fit, check_level(level))}
        asked = list(found) if effect is None else [effect] if isinstance(effect, str) else list(effect)
        unknown = [name for name in asked if not isinstance(name, str) or name not in found]
        if unknown or not asked:
            what = f"no random effect {shown(unknown[0])}" if unknown else "no random effect was named"
            raise EffectError(f"{what}; there are {shorten(list(found), 20)}")
        drawn = [found[name] for name in dict.fromkeys(asked)]
        return plot_caterpillars(drawn, group=self.fit.group_name, level=level, ax=ax)

    @only(LmmFit)
    def correlations(self, *, vcov: str | None = None, level: float = 0.95, ax: Axes | None = None) -> Axes:
        """Forest plot of ``correlations``, between clusters and within.

        Parameters
        ----------
        vcov, level
            As in ``correlations``.
        ax : Axes, optional
            Where to draw.

        Returns
        -------
        Axes

        Raises
        ------
        EffectError
            The model has no correlation.
        """
        table = correlations_table(self.fit, vcov=inference.kind_of(self.fit, vcov), level=level)
        if not len(table):
            raise EffectError(
                "the model has no correlation: one random effect, or independent ones, and independent residuals; "
                "write (1 + x | id), or the same label in two formulas, (1 |c| id)"
            )
        return plot_correlations(table, group=self.fit.group_name, level=level, ax=ax)

    @only(QuadratureFit)
    def location_scale(self, location: str | None = None, scale: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Clusters' location effects against their residual sds, with the regression line that G implies.

        Parameters
        ----------
        location, scale : str, optional
            Random effects, named as in ``ranef()``; by default the first of each.
        ax : Axes, optional
            Where to draw.

        Returns
        -------
        Axes

        Raises
        ------
        EffectError
            Unknown effect, or the location or the scale has none.
        """
        data = scatter_data(self.fit, location, scale)
        return plot_scatter(data.table, data.line, labels=data.labels, title=data.title, ax=ax)

    # -- rows ----------------------------------------------------------------------------------------------

    @only(LmmFit)
    def residuals(self, *, of: Of = "cluster", ax: Axes | Sequence[Axes] | None = None) -> list[Axes]:
        """Density of the residuals over the normal one of the same sd, a panel per response.

        Parameters
        ----------
        of : {"cluster", "population"}
            As in ``resid``.
        ax : Axes or sequence of Axes, optional
            Where to draw, as many as there are panels.

        Returns
        -------
        list of Axes

        Raises
        ------
        EffectError
            Unknown ``of``, or the fit has no rows.
        """
        whose = {"cluster": "residuals within clusters", "population": "differences from the population's mean"}
        found = self.fit.residuals(of=of)
        return plot_residuals(_by_response(found), title=whose[of], ax=ax)

    @own_words
    @only(LmmFit)
    def predictive(
        self,
        n: int = 50,
        *,
        seed: int | None = None,
        density: Density = "value",
        of: Of = "population",
        ax: Axes | Sequence[Axes] | None = None,
    ) -> list[Axes]:
        """Density of every observed response over those of n simulated sets, as ``pp_check`` of brms.

        Parameters
        ----------
        n : int
            Simulated sets, one thin line each.
        seed, of
            As in ``simulate``.
        density : {"value", "cluster-mean", "cluster-sd"}
            Density of the values, of the cluster means, or of the standard deviations within clusters (log axis). The
            last shows whether clusters differ in their sds; see ``mlmed.location_scale``.
        ax : Axes or sequence of Axes, optional
            Where to draw, as many as there are panels.

        Returns
        -------
        list of Axes
            One panel per response.

        Raises
        ------
        EffectError
            No seed, an unknown word, or a fit without rows.
        """
        found = densities(self.fit, n, seed=seed, density=density, of=of)
        return plot_densities(found, density=density, title=f"{n} simulated sets, {WHOSE[of]}", ax=ax)


def _chosen(terms: str | Sequence[str] | None, there: list[str]) -> list[str]:
    """Choose the effects to draw; the direct effect once, as cprime."""
    if terms is None:
        return [term for term in there if term != "cprime" or "direct" not in there]
    asked = [terms] if isinstance(terms, str) else check_list(terms, "terms", "names of effects")
    unknown = [term for term in asked if not isinstance(term, str) or term not in there]
    if unknown or not asked:
        found = f"no effect {shown(unknown[0])}" if unknown else "no effect was named"
        raise EffectError(f"{found}; there are {', '.join(there)}")
    return list(dict.fromkeys(asked))


def _by_response(found: pd.Series | pd.DataFrame) -> dict[str, Array]:
    frame = found.to_frame() if isinstance(found, pd.Series) else found
    return {str(name): frame[name].dropna().to_numpy(dtype=np.float64) for name in frame}


# -- by kind of fit --------------------------------------------------------------------------------------------------


@singledispatch
def _ranked(fit: Any, level: float) -> list[Ranked]:
    """Collect the random effects to rank, by kind of fit."""
    raise EffectError(f"{fit.kind} has no random effects to rank")


@_ranked.register
def _(fit: LmmFit, level: float) -> list[Ranked]:
    table = ranef_table(fit, level=level)
    return [Ranked(str(name), table[table["effect"] == name]) for name in dict.fromkeys(table["effect"])]


@_ranked.register
def _(fit: QuadratureFit, level: float) -> list[Ranked]:
    effects = [chosen_effect(fit, name) for name in fit.random_names]
    return [Ranked(one.name, cluster_table(fit, one, level=level), one.label, one.centre) for one in effects]


@singledispatch
def _leading(fit: Any) -> list[str]:
    """Order the random effects for a page, the most important first."""
    return []


@_leading.register
def _(fit: LmmFit) -> list[str]:
    """Put slopes before intercepts."""
    plain = [name for equation in fit.layout.equations for name in equation.random]
    return [name for _, name in sorted(zip(plain, fit.G.index, strict=True), key=lambda pair: pair[0] == INTERCEPT)]


@_leading.register
def _(fit: QuadratureFit) -> list[str]:
    """Put scale effects before location effects."""
    names, q = fit.random_names, fit.problem.structure.q
    return names[q:] + names[:q]


def _has_both(fit: QuadratureFit) -> bool:
    """Whether clusters differ in location and in scale."""
    return bool(fit.problem.structure.q and fit.problem.structure.d)


@singledispatch
def _residuals(fit: Any) -> dict[str, Array]:
    """Residuals within clusters, by response; none unless they should be normal."""
    return {}


@_residuals.register
def _(fit: LmmFit) -> dict[str, Array]:
    try:
        return _by_response(fit.residuals(of="cluster"))
    except EffectError:  # no rows
        return {}
