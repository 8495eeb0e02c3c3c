"""Effects of every cluster by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import COLUMNS, wald_table
from mlmed.effects.potential import effect_weights
from mlmed.effects.uncertainty import cluster_covariance, lost_coefficients, note_of, slopes_at
from mlmed.errors import EffectError
from mlmed.fit.names import shown_clusters
from mlmed.intervals.bootstrap import draws_table
from mlmed.lmm.vcov import Directions, said_along
from mlmed.options import check_own_name
from mlmed.results.causal.setting import Chain, Prepared
from mlmed.results.causal.tables import draw_effects

__all__ = ["group_effects", "refuse_groups"]

Array = NDArray[np.float64]
#: What is reported of a cluster, and its weights in the five contrasts.
TERMS = ("acme", "ade", "total")
MEANS = np.array([effect_weights()[term] for term in TERMS])


def refuse_groups(chain: Chain, interval: str) -> None:
    """Refuse what single clusters do not have.

    Raises
    ------
    EffectError
        No clusters, or called like a column of the table; or an interval that single clusters do not have.
    """
    if chain.grouping is None:
        raise EffectError(
            "there are no groups: no equation has a random term, and no column names clusters; fit with cluster='...'"
        )
    if interval == "bootstrap":
        raise EffectError(
            "a bootstrap draws clusters, so single ones are not in every replicate; use interval='delta' or "
            "'monte-carlo'"
        )
    check_own_name(chain.grouping.name, ("nobs", *COLUMNS), "a cluster variable")


def group_effects(
    chain: Chain,
    interval: str,
    options: Mapping[str, Any],
    prepared: Prepared,
    fixed: Mapping[str, str],
    *,
    level: float,
) -> pd.DataFrame:
    """ACME, ADE and total effect, a row per cluster and effect."""
    laws = prepared.mediator, prepared.outcome
    slopes = slopes_at(prepared.setting, *laws)
    values = MEANS @ slopes.values
    covariances, moved = cluster_covariance(slopes, *laws)
    lost = _lost(np.einsum("ke,jep->kjp", MEANS, moved), lost_coefficients(*laws))
    said = [[fixed[term]] * len(why) if term in fixed else why for term, why in zip(TERMS, lost, strict=True)]
    note = note_of(*laws)
    if interval == "delta":
        errors = np.sqrt(np.einsum("ke,jef,kf->kj", MEANS, covariances, MEANS, optimize=True))
        parts = [_delta_part(*row, note=note, level=level) for row in zip(TERMS, values, errors, said, strict=True)]
    else:
        draws = draw_effects(prepared, n=options["n"], seed=options["seed"], by_cluster=True) @ MEANS.T
        known = values if prepared.setting.is_closed else draws.mean(axis=0).T
        parts = [
            _drawn_part(term, known[k], draws[:, :, k], said[k], note=note, level=level) for k, term in enumerate(TERMS)
        ]
    return _by_cluster(chain, parts)


def _lost(moved: Array, lost: Sequence[Directions]) -> list[list[str]]:
    """Why effects with slopes (effects, J, p) have no standard error, by effect and cluster; empty where they have."""
    touched = np.zeros(moved.shape[:2], dtype=bool)
    for one in lost:
        touched |= one.changed(moved).any(axis=2)
    return [
        [said_along(lost, slope) if hit else "" for slope, hit in zip(*part, strict=True)]
        for part in zip(moved, touched, strict=True)
    ]


def _delta_part(
    term: str, values: Array, errors: Array, missing: list[str], *, note: str, level: float
) -> pd.DataFrame:
    known = np.array([not why for why in missing])
    notes = [why or note for why in missing]
    return wald_table([term] * len(values), values, np.where(known, errors, np.nan), level=level, notes=notes)


def _drawn_part(term: str, values: Array, draws: Array, missing: list[str], *, note: str, level: float) -> pd.DataFrame:
    names = [str(k) for k in range(len(values))]
    table = draws_table(
        pd.DataFrame(draws, columns=names),
        pd.Series(values, index=names),
        level=level,
        notes=dict.fromkeys(names, note),
        missing={name: why for name, why in zip(names, missing, strict=True) if why},
    )
    return table.assign(term=term)


def _by_cluster(chain: Chain, parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One table per effect, each with a row per cluster, as one table with the effects of a cluster side by side."""
    grouping = chain.grouping
    assert grouping is not None
    J = len(grouping.clusters)
    table = pd.concat(parts, ignore_index=True)
    table.insert(0, grouping.name, np.tile(shown_clusters(grouping.clusters), len(parts)))
    table.insert(1, "nobs", np.tile(np.bincount(grouping.codes, minlength=J), len(parts)))
    order = np.arange(len(table)).reshape(len(parts), J).T.ravel()
    return table.iloc[order].reset_index(drop=True)[[grouping.name, "nobs", *COLUMNS]]
