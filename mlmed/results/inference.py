"""What can be concluded from a fit: effects, functions of parameters, profiles, tests, bootstraps, influence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlmed.effects.catalogue import EffectSet, FormSet
from mlmed.effects.counterfactual import CounterfactualCatalogue
from mlmed.effects.nlcom import known_name
from mlmed.effects.quantity import Quantity
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.protocol import Fit
from mlmed.fit.resampling import Plan, source_of
from mlmed.fit.starts import from_random_start, table_of_starts
from mlmed.intervals.bootstrap import BootstrapResults, run_bootstrap
from mlmed.intervals.functions import Expression, QuantitiesAt, function_table, parameters_at, quantity_of
from mlmed.intervals.profile import ProfileResults, profile_quantity
from mlmed.intervals.sdcor import entry_behind, fit_sdcor_quantities, sdcor_of
from mlmed.intervals.values import Delta, Interval, interval_of
from mlmed.lmm.estimates import loglik_at as loglik_at_
from mlmed.options import Of, RanefDraws, check_level, check_mapping, one_of, own_words, shown
from mlmed.results.abilities import Held, only
from mlmed.results.influence import InfluenceResults, influence_of
from mlmed.results.likelihood import LRTest, compare_fits, test_equation


def kind_of(fit: Fit, vcov: str | None) -> str:
    """The covariance that was asked for, or the one that the fit was made with."""
    return fit.usual if vcov is None else vcov


def effect_set(self: Held, at: Mapping[str, Any] | None = None, **question: Any) -> EffectSet:
    """The effects at one place; without any where the model defines none and nobody asks for a place."""
    held = check_mapping(at, "at", "at={'w': 1.0}")
    given = {name: value for name, value in question.items() if value is not None}
    if idle := [name for name in given if name not in self.catalogue.questions]:
        raise EffectError(
            f"{', '.join(idle)}= is for effects of mlmed.causal, not for those of mlmed.{self.catalogue.school}; leave "
            "it out"
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
    """Why the model defines no effects (a curve, an interaction of treatment and mediator); usually empty."""
    try:
        self.catalogue.effects(self.fit, None)
    except EffectError as error:
        return str(error)
    return ""


def asked_of(self: Held, what: str) -> Any:
    """The treatment or the contrast of a catalogue that has them."""
    if not hasattr(self.catalogue, what):
        raise EffectError(f"a fit of mlmed.{self.catalogue.school} has no {what}")
    return getattr(self.catalogue, what)


def quantities(self: Held, at: Mapping[str, Any] | None = None) -> dict[str, Quantity]:
    """Everything that can be named at the estimates: effects, parameters, ``sd()`` and ``cor()``."""
    defined = {term: q for term, q in effect_set(self, at).named.items() if np.isfinite(q.estimate)}
    of_psi = not isinstance(self.catalogue, CounterfactualCatalogue)  # which has contrasts and coefficients
    return {**defined, **(sdcor_of(self.fit) if of_psi else {})}


def moving(self: Held, at: Mapping[str, Any] | None = None) -> QuantitiesAt:
    """The same as a function of the estimates of a mixed model."""
    fit, own, found = self.fit, self.fit.parameters, effect_set(self, at)
    effects_at = getattr(found, "moving", None)
    return lambda estimates: {
        **(effects_at(estimates) if effects_at else {}),
        **parameters_at(own, estimates),
        **fit_sdcor_quantities(fit, estimates, moving=True),
    }


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
    """Paths and effects: a, b, cprime, cov_ab, indirect = a b + cov_ab, direct, total.

    Of separate fits (``mlmed.piecewise``): c, indirect = a b, c_minus_cprime, prop_mediated and ratio as well, without
    cov_ab; docs/piecewise.md says what to know of them.

    Of a location-scale model: scale effects on the sd scale, the residual sd where scale predictors are 0 and factors
    per unit, with intervals that are made on the log scale.

    An option that the asked interval does not use is refused. docs/choosing_intervals.md says which to use.

    Parameters
    ----------
    interval : {"delta", "monte-carlo", "profile", "product", "bootstrap"}
        Normal theory; draws of a, b, cprime and cov_ab from their joint normal distribution; profile likelihood; the
        exact distribution of a product of normal variables (separate fits); refitted replicates of the data.
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
    strata : str
        ``bootstrap`` of separate fits: a column within whose values clusters are drawn.
    ends : {"percentile", "bc", "bca", "basic", "normal"}
        ``bootstrap``: how an interval is made of draws.
    seed : int
        Required by ``monte-carlo`` and ``bootstrap``.
    n_jobs, progress
        ``bootstrap``: workers, and whether to show a progress bar.
    at : mapping, optional
        Values of moderators of x -> m, m -> y or x -> y; by default their mean or first level. Of ``mlmed.causal``,
        values of covariates in every row, which by default are as they are.
    of : {"cluster", "population"}
        ``mlmed.causal``, mixed models: effects of these clusters (default), whose random effects enter by their
        conditional modes, averaged over the rows; or in the population of clusters, random effects averaged out.
    ranef_draws : {"joint", "independent"}
        ``mlmed.causal``, ``delta`` and ``monte-carlo`` with modes: random effects given the drawn coefficients
        (default), or drawn one by one without looking at them, which is what R's ``mediation`` does.

    Returns
    -------
    DataFrame
        term, estimate, std_error, statistic, df, p_value, conf_low, conf_high, note.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
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
    """What makes the table of effects, and the effects that were asked for; ``given`` are the other options."""
    held, known = check_mapping(at, "at", "at={'w': 1.0}"), self.catalogue.intervals
    usual = "delta" if interval is None else interval
    asked = interval_of(usual, given, known) if known else Delta()  # without intervals there are no effects
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

    Parameters
    ----------
    n : int
        Replicates.
    seed : int
        Seed, required; results do not depend on the number of workers.
    kind : {"case", "parametric", "residual"}
        Clusters drawn with replacement; data drawn from the fitted model; reflated residuals of both levels
        drawn with replacement (Carpenter, Goldstein & Rasbash, 2003). See docs/choosing_intervals.md.
    within : bool
        With ``case``: also draw rows within the drawn clusters. In small clusters this adds their noise twice and
        makes intervals too wide.
    strata : str, optional
        Separate fits: a column that is constant within clusters, such as treatment arms; each of its values keeps its
        number of clusters. Whole clusters are drawn, the same for all equations.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one.
    progress : bool
        Show a progress bar on standard error.
    at : mapping, optional
        Values of moderators.
    of : {"cluster", "population"}
        ``mlmed.causal``: as in ``effects``.

    Raises
    ------
    EffectError
        No seed, unknown kind, or rows are needed and the fit was made from stored cross-products.
    """
    plan = Plan(n, kind, within, strata, seed, n_jobs, progress)
    return run_bootstrap(effect_set(self, at, of=of), plan)


def vcov(self: Held, kind: str | None = None, *, which: str = "all") -> pd.DataFrame:
    """Covariance matrix of the estimates.

    Parameters
    ----------
    kind : {"block", "joint", "cluster", "CR0", "CR1", "CR2"}
        ``block``: fixed effects independent of variances (Stata, lme4, nlme, SAS). ``joint``: fixed effects
        propagated through the variances (glmmTMB, lavaan). The others are robust to a wrong model within
        clusters. See docs/standard_errors.md.
    which : {"all", "fixed"}
        All parameters or the fixed effects only.
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
    """Any function of the parameters, with a delta-method standard error.

    Parameters
    ----------
    expression : str, callable or mapping
        ``"a*b + cov_ab + cprime"``; names may stand in backticks, ``"`m~x` / `y~m`"``, and
        ``cov(a,b)`` and ``cor(a,b)`` name their effects in either order. A callable gets a dict of values by name.
        All parameters, effects, and ``sd()`` and ``cor()`` of ``sdcor()`` have names. A mapping gives several
        expressions, by label. An ``sd()`` or ``cor()`` alone is shown as in ``sdcor()``: first-order error,
        interval on the log scale or by Fisher's z.
    vcov : {"block", "joint", "cluster", "CR0", "CR1", "CR2"}
        Which covariance of the estimates.
    order : {"second", "first", "unbiased"}
        Second order (default) adds ``tr(HVHV)/2`` to the variance (what BPG's formulas do), ``unbiased`` subtracts
        it; Stata's ``nlcom`` is first, and so are effects of ``mlmed.causal`` by default.
    level : float
        Coverage of the interval.
    at : mapping, optional
        Values of moderators at which effects named in the expression are taken.
    """
    V = effect_set(self, at).vcov(kind_of(self.fit, vcov))
    chosen = self.catalogue.order if order is None else order
    return function_table(expression, quantities(self, at), V, order=chosen, level=level)


