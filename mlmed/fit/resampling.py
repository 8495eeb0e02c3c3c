"""Replicates of a fit: what draws them, what leaves one unit out, and what they cannot show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.rows import derived_columns
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit, design_of
from mlmed.fit.vcov import alone_in, lost_in_replicates
from mlmed.lmm.influence import WithoutOne
from mlmed.lmm.percluster import cluster_products
from mlmed.lmm.resample import CaseResampler, Refit, Resampler, case_resampler, redrawn, within_case_resampler
from mlmed.lmm.rowwise import residual_resampler, row_parametric_resampler
from mlmed.lmm.simulation import at_optimum, parametric_resampler
from mlmed.lmm.vcov import Directions
from mlmed.options import RESAMPLED, check_count, check_flag, check_jobs, check_seed, check_text, one_of, shown
from mlmed.replication import Failure, LeaveOut, Replicate

__all__ = ["Plan", "Source", "resampler_for", "source_of"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a bootstrap was asked to do.

    Attributes
    ----------
    n : int
        Replicates.
    kind : str
        How they are made.
    within : bool
        Rows within clusters, too.
    strata : str or None
        A column within whose values clusters are drawn.
    seed : int or None
        Seed, required.
    n_jobs : int or None
        Workers.
    progress : bool
        Show a progress bar.
    """

    n: int
    kind: str = "case"
    within: bool = False
    strata: str | None = None
    seed: int | None = None
    n_jobs: int | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse what is not a number of replicates, a seed or a number of workers."""
        check_count(self.n, "replicates")
        check_seed(self.seed, "bootstrap()")
        check_jobs(self.n_jobs)
        check_flag(self.progress, "progress")
        if self.strata is not None:
            check_text(self.strata, "strata", "a column")


@dataclass(frozen=True, slots=True)
class Source:
    """What makes the replicates of a fit.

    Attributes
    ----------
    draw : callable
        From a random generator to a replicate of drawn units.
    left_out : LeaveOut
        Gives the replicate without one unit, for the jackknife.
    width : int
        Numbers of a replicate.
    ids : Index
        Names of the units.
    kind : str
        How replicates are made, in words.
    lost : sequence of Directions
        What single units alone notice, so that draws of units do not show how it varies.
    """

    draw: Callable[[np.random.Generator], Replicate | Failure]
    left_out: LeaveOut
    width: int
    ids: pd.Index
    kind: str
    lost: Sequence[Directions] = ()


@singledispatch
def source_of(fit: Any, plan: Plan) -> Source:
    """What makes the replicates of a fit; each kind of fit has its own.

    Raises
    ------
    EffectError
        Unknown kind, or rows are needed that the fit does not have.
    """
    raise EffectError(f"there is no bootstrap of a {type(fit).__name__}")


@source_of.register
def _(fit: LmmFit, plan: Plan) -> Source:
    source = resampler_for(fit, plan.kind, within=plan.within)
    # those of the case resampler are the same arrays
    products = source.products if isinstance(source, CaseResampler) else cluster_products(fit.working, fit.grams)
    text, n = lost_in_replicates("use kind='parametric' or a profile interval"), len(fit.psi)
    return Source(
        partial(redrawn, Refit.of(fit.working, fit.optimum, reml=fit.reml), source),
        WithoutOne(fit.working, fit.optimum, products, fit.reml),
        n,
        fit.clusters,
        f"{plan.kind} (rows, too)" if plan.within else plan.kind,
        [alone_in(fit, text, products).below(n)] if plan.kind == "case" else [],
    )


def resampler_for(fitted: LmmFit, kind: str, *, within: bool = False) -> Resampler:
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
