"""What a location-scale model says of clusters and rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from mlmed.locscale.fit import Fit
from mlmed.locscale.posterior import EffectsLaw
from mlmed.modes.location_scale.prediction import fitted_table, predict_table
from mlmed.modes.location_scale.tables import ranef_table

__all__ = ["Values"]


@dataclass(frozen=True)
class Values:
    """Values of clusters and rows.

    Attributes
    ----------
    fit : Fit
        Rows, arrays and optimum behind the numbers.
    """

    fit: Fit

    @cached_property
    def _law(self) -> EffectsLaw:
        return self.fit.law()

    def ranef(self, *, level: float = 0.95) -> pd.DataFrame:
        """Empirical Bayes estimates: group_var, effect, group, value, se, lower, upper.

        Posterior means and standard deviations given the estimates, by the quadrature of the fit.
        """
        return ranef_table(self.fit, level=level)

    def fitted(self, *, level: str = "cluster") -> pd.DataFrame:
        """Expected response and residual sd of the rows of the data.

        Parameters
        ----------
        level : {"cluster", "population"}
            With the random effects of the row's cluster (posterior means), or with random effects of 0.

        Returns
        -------
        DataFrame
            estimate, sd, with the index of the data; NaN where a row was left out.
        """
        return fitted_table(self.fit, level=level)

    def predict(
        self, newdata: Any, *, level: str = "population", interval: str = "confidence", coverage: float = 0.95
    ) -> pd.DataFrame:
        """Expected response and residual sd of new rows.

        Parameters
        ----------
        newdata : dataframe
            Columns of the right-hand sides of both formulas (for ``level="cluster"`` also the cluster variable).
        level : {"population", "cluster"}
            ``population``: fixed effects; the sd is that of a cluster whose scale effects are 0, the median of all
            clusters. ``cluster``: with the effects of the row's cluster; one that was not in the data has the
            population's value, and the errors of a cluster of which nothing is known.
        interval : {"confidence", "prediction"}
            What ``lower`` and ``upper`` hold: the expected response, or a single new one. The latter is a mixture of
            normals over the scale effects, whose quantiles are found exactly; variances and scale are taken as known.
        coverage : float
            Of the intervals, a proportion.

        Returns
        -------
        DataFrame
            estimate, se, lower, upper (response), sd, sd_lower, sd_upper (residual sd; limits on the log scale), with
            the index of newdata; NaN where a predictor is missing.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.location_scale("Med ~ X + (1 |c| group)", "~ X + (1 |c| group)", df)
        >>> fit.predict({"X": [0.0, 1.0]}).round(2)[["estimate", "lower", "upper", "sd"]].values.tolist()
        [[2.01, 1.72, 2.31, 1.41], [2.18, 1.89, 2.48, 1.39]]
        """
        return predict_table(self.fit, self._law, newdata, level=level, interval=interval, coverage=coverage)
