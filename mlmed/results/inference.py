"""What can be concluded from a fit: effects, functions of parameters, covariances, bootstraps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import singledispatch
from typing import Any

import numpy as np
import pandas as pd

from mlmed.effects.catalogue import EffectSet, FormSet, NoEffects
from mlmed.effects.counterfactual import CounterfactualCatalogue
from mlmed.effects.nlcom import UNKNOWN
from mlmed.effects.quantity import Quantity
from mlmed.errors import EffectError, UnavailableError
from mlmed.fit.glm import PlainFit
from mlmed.fit.protocol import Fit
from mlmed.fit.resampling import Plan, source_of
from mlmed.fit.system import SystemFit
from mlmed.intervals.bootstrap import BootstrapResults, run_bootstrap
from mlmed.intervals.functions import Expression, QuantitiesAt, function_table, parameters_at
from mlmed.intervals.sdcor import fit_sdcor_quantities, sdcor_of
from mlmed.intervals.values import Delta, Interval, interval_of
from mlmed.options import Of, RanefDraws, check_level, check_mapping, one_of, own_words
from mlmed.results.abilities import Held, listed, only


def kind_of(fit: Fit, vcov: str | None) -> str:
    """Return the covariance asked for, or the fit's default."""
    return fit.usual if vcov is None else vcov


def effect_set(self: Held, at: Mapping[str, Any] | None = None, **question: Any) -> EffectSet:
    """Evaluate the effects at one place; none if the model defines none and no place is given."""
    held = check_mapping(at, "at", "at={'w': 1.0}")
    given = {name: value for name, value in question.items() if value is not None}
    if idle := [name for name in given if name not in self.catalogue.questions]:
        raise EffectError(
            f"{', '.join(idle)}= is for effects of mlmed.causal; this is {self.fit.kind}, so leave it out"
        )
    try:
        return self.catalogue.effects(self.fit, held, **given)
    except EffectError as error:
        if given:
            raise
        if not held:
            return FormSet(self.fit)
        if not effects_reason(self):
            raise
        raise EffectError(f"at= is where effects are taken, but the model defines none: {error}") from error


def effects_reason(self: Held) -> str:
    """Reason why the model defines no effects (no mediator, a curve, a treatment-mediator interaction); else empty."""
    try:
        self.catalogue.effects(self.fit, None)
    except EffectError as error:
        return str(error)
    return ""


def has_treatment(self: Held) -> bool:
    """Whether a treatment was asked for."""
    return hasattr(self.catalogue, "treatment")


def has_effects(self: Held) -> bool:
    """Whether fits of this kind can define effects."""
    return not isinstance(self.catalogue, NoEffects)


@contextmanager
def reasons(self: Held) -> Iterator[None]:
    """Say of an effect that an expression names why the model does not define it."""
    try:
        yield
    except EffectError as error:
        name = error.code.removeprefix(UNKNOWN) if error.code.startswith(UNKNOWN) else ""
        if name not in self.catalogue.rows(self.fit) or not (why := effects_reason(self)):
            raise
        raise EffectError(f"the model does not define {name}: {why}", code=error.code) from error


def asked_of(self: Held, what: str) -> Any:
    """Return the treatment or the contrast of a catalogue; refuse if it has none."""
    if not hasattr(self.catalogue, what):
        raise UnavailableError(f"{what} is of fits with treatment, mediator and outcome; this is {self.fit.kind}")
    return getattr(self.catalogue, what)


def quantities(self: Held, at: Mapping[str, Any] | None = None) -> dict[str, Quantity]:
    """Collect what expressions can name, at the estimates: effects, parameters, ``sd()`` and ``cor()``."""
    defined = {term: q for term, q in effect_set(self, at).named.items() if np.isfinite(q.estimate)}
    of_psi = not isinstance(self.catalogue, CounterfactualCatalogue)  # a function of contrasts and coefficients
    return {**defined, **(sdcor_of(self.fit) if of_psi else {})}


@singledispatch
def coefficient_df(fit: Any) -> dict[str, float]:
    """Degrees of freedom of the coefficients by name, where a fit has them as it is."""
    return {}


@coefficient_df.register
def _(fit: PlainFit) -> dict[str, float]:
    return {one.name: fit.df for one in fit.parameters}


