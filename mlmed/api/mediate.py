"""Two equations, fitted jointly: the Bauer-Preacher-Gil model of 1-1-1 mediation."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.api.asked import check_contrast, check_mediator, treatment_of
from mlmed.effects.delta import Quantity, wald_table
from mlmed.effects.forms import Effects
from mlmed.effects.paths import Paths, effect_quantities, effects_of, find_paths
from mlmed.errors import EffectError
from mlmed.fit.lmm import fit_model, known_columns
from mlmed.formula import parse_equation
from mlmed.intervals.options import check_options
from mlmed.intervals.table import OPTIONS, effects_table
from mlmed.lmm.estimates import Estimates
from mlmed.notes import warns
from mlmed.options import (
    STYLES,
    JointInterval,
    Method,
    check_level,
    check_mapping,
    one_of,
    own_words,
    refuse_given,
)
from mlmed.report.stata import StataReport
from mlmed.report.text import format_number
from mlmed.results.comparison_rows import missing_effects
from mlmed.results.document import flat_table, interval_entry, to_json
from mlmed.results.remarks import mediation_notes, table_notes
from mlmed.results.results import MixedResults
from mlmed.results.summary import effects_text, native_summary
from mlmed.results.xtmixed import stata_report
from mlmed.system.model import ModelSpec

__all__ = ["MediationResults", "mediate"]

Array = NDArray[np.float64]
#: Effects whose errors of another kind stand below the summary.
SHOWN_ERRORS = ("a", "b", "cprime", "indirect", "total")


@dataclass(frozen=True, repr=False)
class MediationResults(MixedResults):
    """A fitted mediation model; adds effects to everything a mixed model has.

    Attributes
    ----------
    treatment : str
        The column that plays x.
    contrast : pair or None
        Values of the treatment that are compared; None for a unit change.
    """

    treatment: str
    contrast: tuple[Any, Any] | None = None

    def _paths(self, at: Mapping[str, Any] | None) -> Paths:
        return find_paths(self.fitted.layout, treatment=self.treatment, contrast=self.contrast, at=at)

    def effect_functions(self, at: Mapping[str, Any] | None = None) -> Effects:
        """The effects as functions of psi."""
        return effects_of(self._paths(at), self.fitted.estimates)

    def effect_quantities(self, at: Mapping[str, Any] | None = None) -> dict[str, Quantity]:
        """The effects with their derivatives in psi."""
        return effect_quantities(self._paths(at), self.fitted.estimates)

    @own_words
    def effects(
        self,
        *,
        interval: JointInterval = "delta",
        level: float = 0.95,
        vcov: str | None = None,
        order: str | None = None,
        ddf: str | None = None,
        n: int | None = None,
        kind: str | None = None,
        within: bool | None = None,
        ends: str | None = None,
        seed: int | None = None,
        n_jobs: int | None = None,
        progress: bool | None = None,
        at: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Paths and effects: a, b, cprime, cov_ab, indirect = a b + cov_ab, direct, total.

        An option that the asked interval does not use is refused. docs/choosing_intervals.md says which to use.

        Parameters
        ----------
        interval : {"delta", "monte-carlo", "profile", "bootstrap"}
            Normal theory; draws of a, b, cprime and cov_ab from their joint normal distribution; profile
            likelihood; refitted replicates of the data.
        level : float
            Coverage of the intervals, a proportion.
        vcov : {"block", "joint", "cluster", "CR0", "CR1", "CR2"}
            ``delta``, ``monte-carlo``, ``profile`` (its std_error): covariance of the estimates, by default
            ``block``; see docs/standard_errors.md.
        order : {"second", "first", "unbiased"}
            ``delta``: ``second`` (default) has the term Va Vb + Cab^2 of Bauer, Preacher & Gil (2006), ``first`` is
            without, ``unbiased`` subtracts it (Aroian, Sobel and Goodman).
        ddf : {"none", "satterthwaite", "kenward-roger", "residual"}
            ``delta``: t instead of z, with these degrees of freedom (the column ``df``).
        n : int
            Draws (``monte-carlo``, 20,000) or replicates (``bootstrap``, 1,000).
        kind : {"case", "parametric", "residual"}
            ``bootstrap``: how replicates are made.
        within : bool
            ``bootstrap`` of cases: draw rows within clusters, too.
        ends : {"percentile", "bc", "bca", "basic", "normal"}
            ``bootstrap``: how an interval is made of draws.
        seed : int
            Required by ``monte-carlo`` and ``bootstrap``.
        n_jobs, progress
            ``bootstrap``: workers, and whether to show a progress bar.
        at : mapping, optional
            Values of moderators of x -> m, m -> y or x -> y; by default their mean or first level.

        Returns
        -------
        DataFrame
            term, estimate, std_error, statistic, df, p_value, conf_low, conf_high, note.
        """
        given = {
            "vcov": vcov, "order": order, "ddf": ddf, "n": n, "kind": kind, "within": within, "ends": ends,
            "seed": seed, "n_jobs": n_jobs, "progress": progress,
        }  # fmt: skip
        options = check_options(OPTIONS, interval, given)
        level = check_level(level)
        effects, named_at, functions = self.effect_quantities(at), self.quantities_at(at), self.effect_functions(at)
        return effects_table(self.fitted, effects, named_at, functions, interval, options, level=level)

    def quantities_at(self, at: Mapping[str, Any] | None = None) -> Callable[[Estimates], dict[str, Quantity]]:
        """Everything that can be named: effects (where the model defines them), then every parameter."""
        parameters = super().quantities_at()
        if not self._has_effects(at):
            return parameters
        functions = self.effect_functions(at)
        return lambda estimates: {**functions.quantities(estimates.psi), **parameters(estimates)}

    def draws_of(self, at: Mapping[str, Any] | None = None) -> Callable[[Array], dict[str, Array]]:
        """The effects of many parameter vectors (n, n_psi) as a function."""
        if not self._has_effects(at):
            return super().draws_of()
        return self.effect_functions(at).draws

    def _has_effects(self, at: Mapping[str, Any] | None) -> bool:
        if check_mapping(at, "at", "at={'w': 1.0}") and self.effects_reason:
            try:
                self._paths(at)
            except EffectError as error:
                raise EffectError(f"at= is where effects are taken, but the model defines none: {error}") from error
            return True
        return not self.effects_reason

    @cached_property
    def effects_reason(self) -> str:
        """Why the model defines no effects (a curve, an interaction of treatment and mediator); usually empty."""
        try:
            self.effect_quantities()
        except EffectError as error:
            return str(error)
        return ""

    def comparable(self, *, level: float = 0.95) -> pd.DataFrame:
        """Effects (without numbers where the model defines none), then all estimates (``mlmed.compare``)."""
        parameters = super().comparable(level=level)
        effects = missing_effects(self.effects_reason) if self.effects_reason else self.effects(level=level)
        return pd.concat([effects, parameters], ignore_index=True)

    # Below, further options are those of ``effects()``: its table stands in what is printed and exported.

    def sections(
        self, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None, **options: Any
    ) -> dict[str, pd.DataFrame]:
        """The tables that are exported, by name; ``effects`` has no rows where the model defines none."""
        effects = self._asked_effects(level=level, vcov=vcov, ddf=ddf, **options)
        return {**super().sections(level=level, **_errors(vcov, ddf)), "effects": effects}

    def _asked_effects(self, *, level: float, **options: Any) -> pd.DataFrame:
        given = {name: value for name, value in options.items() if value is not None}
        if self.effects_reason and given.keys() <= {"vcov", "ddf"}:  # which other tables use
            return wald_table([], np.empty(0), np.empty(0))
        return self.effects(level=level, **given)

    def to_json(self, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None, **options: Any) -> str:
        """All tables as JSON (what ``mlmed mediate --format json`` prints)."""
        tables = self.sections(vcov=vcov, level=level, ddf=ddf, **options)
        asked = {"treatment": self.treatment, "level": check_level(level), **_errors(vcov, ddf)}
        extra = {"effects_reason": self.effects_reason} if self.effects_reason else {}
        return to_json(self.fitted, tables, **asked, **interval_entry(options), **extra)

    def to_table(
        self, *, vcov: str | None = None, level: float = 0.95, ddf: str | None = None, **options: Any
    ) -> pd.DataFrame:
        """All tables below each other (what ``mlmed mediate --format csv`` prints)."""
        return flat_table(self.sections(vcov=vcov, level=level, ddf=ddf, **options))

    def summary(
        self,
        style: str = "text",
        *,
        vcov: str | None = None,
        level: float = 0.95,
        ddf: str | None = None,
        **options: Any,
    ) -> str:
        """The fit and its effects as text; ``style="stata"`` has the layout of ``xtmixed``.

        Raises
        ------
        EffectError
            Unknown style, or options that the Stata layout or the interval does not use.
        """
        if one_of(style, STYLES, "style") == "stata":
            refuse_given("style='stata' shows Stata's intervals", options)
            return super().summary(style, level=level, **_errors(vcov, ddf))
        first, second = self.fitted.layout.equations
        title = f"Multilevel mediation: {self.treatment} -> {first.name} -> {second.name}"
        errors = _errors(vcov, ddf)
        head = native_summary(self.fitted, level=level, title=title, correlations=False, **errors)
        asked = {"vcov": vcov, "ddf": ddf, **options}
        table = self._asked_effects(level=level, **asked)
        if not len(table):
            return "\n".join([head, "", "No effects", textwrap.fill(self.effects_reason, 92)])
        lines = [head, "", effects_text(table, "indirect = a*b + cov_ab", level=level, **asked)]
        if options.get("interval") in (None, "delta"):
            lines.append(self._other_vcov_line("joint" if errors["vcov"] == "block" else "block", options))
        return "\n".join(lines)

    def _stata_report(self, level: float) -> StataReport:
        if self.effects_reason:
            notes = (f"No effects: {self.effects_reason}",)
            return stata_report(self.fitted, level=level, mediation=True, notes=notes)
        return stata_report(self.fitted, level=level, mediation=True, effects=self.effects(level=level))

    def _other_vcov_line(self, kind: str, options: Mapping[str, Any]) -> str:
        """The errors of another kind, and the terms that have none."""
        table = self.effects(vcov=kind, order=options.get("order"), at=options.get("at"))
        other = table.set_index("term")["std_error"].loc[list(SHOWN_ERRORS)]
        known, without = other.dropna(), other.index[other.isna()]
        if not len(known):
            return f'vcov="{kind}" has no standard errors here; the notes of effects(vcov="{kind}") say why'
        shown = ", ".join(f"{term} {format_number(error, 5)}" for term, error in known.items())
        none = f"; none of {', '.join(without)}" if len(without) else ""
        return f'vcov="{kind}" has standard errors {shown}{none} (docs/standard_errors.md)'


