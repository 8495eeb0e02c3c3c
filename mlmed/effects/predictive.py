"""Statistics of observed and simulated responses, and the table that compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.draws import draw_interval
from mlmed.notes import joined

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Statistics = dict[tuple[str, str], float]
COLUMNS = ("response", "statistic", "observed", "simulated", "conf_low", "conf_high", "tail_share", "note")
LOG_SDS = "sd of log cluster sds"


@dataclass(frozen=True, slots=True)
class ResponseClusters:
    """Rows and clusters for the statistics of one response; the same in every simulated set.

    Attributes
    ----------
    name : str
        The response.
    rows : (n,) int array
        Rows with an observed value.
    codes : (n,) int array
        Their clusters, renumbered from 0.
    varies : (J,) bool array
        Clusters in which the observed response varies, which have a log sd.
    """

    name: str
    rows: Indices
    codes: Indices
    varies: NDArray[np.bool_]

    @property
    def note(self) -> str:
        """Note on clusters without a log sd."""
        left_out = int((~self.varies).sum())
        if not left_out:
            return ""
        return f"without {left_out} of {len(self.varies)} clusters that have one row or do not vary"


def response_clusters(names: Sequence[str], observed: Array, codes: Indices) -> tuple[ResponseClusters, ...]:
    """Rows and clusters of every response.

    Parameters
    ----------
    names : sequence of R str
        The responses.
    observed : (R, N) array
        Their values; NaN on rows that an equation does not use.
    codes : (N,) int array
        Cluster of each row.
    """
    found = []
    for name, values in zip(names, observed, strict=True):
        rows = np.flatnonzero(~np.isnan(values))
        own = np.unique(codes[rows], return_inverse=True)[1]
        distinct = pd.Series(values[rows]).groupby(own).nunique().to_numpy()
        found.append(ResponseClusters(name, rows, own, distinct > 1))
    return tuple(found)


def cluster_moments(values: Array, codes: Indices) -> tuple[Array, Array]:
    """Mean and standard deviation of every cluster, (J,) each; the latter NaN for clusters of one row."""
    counts = np.bincount(codes).astype(np.float64)
    means = np.bincount(codes, weights=values) / counts
    squares = np.bincount(codes, weights=(values - means[codes]) ** 2)
    return means, np.sqrt(np.divide(squares, counts - 1.0, out=np.full_like(means, np.nan), where=counts > 1.0))


def shown_values(values: Array, response: ResponseClusters, density: str) -> Array:
    """Values behind a density of one response: its values (n,), or the means or sds of its clusters.

    Parameters
    ----------
    values : (N,) array
        The response in one set.
    response : ResponseClusters
        Its rows and clusters.
    density : str
        One of ``DENSITIES``.
    """
    own = values[response.rows]
    if density == "value":
        return own
    means, sds = cluster_moments(own, response.codes)
    return means if density == "cluster-mean" else sds[response.varies]


def response_statistics(sets: Array, responses: Sequence[ResponseClusters]) -> Statistics:
    """Statistics of one set of responses, observed or simulated, by response (or pair) and name.

    Parameters
    ----------
    sets : (R, N) array
        Responses; NaN on rows that an equation does not use.
    responses : sequence of R ResponseClusters
        Their rows and clusters.
    """
    found: Statistics = {}
    for values, response in zip(sets, responses, strict=True):
        own = values[response.rows]
        found |= {(response.name, key): value for key, value in _one(own, response).items()}
    for (r, first), (s, second) in combinations(enumerate(responses), 2):
        both, at, other = np.intersect1d(first.rows, second.rows, return_indices=True)
        if len(both) < 3:
            continue
        x, y = sets[r][both], sets[s][both]
        pair = f"{first.name}, {second.name}"
        found[pair, "correlation"] = _correlation(x, y)
        dx, dy = _deviations(x, first.codes[at]), _deviations(y, second.codes[other])
        found[pair, "correlation within clusters"] = _correlation(dx, dy)
    return found


def _one(values: Array, response: ResponseClusters) -> dict[str, float]:
    means, sds = cluster_moments(values, response.codes)
    sd = float(values.std(ddof=1))
    found = {
        "mean": float(values.mean()),
        "sd": sd,
        "skewness": float(((values - values.mean()) ** 3).mean() / values.std() ** 3),
        "min": float(values.min()),
        "max": float(values.max()),
        "sd of cluster means": float(means.std(ddof=1)),
    }
    if response.varies.sum() > 1:
        found[LOG_SDS] = float(np.log(sds[response.varies]).std(ddof=1))
    return found


def _deviations(values: Array, codes: Indices) -> Array:
    own = np.unique(codes, return_inverse=True)[1]
    return values - cluster_moments(values, own)[0][own]


def _correlation(x: Array, y: Array) -> float:
    """Correlation; NaN if one is 0 throughout (clusters of one row have no deviations)."""
    dx, dy = x - x.mean(), y - y.mean()
    size = float(np.sqrt((dx @ dx) * (dy @ dy)))
    return float(dx @ dy) / size if size > 0.0 else float("nan")


def comparison(
    observed: Statistics, simulated: Sequence[Statistics], notes: Mapping[tuple[str, str], str], *, level: float
) -> pd.DataFrame:
    """One row per statistic: ``COLUMNS``; ``notes`` by statistic."""
    rows = []
    for key, value in observed.items():
        if np.isnan(value):
            rows.append((*key, *[np.nan] * 5, "not defined: no cluster has two rows with both responses"))
            continue
        draws = np.array([one[key] for one in simulated])
        found = draw_interval(draws - value, value, level=level)  # its p value is the share of draws beyond 0
        note = joined(notes.get(key, ""), found.note)
        rows.append((*key, value, draws.mean(), value + found.low, value + found.high, found.p_value, note))
    return pd.DataFrame(rows, columns=list(COLUMNS))