@only(LmmFit)
def profile(
    self: Held, expression: str, *, level: float = 0.95, points: int = 20, at: Mapping[str, Any] | None = None
) -> ProfileResults:
    """Profile likelihood of an effect, a parameter, or an expression of them.

    Everything else is estimated again at each value, the random-effects covariance included. Under REML the
    criterion keeps its ``log|X'V^-1 X|`` (docs/math.md, eq. 37).

    Parameters
    ----------
    expression : str
        For example ``"indirect"``, ``"cov_ab"``, ``"var(m~x)"``, ``"cor(m~x,y~m)"`` or ``"indirect / total"``.
    level : float
        Coverage of the interval, a proportion.
    points : int
        Points of the curve, beside the ends of the interval.
    at : mapping, optional
        Values of moderators.

    Raises
    ------
    EffectError
        Unknown names, or a quantity that the model fixes.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> [round(end, 3) for end in fit.profile("X").interval]
    [-0.038, 0.418]
    """
    variances = entry_behind(self.fit, "sd")
    name = known_name(expression, variances) if isinstance(expression, str) else None
    asked = quantity_of(expression if name is None else variances[name], moving(self, at), self.fit.estimates)
    found = profile_quantity(self.fit, asked, level=level, points=points)
    return found if name is None else found.root(expression.strip())