def _errors(vcov: str | None, ddf: str | None) -> dict[str, str]:
    """Which standard errors and tests: those of ``effects()`` unless given."""
    return {"vcov": "block" if vcov is None else vcov, "ddf": "none" if ddf is None else ddf}


@warns
def mediate(
    mediator: str,
    outcome: str,
    data: Any,
    *,
    method: Method = "reml",
    treatment: str | None = None,
    contrast: tuple[Any, Any] | None = None,
    covariance: str | Mapping[str, str] = "unstructured",
) -> MediationResults:
    """Fit mediator and outcome equations as one mixed model (Bauer, Preacher & Gil, 2006).

    Parameters
    ----------
    mediator, outcome : str
        lme4 formulas with the same cluster variable: ``"m ~ x + (1 + x | id)"`` and
        ``"y ~ m + x + (1 + m + x | id)"``. Random effects of the two are correlated; with brms' labels,
        ``(1 + x |i| id)``, only where the labels agree. Each equation has its own residual variance.
    data : dataframe
        pandas, Polars, Arrow, or anything narwhals reads; never modified. An equation loses only the rows
        that it cannot use; they are counted and reported.
    method : {"reml", "ml"}
        Criterion.
    treatment : str, optional
        The column that plays x; needed when the mediator equation has more than one predictor.
    contrast : pair, optional
        Two values of the treatment to compare, for factors and transformed treatments.
    covariance : str or mapping
        Structure of the random-effects covariance: ``"unstructured"`` (default), ``"diagonal"``,
        ``"identity"``, ``"exchangeable"``; a mapping gives one per block label.

    Raises
    ------
    FormulaError, DataError, NotIdentifiedError
        What was found, what it means, what to do.

    Warns
    -----
    LevelWarning
        The treatment does not vary within clusters, or such a variable has a random slope.
    FamilyWarning
        Mediator or outcome has two values.
    CovarianceWarning
        Random terms without labels keep the slopes of a and b from covarying.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mediate(
    ...     mediator="Med ~ X + (1 + X | group)",
    ...     outcome="y ~ Med + X + (1 + Med + X | group)",
    ...     data=mlmed.datasets.load("yuan_mackinnon_sim"),
    ... )
    >>> round(fit.llf, 5)
    -2337.44202
    >>> fit.effects().set_index("term").loc[["indirect", "total"], "estimate"].round(5).to_dict()
    {'indirect': -0.12762, 'total': 0.16824}
    """
    columns = known_columns(data)
    first, second = parse_equation(mediator, columns), parse_equation(outcome, columns)
    check_mediator(first, second)
    treatment = treatment_of(first, treatment)
    pair = check_contrast(contrast)
    spec = ModelSpec((first, second), method, covariance)
    fitted = fit_model(spec, data)
    layouts, bare = fitted.layout.equations, MediationResults(fitted, treatment, pair)
    paths = None if bare.effects_reason else find_paths(fitted.layout, treatment=treatment, contrast=pair)
    seen = *table_notes(data, spec.equations, layouts, fitted.clusters), *mediation_notes(fitted, treatment, paths)
    return replace(bare, remarks=seen)
