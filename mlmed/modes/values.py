"""What a fit says of clusters and rows: conditional modes, fitted values, predictions, conditional effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mlmed.errors import EffectError
from mlmed.modes.curves import conditional_table, line_along
from mlmed.modes.inference import Inference
from mlmed.modes.prediction import predict, prediction_table
from mlmed.modes.tables import ranef_table
from mlmed.options import shown

__all__ = ["Values"]


@dataclass(frozen=True)
class Values(Inference):
    """Values of clusters and rows.

    Attributes
    ----------
    fitted : Fitted
        Specification, sufficient statistics and optimum behind the numbers; called, ``fit.fitted()``, fitted values.
    """

    def ranef(self, *, level: float = 0.95) -> pd.DataFrame:
        """Conditional modes: group_var, effect, group, value, se, lower, upper, shrinkage.

        One row per effect and cluster. ``se`` is the conditional standard deviation given the estimates, as lme4's
        ``condsd``. ``shrinkage`` is se^2 / var(effect), from 0 (the rows of the cluster decide) to 1 (it has the
        population's value); 1 - shrinkage is the reliability. With a random intercept only, a mode is (1 - shrinkage)
        times the mean residual of the cluster. NaN where the variance is 0.
        """
        return ranef_table(self.fitted, level=level)

    @property
    def fittedvalues(self) -> pd.Series | pd.DataFrame:
        """Fitted values of the rows, random effects included (statsmodels' name for ``fitted()``)."""
        return self.fitted()

    def resid(self, *, level: str = "cluster") -> pd.Series | pd.DataFrame:
        """Responses less ``fitted(level=level)``, with the index of the data.

        Parameters
        ----------
        level : {"cluster", "population"}
            Residuals within clusters, or differences from the population's mean.

        Returns
        -------
        Series (one equation) or DataFrame (a column per response)
            NaN where a row was not used in an equation.

        Raises
        ------
        EffectError
            Unknown level, or the fit has no rows.
        """
        return self.fitted.residuals(level=level)

    def predict(
        self, newdata: Any, *, level: str = "population", interval: str | None = None, coverage: float | None = None
    ) -> pd.DataFrame | pd.Series:
        """Predicted responses for new rows.

        Standard errors take the variances as known, as those of ``fixef()`` do; intervals are normal. A response that
        is a predictor of another one (the mediator m of y) is taken from ``newdata``: y is predicted given m, so its
        change with x is the direct effect.

        Parameters
        ----------
        newdata : dataframe
            Columns of the right-hand sides (for ``level="cluster"`` also the cluster variable).
        level : {"population", "cluster"}
            ``population``: X beta. ``cluster``: plus Z u of the row's cluster; clusters that were not in the
            data get the population value, and the variance of a cluster of which nothing is known. To see which
            are known, compare with ``ranef()["group"]``.
        interval : {"confidence", "prediction"}, optional
            For the expected response (of the population or of the cluster), or for a single new response: this adds the
            residual variance, and in the population that of the random effects.
        coverage : float, optional
            Of the interval, a proportion; .95 if not given. Without an interval it is refused.

        Returns
        -------
        Series (one equation) or DataFrame (a column per response)
            NaN where a predictor is missing. With ``interval`` a tidy table: row (the label in newdata), response,
            estimate, std_error, lower, upper; one block of rows per response.

        Raises
        ------
        DataError
            A column is missing, has another type than in the fit, or holds what the fit cannot know: a new level, a
            value beyond the ends of a spline. Or no cluster is known, and their ids are of another type.
        EffectError
            Unknown level or interval, or a coverage without an interval.

        Examples
        --------
        >>> import mlmed
        >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
        >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", df)
        >>> new = {"X": [0.0], "group": [1]}
        >>> fit.predict(new, level="cluster", interval="confidence").round(3).values.tolist()
        [[0, 'Med', 2.166, 0.173, 1.828, 2.504]]
        """
        if interval is not None:
            share = 0.95 if coverage is None else coverage
            return prediction_table(self.fitted, newdata, level=level, interval=interval, coverage=share)
        if coverage is not None:
            raise EffectError(
                f"coverage={shown(coverage)} is that of an interval, and none was asked for; give "
                "interval='confidence' or 'prediction' as well, or leave coverage out"
            )
        return predict(self.fitted, newdata, level=level)

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
            response, the predictor, estimate, std_error, lower, upper; one block of rows per response.

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
