"""Columns so large or small that variances of their variances leave the range of floating point."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from mlmed.errors import DataError

__all__ = ["LARGEST", "SMALLEST", "refuse_sizes", "rescaled_by", "unusual_size"]

#: Sizes of columns, and of a response over a predictor, between which the variance of a variance, a fourth power, is a
#: number of 1e-308 to 1e308 and keeps its digits where the residual sd is a millionth of the response.
SMALLEST, LARGEST = 1e-70, 1e70


def rescaled_by(size: float) -> str:
    """The power of ten that makes a size about 1."""
    return f"1e{-int(np.floor(np.log10(size))):d}"


def unusual_size(name: str, size: float) -> DataError | None:
    """The error for a column whose largest absolute value is ``size``; None if that can be computed with."""
    if size == 0.0 or SMALLEST <= size <= LARGEST:
        return None
    return DataError(
        f"column {name!r} has values of size {size:.3g}, which is not a usual size ({SMALLEST:g} to {LARGEST:g}): "
        "standard errors of variances take fourth powers of such numbers, which overflow or vanish; multiply it by "
        f"{rescaled_by(size)}"
    )


def refuse_sizes(table: pd.DataFrame, *, but: Iterable[str] = ()) -> None:
    """Raise ``DataError`` for the first column of finite numbers of unusual size; ``but`` these, which are ids."""
    kept = frozenset(but)
    for name in table.columns:
        column = table[name]
        if column.dtype != np.float64 or name in kept:
            continue
        values = column.to_numpy()
        known = values[~np.isnan(values)]
        error = unusual_size(name, float(np.abs(known).max())) if len(known) else None
        if error is not None:
            raise error
