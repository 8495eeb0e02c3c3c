"""Values of clusters and rows: random effects, fitted values, predictions, new data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import LmmFit
from mlmed.fit.system import SystemFit
from mlmed.options import own_words
from mlmed.results.abilities import Held, never, only
from mlmed.results.curves import conditional_table, line_along
from mlmed.results.prediction import predicted
from mlmed.results.predictive import check_table, simulated
from mlmed.results.tables import ranef_table


@only(ranef_table)
def ranef(self: Held, *, level: float = 0.95) -> pd.DataFrame:
    """Random effects of the clusters: conditional modes, or posterior means of a location-scale model.

    Parameters
    ----------
    level : float
        Coverage of the intervals, a proportion.

    Returns
    -------
    DataFrame
        One row per effect and cluster: group_var, effect, group, estimate, std_error, conf_low, conf_high, shrinkage.
        ``std_error`` is the conditional standard deviation given the estimates, as lme4's ``condsd``. ``shrinkage`` is
        std_error^2 / var(effect), from 0 (the rows of the cluster decide) to 1 (the population's value); 1 - shrinkage
        is the reliability; NaN where the variance is 0. With a random intercept only, a mode is (1 - shrinkage) times
        the mean residual of the cluster. A location-scale model has posterior means and standard deviations by
        quadrature, and no shrinkage.

    Raises
    ------
    EffectError
        No random effects, or equations that are fitted apart: use the parts, as in ``fit.mediator.ranef()``.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.ranef()[["effect", "group", "estimate", "shrinkage"]].head(2).round(2).values.tolist()
    [['Intercept', 1, 0.16, 0.03], ['Intercept', 2, 0.7, 0.03]]
    """
    return ranef_table(self.fit, level=level)


@own_words
@never(SystemFit, PlainFit)
def fitted(self: Held, *, of: str = "cluster") -> pd.Series | pd.DataFrame:
    """Fitted values of the rows of the data (mixed and location-scale models).

    Parameters
    ----------
    of : {"cluster", "population"}
        X beta + Z u, or X beta.

    Returns
    -------
    Series (one equation) or DataFrame (a column per response)
        With the index of the data; NaN where a row was not used in an equation. A location-scale model has the
        columns estimate (expected response) and sd (residual sd).

    Raises
    ------
    EffectError
        Unknown ``of``, the fit has no rows, or equations that are fitted apart: use the parts, as in
        ``fit.mediator.fitted()``.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.fitted().head(2).round(2).tolist(), fit.fitted(of="population").head(2).round(2).tolist()
    ([1.96, 2.22], [1.83, 2.05])
    """
    return self.fit.fitted(of=of)


@own_words
@only(LmmFit)
def resid(self: Held, *, of: str = "cluster") -> pd.Series | pd.DataFrame:
    """Residuals of a linear mixed model: responses minus ``fitted(of=of)``.

    Parameters
    ----------
    of : {"cluster", "population"}
        Residuals within clusters, or differences from the population's mean.

    Returns
    -------
    Series (one equation) or DataFrame (a column per response)
        With the index of the data; NaN where a row was not used in an equation.

    Raises
    ------
    EffectError
        Unknown ``of``, the fit has no rows, or another kind of fit.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.resid().head(2).round(2).tolist()
    [-0.19, -0.17]
    """
    return self.fit.residuals(of=of)


@own_words
@only(predicted)
def predict(
    self: Held, newdata: Any, *, of: str = "population", interval: str | None = None, level: float | None = None
) -> pd.DataFrame | pd.Series:
    """Predict responses for new rows (mixed and location-scale models).

    Standard errors treat the variances as known, as those of ``fixef()`` do; intervals of a mixed model are normal. A
    response that is a predictor of another one (the mediator m of y) is taken from ``newdata``: y is predicted given m,
    so its change with x is the direct effect.

    Parameters
    ----------
    newdata : dataframe
        Columns of the right-hand sides (for ``of="cluster"`` also the cluster variable).
    of : {"population", "cluster"}
        ``population``: X beta. ``cluster``: plus Z u of the row's cluster. Clusters that are not in the data (see
        ``ranef()["group"]``) get the population value, with the variance of an unobserved cluster.
    interval : {"confidence", "prediction"}, optional
        For the expected response (of the population or of the cluster), or for a single new response: this adds the
        residual variance, and in the population that of the random effects.
    level : float, optional
        Coverage of the interval, a proportion; .95 if not given. A mixed model refuses it without ``interval``.

    Returns
    -------
    Series (one equation) or DataFrame (a column per response)
        NaN where a predictor is missing. With ``interval`` a tidy table: row (the label in newdata), response,
        estimate, std_error, conf_low, conf_high; one block of rows per response.

        A location-scale model always returns a DataFrame with the index of newdata: estimate, std_error, conf_low,
        conf_high (response; confidence limits by default), sd, sd_conf_low, sd_conf_high (residual sd, limits on the
        log scale). The sd of the population is that of a cluster whose scale effects are 0, the median of all clusters.
        Prediction limits are exact quantiles of the mixture over scale effects.

    Raises
    ------
    DataError
        A column is missing, has another type than in the fit, or holds a new level or a value beyond the ends of a
        spline. Or no cluster is known, and the ids are of another type.
    EffectError
        Unknown ``of`` or interval, a level without an interval, or equations that are fitted apart: use the parts, as
        in ``fit.mediator.predict(newdata)``.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", df)
    >>> new = {"X": [0.0], "group": [1]}
    >>> fit.predict(new, of="cluster", interval="confidence").round(3).values.tolist()
    [[0, 'Med', 2.166, 0.173, 1.828, 2.504]]
    >>> fit = mlmed.location_scale("Med ~ X + (1 |c| group)", "~ X + (1 |c| group)", df)
    >>> fit.predict({"X": [0.0, 1.0]}).round(2)[["estimate", "conf_low", "conf_high", "sd"]].values.tolist()
    [[2.01, 1.72, 2.31, 1.41], [2.18, 1.89, 2.48, 1.39]]
    """
    return predicted(self.fit, newdata, of=of, interval=interval, level=level)


@only(LmmFit)
def conditional_effects(
    self: Held,
    variable: str,
    *,
    at: Mapping[str, Any] | None = None,
    level: float = 0.95,
    points: int | Sequence[Any] = 50,
) -> pd.DataFrame:
    """Expected responses of the population along one predictor, all others held (linear mixed models).

    A response that is a predictor of another one (the mediator m of y) is held, too: along x, the line of y given
    m has the slope of the direct effect. ``effects()`` of ``mlmed.mediate`` has the total effect.

    Parameters
    ----------
    variable : str
        The predictor. Responses whose equations lack it are left out.
    at : mapping, optional
        Values at which other predictors are held; by default their mean or first level.
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
        No equation has the predictor, ``at`` names no predictor, or a value is not one finite number.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> fit.conditional_effects("X", points=[-1, 1])[["X", "estimate"]].round(3).values.tolist()
    [[-1.0, 1.805], [1.0, 2.232]]
    """
    return conditional_table(self.fit, line_along(self.fit, variable, at=at, points=points), level=level)


@own_words
@only(LmmFit)
def simulate(self: Held, n: int = 1, *, seed: int | None = None, of: str = "population") -> pd.DataFrame:
    """Simulate responses for the fitted rows from a linear mixed model at its estimates.

    Random effects, then the residuals of each row (jointly over responses), are drawn from their normal
    distributions. Predictors stay as observed, lagged responses too. A response that is a predictor of a later
    equation (the mediator) is simulated first, and terms computed from it (``m:x``, ``np.log(m)``) follow. The
    uncertainty of the estimates is not part of the draws.

    Parameters
    ----------
    n : int
        Sets of responses.
    seed : int
        Required. Set k is the same whatever n is.
    of : {"population", "cluster"}
        ``population``: new clusters, with random effects from N(0, G). ``cluster``: the clusters of the data,
        with random effects from their distribution given the data and the estimates (modes and covariances as in
        ``ranef()``), as ``posterior_predict`` of brms does. Use it with lagged responses: they carry the random effects
        of their cluster, which new ones would contradict.

    Returns
    -------
    DataFrame
        The rows of the data in their order (a pandas index is kept). Columns are the responses; for n > 1 they
        are (draw, response), so that ``out[3]`` is set 3. NaN on rows that an equation does not use.

    Raises
    ------
    EffectError
        No seed, an unknown ``of``, or a fit without rows (stored Grams, an engine, a pickle).
    DataError, FormulaError
        A predictor cannot be recomputed from a simulated response.

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
    return simulated(self.fit, n, seed=seed, of=of)


