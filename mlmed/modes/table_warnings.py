"""Warnings about what a table holds: doubtful cluster ids, and marks of missing values among levels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from mlmed.data.categories import unordered
from mlmed.data.layout import EquationLayout
from mlmed.data.numbering import doubtful_ids
from mlmed.data.written_numbers import MARKS
from mlmed.errors import CategoryWarning, IdWarning, MissingMarkWarning, warn
from mlmed.formula import Equation
from mlmed.names import display_level

__all__ = ["warn_of_table"]


def warn_of_table(
    data: Any,
    equations: Iterable[Equation],
    layouts: Iterable[EquationLayout],
    clusters: pd.Index | None,
    *,
    stacklevel: int = 3,
) -> None:
    """Warn of doubtful ids, of levels such as ``"."``, and of categories without an order; once a mode.

    Parameters
    ----------
    data : dataframe
        The user's table; rows in an engine or behind Grams have no order, so only their ids are looked at.
    equations : iterable of Equation
        What was asked.
    layouts : iterable of EquationLayout
        What was learned: the levels of factors.
    clusters : Index of length J or None
        Ids; a MultiIndex for combined ids, which name their upper group.
    stacklevel : int
        Of the warnings.
    """
    layouts = tuple(layouts)
    levels = {name: found for layout in layouts for name, found in layout.levels.items()}
    if names := unordered(data, levels):
        told = ", ".join(f"{name} (reference {display_level(levels[name][0])!r})" for name in names)
        warn(
            f"a Categorical of Polars has no order, also if it had one in pandas, so the levels of {told} are sorted; "
            "to choose the reference, make it a pl.Enum",
            CategoryWarning,
            stacklevel=stacklevel,
        )
    marked = dict.fromkeys(text for layout in layouts for text in _marks(layout))
    if marked:
        warn("; ".join(marked), MissingMarkWarning, stacklevel=stacklevel)
    if clusters is None:
        return
    equations = tuple(equations)
    asked = frozenset().union(*(equation.variables for equation in equations))
    texts = doubtful_ids(data, clusters, asked, has_term=any(equation.random for equation in equations))
    if texts:
        warn("; ".join(texts), IdWarning, stacklevel=stacklevel)


def _marks(layout: EquationLayout) -> list[str]:
    return [
        f"{level!r} is a level of the factor {name}{' (its reference)' if level == levels[0] else ''}, but marks "
        "missing values in other programs; if it does here, make it missing (missing= of read_table(), --missing)"
        for name, levels in layout.levels.items()
        for level in levels
        if isinstance(level, str) and level.strip().lower() in MARKS
    ]
