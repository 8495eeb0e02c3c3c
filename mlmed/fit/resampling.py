"""Replicates of a fit: how they are drawn, leaving one unit out, and what they cannot show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.frames import select_columns
from mlmed.data.ids import cluster_codes, refuse_rounded
from mlmed.data.levels import cluster_table, levels_of
from mlmed.data.rows import derived_columns
from mlmed.errors import DataError, EffectError
from mlmed.fit.glm import PlainFit
from mlmed.fit.lmm import LmmFit, design_of
from mlmed.fit.system import SystemFit
from mlmed.fit.vcov import alone_in, lost_in_replicates
from mlmed.glm.fit import Regression
from mlmed.lmm.influence import WithoutOne
from mlmed.lmm.percluster import cluster_products
from mlmed.lmm.resample import (
    CaseRefit,
    CaseResampler,
    Refit,
    Resampler,
    case_resampler,
    redrawn,
    within_case_resampler,
)
from mlmed.lmm.rowwise import residual_resampler, row_parametric_resampler
from mlmed.lmm.simulation import at_optimum, parametric_resampler
from mlmed.lmm.vcov import Directions
from mlmed.options import RESAMPLED, check_count, check_flag, check_jobs, check_seed, check_text, one_of, shown
from mlmed.replication import Failure, LeaveOut, Replicate, Resampled

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Plan:
    """Options of a bootstrap.

    Attributes
    ----------
    n : int
        Replicates.
    kind : str
        Type of replicate.
    within : bool
        Whether rows are drawn within clusters, too.
    strata : str or None
        Column within whose values clusters are drawn.
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
        """Check the numbers of replicates and workers, and the seed."""
        check_count(self.n, "replicates")
        check_seed(self.seed, "bootstrap()")
        one_of(self.kind, RESAMPLED, "kind")
        check_flag(self.within, "within")
        check_jobs(self.n_jobs)
        check_flag(self.progress, "progress")
        if self.strata is not None:
            check_text(self.strata, "strata", "a column")


@dataclass(frozen=True, slots=True)
class Source:
    """Source of replicates of a fit.

    Attributes
    ----------
    draw : callable
        From a random generator to a replicate of drawn units.
    left_out : LeaveOut
        From a unit to the replicate without it, for the jackknife.
    width : int
        Length of a replicate.
    ids : Index
        Names of the units.
    kind : str
        Type of replicate, in words.
    lost : sequence of Directions
        Directions that a single unit alone identifies: draws of units do not show their variation.
    """

    draw: Callable[[np.random.Generator], Replicate | Failure]
    left_out: LeaveOut
    width: int
    ids: pd.Index
    kind: str
    lost: Sequence[Directions] = ()


@singledispatch
def source_of(fit: Any, plan: Plan) -> Source:
    """Make the source of replicates, by kind of fit.

    Raises
    ------
    EffectError
        Unknown kind, or rows are needed that the fit does not have.
    """
    raise EffectError(f"there is no bootstrap of a {type(fit).__name__}")


@source_of.register
def _(fit: LmmFit, plan: Plan) -> Source:
    if plan.strata is not None:
        raise EffectError("strata= is for equations that are fitted apart (mlmed.piecewise); leave it out")
    source = resampler_for(fit, plan.kind, within=plan.within)
    # the case resampler already has these arrays
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