@coefficient_df.register
def _(fit: SystemFit) -> dict[str, float]:
    own = zip(fit.components.values(), fit.parts, strict=True)
    return {one.name: part.df for part, at in own if isinstance(part, PlainFit) for one in fit.parameters[at]}


def moving(self: Held, at: Mapping[str, Any] | None = None) -> QuantitiesAt:
    """Return ``quantities`` as a function of a mixed model's estimates."""
    fit, own, found = self.fit, self.fit.parameters, effect_set(self, at)
    effects_at = getattr(found, "moving", None)
    return lambda estimates: {
        **(effects_at(estimates) if effects_at else {}),
        **parameters_at(own, estimates),
        **fit_sdcor_quantities(fit, estimates, moving=True),
    }


@listed(has_effects)
@own_words
def effects(
    self: Held,
    interval: Any = "delta",
    *,
    level: float = 0.95,
    vcov: str | None = None,
    order: str | None = None,
    ddf: str | None = None,
    n: int | None = None,
    kind: str | None = None,
    within: bool | None = None,
    strata: str | None = None,
    ends: str | None = None,
    seed: int | None = None,
    n_jobs: int | None = None,
    progress: bool | None = None,
    at: Mapping[str, Any] | None = None,
    of: Of | None = None,
    ranef_draws: RanefDraws | None = None,
) -> pd.DataFrame:
    """Tabulate the effects with standard errors, tests and intervals.

    Terms and intervals by the function that made the fit:

    - ``mediate``: a, b, cprime, cov_ab, indirect = a b + cov_ab, direct = cprime, total. ``delta``, ``monte-carlo``,
      ``profile``, ``bootstrap``.
    - ``piecewise``: a, b, cprime, c, indirect = a b, direct = cprime, total, c_minus_cprime, prop_mediated =
      indirect / total, ratio = indirect / direct (docs/piecewise.md). ``delta``, ``monte-carlo``, ``product``,
      ``bootstrap``.
    - ``causal``: acme, ade and prop_mediated, each at control, at treated and their mean, and total (docs/causal.md).
      ``delta``, ``monte-carlo``, ``bootstrap``.
    - ``location_scale``: ``exp(sigma~Intercept)``, the residual sd where scale predictors are 0, and ``exp(sigma~x)``,
      its factor per unit of x. ``delta``, ``monte-carlo``; intervals on the log scale.
    - ``mixed``: none; refused.

    An option that the interval or the fit does not use is refused, not ignored. docs/choosing_intervals.md compares the
    intervals.

    Parameters
    ----------
    interval : {"delta", "monte-carlo", "profile", "product", "bootstrap"} or Delta, MonteCarlo, ...
        Normal theory; draws of the parameters from their normal distribution; profile likelihood; the exact
        distribution of a product of normal variables; refitted replicates of the data. Or a value with its own options,
        such as ``mlmed.Delta(order="first")``.
    level : float
        Coverage of the intervals, a proportion.
    vcov : str, optional
        All but ``bootstrap``: covariance of the estimates, one of ``vcov()``; by default the fit's own. ``profile``
        uses it for std_error only.
    order : {"second", "first", "unbiased"}
        ``delta`` of ``mediate`` and ``piecewise``: ``second`` (default) adds the term Va Vb + Cab^2 of Bauer, Preacher
        & Gil (2006), ``first`` omits it, ``unbiased`` subtracts it (Aroian, Sobel, Goodman).
    ddf : {"none", "satterthwaite", "kenward-roger", "residual"}
        ``delta`` of ``mediate``: t instead of z, with these degrees of freedom (column ``df``).
    n : int
        Draws of ``monte-carlo`` (20,000; 1,000 for ``causal``) or replicates of ``bootstrap`` (1,000).
    kind : {"case", "parametric", "residual"}
        ``bootstrap`` of ``mediate``: type of replicate, as in ``bootstrap()``.
    within : bool
        ``bootstrap`` of ``mediate``, ``kind="case"``: also draw rows within clusters.
    strata : str
        ``bootstrap`` of ``piecewise``: column within whose values clusters are drawn.
    ends : {"percentile", "bc", "bca", "basic", "normal"}
        ``bootstrap``: construction of the interval from the draws.
    seed : int
        Required by ``monte-carlo`` and ``bootstrap``.
    n_jobs, progress
        ``bootstrap``: workers, and whether to show a progress bar.
    at : mapping, optional
        ``mediate``, ``piecewise``: values of moderators of x -> m, m -> y or x -> y; by default the mean or the first
        level. ``causal``: values to set covariates to in every row; by default they stay as observed.
    of : {"cluster", "population"}
        ``causal`` with random terms: effects for the clusters in the data, by their conditional modes, averaged over
        the rows (default); or in the population of clusters, random effects integrated out.
    ranef_draws : {"joint", "independent"}
        ``causal`` with random terms, ``delta`` and ``monte-carlo`` with ``of="cluster"``: random effects conditional on
        the drawn coefficients (default), or independent of them, as R's ``mediation`` draws them.

    Returns
    -------
    DataFrame
        term, estimate, std_error, statistic, df (infinite for normal tests, NaN for draws), p_value, conf_low,
        conf_high, note (why a number is missing, or how to read it).

    Raises
    ------
    EffectError
        The model defines no effects; an unknown interval; an option that is not used; no seed where one is required.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mediate("Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)", df)
    >>> table = fit.effects("monte-carlo", n=1000, seed=1).set_index("term")
    >>> table.loc[["indirect", "total"], "estimate"].round(3).to_dict()
    {'indirect': -0.128, 'total': 0.168}
    >>> fit = mlmed.location_scale("Med ~ X + (1 | group)", "~ 1 + (1 | group)", df)
    >>> fit.effects()[["term", "estimate"]].round(3).values.tolist()
    [['exp(sigma~Intercept)', 1.413]]
    """
    given = {
        "vcov": vcov, "order": order, "ddf": ddf, "n": n, "kind": kind, "within": within, "strata": strata,
        "ends": ends, "seed": seed, "n_jobs": n_jobs, "progress": progress, "of": of, "ranef_draws": ranef_draws,
    }  # fmt: skip
    level = check_level(level)
    asked, found = interval_and_effects(self, interval, at, given)
    return asked.table(found, level=level)