@own_words
@only(LmmFit)
def predictive_check(
    self: Held, n: int = 200, *, seed: int | None = None, of: str = "population", level: float = 0.95
) -> pd.DataFrame:
    """Compare statistics of the data with those of simulated sets (linear mixed models).

    Parameters
    ----------
    n : int
        Simulated sets.
    seed, of
        As in ``simulate``.
    level : float
        Share of the simulated values between ``conf_low`` and ``conf_high``, a proportion.

    Returns
    -------
    DataFrame
        response (or a pair of them), statistic, observed, simulated (mean), conf_low, conf_high, tail_share, note.
        ``tail_share`` is the two-sided share of simulated values as far out as the observed one, at least
        2 / (n + 1).

    Raises
    ------
    EffectError
        No seed, an unknown ``of``, or a fit without rows.

    Notes
    -----
    For each response: mean, sd, skewness, min, max, sd of the cluster means, sd of the logarithms of the clusters'
    sds (large where some clusters vary more than others); for two responses their correlation over rows and
    within clusters. The model was fitted to the same data, so statistics that it has a parameter for agree nearly by
    construction: their tail share is larger than a p value would be.

    Examples
    --------
    >>> import mlmed
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    >>> table = fit.predictive_check(100, seed=1).set_index("statistic")
    >>> bool(table.loc["sd", "conf_low"] < table.loc["sd", "observed"] < table.loc["sd", "conf_high"])
    True
    """
    return check_table(self.fit, n, seed=seed, of=of, level=level)
