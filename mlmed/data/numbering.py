"""Ids that are used again in every upper group: pupils 1 to 20 in each school."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmed.data.frames import column_names, is_numeric, select_columns
from mlmed.data.ids import Passes, numbering_passes

__all__ = ["reused_ids"]

Codes = NDArray[np.intp]
#: Below this p value a column tells the ids apart over the passes, so the same id is the same cluster.
SAME_CLUSTERS = 0.01


def reused_ids(data: Any, name: str, asked: frozenset[str]) -> str:
    """One sentence if the ids of a table in memory seem to be numbered anew in every upper group; otherwise nothing.

    Three things must come together. The ids are counted up again and again in the order of the rows, each time in
    runs of several rows (``numbering_passes``). A column that the model does not use names each of these passes. And
    no column tells the ids apart over the passes: if persons 1 to 20 are measured again in every session, something
    about them persists; pupils 1 of two schools are strangers.

    Parameters
    ----------
    data : dataframe in memory
        Its rows are in an order.
    name : str
        The cluster variable.
    asked : set of str
        Columns that the model uses.
    """
    ids = select_columns(data, [name], keep=[name])[name]
    known = np.asarray(ids.notna())
    found = numbering_passes(ids[known])
    if found is None:
        return ""
    others = [column for column in column_names(data) if column != name]
    table = select_columns(data, others, keep=others).loc[known]
    runs = np.searchsorted(found.starts, np.arange(len(table)), side="right") - 1
    rows = found.number[runs]
    upper = [column for column in others if column not in asked and _names_passes(table[column], rows)]
    if not upper or any(_persists(table[column], runs, found) for column in others if column not in upper):
        return ""
    group, times = upper[0], int(found.number[-1]) + 1
    return (
        f"the ids in column {name!r} are numbered anew {times} times, whenever {group!r} changes; if {name} 1 of one "
        f"{group} is not {name} 1 of the next, rows of different clusters are taken for one: write "
        f"(1 | {group}:{name}). If they are the same, measured again, sort the rows by {name}"
    )


def _names_passes(column: pd.Series, passes: Codes) -> bool:
    """Whether a column of text or whole numbers has one value in each pass, another in every pass."""
    texts = pd.api.types.is_string_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype)
    values = _as_numbers(column)
    if not np.array_equal(values, np.round(values)) or not (texts or is_numeric(column)):  # a NaN is not equal either
        return False
    number = pd.factorize(column)[0]
    last = int(passes[-1])
    return int(number.max()) == last and len(np.unique(number * (last + 1) + passes)) == last + 1


def _persists(column: pd.Series, runs: Codes, found: Passes) -> bool:
    """Whether the means of the runs differ between ids beyond chance, passes apart: a two-way analysis of variance.

    Columns that are keys, one value a run or a row, say nothing of that.
    """
    values, number = _as_numbers(column), len(found.starts)
    known = np.isfinite(values)
    if not known.any():
        return False
    size = np.bincount(runs[known], minlength=number)
    means = np.bincount(runs[known], weights=values[known], minlength=number)[size > 0] / size[size > 0]
    distinct = len(np.unique(values[known]))
    whole = np.array_equal(values[known], np.round(values[known]))
    if (distinct == int(known.sum()) and whole) or distinct == len(means) == len(np.unique(means)):
        return False
    own, at = np.unique(found.ids[size > 0], return_inverse=True)[1], found.number[size > 0]
    within = means - _means(means, at)[at]
    total = float(within @ within)
    freedom = len(means) - len(np.unique(at)) - int(own.max())
    if total <= 1e-20 * float(means @ means) or freedom < 1 or own.max() < 1:
        return False
    between = float(np.bincount(own) @ _means(within, own) ** 2)
    F = (between / own.max()) / max((total - between) / freedom, np.finfo(float).tiny)
    return bool(special.fdtrc(own.max(), freedom, F) < SAME_CLUSTERS)


def _means(values: NDArray[np.float64], groups: Codes) -> NDArray[np.float64]:
    size = np.bincount(groups)
    return np.bincount(groups, weights=values) / np.maximum(size, 1)


def _as_numbers(column: pd.Series) -> NDArray[np.float64]:
    """Numbers as they are, anything else numbered by first appearance, missing values as NaN; (n,)."""
    if is_numeric(column):
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    try:
        numbers = pd.factorize(column)[0].astype(np.float64)
    except TypeError:  # lists and the like
        return np.full(len(column), np.nan)
    return np.where(numbers < 0, np.nan, numbers)
