"""From a fit to its bootstrap: the resampler of each kind, the replicates, the jackknife."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.chain import derived_columns
from mlmed.effects.delta import Quantity
from mlmed.errors import EffectError
from mlmed.modes.bootstrap import BootstrapResults, count_failures, variances_among
from mlmed.modes.covariance import alone_in, lost_in_replicates
from mlmed.modes.fitting import Fitted, design_of
from mlmed.modes.tables import parameter_names
from mlmed.options import RESAMPLED, check_count, check_flag, check_jobs, check_seed, one_of, shown
from mlmed.reml.fit import Optimum
from mlmed.reml.influence import refits_without
from mlmed.reml.percluster import ClusterProducts, cluster_products
from mlmed.reml.refit import Refit, Refitted, Resampler
from mlmed.reml.resample import CaseResampler, case_resampler, within_case_resampler
from mlmed.reml.residual import residual_resampler, row_parametric_resampler
from mlmed.reml.simulation import at_optimum, parametric_resampler
from mlmed.reml.vcov import said_along
from mlmed.reml.working import Working
from mlmed.replication import replicate

__all__ = ["Plan", "bootstrap_fit", "resampler_for"]

Array = NDArray[np.float64]


def resampler_for(fitted: Fitted, kind: str, *, within: bool = False) -> Resampler:
    """What makes the replicates of one kind.

    Raises
    ------
    EffectError
        Unknown kind, ``within`` with another kind than cases, or rows are needed that the fit does not have.
    """
    one_of(kind, RESAMPLED, "kind")
    if check_flag(within, "within") and kind != "case":
        raise EffectError(
            f"within=True draws rows within drawn clusters, which is kind='case'; found kind={shown(kind)}"
        )
    if kind == "case":
        if not within:
            return case_resampler(fitted.spec, fitted.grams)
        design = design_of(fitted, "within=True", "leave out within=True")
        return within_case_resampler(fitted.spec, fitted.grams, design)
    spec, grams, point = fitted.spec, fitted.grams, at_optimum(fitted.optimum)
    derived = any(derived_columns(grams.layout))
    if kind == "residual":
        remedy = "use kind='case'" if derived else "use kind='case' or kind='parametric'"
        design = design_of(fitted, "kind='residual'", remedy)
        return residual_resampler(spec, grams, point, design, data=fitted.table)
    if not derived:
        return parametric_resampler(spec, grams, point)
    design = design_of(fitted, "kind='parametric' of a model with columns made of a response", "use kind='case'")
    return row_parametric_resampler(spec, grams, point, design, data=fitted.table)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bootstrap was asked to do.

    Attributes
    ----------
    n : int
        Replicates.
    kind : str
        One of ``RESAMPLED``.
    within : bool
        Rows within clusters, too.
    seed : int or None
        Seed, required.
    n_jobs : int or None
        Workers.
    progress : bool
        Show a progress bar.
    """

    n: int
    kind: str
    within: bool
    seed: int | None
    n_jobs: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not a number of replicates, a seed or a number of workers."""
        check_count(self.n, "replicates")
        check_seed(self.seed, "bootstrap()")
        check_jobs(self.n_jobs)
        check_flag(self.progress, "progress")


@dataclass(frozen=True, slots=True)
class Jackknife:
    """Exact refits without each cluster in turn; holds cross-products, not the fit, whose rows need not be kept.

    Attributes
    ----------
    working, optimum : Working, Optimum
        The model and its optimum.
    products : ClusterProducts
        Its cross-products by cluster.
    reml : bool
        Criterion.
    clusters : Index
        Their ids.
    names : list of str
        The parameters.
    make : callable
        From parameter vectors to effects by name.
    n_jobs : int or None
        Workers.
    """

    working: Working
    optimum: Optimum
    products: ClusterProducts
    reml: bool
    clusters: pd.Index
    names: list[str]
    make: Callable[[Array], dict[str, Array]]
    n_jobs: int | None

    def __call__(self) -> pd.DataFrame:
        """Estimates without each cluster, by cluster."""
        found = refits_without(self.working, self.optimum, self.products, reml=self.reml, n_jobs=self.n_jobs)
        return _frame(found, self.names, self.make).set_index(self.clusters)


def bootstrap_fit(
    fitted: Fitted, quantities: Mapping[str, Quantity], make: Callable[[Array], dict[str, Array]], plan: Plan
) -> BootstrapResults:
    """Run the replicates; ``make`` turns parameter vectors (n, n_psi) into effects by name."""
    names, working, optimum, reml = parameter_names(fitted), fitted.working, fitted.optimum, fitted.reml
    n, seed = check_count(plan.n, "replicates"), check_seed(plan.seed, "bootstrap()")
    source = resampler_for(fitted, plan.kind, within=plan.within)
    task = Refit.of(source, working, optimum, reml=reml, n_psi=len(names))
    found = replicate(task, n, seed=seed, n_jobs=plan.n_jobs, progress=plan.progress)
    return BootstrapResults(
        draws=_frame(found, names, make),
        estimates=pd.Series({term: quantity.estimate for term, quantity in quantities.items()}),
        kind=f"{plan.kind} (rows, too)" if plan.within else plan.kind,
        seed=seed,
        n_singular=sum(one.singular for one in found),
        failures=count_failures(found),
        fixed={term: quantity.note for term, quantity in quantities.items() if quantity.is_fixed},
        notes={term: quantity.note for term, quantity in quantities.items() if not quantity.is_fixed},
        _leave_out=Jackknife(
            working, optimum, _products(fitted, source), reml, fitted.clusters, names, make, plan.n_jobs
        ),
        lost=_lost(fitted, quantities) if plan.kind == "case" else {},
        variances=variances_among(quantities),
    )


def _lost(fitted: Fitted, quantities: Mapping[str, Quantity]) -> dict[str, str]:
    """Terms that one cluster alone gives, and why draws of clusters do not show how they vary."""
    text = lost_in_replicates("use kind='parametric' or a profile interval")
    directions = alone_in(fitted, text).below(len(parameter_names(fitted)))
    said = {term: said_along((directions,), q.gradient, q.hessian) for term, q in quantities.items()}
    return {term: why for term, why in said.items() if why}


def _products(fitted: Fitted, source: Resampler) -> ClusterProducts:
    """Cross-products by cluster; those of the case resampler are the same arrays."""
    if isinstance(source, CaseResampler):
        return source.products
    return cluster_products(fitted.working, fitted.grams)


def _frame(found: list[Refitted], names: list[str], make: Callable[[Array], dict[str, Array]]) -> pd.DataFrame:
    psi = np.array([one.psi for one in found])
    return pd.DataFrame({**make(psi), **dict(zip(names, psi.T, strict=True))})