@source_of.register
def _(fit: SystemFit, plan: Plan) -> Source:
    """Draw whole clusters, the same for all components (docs/math.md, eq. 66)."""
    if plan.kind != "case" or plan.within:
        asked = "within=True" if plan.within else f"kind={shown(one_of(plan.kind, RESAMPLED, 'kind'))}"
        raise EffectError(f"{asked} is for linear mixed models; separate equations draw whole clusters: leave it out")
    groups = None if plan.strata is None else strata_of(fit.table, plan.strata, fit.group, fit.clusters)
    refits: list[CaseRefit | Regression] = []
    text, found, width = lost_in_replicates("use another interval, with vcov='block'"), [], len(fit.psi)
    for one, name, part in zip(fit.components.values(), fit.called, fit.parts, strict=True):
        where, response = f"equation {name}, ", f"equation {name}"
        if isinstance(one, PlainFit):
            own, y = one.regression, one.design.y
            refits.append(Regression(own.family, response, own.names, y, own.X, own.beta, where))
            found.append(one.alone_in(text).below(width, part.start))
        else:
            refit = Refit.of(one.working, one.optimum, reml=one.reml)
            refits.append(CaseRefit(where, case_resampler(one.spec, one.grams), refit))
            found.append(alone_in(one, text).below(width, part.start))
    places = tuple(one.clusters.get_indexer(fit.clusters) for one in fit.components.values())
    # clusters that no equation uses are outside the sample
    used = np.flatnonzero(np.max(places, axis=0) >= 0)
    strata = (used,) if groups is None else tuple(np.intersect1d(group, used) for group in groups)
    drawn = Resampled(SystemRefit(tuple(refits), places), tuple(group for group in strata if len(group)))
    kind = "case" if plan.strata is None else f"case within {plan.strata}"
    return Source(drawn, drawn, width, fit.clusters, kind, found)


@dataclass(frozen=True, slots=True)
class SystemRefit:
    """Refit of all components to listed clusters; if one fails, so does the replicate.

    Attributes
    ----------
    components : tuple of CaseRefit or Regression
        Refit of each component.
    places : tuple of (J,) int arrays
        Position of each cluster of the data among those of a component; -1 if the component has none of its rows.
    """

    components: tuple[CaseRefit | Regression, ...]
    places: tuple[Indices, ...]

    def __call__(self, index: Indices) -> Replicate | Failure:
        """Fit the listed clusters."""
        values, singular = [], False
        for component, place in zip(self.components, self.places, strict=True):
            own = place[index]
            one = component(own[own >= 0])
            if isinstance(one, Failure):
                return one
            values.append(one.values)
            singular |= one.singular
        return Replicate(np.concatenate(values), singular)


def resampler_for(fitted: LmmFit, kind: str, *, within: bool = False) -> Resampler:
    """Make the resampler of one kind.

    Raises
    ------
    EffectError
        Unknown kind, ``within`` without ``case``, or rows are needed that the fit does not have.
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


def strata_of(data: Any, column: str, group: tuple[str, ...], clusters: pd.Index) -> tuple[Indices, ...]:
    """Positions of the clusters by value of a column.

    Raises
    ------
    EffectError
        No rows, or not those of the fit.
    DataError
        An unknown column, one that varies within clusters, or a cluster without a value.
    """
    if data is None:
        raise EffectError("strata= reads a column of the data, but a fit from a pickle has no rows; fit it again")
    table = select_columns(data, {column, *group}, keep=(column, *group))
    codes, found = cluster_codes(table, group)
    if not found.equals(clusters):
        raise EffectError("strata= reads a column of the data, but the data were changed after the fit; fit it again")
    shown = ":".join(group)
    if column in group or levels_of(table, codes, [column])[column] == 1:
        wrong = "is the cluster variable" if column in group else f"varies within clusters ({shown})"
        raise DataError(
            f"strata={column!r} {wrong}; strata hold whole clusters, so they need a column that is constant within "
            "clusters, such as treatment arms"
        )
    refuse_rounded(table[column])
    values = cluster_table(table, codes, [column])[column]
    if values.isna().any():
        raise DataError(
            f"strata={column!r} has no value for {int(values.isna().sum())} of {len(values)} clusters, the first "
            f"{shown} {found[int(values.isna().argmax())]}; fill it in, or leave those clusters out"
        )
    number = pd.factorize(values)[0]
    return tuple(np.flatnonzero(number == k) for k in range(int(number.max()) + 1))
