"""Results: a fit and its effects, under the names that R and Python users expect."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from mlmed.effects.separate import SeparateCatalogue
from mlmed.errors import UnavailableError
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import LmmFit
from mlmed.fit.system import SystemFit
from mlmed.notes import Note, warns
from mlmed.options import check_level
from mlmed.report.text import as_html
from mlmed.results import counterfactual, criterion, exported, inference, paths, rho, rows, separate, tables
from mlmed.results.abilities import Held, Part, can, limited, listed, never, only
from mlmed.results.plots import Plots
from mlmed.results.record import optimization

#: Families whose rows have a residual variance of their own.
LINEAR = "belongs to a linear mixed model or a linear regression (other families have no residual variance)"


def _is_linear(held: Held) -> bool:
    return isinstance(held.fit, LmmFit) or (isinstance(held.fit, PlainFit) and held.fit.family == "linear")


@dataclass(frozen=True, repr=False)
class Results:
    """Estimates, tests, effects and pictures of a fit.

    ``mediate``, ``mixed``, ``piecewise``, ``causal`` and ``location_scale`` all return it. Its methods depend on the
    fit: others are refused and not listed by ``dir(fit)``.

    Attributes
    ----------
    fit : Fit
        The fitted model behind the numbers.
    catalogue : Catalogue
        The effects it defines: paths, potential outcomes, scale effects, or none.
    remarks : tuple of Note
        Notes on the data and the formulas, besides those of the fit.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.params.round(2).to_dict(), "predict" in dir(fit), "sobel" in dir(fit)
    ({'Intercept': 2.0, 'X': 0.19}, True, False)
    """

    fit: Any
    catalogue: Any
    remarks: tuple[Note, ...] = ()

    def __repr__(self) -> str:
        return f"<Results of {self.catalogue.school}: {self.fit!r}>"

    def __dir__(self) -> list[str]:
        """List the names that this fit has."""
        return [name for name in super().__dir__() if can(getattr(type(self), name, None), self)]

    # -- the fit -------------------------------------------------------------------------------------------

    @property
    def notes(self) -> tuple[Note, ...]:
        """Notes on the fit, each with a ``code`` and a ``text``; fitting warned of the same."""
        return *self.fit.notes, *self.remarks

    @property
    def llf(self) -> float:
        """Log-likelihood at the optimum (restricted under REML); of equations fitted apart the sum."""
        return self.fit.llf

    @property
    def nobs(self) -> int:
        """Response values used, over all equations; of ``causal`` the rows, which both equations share."""
        return self.fit.nobs

    @property
    def n_clusters(self) -> int:
        """Number of clusters; of rows if no column names clusters."""
        return len(self.fit.clusters)

    @property
    def group_name(self) -> str:
        """The cluster variable; empty if there is none."""
        return self.fit.group_name

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified."""
        return self.fit.converged

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary: a covariance matrix has less than full rank."""
        return self.fit.is_singular

    @property
    def df_model(self) -> int:
        """Number of parameters: fixed effects, variances and covariances (``piecewise``: without the equation of c)."""
        return self.fit.n_parameters

    @property
    def aic(self) -> float:
        """Akaike's criterion, -2 llf + 2 parameters."""
        return -2.0 * self.llf + 2.0 * self.df_model

    @property
    def bic(self) -> float:
        """Schwarz' criterion, -2 llf + log(nobs) parameters."""
        return -2.0 * self.llf + float(np.log(self.nobs)) * self.df_model

    @property
    def method(self) -> str:
        """Criterion, ``"reml"`` or ``"ml"``."""
        return self.fit.method

    @property
    @listed(lambda held: held.fit.method == "ml")
    def deviance(self) -> float:
        """-2 log-likelihood of an ML fit.

        Raises
        ------
        EffectError
            For a REML fit, whose criterion is ``reml_criterion``.
        """
        if self.method == "reml":
            raise UnavailableError("a REML fit has no deviance; use reml_criterion, or refit with method='ml'")
        return -2.0 * self.llf

    @property
    @listed(lambda held: held.fit.method == "reml")
    def reml_criterion(self) -> float:
        """-2 restricted log-likelihood of a REML fit.

        Raises
        ------
        EffectError
            For an ML fit, whose criterion is ``deviance``.
        """
        if self.method != "reml":
            raise UnavailableError("an ML fit has no REML criterion; use deviance, or refit with method='reml'")
        return -2.0 * self.llf

    @property
    def label(self) -> str:
        """Name of this fit in a comparison, such as ``joint REML``."""
        return self.catalogue.label(self.fit)

    @property
    @listed(inference.has_treatment)
    def treatment(self) -> str:
        """The column that plays x.

        Raises
        ------
        EffectError
            The fit has no treatment.
        """
        return inference.asked_of(self, "treatment")

    @property
    @listed(inference.has_treatment)
    def contrast(self) -> tuple[Any, Any] | None:
        """Values of the treatment that are compared, (from, to); None for a unit change.

        Raises
        ------
        EffectError
            The fit has no treatment.
        """
        return inference.asked_of(self, "contrast")

    # -- estimates -----------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> list[str]:
        """Names of all parameters: fixed effects, ``var()`` and ``cov()``, residual variances; equation by equation."""
        return [one.name for one in self.fit.parameters]

    @cached_property
    def params(self) -> pd.Series:
        """Fixed effects by name."""
        kept = [k for k, one in enumerate(self.fit.parameters) if not one.kind]
        return pd.Series(self.fit.psi[kept], index=[self.names[k] for k in kept], name="estimate")

    @cached_property
    def bse(self) -> pd.Series:
        """Standard errors of the fixed effects, those of ``fixef()``."""
        return self._of_fixef("std_error")

    @property
    def tvalues(self) -> pd.Series:
        """Test statistics of the fixed effects, those of ``fixef()``."""
        return self._of_fixef("statistic")

    @property
    def pvalues(self) -> pd.Series:
        """Two-sided p values of the fixed effects, those of ``fixef()``."""
        return self._of_fixef("p_value")

    def _of_fixef(self, column: str) -> pd.Series:
        found: pd.Series = self.fixef().set_index("term")[column]
        return found.rename_axis(None)

    def conf_int(self, alpha: float = 0.05) -> pd.DataFrame:
        """Intervals of the fixed effects, columns 0 and 1 (statsmodels' shape).

        Parameters
        ----------
        alpha : float
            1 - coverage.

        Returns
        -------
        DataFrame

        Examples
        --------
        >>> import mlmed
        >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
        >>> fit.conf_int().loc["X"].round(2).tolist()
        [-0.03, 0.41]
        """
        alpha = check_level(alpha, "alpha")
        table: pd.DataFrame = self.fixef(level=1.0 - alpha).set_index("term")[["conf_low", "conf_high"]]
        return table.set_axis([0, 1], axis=1).rename_axis(None)

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects, ``vcov(which="fixed")`` (statsmodels' name)."""
        return self.vcov(which="fixed")

    @property
    @never(SystemFit, PlainFit)
    def G(self) -> pd.DataFrame:
        """Covariance matrix of the random effects (mixed and location-scale models)."""
        return self.fit.G

    @property
    @limited(_is_linear, lambda: LINEAR)
    def Sigma(self) -> pd.DataFrame:
        """Residual covariance matrix of a row (mixed models); diagonal unless ``residual="unstructured"``."""
        return self.fit.Sigma

    @property
    @limited(_is_linear, lambda: LINEAR)
    def sigma2(self) -> pd.Series:
        """Residual variance of each equation (mixed models)."""
        return pd.Series(np.diag(self.Sigma), index=self.Sigma.index, name="sigma2")

    vcov = inference.vcov
    loglik_at = criterion.loglik_at
    check_starts = criterion.check_starts
    optimization = cached_property(only(LmmFit)(optimization))

    # -- tables --------------------------------------------------------------------------------------------

    fixef = tables.fixef
    varcorr = tables.varcorr
    sdcor = tables.sdcor
    correlations = tables.correlations
    tidy = tables.tidy
    glance = tables.glance
    comparable = tables.comparable
    combined = tables.combined

    # -- effects and tests -----------------------------------------------------------------------------------

    effects_reason = cached_property(inference.effects_reason)
    effects = inference.effects
    paths = paths.paths
    nlcom = inference.nlcom
    profile = criterion.profile
    test = criterion.test
    compare = criterion.compare
    influence = criterion.influence
    bootstrap = inference.bootstrap

    # -- equations that are fitted apart ---------------------------------------------------------------------

    design = property(separate.design)
    levels = property(separate.levels)
    sobel = separate.sobel

    @cached_property
    @only(SystemFit)
    def mediator(self) -> Results:
        """The mediator equation: a mixed model, or an ordinary regression."""
        return self._part("mediator")

    @cached_property
    @only(SystemFit)
    def outcome(self) -> Results:
        """The outcome equation."""
        return self._part("outcome")

    @cached_property
    @only(SeparateCatalogue)
    def reduced(self) -> Results:
        """The outcome equation without the mediator, on the same rows; its slope of the treatment is c."""
        return self._part("reduced")

    def _part(self, role: str) -> Results:
        part = Part(self.fit.components[role])
        return Results(part.fit, part.catalogue)

    @only(SeparateCatalogue)
    @warns
    def joint(self) -> Results:
        """Fit the same equations jointly (``mlmed.mediate``), which estimates cov(a_j, b_j).

        Returns
        -------
        Results

        Raises
        ------
        EffectError
            A mediator of level 2, rows that were changed after the fit, or a fit from a pickle, which has no rows.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.piecewise("Med ~ X + (1 + X | group)", "y ~ Med + X + (1 + Med + X | group)", df)
        >>> round(float(fit.joint().effects().set_index("term")["estimate"]["cov_ab"]), 3)
        -0.093
        """
        return Results(*separate.joint(self))

    # -- effects between potential outcomes ------------------------------------------------------------------

    groups = counterfactual.groups
    test_interaction = counterfactual.test_interaction
    test_moderation = counterfactual.test_moderation
    sensitivity = rho.sensitivity

    # -- clusters and rows -----------------------------------------------------------------------------------

    ranef = rows.ranef
    fitted = rows.fitted
    resid = rows.resid
    predict = rows.predict
    conditional_effects = rows.conditional_effects
    simulate = rows.simulate
    predictive_check = rows.predictive_check

    @property
    @listed(partial(can, rows.fitted))
    def fittedvalues(self) -> pd.Series | pd.DataFrame:
        """Fitted values with random effects (statsmodels' name for ``fitted()``)."""
        return self.fitted()

    # -- text and pictures -----------------------------------------------------------------------------------

    summary = exported.summary
    sections = exported.sections
    to_json = exported.to_json
    to_table = exported.to_table

    @property
    def plot(self) -> Plots:
        """Pictures (extra ``plots``), such as ``fit.plot.ranef()``; each returns the axes it drew on."""
        return Plots(self)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return as_html(self.summary())
