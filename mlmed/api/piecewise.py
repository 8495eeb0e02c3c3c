"""Separate equations: the multilevel mediation of Krull and MacKinnon (2001)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mlmed.api.asked import check_contrast, check_mediator, treatment_of
from mlmed.api.mediate import mediate
from mlmed.effects.delta import COLUMNS
from mlmed.effects.paths import EFFECTS
from mlmed.errors import EffectError, FormulaError
from mlmed.fit.lmm import design_of, known_columns
from mlmed.formula import parse_equation
from mlmed.names import labelled
from mlmed.notes import Note, warns
from mlmed.options import METHODS, PIECEWISE_INTERVALS, STYLES, Method, check_level, one_of, refuse_given
from mlmed.report.text import as_html
from mlmed.results.comparison_rows import missing_effects
from mlmed.results.document import flat_table
from mlmed.results.piecewise.cluster_ols import ClusterRegression
from mlmed.results.piecewise.fit import ask, fit_separately
from mlmed.results.piecewise.inference import PiecewiseInference
from mlmed.results.piecewise.parts import names_of
from mlmed.results.piecewise.text import as_json, native_text, stata_text
from mlmed.results.results import Results

__all__ = ["PIECEWISE_INTERVALS", "PiecewiseResults", "piecewise"]


@dataclass(frozen=True)
class PiecewiseResults(PiecewiseInference):
    """Three separate fits, and the effects that follow from them.

    Attributes
    ----------
    asked : Asked
        The equations, the treatment and the criterion.
    fits : Fits
        The fits, and what was learned of the data.
    contrast : pair or None
        Values of the treatment that are compared; None for a unit change.
    data : Any
        The user's table itself (not a copy); None in a fit from a pickle.
    """

    def __repr__(self) -> str:
        asked = f"{self.asked.mediator.text}; {self.asked.outcome.text}"
        clusters = f"{len(self.fits.clusters)} clusters ({':'.join(self.asked.group)})"
        return f"<PiecewiseResults: {asked}; design {self.design}, {self.asked.method.upper()}; {clusters}>"

    @property
    def design(self) -> str:
        """Levels of treatment, mediator and outcome: ``"1-1-1"``, ``"2-1-1"`` or ``"2-2-1"``."""
        return self.fits.design

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of the fits, each with a ``code`` and a ``text``; the warnings of fitting them."""
        return self.fits.notes

    @property
    def levels(self) -> pd.DataFrame:
        """Level of every variable, found in the data: variable, role, level (1 rows, 2 clusters)."""
        return self.fits.levels.copy()

    @property
    def mediator(self) -> Results | ClusterRegression:
        """The mediator equation: a mixed model, or least squares on one row per cluster."""
        return self.fits.mediator

    @property
    def outcome(self) -> Results:
        """The outcome equation."""
        return self.fits.outcome

    @property
    def reduced(self) -> Results:
        """The outcome equation without the mediator, on the same rows; its slope of the treatment is c."""
        return self.fits.reduced

    @property
    def treatment(self) -> str:
        """The column that plays x."""
        return self.asked.treatment

    @property
    def group_name(self) -> str:
        """The cluster variable."""
        return ":".join(self.asked.group)

    @property
    def n_clusters(self) -> int:
        """Clusters of the data."""
        return len(self.fits.clusters)

    @property
    def nobs(self) -> pd.Series:
        """Rows of each equation: mediator, outcome, reduced; clusters where the mediator is of level 2."""
        counts = {"mediator": self.mediator.nobs, "outcome": self.outcome.nobs, "reduced": self.reduced.nobs}
        return pd.Series(counts, name="nobs")

    @cached_property
    def params(self) -> pd.Series:
        """Fixed effects of the mediator and the outcome equation, as ``m~x``."""
        parts = {self.asked.mediator.name: self.mediator, self.asked.outcome.name: self.outcome}
        names = [labelled(equation, name) for equation, fit in parts.items() for name in fit.params.index]
        return pd.Series(np.concatenate([fit.params for fit in parts.values()]), index=names, name="estimate")

    def joint(self) -> Results:
        """The same equations fitted jointly (``mlmed.mediate``), which estimates cov(a_j, b_j).

        Raises
        ------
        EffectError
            A mediator of level 2, rows that were changed after the fit, or a fit from a pickle, which has no rows.
        """
        if isinstance(self.mediator, ClusterRegression):
            raise EffectError(
                f"the mediator {self.asked.mediator.name} is a variable of the clusters (design {self.design}): the "
                "joint model has row-level residuals in both equations. Nothing is lost here: a does not vary over "
                "clusters, so there is no cov(a_j, b_j) to estimate"
            )
        if self.data is None:
            raise EffectError("joint() needs the data, but a fit from a pickle has no rows; call mlmed.mediate on them")
        for fit in (self.mediator, self.outcome):
            if isinstance(fit.fit.table, pd.DataFrame):
                design_of(fit.fit, "joint()", "call mlmed.mediate")
        return mediate(
            self.asked.mediator.text,
            self.asked.outcome.text,
            self.data,
            method=self.asked.method,
            treatment=self.asked.treatment,
            contrast=self.contrast,
            covariance=self.asked.covariance,
        )

    # -- tables and text -----------------------------------------------------------------------------------

    def tidy(self, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
        """All estimates of the three fits in the columns of ``Results.tidy``, after ``fit``: which of them."""
        level = check_level(level)
        parts = {"mediator": self.mediator, "outcome": self.outcome, "reduced": self.reduced}
        tables = [fit.tidy(vcov=vcov, level=level).assign(fit=name) for name, fit in parts.items()]
        table = pd.concat(tables, ignore_index=True)
        return table[["fit", *(column for column in table.columns if column != "fit")]]

    @property
    def label(self) -> str:
        """What a comparison calls this fit."""
        return f"piecewise {self.asked.method.upper()}"

    def comparable(self, *, level: float = 0.95) -> pd.DataFrame:
        """Effects, then all estimates of the mediator and the outcome equation, under names that all methods share."""
        parts = ((self.asked.mediator.name, self.mediator), (self.asked.outcome.name, self.outcome))
        tables = []
        for prefix, fit in parts:
            tables.append(fit.tidy(level=level)[list(COLUMNS)].assign(term=names_of(fit, prefix)))
        shared = [term for term in EFFECTS if term != "cov_ab"]  # separate equations have no covariance of a and b
        reason = self.effects_reason
        effects = missing_effects(reason, shared) if reason else self.effects(level=level)
        return pd.concat([effects, *tables], ignore_index=True)

    def combined(self, expression: str, *, level: float = 0.95) -> pd.DataFrame:
        """``nlcom`` with the names of ``comparable``, which are its own."""
        return self.nlcom(expression, level=level)

    # Below, further options are those of ``effects()``: its table stands in what is printed and exported.

    def summary(self, style: str = "text", *, vcov: str | None = None, level: float = 0.95, **options: Any) -> str:
        """The fits and the effects as text; ``style="stata"`` has the numbers of UCLA's ``ml_mediation``.

        Raises
        ------
        EffectError
            Unknown style, or options that the Stata layout or the interval does not use.
        """
        asked = {"vcov": vcov, **options}
        if one_of(style, STYLES, "style") == "stata":
            refuse_given("style='stata' shows estimates only", {**asked, "level": None if level == 0.95 else level})
            return stata_text(self.fits, self.effects_reason or self.effect_quantities())
        return native_text(self.asked, self.fits, self._asked_effects(level, asked), asked, level=level)

    def to_json(self, *, vcov: str | None = None, level: float = 0.95, **options: Any) -> str:
        """Levels, the three fits and the effects as JSON (what ``mlmed piecewise --format json`` prints)."""
        asked = {"vcov": vcov, **options}
        return as_json(self.asked, self.fits, self._asked_effects(level, asked), asked, level=level)

    def sections(self, *, vcov: str | None = None, level: float = 0.95, **options: Any) -> dict[str, pd.DataFrame]:
        """The estimates of each fit, and the effects, which have no rows where the equations define none."""
        effects = self._asked_effects(level, {"vcov": vcov, **options})
        found = self.tidy(vcov="block" if vcov is None else vcov, level=level)
        tables = {str(name): table.drop(columns="fit") for name, table in found.groupby("fit", sort=False)}
        return {**tables, "effects": pd.DataFrame(columns=list(COLUMNS)) if isinstance(effects, str) else effects}

    def to_table(self, *, vcov: str | None = None, level: float = 0.95, **options: Any) -> pd.DataFrame:
        """All tables below each other (what ``mlmed piecewise --format csv`` prints)."""
        return flat_table(self.sections(vcov=vcov, level=level, **options))

    def _asked_effects(self, level: float, options: dict[str, Any]) -> pd.DataFrame | str:
        """The effects, or why there are none."""
        given = {name: value for name, value in options.items() if value is not None}
        if self.effects_reason and given.keys() <= {"vcov"}:  # which other tables use
            return self.effects_reason
        return self.effects(level=level, **given)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return as_html(self.summary())


@warns
def piecewise(
    mediator: str,
    outcome: str,
    data: Any,
    *,
    treatment: str | None = None,
    total: str | None = None,
    method: Method = "reml",
    covariance: str | Mapping[str, str] = "unstructured",
    contrast: tuple[Any, Any] | None = None,
) -> PiecewiseResults:
    """Fit mediator and outcome equations separately (Krull & MacKinnon, 2001).

    The level of every variable is found in the data. A mediator that is constant within clusters is fitted by least
    squares on one row per cluster, everything else as a mixed model. A third equation, the outcome's without the
    mediator, gives path c on the same rows.

    Parameters
    ----------
    mediator, outcome : str
        lme4 formulas with the same cluster variable: ``"m ~ x + (1 | id)"`` and ``"y ~ m + x + (1 | id)"``; random
        slopes are allowed. A mediator of level 2 needs no random term: ``"m ~ x"``.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. An equation loses only the rows that it
        cannot use; they are counted and reported. An engine that holds the rows sends the columns once, to find levels.
    treatment : str, optional
        The column that plays x; needed when the mediator equation has more than one predictor.
    total : str, optional
        The equation for path c; by default the outcome equation without every term that has the mediator in it.
    method : {"reml", "ml"}
        Criterion of the mixed models.
    covariance : str or mapping
        Structure of their random-effects covariances, as in ``mixed``.
    contrast : pair, optional
        Two values of the treatment to compare, for factors and transformed treatments.

    Raises
    ------
    DataError
        A variable of the rows is to cause or predict one of the clusters; nothing is nested.
    FormulaError, NotIdentifiedError
        What was found, what it means, what to do.

    References
    ----------
    Krull, J. L. and MacKinnon, D. P. (2001). Multilevel modeling of individual and group level mediated effects.
    Multivariate Behavioral Research 36, 249-277.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.piecewise(
    ...     mediator="Med ~ X + (1 + X | group)",
    ...     outcome="y ~ X + Med + (1 + X + Med | group)",
    ...     data=mlmed.datasets.load("yuan_mackinnon_sim"),
    ... )
    >>> fit.design, fit.effects().set_index("term").loc[["a", "b", "indirect"], "estimate"].round(4).tolist()
    ('1-1-1', [0.1901, -0.1796, -0.0341])
    """
    one_of(method, METHODS, "method", error=FormulaError)
    columns = known_columns(data)
    first, second = parse_equation(mediator, columns), parse_equation(outcome, columns)
    third = None if total is None else parse_equation(total, columns)
    check_mediator(first, second)
    x, pair = treatment_of(first, treatment), check_contrast(contrast)
    asked = ask(first, second, third, treatment=x, method=method, covariance=covariance)
    return PiecewiseResults(asked, fit_separately(asked, data), pair, data)
