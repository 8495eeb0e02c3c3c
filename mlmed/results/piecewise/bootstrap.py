"""Bootstrap of separate equations: the same drawn clusters for all of them (docs/math.md, eq. 66)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.data.frames import select_columns
from mlmed.data.ids import cluster_codes, refuse_rounded
from mlmed.data.levels import cluster_table, levels_of
from mlmed.effects.catalogue import with_parameters
from mlmed.effects.delta import Quantity
from mlmed.effects.separate import QUOTIENTS
from mlmed.errors import DataError, EffectError
from mlmed.fit.vcov import alone_in, lost_in_replicates
from mlmed.glm.fit import Regression
from mlmed.intervals.bootstrap import BootstrapResults, Plan, run_bootstrap
from mlmed.lmm.resample import CaseRefit, Refit, case_resampler
from mlmed.lmm.vcov import Directions
from mlmed.notes import joined
from mlmed.options import check_text
from mlmed.replication import Failure, Replicate, Resampled
from mlmed.results.piecewise.cluster_ols import ClusterRegression
from mlmed.results.results import Results

__all__ = ["bootstrap_separately", "lost_of", "refit_of", "strata_of"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
BOTH_SIGNS = (
    "{name}, which it is divided by, has both signs among the draws, so its standard deviation and normal or basic "
    "intervals mean nothing; look at {name} itself"
)


@dataclass(frozen=True, slots=True)
class PiecewiseRefit:
    """All equations on listed clusters; where one fails, there is no replicate.

    Attributes
    ----------
    equations : tuple of CaseRefit or Regression
        Mediator, outcome, outcome without the mediator.
    places : tuple of (J,) int arrays
        Where each cluster of the data is among those of an equation; -1 where it has none of its rows.
    """

    equations: tuple[CaseRefit | Regression, ...]
    places: tuple[Indices, ...]

    def __call__(self, index: Indices) -> Replicate | Failure:
        """Fit the listed clusters."""
        values, singular = [], False
        for equation, place in zip(self.equations, self.places, strict=True):
            own = place[index]
            one = equation(own[own >= 0])
            if isinstance(one, Failure):
                return one
            values.append(one.values)
            singular |= one.singular
        return Replicate(np.concatenate(values), singular)


def refit_of(
    fits: tuple[Results | ClusterRegression, ...], names: tuple[str, ...], clusters: pd.Index, strata: Any
) -> Resampled:
    """The clusters, with what refits three equations, called ``names``; ``strata`` from ``strata_of``."""
    equations: list[CaseRefit | Regression] = []
    places = []
    for fit, name in zip(fits, names, strict=True):
        if isinstance(fit, ClusterRegression):
            own, y = fit.fit, fit.design.y
            equations.append(Regression("linear", name, own.names, y, own.X, own.beta, f"{name}, "))
            places.append(fit.clusters.get_indexer(clusters))
        else:
            fitted = fit.fit
            refit = Refit.of(fitted.working, fitted.optimum, reml=fitted.reml)
            equations.append(CaseRefit(f"{name}, ", case_resampler(fitted.spec, fitted.grams), refit))
            places.append(fitted.clusters.get_indexer(clusters))
    # clusters that no equation uses are not part of the sample
    used = np.flatnonzero(np.max(places, axis=0) >= 0)
    groups = (used,) if strata is None else tuple(np.intersect1d(group, used) for group in strata)
    return Resampled(PiecewiseRefit(tuple(equations), tuple(places)), tuple(group for group in groups if len(group)))


def lost_of(fits: tuple[Results | ClusterRegression, ...], parts: tuple[slice, ...]) -> tuple[Directions, ...]:
    """Directions of the parameters of three equations, one after the other, that single clusters alone notice."""
    text = lost_in_replicates("use another interval, with vcov='block'")
    own = [fit.alone_in(text) if isinstance(fit, ClusterRegression) else alone_in(fit.fit, text) for fit in fits]
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


def bootstrap_separately(
    source: Resampled,
    quantities: Mapping[str, Quantity],
    make: Callable[[Array], dict[str, Array]],
    plan: Plan,
    *,
    names: list[str],
    clusters: pd.Index,
    lost: Sequence[Directions],
) -> BootstrapResults:
    """Run the replicates; ``make`` turns parameter vectors (n, n_psi) into effects, ``lost`` is from ``lost_of``."""
    columns = partial(with_parameters, make, names)
    found = run_bootstrap(source, source, columns, len(names), quantities, plan, ids=clusters, lost=lost)
    return replace(found, notes=found.notes | _of_quotients(found.draws, found.notes))


def _of_quotients(draws: pd.DataFrame, notes: Mapping[str, str]) -> dict[str, str]:
    """Notes of quotients whose denominator comes out on both sides of 0: between them lie all values."""
    said = {}
    for term, below in QUOTIENTS.items():
        if term in notes and (draws[below] > 0.0).any() and (draws[below] < 0.0).any():
            said[term] = joined(notes[term], BOTH_SIGNS.format(name=below))
    return said
