"""New rows with the kinds and levels that the rows of a fit had."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mlmed.data.frames import shorten
from mlmed.data.layout import EquationLayout
from mlmed.errors import DataError

__all__ = ["as_fitted"]


def as_fitted(equation: EquationLayout, table: pd.DataFrame, wanted: frozenset[str]) -> pd.DataFrame:
    """Give new columns the kinds and levels of the fit; refuse what was not there."""
    changed: dict[str, Any] = {}
    for name in sorted(wanted):
        column, levels = table[name], equation.levels.get(name)
        if levels is None:
            if not pd.api.types.is_numeric_dtype(column.dtype):
                raise DataError(
                    f"column {name!r} held numbers in the data of equation {equation.name}; here it has "
                    f"{str(column.iloc[0])!r} (type {column.dtype}); convert it"
                )
            continue
        new = [value for value in pd.unique(column) if value not in levels]
        if new:
            raise DataError(
                f"column {name!r} has the level {str(new[0])!r}, which was not in the data of equation "
                f"{equation.name} (levels: {shorten(levels)}); its effect is unknown, so remove those rows"
            )
        if not isinstance(levels[0], float):
            changed[name] = pd.Categorical(column, categories=list(levels))
    return table.assign(**changed)
