"""New data from a fit, and whether they look like the data it was fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.predictive import (
    LOG_SDS,
    ResponseClusters,
    Statistics,
    comparison,
    response_clusters,
    response_statistics,
    shown_values,
)
from mlmed.modes.fitting import Fitted, design_of
from mlmed.options import (
    PREDICTION_LEVELS,
    SHOWN_DENSITIES,
    Density,
    PredictionLevel,
    check_count,
    check_level,
    check_seed,
    one_of,
)
from mlmed.reml.predictive import ResponseSampler, cluster_law, population_law, residual_root
from mlmed.reml.residual import row_model
from mlmed.reml.simulation import at_optimum
from mlmed.replication import replicate
from mlmed.report.predictive_plots import Panel, plot_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Predictive"]

Array = NDArray[np.float64]
TITLES = {"population": "new clusters", "cluster": "the clusters of the data"}


class Predictive:
    """Simulated responses and predictive checks of a fitted mixed model."""

    if TYPE_CHECKING:
        fitted: Fitted

    def simulate(self, n: int = 1, *, seed: int | None = None, level: PredictionLevel = "population") -> pd.DataFrame:
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
        level : {"population", "cluster"}
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
            No seed, an unknown level, or a fit that has no rows (stored Grams, an engine, a pickle).
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
        n, seed = check_count(n, "sets of responses"), check_seed(seed, "simulate()")
        sampler = _sampler(self.fitted, level, "simulate()")
        return _frame(self.fitted, sampler.at, replicate(sampler.draw, n, seed=seed))

    def predictive_check(
        self, n: int = 200, *, seed: int | None = None, level: PredictionLevel = "population", coverage: float = 0.95
    ) -> pd.DataFrame:
        """Statistics of the data beside those of simulated sets.

        Parameters
        ----------
        n : int
            Simulated sets.
        seed, level
            As in ``simulate``.
        coverage : float
            Share of the simulated values between ``low`` and ``high``.

        Returns
        -------
        DataFrame
            response (or a pair of them), statistic, observed, simulated (mean), low, high, tail_share, note.
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
        >>> bool(table.loc["sd", "low"] < table.loc["sd", "observed"] < table.loc["sd", "high"])
        True
        """
        n, seed = check_count(n, "simulated sets"), check_seed(seed, "predictive_check()")
        coverage = check_level(coverage, "coverage")
        sampler = _sampler(self.fitted, level, "predictive_check()")
        task = _Summary(sampler, _responses(self.fitted, sampler))
        notes = {(own.name, LOG_SDS): own.note for own in task.responses}
        observed = response_statistics(sampler.observed, task.responses)
        return comparison(observed, replicate(task, n, seed=seed), notes, interval=coverage)

    def pp_check(
        self, n: int = 50, *, seed: int | None = None, kind: Density = "density", level: PredictionLevel = "population"
    ) -> list[Axes]:
        """Density of every observed response over those of n simulated sets (extra ``plots``), as ``pp_check`` of brms.

        Parameters
        ----------
        n : int
            Simulated sets, one thin line each.
        seed, level
            As in ``simulate``.
        kind : {"density", "cluster-mean", "cluster-sd"}
            What the densities are of: the values, the means of the clusters, or the standard deviations within clusters
            (log axis). Clusters that differ in their sds show in the last one; see ``mlmed.location_scale``.

        Returns
        -------
        list of Axes
            One panel per response.
        """
        one_of(kind, SHOWN_DENSITIES, "kind")
        n, seed = check_count(n, "simulated sets"), check_seed(seed, "pp_check()")
        sampler = _sampler(self.fitted, level, "pp_check()")
        responses = _responses(self.fitted, sampler)
        observed, sets = sampler.observed, replicate(sampler.draw, n, seed=seed)
        panels = [
            Panel(
                response.name,
                shown_values(observed[r], response, kind),
                tuple(shown_values(one[r], response, kind) for one in sets),
            )
            for r, response in enumerate(responses)
        ]
        return plot_panels(panels, kind=kind, title=f"{n} simulated sets, {TITLES[level]}")


@dataclass(frozen=True, slots=True)
class _Summary:
    """Statistics of a simulated set; a task of ``replicate``."""

    sampler: ResponseSampler
    responses: tuple[ResponseClusters, ...]

    def __call__(self, rng: np.random.Generator) -> Statistics:
        return response_statistics(self.sampler.draw(rng), self.responses)


def _sampler(fitted: Fitted, level: str, what: str) -> ResponseSampler:
    """The model with its rows, and the law of the random effects."""
    one_of(level, PREDICTION_LEVELS, "level")
    design = design_of(fitted, what, "use bootstrap(kind='parametric'), which refits sets drawn as cross-products")
    grams, optimum, working = fitted.grams, fitted.optimum, fitted.working
    model = row_model(fitted.spec, grams, at_optimum(optimum), design, data=fitted.table)
    law = population_law(working, optimum) if level == "population" else cluster_law(working, optimum)
    at = [equation.response_at for equation in fitted.layout.equations]
    root = residual_root(fitted.estimates.Sigma, working.units.y_scale)
    return ResponseSampler(model, law, root, grams.shift[at], grams.scale[at], design.at)


def _responses(fitted: Fitted, sampler: ResponseSampler) -> tuple[ResponseClusters, ...]:
    names = [equation.name for equation in fitted.layout.equations]
    return response_clusters(names, sampler.observed, sampler.codes)


def _frame(fitted: Fitted, at: NDArray[np.intp], sets: list[Array]) -> pd.DataFrame:
    """Sets (R, N) on the rows ``at`` of the user's table."""
    names = [equation.name for equation in fitted.layout.equations]
    values = np.full((fitted.layout.total, len(sets) * len(names)), np.nan)
    values[at] = np.concatenate(sets).T
    columns: Any = names
    if len(sets) > 1:
        columns = pd.MultiIndex.from_product([range(len(sets)), names], names=["draw", "response"])
    index = fitted.table.index if isinstance(fitted.table, pd.DataFrame) else None
    return pd.DataFrame(values, index=index, columns=columns)
