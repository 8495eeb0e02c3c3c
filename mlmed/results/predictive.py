"""Simulate data from a fit, and compare them with the data it was fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
from mlmed.fit.lmm import LmmFit, design_of
from mlmed.lmm.rowwise import ResponseSampler, cluster_law, population_law, residual_root, row_model
from mlmed.lmm.simulation import at_optimum
from mlmed.options import (
    DENSITIES,
    OF,
    Density,
    check_count,
    check_level,
    check_seed,
    one_of,
)
from mlmed.replication import replicate
from mlmed.report.plots.distributions import Panel

Array = NDArray[np.float64]


def simulated(fitted: LmmFit, n: int, *, seed: int | None, of: str) -> pd.DataFrame:
    """Simulate responses for the fitted rows from the model at its estimates."""
    n, seed = check_count(n, "sets of responses"), check_seed(seed, "simulate()")
    sampler = _sampler(fitted, of, "simulate()")
    return _frame(fitted, sampler.at, replicate(sampler.draw, n, seed=seed))


def check_table(fitted: LmmFit, n: int, *, seed: int | None, of: str, level: float) -> pd.DataFrame:
    """Compare statistics of the data with those of simulated sets."""
    n, seed = check_count(n, "simulated sets"), check_seed(seed, "predictive_check()")
    level = check_level(level)
    sampler = _sampler(fitted, of, "predictive_check()")
    task = _Summary(sampler, _responses(fitted, sampler))
    notes = {(own.name, LOG_SDS): own.note for own in task.responses}
    observed = response_statistics(sampler.observed, task.responses)
    return comparison(observed, replicate(task, n, seed=seed), notes, level=level)


def densities(fitted: LmmFit, n: int, *, seed: int | None, density: Density, of: str) -> list[Panel]:
    """Densities of observed and simulated responses, one panel per response."""
    one_of(density, DENSITIES, "density")
    n, seed = check_count(n, "simulated sets"), check_seed(seed, "plot.predictive()")
    sampler = _sampler(fitted, of, "plot.predictive()")
    observed, sets = sampler.observed, replicate(sampler.draw, n, seed=seed)
    return [
        Panel(
            response.name,
            shown_values(observed[r], response, density),
            tuple(shown_values(one[r], response, density) for one in sets),
        )
        for r, response in enumerate(_responses(fitted, sampler))
    ]


@dataclass(frozen=True, slots=True)
class _Summary:
    """Statistics of a simulated set; a task of ``replicate``."""

    sampler: ResponseSampler
    responses: tuple[ResponseClusters, ...]

    def __call__(self, rng: np.random.Generator) -> Statistics:
        return response_statistics(self.sampler.draw(rng), self.responses)


def _sampler(fitted: LmmFit, of: str, what: str) -> ResponseSampler:
    """Set up the model with its rows and the distribution of the random effects."""
    one_of(of, OF, "of")
    design = design_of(fitted, what, "use bootstrap(kind='parametric'), which refits sets drawn as cross-products")
    grams, optimum, working = fitted.grams, fitted.optimum, fitted.working
    model = row_model(fitted.spec, grams, at_optimum(optimum), design, data=fitted.table)
    law = population_law(working, optimum) if of == "population" else cluster_law(working, optimum)
    at = [equation.response_at for equation in fitted.layout.equations]
    root = residual_root(fitted.estimates.Sigma, working.units.y_scale)
    return ResponseSampler(model, law, root, grams.shift[at], grams.scale[at], design.at)


def _responses(fitted: LmmFit, sampler: ResponseSampler) -> tuple[ResponseClusters, ...]:
    names = [equation.name for equation in fitted.layout.equations]
    return response_clusters(names, sampler.observed, sampler.codes)


def _frame(fitted: LmmFit, at: NDArray[np.intp], sets: list[Array]) -> pd.DataFrame:
    """Put sets (R, N) on the rows ``at`` of the user's table."""
    names = [equation.name for equation in fitted.layout.equations]
    values = np.full((fitted.layout.total, len(sets) * len(names)), np.nan)
    values[at] = np.concatenate(sets).T
    columns: Any = names
    if len(sets) > 1:
        columns = pd.MultiIndex.from_product([range(len(sets)), names], names=["draw", "response"])
    index = fitted.table.index if isinstance(fitted.table, pd.DataFrame) else None
    return pd.DataFrame(values, index=index, columns=columns)
