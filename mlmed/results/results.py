"""MixedResults: estimates under the names that R and Python users expect. Orchestrates, computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mlmed.effects.delta import COLUMNS
from mlmed.errors import EffectError
from mlmed.fit.names import parameter_names, qualified
from mlmed.fit.starts import fits_from_random_starts
from mlmed.intervals.functions import function_table, shared_names
from mlmed.intervals.sdcor import correlations_table, fit_sdcor_table
from mlmed.lmm.estimates import loglik_at
from mlmed.notes import Note
from mlmed.options import STYLES, Density, Of, check_level, one_of, own_words
from mlmed.report.optimization import Optimization
from mlmed.report.stata import StataReport, render
from mlmed.report.text import as_html
from mlmed.results.coefficients import Coefficients
from mlmed.results.document import flat_table, to_json
from mlmed.results.inference import Inference
from mlmed.results.pictures import conditional_plot, correlations_plot, ranef_plot, spaghetti_plot
from mlmed.results.predictive import check_plot, check_table, simulated
from mlmed.results.record import optimization_record
from mlmed.results.summary import native_summary
from mlmed.results.tables import fixef_table, glance_table, sections, tidy_table, varcorr_table
from mlmed.results.xtmixed import stata_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MixedResults"]


@dataclass(frozen=True)
class MixedResults(Coefficients, Inference):
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

    # -- tables --------------------------------------------------------------------------------------------

    def fixef(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> pd.DataFrame:
        """Fixed effects: term, estimate, std_error, statistic, df, p_value, conf_low, conf_high, note.

        ``ddf`` as in ``tidy``; it says whose degrees of freedom ``df`` are.
        """
        return fixef_table(self.fitted, vcov=vcov, level=level, ddf=ddf)

    def varcorr(self, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
        """Variances and covariances of the random effects, and residual variances.

        Variances have intervals on the log scale, covariances plain ones (as Stata prints them). ``sdcorr`` is
        the standard deviation or the correlation.
        """
        return varcorr_table(self.fitted, vcov=vcov, level=level)

    def sdcor(self, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
        """Standard deviations and correlations of random effects and residuals, as brms prints them.

        Errors are first-order; intervals of sds are formed on the log scale, those of correlations by Fisher's z.
        ``block`` and ``joint`` agree here, as they differ in the fixed effects only. On the boundary there is no error,
        and no correlation with an effect whose variance is 0: NaN, and the reason in ``note``.

        Returns
        -------
        DataFrame
            group, term (``sd(m~x)``, ``cor(m~Intercept,y~Intercept)``, ``sd(m~Residual)``), estimate, std_error,
            conf_low, conf_high, note. ``nlcom``, ``profile`` and ``test`` know the terms, too.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.mixed(["Med ~ X + (1 |c| group)", "y ~ X + (1 |c| group)"], df)
        >>> fit.sdcor().set_index("term")["estimate"].round(3).tail(3).to_dict()
        {'cor(Med~Intercept,y~Intercept)': -0.136, 'sd(Med~Residual)': 1.774, 'sd(y~Residual)': 1.673}
        """
        return fit_sdcor_table(self.fitted, vcov=vcov, level=level)

    def correlations(self, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
        """The correlations of ``sdcor``, between clusters (random effects) and within (residuals of a row).

        Returns
        -------
        DataFrame
            part (``between``, ``within``), equation1, equation2, term1, term2, estimate, std_error, conf_low,
            conf_high, note; without rows where the model has no correlation.
        """
        return correlations_table(self.fitted, vcov=vcov, level=level)

    @cached_property
    def names(self) -> list[str]:
        """Name of every parameter: fixed effects, ``var()`` and ``cov()``, residual variances."""
        return parameter_names(self.fitted)

    @property
    def group_name(self) -> str:
        """The cluster variable."""
        return self.fitted.group_name

    def tidy(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> pd.DataFrame:
        """All estimates in broom.mixed's columns: effect, equation, group, term, estimate, std_error, ...

        Parameters
        ----------
        vcov : {"block", "joint", "cluster", "CR0", "CR1", "CR2"}
            Covariance of the estimates; see docs/standard_errors.md.
        level : float
            Coverage of the intervals, a proportion.
        ddf : {"none", "satterthwaite", "kenward-roger", "residual"}
            Degrees of freedom of the fixed effects: t instead of z. ``kenward-roger`` also adjusts the standard
            errors (REML only).

        Examples
        --------
        >>> import mlmed
        >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
        >>> table = fit.tidy(ddf="kenward-roger").set_index("term").loc["X", ["std_error", "df"]]
        >>> table.astype(float).round(4).to_dict()
        {'std_error': 0.1139, 'df': 48.9993}
        """
        return tidy_table(self.fitted, vcov=vcov, level=level, ddf=ddf)

    def glance(self) -> pd.DataFrame:
        """One row: nobs, n_clusters, llf, aic, bic, converged, is_singular and the certificate."""
        return glance_table(self.fitted)

    @property
    def label(self) -> str:
        """What a comparison calls this fit."""
        kind = "joint" if len(self.fitted.layout.equations) > 1 else "mixed"
        residual = f", residual {self.fitted.spec.residual}" if self.fitted.spec.correlated else ""
        return f"{kind} {self.fitted.spec.method.upper()}{residual}"

    def comparable(self, *, level: float = 0.95) -> pd.DataFrame:
        """All estimates under the names that every fit shares, ``m~x`` and ``var(m~x)`` (``mlmed.compare``)."""
        return self.tidy(level=level)[list(COLUMNS)].assign(term=parameter_names(self.fitted, always=True))

    def combined(self, expression: str, *, level: float = 0.95) -> pd.DataFrame:
        """``nlcom`` with the names of ``comparable``."""
        known = shared_names(self.fitted, self._named_at(None)(self.fitted.estimates))
        return function_table(self.fitted, expression, known, self.parameter_vcov(), level=level)

    # -- text ----------------------------------------------------------------------------------------------

    def summary(self, style: str = "text", *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> str:
        """The fit as text: ``style="text"``, or ``"stata"`` for the layout of ``xtmixed``.

        Raises
        ------
        EffectError
            Unknown style, or the Stata layout with standard errors that Stata does not compute or for responses that
            are not mediator and outcome.
        """
        if one_of(style, STYLES, "style") == "stata":
            if vcov != "block" or ddf != "none":
                raise EffectError(
                    "style='stata' shows Stata's standard errors, which are vcov='block' with normal tests"
                )
            return render(self._stata_report(level))
        return native_summary(self.fitted, vcov=vcov, level=level, ddf=ddf, title="Linear mixed model")

    def _stata_report(self, level: float) -> StataReport:
        return stata_report(self.fitted, level=level)

    def sections(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> dict[str, pd.DataFrame]:
        """The tables that are exported, by name: fixef, varcorr, residual, sdcor."""
        tables = sections(self.fitted, vcov=vcov, level=level, ddf=ddf)
        return {**tables, "sdcor": self.sdcor(vcov=vcov, level=level)}

    def to_json(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> str:
        """All tables as JSON (what ``mlmed mixed --format json`` prints)."""
        tables = self.sections(vcov=vcov, level=level, ddf=ddf)
        return to_json(self.fitted, tables, vcov=vcov, level=check_level(level), ddf=ddf)

    def to_table(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> pd.DataFrame:
        """All tables below each other (what ``mlmed mixed --format csv`` prints)."""
        return flat_table(self.sections(vcov=vcov, level=level, ddf=ddf))

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return as_html(self.summary())

    # -- simulated responses -------------------------------------------------------------------------------

    @own_words
    def simulate(self, n: int = 1, *, seed: int | None = None, of: Of = "population") -> pd.DataFrame:
        """New responses for the rows that were fitted, from the model at its estimates.

        Random effects, then the residuals of each row (all responses together), are drawn from their normal
        distributions. Predictors stay as they are, lagged responses too; only a response that is itself a predictor
        of a later equation (the mediator) is simulated first, and what is computed from it (``m:x``, ``np.log(m)``)
        follows. The estimates are taken as known: their uncertainty is not part of the draws.

        Parameters
        ----------
        n : int
            Sets of responses.
        seed : int
            Required. Set k is the same whatever n is.
        of : {"population", "cluster"}
            ``population``: new clusters, with random effects from N(0, G). ``cluster``: the clusters of the data,
            with random effects from their law given the data and the estimates (modes and covariances as in
            ``ranef()``), which is what ``posterior_predict`` of brms does. Use it with lagged responses, which say
            what cluster a row is from: new effects would contradict them.

        Returns
        -------
        DataFrame
            The rows of the data in their order (a pandas index is kept). Columns are the responses; for n > 1 they
            are (draw, response), so that ``out[3]`` is set 3. NaN on rows that do not belong to an equation.

        Raises
        ------
        EffectError
            No seed, an unknown ``of``, or a fit that has no rows (stored Grams, an engine, a pickle).
        DataError, FormulaError
            If a predictor cannot follow a simulated response.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", df)
        >>> fit.simulate(3, seed=1)[2].shape
        (1000, 1)
        >>> again = mlmed.mixed("Med ~ X + (1 + X | group)", df.assign(**fit.simulate(seed=1)))
        >>> again.nobs
        1000
        """
        return simulated(self.fitted, n, seed=seed, of=of)

    @own_words
    def predictive_check(
        self, n: int = 200, *, seed: int | None = None, of: Of = "population", level: float = 0.95
    ) -> pd.DataFrame:
        """Statistics of the data beside those of simulated sets.

        Parameters
        ----------
        n : int
            Simulated sets.
        seed, of
            As in ``simulate``.
        level : float
            Share of the simulated values between ``conf_low`` and ``conf_high``.

        Returns
        -------
        DataFrame
            response (or a pair of them), statistic, observed, simulated (mean), conf_low, conf_high, tail_share, note.
            ``tail_share`` is the two-sided share of simulated values as far out as the observed one, at least
            2 / (n + 1).

        Notes
        -----
        For each response: mean, sd, skewness, min, max, sd of the cluster means, sd of the logarithms of the clusters'
        sds (large where some clusters vary more than others); for two responses their correlation over rows and
        within clusters. Estimates were fitted to the same data, so statistics that the model has a parameter for
        fit nearly by construction: a tail share there is larger than a p value would be.

        Examples
        --------
        >>> import mlmed
        >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
        >>> table = fit.predictive_check(100, seed=1).set_index("statistic")
        >>> bool(table.loc["sd", "conf_low"] < table.loc["sd", "observed"] < table.loc["sd", "conf_high"])
        True
        """
        return check_table(self.fitted, n, seed=seed, of=of, level=level)

    @own_words
    def pp_check(
        self, n: int = 50, *, seed: int | None = None, density: Density = "value", of: Of = "population"
    ) -> list[Axes]:
        """Density of every observed response over those of n simulated sets (extra ``plots``), as ``pp_check`` of brms.

        Parameters
        ----------
        n : int
            Simulated sets, one thin line each.
        seed, of
            As in ``simulate``.
        density : {"value", "cluster-mean", "cluster-sd"}
            Of what: the values, the means of the clusters, or the standard deviations within clusters
            (log axis). Clusters that differ in their sds show in the last one; see ``mlmed.location_scale``.

        Returns
        -------
        list of Axes
            One panel per response.
        """
        return check_plot(self.fitted, n, seed=seed, density=density, of=of)

    # -- pictures (extra ``plots``); every method returns the axes that it drew on -----------------------------

    def plot_conditional(
        self,
        variable: str,
        *,
        at: Mapping[str, Any] | None = None,
        level: float = 0.95,
        points: int | Sequence[Any] = 50,
        data: bool = False,
    ) -> list[Axes]:
        """Draw ``conditional_effects``, a panel per response; ``data``: with the rows that were used.

        A response that is a predictor of another one (a mediator) is held; the caption says at what.
        """
        return conditional_plot(self.fitted, variable, at=at, level=level, points=points, data=data)

    def plot_spaghetti(
        self,
        variable: str,
        *,
        clusters: int | Sequence[Any] | None = None,
        seed: int | None = None,
        at: Mapping[str, Any] | None = None,
        points: int | Sequence[Any] = 50,
    ) -> list[Axes]:
        """Expected responses of single clusters along one predictor, others held; the population's on top.

        Predictors that are the same in all rows of a cluster (the arm of a trial) have the cluster's own value, unless
        ``at`` holds them; the population's line has their mean or first level, as the caption says.

        Parameters
        ----------
        variable : str
            The predictor. Responses whose equations do not have it are left out.
        clusters : int or sequence, optional
            Ids (also as ``ranef()`` shows them), or a number of clusters drawn at random; by default all. Up to 8 get a
            colour and a name each.
        seed : int, optional
            Required where clusters are drawn.
        at, points
            As in ``conditional_effects``. Every line runs over the whole range, also beyond the rows of its cluster.
            A fit without rows (stored Grams, an engine) holds the clusters' own predictors, too.

        Raises
        ------
        EffectError
            Unknown predictor or cluster, or no seed where one is needed.
        """
        return spaghetti_plot(self.fitted, variable, clusters=clusters, seed=seed, at=at, points=points)

    def plot_ranef(self, effect: str | Sequence[str] | None = None, *, level: float = 0.95) -> list[Axes]:
        """Caterpillar plot of ``ranef``: clusters by rank with their intervals, a panel per effect.

        Parameters
        ----------
        effect : str or sequence of str, optional
            Random effects, named as in ``ranef()``; by default all.
        level : float
            Coverage of the intervals, a proportion.

        Raises
        ------
        EffectError
            Unknown effect.
        """
        return ranef_plot(self.fitted, effect, level=level)

    def plot_correlations(self, *, vcov: str = "block", level: float = 0.95) -> Axes:
        """Forest plot of ``correlations``, between clusters and within.

        Raises
        ------
        EffectError
            The model has no correlation.
        """
        return correlations_plot(self.fitted, vcov=vcov, level=level)
