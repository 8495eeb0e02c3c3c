"""Effects of every cluster by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.delta import COLUMNS, wald_table
from mlmed.effects.uncertainty import cluster_covariance, slopes_at
from mlmed.errors import EffectError
from mlmed.modes.bootstrap import draws_table
from mlmed.modes.causal.setting import Chain, Prepared
from mlmed.modes.causal.tables import draw_effects
from mlmed.modes.checks import check_own_name
from mlmed.modes.tables import shown_clusters

__all__ = ["group_effects"]

Array = NDArray[np.float64]
#: What is reported of a cluster, and its weights in the five contrasts.
TERMS = ("acme", "ade", "total")
MEANS = np.array([[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0]])


def group_effects(
    chain: Chain,
    interval: str,
    options: Mapping[str, Any],
    prepare: Callable[[], Prepared],
    fixed: Mapping[str, str],
    *,
    level: float,
) -> pd.DataFrame:
    """ACME, ADE and total effect, a row per cluster and effect.

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
            "'quasi-bayes'"
        )
    check_own_name(chain.grouping.name, ("nobs", *COLUMNS), "a cluster variable")
    prepared = prepare()
    slopes = slopes_at(prepared.setting, prepared.mediator, prepared.outcome)
    values = MEANS @ slopes.values
    if interval == "delta":
        covariances = cluster_covariance(slopes, prepared.mediator, prepared.outcome)
        errors = np.sqrt(np.einsum("ke,jef,kf->kj", MEANS, covariances, MEANS, optimize=True))
        parts = [
            _delta_part(*row, note=fixed.get(row[0], ""), level=level)
            for row in zip(TERMS, values, errors, strict=True)
        ]
    else:
        draws = draw_effects(prepared, n=options["n"], seed=options["seed"], by_cluster=True) @ MEANS.T
        known = values if prepared.setting.is_closed else draws.mean(axis=0).T
        parts = [
            _drawn_part(term, known[k], draws[:, :, k], note=fixed.get(term, ""), level=level)
            for k, term in enumerate(TERMS)
        ]
    return _by_cluster(chain, parts)


def _delta_part(term: str, values: Array, errors: Array, *, note: str, level: float) -> pd.DataFrame:
    errors = np.full_like(errors, np.nan) if note else errors
    return wald_table([term] * len(values), values, errors, level=level, notes=[note] * len(values))


def _drawn_part(term: str, values: Array, draws: Array, *, note: str, level: float) -> pd.DataFrame:
    names = [str(k) for k in range(len(values))]
    missing = dict.fromkeys(names, note) if note else {}
    table = draws_table(
        pd.DataFrame(draws, columns=names), pd.Series(values, index=names), level=level, notes={}, missing=missing
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
