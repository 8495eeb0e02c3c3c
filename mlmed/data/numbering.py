"""Ids that are used again in every upper group: pupils 1 to 20 in each school."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmed.data.frames import column_names, is_numeric, select_columns
from mlmed.data.grams import Grams
from mlmed.data.ids import Passes, case_twins, lookalikes, numbering_passes
from mlmed.data.pushdown import lazy_frame

__all__ = ["doubtful_ids", "reused_ids"]

Codes = NDArray[np.intp]
#: Below this p value a column tells the ids apart over the passes, so the same id is the same cluster.
SAME_CLUSTERS = 0.01
#: Below this p value the runs of one id differ from each other in a column, so they may be different clusters.
OTHER_CLUSTERS = 0.001


def doubtful_ids(data: Any, ids: pd.Index, asked: frozenset[str], *, has_term: bool) -> list[str]:
    """Sentences about ids that look alike or seem to be used again in every upper group; usually none.

    Parameters
    ----------
    data : dataframe
        The user's table; rows in an engine or behind Grams have no order, so only their ids are looked at.
    ids : Index
        The different ids; a MultiIndex for combined ids, which name their upper group.
    asked : set of str
        Columns that are used.
    has_term : bool
        Whether a random term names the ids, so that it can name a combination of columns.
    """
    found = [_alike(ids.get_level_values(k)) for k in range(ids.nlevels)]
    in_memory = not isinstance(getattr(data, "arrays", data), Grams) and lazy_frame(data) is None
    if in_memory and ids.nlevels == 1:
        found.append(reused_ids(data, str(ids.name), asked, has_term=has_term))
    return [text for text in found if text]


def _alike(ids: pd.Index) -> str:
    pair = lookalikes(ids)
    if pair is None:
        return _alike_but_for_case(ids)
    return (
        f"the ids {pair[0]!r} and {pair[1]!r} in column {ids.name!r} differ only in blanks, leading zeros or type, and "
        "are two clusters; if they are one, write them alike (.str.strip(), .str.lstrip('0')), or make the column "
        "numbers"
    )


def _alike_but_for_case(ids: pd.Index) -> str:
    """Persons A and a may be two, as 007 and 7 may; where files were joined they often are one."""
    pair = case_twins(ids)
    if pair is None:
        return ""
    return (
        f"the ids {pair[0]!r} and {pair[1]!r} in column {ids.name!r} differ only in upper and lower case, and are two "
        "clusters; if they are one, write them alike (.str.lower())"
    )


def reused_ids(data: Any, name: str, asked: frozenset[str], *, has_term: bool = True) -> str:
    """One sentence if the ids of a table in memory seem to be numbered anew in every upper group; otherwise nothing.

    Four things must come together. The ids are counted up again and again in the order of the rows, each time in
    runs of several rows (``numbering_passes``). A column names each of these passes. No column tells the ids apart
    over the passes: if persons 1 to 20 are measured again in every session, something about them persists. And in some
    column the runs of one id differ more than the rows within a run do, as pupils 1 of two schools do, who are
    strangers; where there is no such difference nothing is wrong with one cluster for both.

    Parameters
    ----------
    data : dataframe in memory
        Its rows are in an order.
    name : str
        The cluster variable.
    asked : set of str
        Columns that the model uses.
    has_term : bool
        Whether a random term names the ids.
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
    upper = [column for column in others if _names_passes(table[column], rows)]
    if not upper:
        return ""
    tests = [(column in asked, _two_way(table[column], runs, found)) for column in others if column not in upper]
    if any(test.persists for _, test in tests) or not any(test.differs(is_used) for is_used, test in tests):
        return ""
    group, times = min(upper, key=lambda column: column in asked), int(found.number[-1]) + 1
    cure = (
        f"write (1 | {group}:{name})"
        if has_term
        else f"make a column of both beforehand, data[{group!r}].astype(str) + ':' + data[{name!r}].astype(str)"
    )
    return (
        f"is {name} 1 of one {group} the same as {name} 1 of the next? The ids in column {name!r} are numbered anew "
        f"{times} times, whenever {group!r} changes, and nothing in the table tells them apart over that. If they may "
        f"be different clusters, {cure}; if they are the same, measured again, sort the rows by {name}, and this is "
        "not asked"
    )


@dataclass(frozen=True, slots=True)
class _TwoWay:
    """A column's analysis of variance by ids and passes, over the means of the runs.

    Attributes
    ----------
    persists : bool
        Whether ids differ beyond chance, passes apart.
    varies : bool
        Whether the runs of one id differ, passes apart, by more than the rows within runs let expect.
    constant : bool
        Whether the rows of a run have one value.
    """

    persists: bool = False
    varies: bool = False
    constant: bool = False

    def differs(self, is_used: bool) -> bool:
        """Whether the column speaks against one cluster for all runs of an id.

        A column that the model uses and that is constant in every run may be a condition, given to a person for a
        session.
        """
        return self.varies and not (is_used and self.constant)


def _names_passes(column: pd.Series, passes: Codes) -> bool:
    """Whether a column of text or whole numbers has one value in each pass, another in every pass."""
    texts = pd.api.types.is_string_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype)
    values = _as_numbers(column)
    if not np.array_equal(values, np.round(values)) or not (texts or is_numeric(column)):  # a NaN is not equal either
        return False
    number = pd.factorize(column)[0]
    last = int(passes[-1])
    return int(number.max()) == last and len(np.unique(number * (last + 1) + passes)) == last + 1


def _two_way(column: pd.Series, runs: Codes, found: Passes) -> _TwoWay:
    """Compare ids with the runs of one id, and these with the rows within runs (unweighted means).

    Columns that are keys, one value a run or a row, say nothing of either.
    """
    values, number = _as_numbers(column), len(found.starts)
    known = np.isfinite(values)
    if not known.any():
        return _TwoWay()
    values, at = values[known], runs[known]
    size = np.bincount(at, minlength=number)
    all_means = np.bincount(at, weights=values, minlength=number) / np.maximum(size, 1)
    means, seen = all_means[size > 0], size > 0
    distinct = len(np.unique(values))
    whole = np.array_equal(values, np.round(values))
    if (distinct == len(values) and whole) or distinct == len(means) == len(np.unique(means)):
        return _TwoWay()
    own, passes = np.unique(found.ids[seen], return_inverse=True)[1], found.number[seen]
    centred = means - _means(means, passes)[passes]
    total = float(centred @ centred)
    freedom = len(means) - len(np.unique(passes)) - int(own.max())
    if total <= 1e-20 * float(means @ means) or freedom < 1 or own.max() < 1:
        return _TwoWay()
    between = float(np.bincount(own) @ _means(centred, own) ** 2)
    rest = max((total - between) / freedom, np.finfo(float).tiny)
    persists = special.fdtrc(own.max(), freedom, between / own.max() / rest) < SAME_CLUSTERS
    residual, left = values - all_means[at], len(values) - len(means)
    error = float(residual @ residual)
    if error <= 1e-20 * float(values @ values):
        return _TwoWay(bool(persists), total - between > 1e-12 * total, constant=True)
    harmonic = len(means) / float(np.sum(1.0 / size[seen]))
    return _TwoWay(bool(persists), bool(special.fdtrc(freedom, left, harmonic * rest * left / error) < OTHER_CLUSTERS))


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