@only(LmmFit)
def test(self: Held, hypothesis: str, *, at: Mapping[str, Any] | None = None) -> LRTest:  # noqa: PT028
    """Likelihood-ratio test of one restriction, everything else re-estimated.

    A variance is tested at its boundary (the random effect is left out, with its covariances), against the
    mixture of chi2 distributions that belongs there; conservative if several covariances fall with it (see the
    note of the result).

    Parameters
    ----------
    hypothesis : str
        For example ``"cov_ab = 0"``, ``"indirect = 0.3"``, ``"a = b"``, ``"var(m~x) = 0"``, ``"cor(m~x,y~m) = 0"``.
    at : mapping, optional
        Values of moderators.

    Raises
    ------
    EffectError
        If the text is not a restriction, or the quantity cannot take the value.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> print(fit.test("X = 0"))
    LR test of X = 0: chi2(1) = 2.7061, p = 0.09996
    """
    return test_equation(self.fit, hypothesis, moving(self, at))


@only(LmmFit)
def compare(self: Held, other: Held) -> pd.DataFrame:
    """Set this fit beside another of the same data: log-likelihoods, AIC, BIC, LR test where one is nested.

    Raises
    ------
    EffectError
        Different data or criteria, or REML fits with different fixed effects.
    """
    if not isinstance(getattr(other, "fit", None), LmmFit):
        raise EffectError(f"compare() takes another fit of mlmed.mixed or mlmed.mediate; found {shown(other)}")
    return compare_fits(self.fit, other.fit)


@only(LmmFit)
def influence(
    self: Held,
    *,
    refit: bool | None = None,
    vcov: str | None = None,
    n_jobs: int | None = None,
    at: Mapping[str, Any] | None = None,
) -> InfluenceResults:
    """Change of every effect and parameter when one cluster is left out.

    Parameters
    ----------
    refit : bool, optional
        Refit without each cluster (exact), or take one Newton step from the fit (docs/math.md, section 15). By
        default the step, except where the fit is singular: the step does not exist there, so up to 2,000 clusters
        it is refitted. With more, changes are NaN, with that reason; ask for ``refit=True``.
    vcov : {"block", "joint", "cluster", "CR0", "CR1", "CR2"}
        Standard errors in which changes are measured.
    n_jobs : int, optional
        Workers for refits; by default those of the surrounding ``joblib.parallel_config``, or one.
    at : mapping, optional
        Values of moderators.
    """
    return influence_of(
        self.fit, effect_set(self, at), self.fit.vcov(kind_of(self.fit, vcov)), refit=refit, n_jobs=n_jobs
    )


@only(LmmFit)
def loglik_at(self: Held, G: ArrayLike, sigma2: ArrayLike) -> float:
    """Log-likelihood of this model at other variances, fixed effects at their best value given them.

    Parameters
    ----------
    G : (q, q) array
        Covariance of the random effects, in the order of ``fit.G``; may be singular.
    sigma2 : (R, R) or (S,) array
        Residual covariance of a row (``fit.Sigma``), or its entries: the variances and, if residuals are
        correlated, the covariances in the order of ``fit.names``.

    Raises
    ------
    EffectError
        If the shapes are wrong, or G or the residual covariance is not a covariance matrix.
    """
    return loglik_at_(self.fit.working, G, sigma2, reml=self.fit.reml)


def check_starts(self: Held, n: int = 5, *, seed: int, n_jobs: int | None = None) -> pd.DataFrame:
    """Fit again from random starts, none of which should end at a better optimum.

    The starts are far away: variances spread over decades, any correlations, and every other time the clusters
    that are most unlike the others in G. Where a likelihood has several optima some end in a worse one.

    Parameters
    ----------
    n : int
        Starts.
    seed : int
        Of the random numbers.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one. Results do not depend on
        their number.

    Returns
    -------
    DataFrame
        start, llf, difference (from this fit), gradient_norm, newton_decrement, converged, and how far ``apart``
        the estimates are, in standard errors. NaN where a search ended in no optimum.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> bool(fit.check_starts(3, seed=1)["difference"].abs().max() < 1e-8)
    True
    """
    return table_of_starts(partial(from_random_start, self.fit), self.fit.llf, n, seed=seed, n_jobs=n_jobs)
