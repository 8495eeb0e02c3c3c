"""Any dataframe -> the columns an analysis reads, as plain pandas; cluster codes; missing rows counted."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.errors import DataError

__all__ = ["cluster_codes", "column_names", "is_numeric", "refuse_infinite", "select_columns"]


def _wrap(data: Any) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:
    if isinstance(data, dict):
        data = pd.DataFrame(data)
    try:
        return nw.from_native(data)
    except TypeError as error:
        raise DataError(
            f"data must be a dataframe (pandas, Polars, Arrow, DuckDB, Dask, ...) or a dict of columns; "
            f"found {type(data).__name__}"
        ) from error


def column_names(data: Any) -> list[str]:
    """Column names of any dataframe, without reading it."""
    return [str(name) for name in _wrap(data).collect_schema().names()]


def select_columns(data: Any, wanted: Iterable[str]) -> pd.DataFrame:
    """Take the wanted columns as a pandas frame with a fresh index; numbers become float64.

    Raises
    ------
    DataError
        If a column is unknown or the table has no rows.
    """
    wanted = sorted(wanted)
    frame = _wrap(data)
    present = frame.collect_schema().names()
    for name in wanted:
        if name not in present:
            close = difflib.get_close_matches(name, list(map(str, present)), n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"the columns are {', '.join(map(str, present))}"
            raise DataError(f"column {name!r} is not in the data; {hint}")
    chosen = frame.select([nw.col(name) for name in wanted]) if wanted else frame
    eager = chosen.collect() if isinstance(chosen, nw.LazyFrame) else chosen
    native = eager.to_native()
    if isinstance(native, pd.DataFrame):
        table = native.reset_index(drop=True)
    else:
        table = pd.DataFrame({name: _plain(eager[name]) for name in wanted})
    if not len(table):
        raise DataError("the data have no rows; check the file or the filter that made them")
    return table.assign(**{name: _as_float(table[name]) for name in wanted if _needs_float(table[name])})


def _plain(series: nw.Series[Any]) -> pd.Series:
    return pd.Series(series.to_list() if series.null_count() and not series.dtype.is_float() else series.to_numpy())


def _needs_float(column: pd.Series) -> bool:
    kind = column.dtype
    if isinstance(kind, np.dtype) and kind == np.float64:
        return False
    if pd.api.types.is_bool_dtype(kind):
        return False
    if pd.api.types.is_numeric_dtype(kind):
        return True
    if not pd.api.types.is_object_dtype(kind):
        return False
    first = column.dropna()
    return len(first) > 0 and isinstance(first.iloc[0], Decimal | float | int) and not isinstance(first.iloc[0], bool)


def _as_float(column: pd.Series) -> pd.Series:
    try:
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), name=column.name)
    except (TypeError, ValueError) as error:
        raise DataError(f"column {column.name!r} mixes numbers with something else: {error}") from error


def is_numeric(column: pd.Series) -> bool:
    """Whether a selected column holds numbers."""
    return bool(pd.api.types.is_numeric_dtype(column.dtype)) and not pd.api.types.is_bool_dtype(column.dtype)


def refuse_infinite(table: pd.DataFrame) -> None:
    """Raise ``DataError`` for the first infinite value, naming column, row and value."""
    for name in table.columns:
        if not is_numeric(table[name]):
            continue
        infinite = np.isinf(table[name].to_numpy())
        if infinite.any():
            row = int(np.argmax(infinite))
            raise DataError(
                f"column {name!r} has {int(infinite.sum())} infinite value(s), the first in row {row} "
                f"({table[name].iloc[row]}); replace or remove them"
            )


def cluster_codes(table: pd.DataFrame, group: tuple[str, ...]) -> tuple[NDArray[np.intp], pd.Index]:
    """Number the clusters in order of appearance.

    Returns
    -------
    codes : (n,) int array
        Cluster of each row, -1 where the id is missing.
    labels : Index of length J
        Id of each cluster; for several columns their values joined by ``:``.
    """
    if len(group) == 1:
        codes, labels = pd.factorize(table[group[0]])
        return codes, _as_integer(pd.Index(labels, name=group[0]))
    missing = table[list(group)].isna().any(axis=1).to_numpy()
    parts = [pd.factorize(table[name]) for name in group]
    texts = [_as_integer(pd.Index(labels)).astype(str) for _, labels in parts]
    joined = [
        ":".join(text[c] for text, c in zip(texts, row, strict=True))
        for row in zip(*(c for c, _ in parts), strict=True)
    ]
    joined_series = pd.Series(joined, dtype=object).where(~missing)
    codes, labels = pd.factorize(joined_series)
    return codes, pd.Index(labels, name=":".join(group))


def _as_integer(labels: pd.Index) -> pd.Index:
    """Ids that were whole numbers are shown as such."""
    if labels.dtype == np.float64:
        values = labels.to_numpy()
        if np.all(np.isfinite(values)) and np.all(values == np.floor(values)) and np.abs(values).max(initial=0) < 2**53:
            return pd.Index(values.astype(np.int64), name=labels.name)
    return labels
