"""What can be concluded from a fit: quantities, profiles, bootstraps, tests, influence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity
from mlmed.effects.nlcom import known_name
from mlmed.effects.profile import QuantityAt
from mlmed.errors import EffectError
from mlmed.modes.bootstrap import BootstrapResults
from mlmed.modes.covariance import covariance
from mlmed.modes.fitting import Fitted
from mlmed.modes.functions import (
    Expression,
    QuantitiesAt,
    function_table,
    parameters_at,
    quantity_of,
)
from mlmed.modes.hypotheses import test_equation
from mlmed.modes.influence import InfluenceResults, influence_of
from mlmed.modes.likelihood import LRTest, compare_fits
from mlmed.modes.profiles import ProfileResults, profile_quantity
from mlmed.modes.resampling import Plan, bootstrap_fit
from mlmed.modes.sdcor import entry_behind, fit_sdcor_quantities
from mlmed.modes.tables import parameters
from mlmed.options import check_mapping
from mlmed.reml.estimates import Estimates
from mlmed.reml.vcov import ParameterVcov

__all__ = ["Inference"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Inference:
    """Inference that needs no more than a fitted model.

    Attributes
    ----------
    fitted : Fitted
        Specification, sufficient statistics and optimum behind the numbers.
    """

    fitted: Fitted

    def parameter_vcov(self, kind: str = "block") -> ParameterVcov:
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
            ``"a*b + cov_ab + cprime"``; names with a colon or bracket may stand in backticks, ``"`m:x` / `y:m`"``, and
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
            For example ``"indirect"``, ``"cov_ab"``, ``"var(m:x)"``, ``"cor(m:x,y:m)"`` or ``"indirect / total"``.
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
            For example ``"cov_ab = 0"``, ``"indirect = 0.3"``, ``"a = b"``, ``"var(m:x) = 0"``, ``"cor(m:x,y:m) = 0"``.
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


def _nothing(psi: Array) -> dict[str, Array]:
    return {}
