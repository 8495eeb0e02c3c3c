"""Bootstrap of separate equations: the same drawn clusters for all of them (docs/math.md, eq. 66)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.frames import cluster_codes, select_columns
from mlmed.data.ids import refuse_rounded
from mlmed.data.levels import cluster_table, levels_of
from mlmed.effects.delta import Quantity
from mlmed.effects.separate import QUOTIENTS
from mlmed.errors import DataError, EffectError, NotIdentifiedError
from mlmed.glm.fit import GlmFit, fit_glm
from mlmed.modes.bootstrap import BootstrapResults, count_failures, variances_among
from mlmed.modes.covariance import alone_in, lost_in_replicates
from mlmed.modes.piecewise.cluster_ols import ClusterRegression
from mlmed.modes.results import MixedResults
from mlmed.options import check_text
from mlmed.reml.refit import Refit, Refitted
from mlmed.reml.resample import CaseResampler, case_resampler
from mlmed.reml.vcov import Directions, said_along
from mlmed.replication import leave_out, replicate

__all__ = ["PiecewiseRefit", "bootstrap_separately", "lost_of", "refit_of", "strata_of"]

Array = NDArray[np.float64]
BOTH_SIGNS = (
    "{name}, which it is divided by, has both signs among the draws, so its standard deviation and normal or basic "
    "intervals mean nothing; look at {name} itself"
)
Indices = NDArray[np.intp]
#: Clusters that a mixed model needs.
FEWEST = 2


@dataclass(frozen=True, slots=True)
class RefitMixed:
    """One mixed equation of listed clusters.

    Attributes
    ----------
    cases : CaseResampler
        Its cross-products by cluster.
    task : Refit
        Its model.
    """

    cases: CaseResampler
    task: Refit

    def __call__(self, index: Indices) -> Refitted:
        """Fit the listed clusters."""
        if len(index) < FEWEST:
            return Refitted(np.full(self.n_psi, np.nan), False, f"fewer than {FEWEST} clusters are left")
        return self.task.fit(self.cases.at(index))

    @property
    def n_psi(self) -> int:
        """Parameters."""
        return self.task.n_psi


@dataclass(frozen=True, slots=True)
class RefitTable:
    """The regression of clusters; one that is drawn k times counts k times.

    Attributes
    ----------
    fit : GlmFit
        The original fit, with its columns.
    y : (n,) array
        The response.
    name : str
        Its name.
    """

    fit: GlmFit
    y: Array
    name: str

    def __call__(self, index: Indices) -> Refitted:
        """Fit the listed clusters."""
        counts = np.bincount(index, minlength=len(self.y)).astype(np.float64)
        drawn = counts > 0.0
        try:
            found = fit_glm(
                "linear",
                self.y[drawn],
                self.fit.X[drawn],
                names=self.fit.names,
                response=self.name,
                weights=counts[drawn],
            )
        except NotIdentifiedError:
            reason = "the coefficients cannot be told apart in the replicate"
            return Refitted(np.full(self.n_psi, np.nan), False, reason)
        return Refitted(found.beta, False)

    @property
    def n_psi(self) -> int:
        """Coefficients."""
        return len(self.fit.beta)


@dataclass(frozen=True, slots=True)
class PiecewiseRefit:
    """Draw clusters and fit all equations to them; a task for ``replicate``.

    Attributes
    ----------
    equations : tuple of RefitMixed or RefitTable
        Mediator, outcome, outcome without the mediator.
    names : tuple of str
        What they are called in reasons.
    places : tuple of (J,) int arrays
        Where each cluster of the data is among those of an equation; -1 where it has none of its rows.
    strata : tuple of int arrays
        Clusters that are drawn among themselves.
    """

    equations: tuple[RefitMixed | RefitTable, ...]
    names: tuple[str, ...]
    places: tuple[Indices, ...]
    strata: tuple[Indices, ...]

    def draw_index(self, rng: np.random.Generator) -> Indices:
        """Clusters of one replicate: as many from every stratum as it has."""
        return np.concatenate([members[rng.integers(len(members), size=(len(members),))] for members in self.strata])

    def __call__(self, rng: np.random.Generator) -> Refitted:
        """One replicate."""
        return self.at(self.draw_index(rng))

    def at(self, index: Indices) -> Refitted:
        """All equations on the listed clusters; where one fails, there is no replicate."""
        found = []
        for equation, name, place in zip(self.equations, self.names, self.places, strict=True):
            own = place[index]
            found.append(one := equation(own[own >= 0]))
            if one.reason:
                n = sum(equation.n_psi for equation in self.equations)
                return Refitted(np.full(n, np.nan), False, f"{name}, {one.reason}")
        return Refitted(np.concatenate([one.psi for one in found]), any(one.singular for one in found))

    def without(self, cluster: int) -> Refitted:
        """All clusters but one."""
        return self.at(np.delete(np.arange(len(self.places[0])), cluster))


def refit_of(
    fits: tuple[MixedResults | ClusterRegression, ...], names: tuple[str, ...], clusters: pd.Index, strata: Any
) -> PiecewiseRefit:
    """The task that refits three equations; ``strata`` from ``strata_of``."""
    equations: list[RefitMixed | RefitTable] = []
    places = []
    for fit in fits:
        if isinstance(fit, ClusterRegression):
            equations.append(RefitTable(fit.fit, fit.design.y, fit.design.equation.name))
            places.append(fit.clusters.get_indexer(clusters))
        else:
            fitted = fit.fitted
            cases = case_resampler(fitted.spec, fitted.grams)
            task = Refit.of(cases, fitted.working, fitted.optimum, reml=fitted.reml, n_psi=len(fit.names))
            equations.append(RefitMixed(cases, task))
            places.append(fitted.clusters.get_indexer(clusters))
    # clusters that no equation uses are not part of the sample
    used = np.flatnonzero(np.max(places, axis=0) >= 0)
    groups = (used,) if strata is None else tuple(np.intersect1d(group, used) for group in strata)
    return PiecewiseRefit(tuple(equations), names, tuple(places), tuple(group for group in groups if len(group)))


def lost_of(fits: tuple[MixedResults | ClusterRegression, ...], parts: tuple[slice, ...]) -> tuple[Directions, ...]:
    """Directions of the parameters of three equations, one after the other, that single clusters alone notice."""
    text = lost_in_replicates("use another interval, with vcov='block'")
    own = [fit.alone_in(text) if isinstance(fit, ClusterRegression) else alone_in(fit.fitted, text) for fit in fits]
    return tuple(one.below(parts[-1].stop, part.start) for one, part in zip(own, parts, strict=True))


def strata_of(data: Any, column: str, group: tuple[str, ...], clusters: pd.Index) -> tuple[Indices, ...]:
    """Clusters by the value of a column, (J,) positions each.

    Raises
    ------
    EffectError
        No rows, or they are not those of the fit.
    DataError
        An unknown column, one that varies within clusters, or a cluster without a value.
    """
    if data is None:
        raise EffectError("strata= reads a column of the data, but a fit from a pickle has no rows; fit it again")
    check_text(column, "strata", "a column")
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


@dataclass(frozen=True, slots=True)
class Jackknife:
    """Exact refits of all equations without each cluster in turn.

    Attributes
    ----------
    task : PiecewiseRefit
        The model.
    clusters : Index
        Ids of all clusters.
    names : list of str
        The parameters.
    make : callable
        From parameter vectors to effects by name.
    n_jobs : int or None
        Workers.
    """

    task: PiecewiseRefit
    clusters: pd.Index
    names: list[str]
    make: Callable[[Array], dict[str, Array]]
    n_jobs: int | None

    def __call__(self) -> pd.DataFrame:
        """Estimates without each cluster, by cluster."""
        used = np.sort(np.concatenate(self.task.strata))
        found = leave_out(self.task.without, used, n_jobs=self.n_jobs)
        return _frame(found, self.names, self.make).set_index(self.clusters[used])


def _frame(found: list[Refitted], names: list[str], make: Callable[[Array], dict[str, Array]]) -> pd.DataFrame:
    psi = np.array([one.psi for one in found])
    return pd.DataFrame({**make(psi), **dict(zip(names, psi.T, strict=True))})


def bootstrap_separately(
    task: PiecewiseRefit,
    quantities: Mapping[str, Quantity],
    make: Callable[[Array], dict[str, Array]],
    *,
    names: list[str],
    clusters: pd.Index,
    lost: Sequence[Directions],
    kind: str,
    n: int,
    seed: int,
    n_jobs: int | None,
    progress: bool,
) -> BootstrapResults:
    """Run the replicates; ``make`` turns parameter vectors (n, n_psi) into effects, ``lost`` is from ``lost_of``."""
    said = {term: said_along(lost, quantity.gradient, quantity.hessian) for term, quantity in quantities.items()}
    found = replicate(task, n, seed=seed, n_jobs=n_jobs, progress=progress)
    draws = _frame(found, names, make)
    free = {term: quantity.note for term, quantity in quantities.items() if not quantity.is_fixed}
    return BootstrapResults(
        draws=draws,
        estimates=pd.Series({term: quantity.estimate for term, quantity in quantities.items()}),
        kind=kind,
        seed=seed,
        n_singular=sum(one.singular for one in found),
        failures=count_failures(found),
        fixed={term: quantity.note for term, quantity in quantities.items() if quantity.is_fixed},
        notes=free | _of_quotients(draws, free),
        _leave_out=Jackknife(task, clusters, names, make, n_jobs),
        lost={term: why for term, why in said.items() if why},
        variances=variances_among(quantities),
    )


def _of_quotients(draws: pd.DataFrame, notes: Mapping[str, str]) -> dict[str, str]:
    """Notes of quotients whose denominator comes out on both sides of 0: between them lie all values."""
    said = {}
    for term, below in QUOTIENTS.items():
        if term in notes and (draws[below] > 0.0).any() and (draws[below] < 0.0).any():
            said[term] = "; ".join(filter(None, [notes[term], BOTH_SIGNS.format(name=below)]))
    return said
