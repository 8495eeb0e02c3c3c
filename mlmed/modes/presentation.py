"""A fit as tables and text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from mlmed.effects.delta import COLUMNS
from mlmed.errors import EffectError
from mlmed.modes.export import flat_table, to_json
from mlmed.modes.functions import function_table, shared_names
from mlmed.modes.inference import Inference
from mlmed.modes.sdcor import correlations_table, fit_sdcor_table
from mlmed.modes.stata import stata_report
from mlmed.modes.tables import (
    fixef_table,
    glance_table,
    parameter_names,
    sections,
    tidy_table,
    varcorr_table,
)
from mlmed.modes.text import native_summary
from mlmed.options import STYLES, check_level, one_of
from mlmed.report.stata import StataReport, render
from mlmed.report.text import as_html

__all__ = ["Presentation"]


@dataclass(frozen=True)
class Presentation(Inference):
    """Tables and text of a fitted model.

    Attributes
    ----------
    fitted : Fitted
        Specification, sufficient statistics and optimum behind the numbers.
    """

    # -- tables --------------------------------------------------------------------------------------------

    def fixef(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> pd.DataFrame:
        """Fixed effects: term, estimate, std_error, statistic, p_value, conf_low, conf_high, note.

        ``ddf`` as in ``tidy``; the degrees of freedom are in the note.
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
            group, term (``sd(m:x)``, ``cor(m:Intercept,y:Intercept)``, ``sd(m:Residual)``), estimate, std_error,
            conf_low, conf_high, note. ``nlcom``, ``profile`` and ``test`` know the terms, too.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.mixed(["Med ~ X + (1 |c| group)", "y ~ X + (1 |c| group)"], df)
        >>> fit.sdcor().set_index("term")["estimate"].round(3).tail(3).to_dict()
        {'cor(Med:Intercept,y:Intercept)': -0.136, 'sd(Med:Residual)': 1.774, 'sd(y:Residual)': 1.673}
        """
        return fit_sdcor_table(self.fitted, vcov=vcov, level=level)

    def correlations(self, *, vcov: str = "block", level: float = 0.95) -> pd.DataFrame:
        """The correlations of ``sdcor``, between clusters (random effects) and within (residuals of a row).

        Returns
        -------
        DataFrame
            level (``between``, ``within``), equation1, equation2, term1, term2, estimate, std_error, conf_low,
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
        """All estimates under the names that every method shares, ``m:x`` and ``var(m:x)`` (``mlmed.compare``)."""
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
        return self._native_summary(vcov, level, ddf)

    def _stata_report(self, level: float) -> StataReport:
        return stata_report(self.fitted, level=level)

    def _native_summary(self, vcov: str, level: float, ddf: str) -> str:
        return native_summary(self.fitted, vcov=vcov, level=level, ddf=ddf, title="Linear mixed model")

    def sections(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> dict[str, pd.DataFrame]:
        """The tables that are exported, by name: fixef, varcorr, residual, sdcor."""
        tables = sections(self.fitted, vcov=vcov, level=level, ddf=ddf)
        return {**tables, "sdcor": self.sdcor(vcov=vcov, level=level)}

    def to_json(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> str:
        """All tables as JSON (what ``mlmed fit --format json`` prints)."""
        tables = self.sections(vcov=vcov, level=level, ddf=ddf)
        return to_json(self.fitted, tables, vcov=vcov, level=check_level(level), ddf=ddf)

    def to_table(self, *, vcov: str = "block", level: float = 0.95, ddf: str = "none") -> pd.DataFrame:
        """All tables below each other (what ``mlmed fit --format csv`` prints)."""
        return flat_table(self.sections(vcov=vcov, level=level, ddf=ddf))

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return as_html(self.summary())