def interval_and_effects(
    self: Held, interval: Any, at: Mapping[str, Any] | None, given: Mapping[str, Any]
) -> tuple[Interval, EffectSet]:
    """Build the interval and the effects asked for; ``given`` holds the other options."""
    held, known = check_mapping(at, "at", "at={'w': 1.0}"), self.catalogue.intervals
    usual = "delta" if interval is None else interval
    asked = interval_of(usual, given, known) if known else Delta()  # no intervals, no effects: refused below
    question = {name: given.get(name) for name in self.catalogue.questions}
    return asked, self.catalogue.effects(self.fit, held, **question)


@only(source_of)
def bootstrap(
    self: Held,
    n: int = 1000,
    *,
    seed: int | None = None,
    kind: str = "case",
    within: bool = False,
    strata: str | None = None,
    n_jobs: int | None = None,
    progress: bool = False,
    at: Mapping[str, Any] | None = None,
    of: Of | None = None,
) -> BootstrapResults:
    """Refit replicates of the data.

    Fits of ``mixed`` and ``mediate`` take every ``kind``. ``piecewise`` and ``causal`` draw whole clusters, the same
    for all equations (rows, if ``causal`` has no clusters). Location-scale models and single ordinary regressions have
    no bootstrap.

    Parameters
    ----------
    n : int
        Replicates.
    seed : int
        Required; results do not depend on the number of workers.
    kind : {"case", "parametric", "residual"}
        ``mixed``, ``mediate``: clusters drawn with replacement; data drawn from the fitted model; reflated residuals of
        both levels drawn with replacement (Carpenter, Goldstein & Rasbash, 2003). See docs/choosing_intervals.md.
    within : bool
        With ``case``: also draw rows within the drawn clusters. In small clusters this adds their noise twice and
        makes intervals too wide.
    strata : str, optional
        ``piecewise``: a column that is constant within clusters, such as the treatment arm; the number of clusters
        drawn from each of its values is kept.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one.
    progress : bool
        Show a progress bar on standard error.
    at, of
        As in ``effects``.

    Returns
    -------
    BootstrapResults
        Draws of all effects and parameters; ``tidy()`` tabulates intervals, ``plot()`` draws a histogram. Fits of
        ``causal`` draw the effects only.

    Raises
    ------
    EffectError
        No seed, an option that the fit does not take, or rows are needed and the fit has none.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.bootstrap(20, seed=1, kind="parametric")
    BootstrapResults(20 replicates, kind 'parametric', seed 1: 0 failed, 0 singular)
    """
    plan = Plan(n, kind, within, strata, seed, n_jobs, progress)
    return run_bootstrap(effect_set(self, at, of=of), plan)


