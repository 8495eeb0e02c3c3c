"""MixedResults: estimates under the names that R and Python users expect. Orchestrates, computes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlmed.errors import EffectError
from mlmed.modes.coefficients import Coefficients
from mlmed.modes.pictures import Pictures
from mlmed.modes.predictive import Predictive
from mlmed.modes.presentation import Presentation
from mlmed.modes.record import optimization_record
from mlmed.modes.starts import fits_from_random_starts
from mlmed.modes.tables import qualified
from mlmed.notes import Note
from mlmed.options import one_of
from mlmed.reml.estimates import loglik_at
from mlmed.report.optimization import Optimization

__all__ = ["MixedResults"]


@dataclass(frozen=True)
class MixedResults(Coefficients, Predictive, Presentation, Pictures):
    """A fitted linear mixed model.

    Attributes
    ----------
    fitted : Fitted
        Specification, sufficient statistics and optimum behind the numbers; called, ``fit.fitted()``, fitted values.
    remarks : tuple of Note
        What was seen in the table and in the question, beside what the fit itself says.
    """

    remarks: tuple[Note, ...] = field(default=(), kw_only=True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.fitted!r}>"

    # -- estimates -----------------------------------------------------------------------------------------

    @cached_property
    def params(self) -> pd.Series:
        """Fixed effects."""
        return pd.Series(self.fitted.estimates.beta, index=qualified(self.fitted, "fixed"), name="estimate")

    @cached_property
    def bse(self) -> pd.Series:
        """Standard errors of the fixed effects (``vcov="block"``)."""
        return pd.Series(np.sqrt(np.diag(self.fitted.estimates.P_inv)), index=self.params.index, name="std_error")

    @property
    def llf(self) -> float:
        """Log-likelihood at the optimum (restricted under REML)."""
        return self.fitted.estimates.loglik

    @property
    def deviance(self) -> float:
        """-2 log-likelihood of an ML fit.

        Raises
        ------
        EffectError
            For a REML fit, whose criterion is ``reml_criterion``.
        """
        if self.fitted.reml:
            raise EffectError("a REML fit has no deviance; use reml_criterion, or refit with method='ml'")
        return -2.0 * self.llf

    @property
    def reml_criterion(self) -> float:
        """-2 restricted log-likelihood of a REML fit.

        Raises
        ------
        EffectError
            For an ML fit, whose criterion is ``deviance``.
        """
        if not self.fitted.reml:
            raise EffectError("an ML fit has no REML criterion; use deviance, or refit with method='reml'")
        return -2.0 * self.llf

    @property
    def nobs(self) -> int:
        """Response values used, over all equations."""
        return self.fitted.nobs

    @property
    def n_clusters(self) -> int:
        """Clusters."""
        return len(self.fitted.clusters)

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of the fit, each with a ``code`` and a ``text``; the warnings of fitting it."""
        return *self.fitted.notes, *self.remarks

    @property
    def method(self) -> str:
        """``"reml"`` or ``"ml"``."""
        return self.fitted.spec.method

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary: G, or the residual covariance, has less than full rank."""
        return self.fitted.is_singular

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified."""
        return self.fitted.converged

    @property
    def df_model(self) -> int:
        """Parameters: fixed effects, variances and covariances."""
        return self.fitted.n_parameters

    @property
    def aic(self) -> float:
        """Akaike's criterion, -2 llf + 2 parameters."""
        return self.fitted.aic

    @property
    def bic(self) -> float:
        """Schwarz' criterion, -2 llf + log(nobs) parameters."""
        return self.fitted.bic

    @property
    def G(self) -> pd.DataFrame:
        """Covariance matrix of the random effects."""
        names = qualified(self.fitted, "random")
        return pd.DataFrame(self.fitted.estimates.G, index=names, columns=names)

    def loglik_at(self, G: ArrayLike, sigma2: ArrayLike) -> float:
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
        return loglik_at(self.fitted.working, G, sigma2, reml=self.fitted.reml)

    @property
    def sigma2(self) -> pd.Series:
        """Residual variance of each equation."""
        names = [equation.name for equation in self.fitted.layout.equations]
        return pd.Series(np.diag(self.fitted.estimates.Sigma), index=names, name="sigma2")

    @property
    def Sigma(self) -> pd.DataFrame:
        """Covariance matrix of the residuals of a row; diagonal unless ``residual="unstructured"``."""
        names = [equation.name for equation in self.fitted.layout.equations]
        return pd.DataFrame(self.fitted.estimates.Sigma, index=names, columns=names)

    @cached_property
    def optimization(self) -> Optimization:
        """History of the optimization and the certificate of the optimum."""
        return optimization_record(self.fitted)

    def check_starts(self, n: int = 5, *, seed: int, n_jobs: int | None = None) -> pd.DataFrame:
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
        return fits_from_random_starts(self.fitted, n, seed=seed, n_jobs=n_jobs)

    # -- covariance of the estimates -----------------------------------------------------------------------

    def vcov(self, kind: str = "block", *, which: str = "all") -> pd.DataFrame:
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
        matrix = self.parameter_vcov(kind).matrix
        n = len(self.params) if which == "fixed" else len(matrix)
        return pd.DataFrame(matrix[:n, :n], index=self.names[:n], columns=self.names[:n])

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects (statsmodels' name)."""
        return self.vcov(which="fixed")
