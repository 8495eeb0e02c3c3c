"""One warning about the cluster ids of a table that are doubtful; every mode asks once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import pandas as pd

from mlmed.data.grams import Grams
from mlmed.data.ids import lookalikes
from mlmed.data.numbering import reused_ids
from mlmed.data.pushdown import lazy_frame
from mlmed.errors import IdWarning
from mlmed.formula import Equation

__all__ = ["warn_of_ids"]


def warn_of_ids(data: Any, equations: Iterable[Equation], clusters: pd.Index, *, stacklevel: int = 3) -> None:
    """Warn of ids that differ only in blanks or leading zeros, and of ids that are used again in every upper group.

    Parameters
    ----------
    data : dataframe
        The user's table; rows in an engine or behind Grams have no order, so only their ids are looked at.
    equations : iterable of Equation
        What was asked.
    clusters : Index of length J
        Ids; a MultiIndex for combined ids, which name their upper group.
    stacklevel : int
        Of the warning.
    """
    found = [_alike(clusters.get_level_values(k)) for k in range(clusters.nlevels)]
    in_memory = not isinstance(getattr(data, "arrays", data), Grams) and lazy_frame(data) is None
    if in_memory and clusters.nlevels == 1:
        asked = frozenset().union(*(equation.variables for equation in equations))
        found.append(reused_ids(data, str(clusters.name), asked))
    texts = [text for text in found if text]
    if texts:
        warnings.warn("; ".join(texts), IdWarning, stacklevel=stacklevel)


def _alike(ids: pd.Index) -> str:
    pair = lookalikes(ids)
    if pair is None:
        return ""
    return (
        f"the ids {pair[0]!r} and {pair[1]!r} in column {ids.name!r} differ only in blanks or leading zeros, and are "
        "two clusters; if they are one, write them alike (.str.strip(), .str.lstrip('0')), or make the column numbers"
    )
