"""The criterion elsewhere: profiles, likelihood-ratio tests, other starts and variances, clusters left out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from mlmed.effects.nlcom import known_name
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.starts import from_random_start, table_of_starts
from mlmed.intervals.functions import quantity_of
from mlmed.intervals.profile import ProfileResults, profile_quantity
from mlmed.intervals.sdcor import entry_behind
from mlmed.lmm.estimates import loglik_at as loglik_at_
from mlmed.options import shown
from mlmed.results.abilities import Held, is_of, listed, only
from mlmed.results.inference import effect_set, kind_of, moving, reasons
from mlmed.results.influence import InfluenceResults, influence_of
from mlmed.results.likelihood import LRTest, compare_fits, test_equation


@only(LmmFit)
def profile(
    self: Held, expression: str, *, level: float = 0.95, points: int = 20, at: Mapping[str, Any] | None = None
) -> ProfileResults:
    """Profile likelihood of an effect, a parameter, or an expression of them (linear mixed models).

    All other parameters are re-estimated at each value, the random-effects covariance included. Under REML the
    criterion keeps its ``log|X'V^-1 X|`` (docs/math.md, eq. 37).

    Parameters
    ----------
    expression : str
        For example ``"indirect"``, ``"cov_ab"``, ``"var(m~x)"``, ``"cor(m~x,y~m)"`` or ``"indirect / total"``.
    level : float
        Coverage of the interval, a proportion.
    points : int
        Points of the curve, at least 4, besides the ends of the interval.
    at : mapping, optional
        Values of moderators, as in ``effects``.

    Returns
    -------
    ProfileResults
        ``interval``, ``curve`` and ``plot()``.

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
    with reasons(self):
        asked = quantity_of(expression if name is None else variances[name], moving(self, at), self.fit.estimates)
    found = profile_quantity(self.fit, asked, level=level, points=points)
    return found if name is None else found.root(expression.strip())


@only(LmmFit)
def test(self: Held, hypothesis: str, *, at: Mapping[str, Any] | None = None) -> LRTest:  # noqa: PT028
    """Likelihood-ratio test of one restriction, all other parameters re-estimated (linear mixed models).

    A zero variance is tested by leaving out the random effect with its covariances, against the chi2 mixture of the
    boundary; conservative if several covariances drop out with it (see the note of the result).

    Parameters
    ----------
    hypothesis : str
        For example ``"cov_ab = 0"``, ``"indirect = 0.3"``, ``"a = b"``, ``"var(m~x) = 0"``, ``"cor(m~x,y~m) = 0"``.
    at : mapping, optional
        Values of moderators, as in ``effects``.

    Returns
    -------
    LRTest
        hypothesis, chi2, df, p_value, llf (under the hypothesis), note.

    Raises
    ------
    EffectError
        The text is not a restriction, or the quantity cannot take the value.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> print(fit.test("X = 0"))
    LR test of X = 0: chi2(1) = 2.7061, p = 0.09996
    """
    with reasons(self):
        return test_equation(self.fit, hypothesis, moving(self, at))


@only(LmmFit)
def compare(self: Held, other: Held) -> pd.DataFrame:
    """Compare with another linear mixed model of the same data: log-likelihood, AIC, BIC, LR test if nested.

    ``mlmed.compare`` sets estimates of fits of any kind side by side.

    Parameters
    ----------
    other : Results
        Another fit of ``mixed`` or ``mediate``.

    Returns
    -------
    DataFrame
        model, n_parameters, llf, aic, bic, chi2, df, p_value, note; the smaller model first.

    Raises
    ------
    EffectError
        Different data or criteria, or REML fits with different fixed effects.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> small, large = (mlmed.mixed(f"Med ~ {x} + (1 + X | group)", df, method="ml") for x in ("1", "X"))
    >>> small.compare(large)[["n_parameters", "chi2", "p_value"]].astype(float).round(3).values.tolist()[1]
    [6.0, 2.761, 0.097]
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
    """Change of every effect and parameter when one cluster is left out (linear mixed models).

    Parameters
    ----------
    refit : bool, optional
        Refit without each cluster (exact), or take one Newton step from the fit (docs/math.md, section 15). By
        default the step. A singular fit has none: it is refitted if it has up to 2,000 clusters; with more, changes are
        NaN with that reason unless ``refit=True``.
    vcov : {"block", "joint", "cluster", "CR0", "CR1", "CR2"}, optional
        Standard errors that scale the changes; by default the fit's own.
    n_jobs : int, optional
        Workers for refits; by default those of the surrounding ``joblib.parallel_config``, or one.
    at : mapping, optional
        Values of moderators, as in ``effects``.

    Returns
    -------
    InfluenceResults
        ``changes``, ``cooks``, ``tidy()`` and ``plot()``.

    Raises
    ------
    EffectError
        Another kind of fit, or an unknown covariance.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.influence().cooks.nlargest(1).round(3).to_dict()
    {4: 0.062}
    """
    return influence_of(
        self.fit, effect_set(self, at), self.fit.vcov(kind_of(self.fit, vcov)), refit=refit, n_jobs=n_jobs
    )


@only(LmmFit)
def loglik_at(self: Held, G: ArrayLike, sigma2: ArrayLike) -> float:
    """Log-likelihood of a linear mixed model at given variances, profiled over the fixed effects.

    Parameters
    ----------
    G : (q, q) array
        Covariance of the random effects, in the order of ``fit.G``; may be singular.
    sigma2 : (R, R) or (S,) array
        Residual covariance of a row (``fit.Sigma``), or its entries: the variances and, if residuals are
        correlated, the covariances in the order of ``fit.names``.

    Returns
    -------
    float
        Restricted log-likelihood under REML.

    Raises
    ------
    EffectError
        Wrong shapes, or a matrix that is no covariance matrix.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> bool(abs(fit.loglik_at(fit.G, fit.Sigma) - fit.llf) < 1e-8), bool(fit.loglik_at(2 * fit.G, fit.Sigma) < fit.llf)
    (True, True)
    """
    return loglik_at_(self.fit.working, G, sigma2, reml=self.fit.reml)


@listed(lambda held: is_of(held, (from_random_start,)))
def check_starts(self: Held, n: int = 5, *, seed: int, n_jobs: int | None = None) -> pd.DataFrame:
    """Refit from random starts, none of which should reach a better optimum (mixed and location-scale models).

    The starts are far away: variances spread over decades, any correlations, and every other time the clusters
    that are most unlike the others in G. If the likelihood has several optima, some starts end in a worse one.

    Parameters
    ----------
    n : int
        Starts.
    seed : int
        Required.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one. Results do not depend on
        their number.

    Returns
    -------
    DataFrame
        start, llf, difference (from this fit), gradient_norm, newton_decrement, converged, and apart (distance of the
        estimates from this fit, in standard errors). NaN where a search found no optimum.

    Raises
    ------
    EffectError
        Ordinary regressions, which have one optimum, and equations that are fitted apart: use a mixed part, as in
        ``fit.outcome.check_starts(seed=1)``.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> bool(fit.check_starts(3, seed=1)["difference"].abs().max() < 1e-8)
    True
    """
    return table_of_starts(partial(from_random_start, self.fit), self.fit.llf, n, seed=seed, n_jobs=n_jobs)