def vcov(self: Held, kind: str | None = None, *, which: str = "all") -> pd.DataFrame:
    """Covariance matrix of the estimates.

    Parameters
    ----------
    kind : {"block", "joint", "cluster", "CR0", "CR1", "CR2", "iid", "HC0", "HC1", "HC2", "HC3"}, optional
        By default the fit's own: ``block``; ``joint`` of location-scale models, which have no other; what ``causal``
        was given. ``block``: fixed effects independent of variances (Stata, lme4, nlme, SAS). ``joint``: fixed effects
        propagated through the variances (glmmTMB, lavaan). ``cluster`` and ``CR0`` to ``CR2``: robust to a wrong model
        within clusters. ``iid`` (the model's) and ``HC0`` to ``HC3`` (robust to unequal variances): ordinary
        regressions on independent rows. See docs/standard_errors.md.
    which : {"all", "fixed"}
        All parameters or the fixed effects only.

    Returns
    -------
    DataFrame
        Rows and columns are the parameters, as in ``names``.

    Raises
    ------
    EffectError
        Unknown word, or a covariance that this fit does not have.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.vcov("CR2", which="fixed").round(4).to_dict()
    {'Intercept': {'Intercept': 0.0201, 'X': -0.0035}, 'X': {'Intercept': -0.0035, 'X': 0.013}}
    """
    one_of(which, ("all", "fixed"), "which")
    matrix, names = self.fit.vcov(kind_of(self.fit, kind)).matrix, [one.name for one in self.fit.parameters]
    kept = [k for k, one in enumerate(self.fit.parameters) if which == "all" or not one.kind]
    shown = [names[k] for k in kept]
    return pd.DataFrame(matrix[np.ix_(kept, kept)], index=shown, columns=shown)


def nlcom(
    self: Held,
    expression: Expression,
    *,
    vcov: str | None = None,
    order: str | None = None,
    level: float = 0.95,
    at: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """Evaluate any function of effects and parameters, with a delta-method standard error.

    Parameters
    ----------
    expression : str, callable or mapping
        ``"a*b + cov_ab + cprime"``; names may stand in backticks, ``"`m~x` / `y~m`"``, and
        ``cov(a,b)`` and ``cor(a,b)`` name their effects in either order. A callable gets a dict of values by name.
        A mapping gives several expressions, by label. Names are the terms of ``effects()``, the parameters (``names``)
        and the terms of ``sdcor()``; of ``causal`` the effects, also as indirect and direct, and the coefficients.
        A bare ``sd()`` or ``cor()`` is shown as in ``sdcor()``: first-order error, interval on the log scale or by
        Fisher's z. A bare coefficient of a linear regression is tested by t as in ``fixef()``; all else by z.
    vcov : str, optional
        Covariance of the estimates, one of ``vcov()``; by default the fit's own.
    order : {"second", "first", "unbiased"}, optional
        ``second`` adds ``tr(HVHV)/2`` to the variance (as BPG's formulas do), ``unbiased`` subtracts it, ``first``
        (Stata's ``nlcom``) omits it. By default ``second``; ``first`` for ``causal``.
    level : float
        Coverage of the interval, a proportion.
    at : mapping, optional
        Where to evaluate the effects named in the expression, as in ``effects``.

    Returns
    -------
    DataFrame
        One row per expression, with the columns of ``effects``.

    Raises
    ------
    EffectError
        The expression cannot be read, names something unknown, or has no finite value.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mediate("Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)", df)
    >>> table = fit.nlcom({"a b": "a * b", "sum": "`Med~X` + `y~X`"})
    >>> table[["term", "estimate", "std_error"]].round(3).values.tolist()
    [['a b', -0.034, 0.028], ['sum', 0.486, 0.151]]
    """
    V = effect_set(self, at).vcov(kind_of(self.fit, vcov))
    chosen = self.catalogue.order if order is None else order
    with reasons(self):
        known, df = quantities(self, at), coefficient_df(self.fit)
        return function_table(expression, known, V, order=chosen, level=level, df=df)
