"""What can be concluded from a fit: quantities, profiles, bootstraps, tests, influence; values of clusters and rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity
from mlmed.effects.nlcom import known_name
from mlmed.errors import EffectError
from mlmed.fit.lmm import Fitted
from mlmed.fit.names import parameters
from mlmed.fit.vcov import covariance
from mlmed.intervals.bootstrap import BootstrapResults
from mlmed.intervals.functions import (
    Expression,
    QuantitiesAt,
    function_table,
    parameters_at,
    quantity_of,
)
from mlmed.intervals.profile import ProfileResults, profile_quantity
from mlmed.intervals.profile_search import QuantityAt
from mlmed.intervals.resampling import Plan, bootstrap_fit
from mlmed.intervals.sdcor import entry_behind, fit_sdcor_quantities
from mlmed.lmm.estimates import Estimates
from mlmed.lmm.vcov import Vcov
from mlmed.options import check_mapping, own_words
from mlmed.results.curves import conditional_table, line_along
from mlmed.results.hypotheses import test_equation
from mlmed.results.influence import InfluenceResults, influence_of
from mlmed.results.likelihood import LRTest, compare_fits
from mlmed.results.prediction import predict, prediction_table
from mlmed.results.tables import ranef_table
from mlmed.text import shown

__all__ = ["Inference"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Inference:
    """What can be concluded from a fitted model.

    Attributes
    ----------
    fitted : Fitted
        Specification, sufficient statistics and optimum behind the numbers; called, ``fit.fitted()``, fitted values.
    """

    fitted: Fitted

    def parameter_vcov(self, kind: str = "block") -> Vcov:
        """Covariance of psi as arrays, with the reason for any NaN."""
        return covariance(self.fitted, kind)

    # -- quantities ----------------------------------------------------------------------------------------

    def quantities_at(self, at: Mapping[str, Any] | None = None) -> Callable[[Estimates], dict[str, Quantity]]:
        """Everything that can be named, as a function of the estimates."""
        if check_mapping(at, "at", "at={'w': 1.0}"):
            raise EffectError("a single equation has no moderated effects; leave out at=")
        return partial(parameters_at, parameters(self.fitted))

    def quantities(self, at: Mapping[str, Any] | None = None) -> dict[str, Quantity]:
        """Everything that ``nlcom`` can name, with derivatives in psi."""
        return self.quantities_at(at)(self.fitted.estimates)

    def _named_at(self, at: Mapping[str, Any] | None, *, moving: bool = False) -> QuantitiesAt:
        """What can be named: ``quantities_at``, and ``sd()`` and ``cor()``; ``moving`` as in ``sdcor_quantities``."""
        every = self.quantities_at(at)
        return lambda estimates: {**every(estimates), **fit_sdcor_quantities(self.fitted, estimates, moving=moving)}

    def quantity_at(self, expression: str, at: Mapping[str, Any] | None = None) -> QuantityAt:
        """One named quantity, or an expression of several, as a function of the estimates."""
        return quantity_of(expression, self._named_at(at, moving=True), self.fitted.estimates)

    def draws_of(self, at: Mapping[str, Any] | None = None) -> Callable[[Array], dict[str, Array]]:
        """What is made of many parameter vectors (n, n_psi), by name, as a function that holds no fit.

        Nothing is made of those of a single equation.
        """
        self.quantities_at(at)
        return _nothing

    def nlcom(
        self,
        expression: Expression,
        *,
        vcov: str = "block",
        order: str = "second",
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
            Second order adds ``tr(HVHV)/2`` to the variance (what BPG's formulas do), ``unbiased`` subtracts it;
            Stata's ``nlcom`` is first.
        level : float
            Coverage of the interval.
        at : mapping, optional
            Values of moderators at which effects named in the expression are taken.
        """
        known, V = self._named_at(at)(self.fitted.estimates), self.parameter_vcov(vcov)
        return function_table(self.fitted, expression, known, V, order=order, level=level)

    # -- likelihood ----------------------------------------------------------------------------------------

    def profile(
        self, expression: str, *, level: float = 0.95, points: int = 20, at: Mapping[str, Any] | None = None
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
        variances = entry_behind(self.fitted, "sd")
        name = known_name(expression, variances) if isinstance(expression, str) else None
        asked = self.quantity_at(expression if name is None else variances[name], at)
        found = profile_quantity(self.fitted, asked, level=level, points=points)
        return found if name is None else found.root(expression.strip())

    def test(self, hypothesis: str, *, at: Mapping[str, Any] | None = None) -> LRTest:
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
        return test_equation(self.fitted, hypothesis, self._named_at(at, moving=True))

    def compare(self, other: Inference) -> pd.DataFrame:
        """Set this fit beside another of the same data: log-likelihoods, AIC, BIC, LR test where one is nested.

        Raises
        ------
        EffectError
            Different data or criteria, or REML fits with different fixed effects.
        """
        if not isinstance(other, Inference):
            raise EffectError(f"compare() takes another fit of mlmed; found {type(other).__name__}")
        return compare_fits(self.fitted, other.fitted)

    # -- single clusters -------------------------------------------------------------------------------------

    def influence(
        self,
        *,
        refit: bool | None = None,
        vcov: str = "block",
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
        make, V = self.draws_of(at), self.parameter_vcov(vcov)
        return influence_of(self.fitted, self.quantities(at), make, V, refit=refit, n_jobs=n_jobs)

    # -- resampling ----------------------------------------------------------------------------------------

    def bootstrap(
        self,
        n: int = 1000,
        *,
        seed: int | None = None,
        kind: str = "case",
        within: bool = False,
        n_jobs: int | None = None,
        progress: bool = False,
        at: Mapping[str, Any] | None = None,
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
        n_jobs : int, optional
            Workers; by default those of the surrounding ``joblib.parallel_config``, or one.
        progress : bool
            Show a progress bar on standard error.
        at : mapping, optional
            Values of moderators.

        Raises
        ------
        EffectError
            No seed, unknown kind, or rows are needed and the fit was made from stored cross-products.
        """
        make = self.draws_of(at)
        plan = Plan(n, kind, within, seed, n_jobs, progress)
        return bootstrap_fit(self.fitted, self.quantities(at), make, plan)

    # -- clusters and rows -----------------------------------------------------------------------------------

    def ranef(self, *, level: float = 0.95) -> pd.DataFrame:
        """Conditional modes: group_var, effect, group, estimate, std_error, conf_low, conf_high, shrinkage.

        One row per effect and cluster. ``std_error`` is the conditional standard deviation given the estimates, as
        lme4's ``condsd``. ``shrinkage`` is std_error^2 / var(effect), from 0 (the rows of the cluster decide) to 1 (it
        has the population's value); 1 - shrinkage is the reliability. With a random intercept only, a mode is
        (1 - shrinkage) times the mean residual of the cluster. NaN where the variance is 0.
        """
        return ranef_table(self.fitted, level=level)

    @property
    def fittedvalues(self) -> pd.Series | pd.DataFrame:
        """Fitted values of the rows, random effects included (statsmodels' name for ``fitted()``)."""
        return self.fitted()

    @own_words
    def resid(self, *, of: str = "cluster") -> pd.Series | pd.DataFrame:
        """Responses less ``fitted(of=of)``, with the index of the data.

        Parameters
        ----------
        of : {"cluster", "population"}
            Residuals within clusters, or differences from the population's mean.

        Returns
        -------
        Series (one equation) or DataFrame (a column per response)
            NaN where a row was not used in an equation.

        Raises
        ------
        EffectError
            Unknown ``of``, or the fit has no rows.
        """
        return self.fitted.residuals(of=of)

    @own_words
    def predict(
        self, newdata: Any, *, of: str = "population", interval: str | None = None, level: float | None = None
    ) -> pd.DataFrame | pd.Series:
        """Predicted responses for new rows.

        Standard errors take the variances as known, as those of ``fixef()`` do; intervals are normal. A response that
        is a predictor of another one (the mediator m of y) is taken from ``newdata``: y is predicted given m, so its
        change with x is the direct effect.

        Parameters
        ----------
        newdata : dataframe
            Columns of the right-hand sides (for ``of="cluster"`` also the cluster variable).
        of : {"population", "cluster"}
            ``population``: X beta. ``cluster``: plus Z u of the row's cluster; clusters that were not in the
            data get the population value, and the variance of a cluster of which nothing is known. To see which
            are known, compare with ``ranef()["group"]``.
        interval : {"confidence", "prediction"}, optional
            For the expected response (of the population or of the cluster), or for a single new response: this adds the
            residual variance, and in the population that of the random effects.
        level : float, optional
            Coverage of the interval, a proportion; .95 if not given. Without an interval it is refused.

        Returns
        -------
        Series (one equation) or DataFrame (a column per response)
            NaN where a predictor is missing. With ``interval`` a tidy table: row (the label in newdata), response,
            estimate, std_error, conf_low, conf_high; one block of rows per response.

        Raises
        ------
        DataError
            A column is missing, has another type than in the fit, or holds what the fit cannot know: a new level, a
            value beyond the ends of a spline. Or no cluster is known, and their ids are of another type.
        EffectError
            Unknown ``of`` or interval, or a level without an interval.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", df)
        >>> new = {"X": [0.0], "group": [1]}
        >>> fit.predict(new, of="cluster", interval="confidence").round(3).values.tolist()
        [[0, 'Med', 2.166, 0.173, 1.828, 2.504]]
        """
        if interval is not None:
            share = 0.95 if level is None else level
            return prediction_table(self.fitted, newdata, of=of, interval=interval, level=share)
        if level is not None:
            raise EffectError(
                f"level={shown(level)} is the coverage of an interval, and none was asked for; give "
                "interval='confidence' or 'prediction' as well, or leave level out"
            )
        return predict(self.fitted, newdata, of=of)

    def conditional_effects(
        self,
        variable: str,
        *,
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        points: int | Sequence[Any] = 50,
    ) -> pd.DataFrame:
        """Expected responses of the population along one predictor, all others held.

        A response that is a predictor of another one (the mediator m of y) is held, too: along x, the line of y given
        m has the slope of the direct effect. ``effects()`` of ``mlmed.mediate`` has the total one.

        Parameters
        ----------
        variable : str
            The predictor. Responses whose equations do not have it are left out.
        at : mapping, optional
            The value at which each of other predictors is held; by default its mean or first level.
        level : float
            Coverage of the intervals, a proportion.
        points : int or sequence
            Number of values over the range of the rows that were used (a fit without rows: mean plus and minus two
            sds), or the values themselves. A factor has its levels, a true/false predictor both values.

        Returns
        -------
        DataFrame
            response, the predictor, estimate, std_error, conf_low, conf_high; one block of rows per response.

        Raises
        ------
        EffectError
            No equation has the predictor, ``at`` names something that is none, or a value is not one finite number.

        Examples
        --------
        >>> import mlmed
        >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
        >>> fit.conditional_effects("X", points=[-1, 1])[["X", "estimate"]].round(3).values.tolist()
        [[-1.0, 1.805], [1.0, 2.232]]
        """
        return conditional_table(self.fitted, line_along(self.fitted, variable, at=at, points=points), level=level)


def _nothing(psi: Array) -> dict[str, Array]:
    return {}
