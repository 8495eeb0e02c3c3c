"""LocationScaleResults: estimates under the names that R and Python users expect. Orchestrates, computes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from mlmed.effects.delta import Quantity, delta_table
from mlmed.effects.nlcom import combine
from mlmed.lmm.vcov import Vcov
from mlmed.notes import Note
from mlmed.options import check_level, own_words
from mlmed.quadrature.fit import Fit
from mlmed.quadrature.posterior import EffectsLaw
from mlmed.report.text import as_html
from mlmed.results.coefficients import Coefficients
from mlmed.results.document import flat_table, plain, records
from mlmed.results.location_scale import tables
from mlmed.results.location_scale.prediction import fitted_table, predict_table
from mlmed.results.location_scale.starts import starts_table
from mlmed.results.location_scale.text import summary_text
from mlmed.results.plots import Plots

__all__ = ["LocationScaleResults"]


@dataclass(frozen=True)
class LocationScaleResults(Coefficients):
    """A fitted mixed-effects location-scale model.

    Attributes
    ----------
    fit : Fit
        Rows, arrays and optimum behind the numbers.
    notes : tuple of Note
        What to know of the fit, each with a ``code`` and a ``text``; the warnings of fitting it.
    """

    fit: Fit
    notes: tuple[Note, ...] = ()

    def __repr__(self) -> str:
        first, second = self.fit.rows.equations
        asked = f"{first.text}; ~ {second.right}"
        word = "certified" if self.converged else "NOT CERTIFIED"
        counts = f"{self.nobs} observations in {self.n_clusters} clusters"
        return f"<LocationScaleResults: {asked}; log-likelihood {self.llf:.5f}, {word}; {counts}>"

    # -- estimates -----------------------------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Fixed effects, then ``var()`` and ``cov()`` of random effects; those of the scale as ``sigma~x``."""
        return list(tables.quantities(self.fit))[: len(self.fit.estimates.psi)]

    @cached_property
    def params(self) -> pd.Series:
        """Fixed effects of the location and, as ``sigma~x``, of the log residual sd."""
        names = tables.fixed_names(self.fit)
        return pd.Series(self.fit.estimates.psi[: len(names)], index=names, name="estimate")

    @cached_property
    def bse(self) -> pd.Series:
        """Their standard errors, from the observed information."""
        errors = np.sqrt(np.diag(self.fit.estimates.vcov)[: len(self.params)])
        return pd.Series(errors, index=self.params.index, name="std_error")

    @property
    def llf(self) -> float:
        """Maximized log-likelihood."""
        return self.fit.estimates.loglik

    @property
    def deviance(self) -> float:
        """-2 log-likelihood."""
        return -2.0 * self.llf

    @property
    def nobs(self) -> int:
        """Rows used."""
        return self.fit.problem.nobs

    @property
    def n_clusters(self) -> int:
        """Clusters."""
        return self.fit.problem.J

    @property
    def df_model(self) -> int:
        """Parameters."""
        return len(self.fit.estimates.psi)

    @property
    def aic(self) -> float:
        """Akaike's criterion."""
        return -2.0 * self.llf + 2.0 * self.df_model

    @property
    def bic(self) -> float:
        """Schwarz' criterion, with the number of rows."""
        return -2.0 * self.llf + float(np.log(self.nobs)) * self.df_model

    @property
    def converged(self) -> bool:
        """Whether the optimum is certified."""
        return self.fit.optimum.certificate.converged

    @property
    def is_singular(self) -> bool:
        """Whether the optimum lies on the boundary: G has less than full rank."""
        return self.fit.estimates.rank < len(self.fit.estimates.G)

    @property
    def nodes(self) -> int:
        """Quadrature nodes per scale random effect."""
        return self.fit.optimum.nodes_per_dimension

    @property
    def G(self) -> pd.DataFrame:
        """Covariance matrix of the random effects."""
        names = tables.random_names(self.fit)
        return pd.DataFrame(self.fit.estimates.G, index=names, columns=names)

    def vcov(self) -> pd.DataFrame:
        """Covariance matrix of all estimates: the inverse observed information."""
        return pd.DataFrame(self.fit.estimates.vcov, index=self.names, columns=self.names)

    def cov_params(self) -> pd.DataFrame:
        """Covariance matrix of the fixed effects (statsmodels' name)."""
        names = self.params.index
        return self.vcov().loc[names, names]

    # -- tables --------------------------------------------------------------------------------------------

    def fixef(self, *, level: float = 0.95) -> pd.DataFrame:
        """Fixed effects; those of the scale on the log scale."""
        return tables.fixef_table(self.fit, level=level)

    def effects(self, *, level: float = 0.95) -> pd.DataFrame:
        """Scale effects on the sd scale: the residual sd where scale predictors are 0, and factors per unit.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.location_scale("Med ~ X + (1 | group)", "~ 1 + (1 | group)", df)
        >>> fit.effects()[["term", "estimate"]].round(3).values.tolist()
        [['exp(sigma~Intercept)', 1.413]]
        """
        return tables.scale_table(self.fit, level=level)

    def sdcor(self, *, level: float = 0.95) -> pd.DataFrame:
        """Standard deviations and correlations of the random effects, as brms prints them."""
        return tables.sdcor_table(self.fit, level=level)

    def varcorr(self, *, level: float = 0.95) -> pd.DataFrame:
        """Variances and covariances of the random effects, as Stata prints them."""
        return tables.varcorr_table(self.fit, level=level)

    def tidy(self, *, level: float = 0.95) -> pd.DataFrame:
        """All estimates in broom.mixed's columns; random effects as sds and correlations."""
        return tables.tidy_table(self.fit, level=level)

    def glance(self) -> pd.DataFrame:
        """One row: nobs, n_clusters, llf, aic, bic, the certificate and the quadrature."""
        return tables.glance_table(self.fit)

    def quantities(self) -> dict[str, Quantity]:
        """Everything that ``nlcom`` can name, with derivatives."""
        return tables.quantities(self.fit)

    def nlcom(
        self,
        expression: str | Callable[[dict[str, float]], float] | Mapping[str, str],
        *,
        order: str = "second",
        level: float = 0.95,
    ) -> pd.DataFrame:
        """Any function of the parameters with a delta-method standard error, as ``mlmed.mixed(...).nlcom``.

        Parameters
        ----------
        expression : str, callable or mapping
            For example ``"exp(sigma~Intercept)"``; names may stand in backticks. A mapping gives several, by label.
        order : {"second", "first", "unbiased"}
            Of the delta method.
        level : float
            Coverage of the interval.
        """
        known, estimates = self.quantities(), self.fit.estimates
        if isinstance(expression, Mapping):
            asked = [combine(text, known).named(label) for label, text in expression.items()]
        else:
            asked = [combine(expression, known)]
        return delta_table(asked, Vcov.one(estimates.vcov, estimates.reason), order=order, level=level)

    # -- clusters and rows -----------------------------------------------------------------------------------

    @cached_property
    def _law(self) -> EffectsLaw:
        return self.fit.law()

    def ranef(self, *, level: float = 0.95) -> pd.DataFrame:
        """Empirical Bayes estimates: group_var, effect, group, estimate, std_error, conf_low, conf_high.

        Posterior means and standard deviations given the estimates, by the quadrature of the fit.
        """
        return tables.ranef_table(self.fit, level=level)

    @own_words
    def fitted(self, *, of: str = "cluster") -> pd.DataFrame:
        """Expected response and residual sd of the rows of the data.

        Parameters
        ----------
        of : {"cluster", "population"}
            With the random effects of the row's cluster (posterior means), or with random effects of 0.

        Returns
        -------
        DataFrame
            estimate, sd, with the index of the data; NaN where a row was left out.
        """
        return fitted_table(self.fit, of=of)

    @own_words
    def predict(
        self, newdata: Any, *, of: str = "population", interval: str = "confidence", level: float = 0.95
    ) -> pd.DataFrame:
        """Expected response and residual sd of new rows.

        Parameters
        ----------
        newdata : dataframe
            Columns of the right-hand sides of both formulas (for ``of="cluster"`` also the cluster variable).
        of : {"population", "cluster"}
            ``population``: fixed effects; the sd is that of a cluster whose scale effects are 0, the median of all
            clusters. ``cluster``: with the effects of the row's cluster; one that was not in the data has the
            population's value, and the errors of a cluster of which nothing is known.
        interval : {"confidence", "prediction"}
            What ``conf_low`` and ``conf_high`` hold: the expected response, or a single new one. The latter is a
            mixture of normals over the scale effects, whose quantiles are found exactly; variances and scale are taken
            as known.
        level : float
            Coverage of the intervals, a proportion.

        Returns
        -------
        DataFrame
            estimate, std_error, conf_low, conf_high (response), sd, sd_conf_low, sd_conf_high (residual sd; limits on
            the log scale), with the index of newdata; NaN where a predictor is missing.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.location_scale("Med ~ X + (1 |c| group)", "~ X + (1 |c| group)", df)
        >>> fit.predict({"X": [0.0, 1.0]}).round(2)[["estimate", "conf_low", "conf_high", "sd"]].values.tolist()
        [[2.01, 1.72, 2.31, 1.41], [2.18, 1.89, 2.48, 1.39]]
        """
        return predict_table(self.fit, self._law, newdata, of=of, interval=interval, level=level)

    # -- trust ---------------------------------------------------------------------------------------------

    def check_starts(self, n: int = 5, *, seed: int, n_jobs: int | None = None) -> pd.DataFrame:
        """Fit again from random starts.

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
            start, llf, difference (from this fit), gradient_norm, newton_decrement, converged, and how far apart the
            estimates are, in standard errors.
        """
        return starts_table(self.fit, n, seed=seed, n_jobs=n_jobs)

    # -- text ----------------------------------------------------------------------------------------------

    def summary(self, *, level: float = 0.95) -> str:
        """The fit as text."""
        return summary_text(self.fit, level=level)

    def sections(self, *, level: float = 0.95) -> dict[str, pd.DataFrame]:
        """The tables that are exported, by name."""
        return {
            "fixef": self.fixef(level=level),
            "scale_effects": self.effects(level=level),
            "sdcor": self.sdcor(level=level),
            "varcorr": self.varcorr(level=level),
        }

    def to_table(self, *, level: float = 0.95) -> pd.DataFrame:
        """All tables below each other (what ``mlmed location-scale --format csv`` prints)."""
        return flat_table(self.sections(level=level))

    def to_json(self, *, level: float = 0.95) -> str:
        """All tables as JSON; a number that does not exist is null and its row's ``note`` says why."""
        first, second = self.fit.rows.equations
        document: dict[str, object] = {
            "schema": "mlmed.location_scale/1",
            "location": first.text,
            "scale": f"~ {second.right}",
            "cluster": ":".join(self.fit.rows.group),
            "level": check_level(level),
        }
        document |= {str(name): plain(value) for name, value in self.glance().iloc[0].items()}
        document |= {name: records(table) for name, table in self.sections(level=level).items()}
        return json.dumps(document, indent=2, allow_nan=False)

    def __str__(self) -> str:
        return self.summary()

    def _repr_html_(self) -> str:
        return as_html(self.summary())

    @property
    def plot(self) -> Plots:
        """Pictures (extra ``plots``): ``fit.plot.ranef()``."""
        return Plots(self)
