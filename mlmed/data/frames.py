"""Any dataframe -> the columns an analysis reads, as plain pandas; cluster codes."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray

from mlmed.data.categories import declared_levels
from mlmed.data.cells import refuse_odd_cells
from mlmed.data.engines import engine_rows
from mlmed.data.ids import refuse_mixed, refuse_rounded, refuse_spellings
from mlmed.errors import DataError
from mlmed.habits import hint_for_name
from mlmed.names import display_level

__all__ = [
    "cluster_codes",
    "column_names",
    "index_names",
    "is_numeric",
    "listed",
    "normalize",
    "refuse_infinite",
    "replaced",
    "schema_names",
    "select_columns",
    "shorten",
    "taken",
]


def shorten(values: Iterable[Any], most: int = 8, *, last: str = "") -> str:
    """Comma-separated values, the rest counted; whole numbers without decimals. ``last``: a word before the last one.

    Examples
    --------
    >>> shorten(range(12), most=3), shorten("abc", last="or")
    ('0, 1, 2 and 9 more', 'a, b or c')
    """
    texts = list(map(display_level, values))
    if len(texts) > most:
        texts, last = [*texts[:most], f"{len(texts) - most} more"], last or "and"
    if not last or len(texts) < 2:
        return ", ".join(texts)
    return f"{', '.join(texts[:-1])} {last} {texts[-1]}"


def listed(names: Iterable[str]) -> str:
    """What there is to choose from, in order, or that there is nothing.

    Examples
    --------
    >>> listed({"x", "w"}), listed([])
    ('w, x', 'none')
    """
    return shorten(sorted(names), 20) or "none"


def _wrap(data: Any) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:
    try:
        return nw.from_native(pd.DataFrame(data) if isinstance(data, dict) else data)
    except DuplicateError as error:
        raise DataError(f"two columns have the same name ({error}); rename one of them") from error
    except ValueError as error:
        raise DataError(f"the columns of the dict do not fit together: {error}; give them the same length") from error
    except TypeError as error:
        raise DataError(
            f"data must be a dataframe (pandas, Polars, Arrow, DuckDB, Dask, ...) or a dict of columns; "
            f"found {type(data).__name__}"
        ) from error


def schema_names(frame: nw.DataFrame[Any] | nw.LazyFrame[Any]) -> list[Any]:
    """Names of the columns as they are; refuses a table without any, or with one name twice."""
    try:
        is_dask = frame.implementation.is_dask()  # its schema cannot have a name twice
        names = list(frame.to_native().columns) if is_dask else list(frame.collect_schema().names())
    except DuplicateError as error:
        raise DataError(f"two columns have the same name ({error}); rename one of them") from error
    if not names:
        raise DataError("the data have no columns; check the file or the filter that made them")
    twice = sorted(str(name) for name, times in Counter(names).items() if times > 1)
    if twice:
        raise DataError(f"two columns have the name {', '.join(twice)}; rename one of them")
    return names


@engine_rows()
def column_names(data: Any) -> list[str]:
    """Column names of any dataframe, without reading it."""
    return [str(name) for name in schema_names(_wrap(data))]


@engine_rows()
def select_columns(data: Any, wanted: Iterable[str], *, keep: Iterable[str] = ()) -> pd.DataFrame:
    """Take the wanted columns as a pandas frame with a fresh index.

    Numbers become float64, truth values pandas' ``boolean``, text and categories ``category``; the columns
    in ``keep`` (cluster ids) stay as they are.

    Raises
    ------
    DataError
        If a column is unknown, the table has no rows, or a column mixes numbers and text.
    """
    wanted, keep = sorted(wanted), frozenset(keep)
    frame = _wrap(data)
    present = schema_names(frame)
    for name in wanted:
        if name not in present:
            raise unknown_column(name, present, index_names(frame))
    native = frame.to_native()
    if not isinstance(native, pd.DataFrame):
        eager = _in_memory(frame, wanted or present[:1])
        native = eager.to_native()
    if isinstance(native, pd.DataFrame):
        columns = {name: native[name] for name in wanted}
    else:
        columns = {name: _to_pandas(eager[name], declared_levels(frame, name)).rename(name) for name in wanted}
    for name, column in columns.items():
        refuse_odd_cells(column, name)
    if not len(native):
        raise DataError("the data have no rows; check the file or the filter that made them")
    made = {name: (column if name in keep else normalize(column)).array for name, column in columns.items()}
    return pd.DataFrame(made, index=pd.RangeIndex(len(native)))


def _in_memory(frame: nw.DataFrame[Any] | nw.LazyFrame[Any], names: list[Any]) -> nw.DataFrame[Any]:
    """Some columns."""
    if frame.implementation.is_dask():  # narwhals gives an Arrow table, in which categories have no order
        return nw.from_native(frame.to_native()[names].compute(), eager_only=True)
    chosen = taken(frame, {name: name for name in names})
    return chosen.collect() if isinstance(chosen, nw.LazyFrame) else chosen


def taken(frame: nw.DataFrame[Any] | nw.LazyFrame[Any], names: Mapping[Any, Any]) -> Any:
    """Some columns under new names, as a narwhals frame; whatever they are called, each is the column of that name.

    DuckDB and Spark would read ``a.b`` as a part of ``a`` and Spark ``ID`` as ``id``, Dask ``self`` as an argument,
    Polars ``*`` and ``^x$`` as patterns.

    Parameters
    ----------
    frame : DataFrame or LazyFrame
        Any table.
    names : mapping of old to new name
        The columns, all of them present.
    """
    native: Any = frame.to_native()
    engine = frame.implementation
    if engine is nw.Implementation.DUCKDB:
        columns = ", ".join(f"{_quoted(old)} AS {_quoted(new)}" for old, new in names.items())
        return nw.from_native(native.project(columns))
    if engine.is_dask():
        return nw.from_native(native[list(names)].rename(columns=dict(names)))
    present = schema_names(frame)
    if engine.is_spark_like():
        numbered = nw.from_native(native.toDF(*(f"mlmed_{k}" for k in range(len(present)))))
        return numbered.select(*(nw.col(f"mlmed_{present.index(old)}").alias(new) for old, new in names.items()))
    return frame.select(*(_column(old, present).alias(new) for old, new in names.items()))


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


def _column(name: Any, present: list[Any]) -> nw.Expr:
    is_pattern = name == "*" or (isinstance(name, str) and name.startswith("^") and name.endswith("$"))
    return nw.nth(present.index(name)) if is_pattern else nw.col(name)


def replaced(table: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """A table with new values in some of its columns, whatever they are called (``assign`` cannot take ``self``).

    Examples
    --------
    >>> replaced(pd.DataFrame({"self": [1.0], "x": [2.0]}), {"self": 3.0}).to_dict("list")
    {'self': [3.0], 'x': [2.0]}
    """
    made = table.copy(deep=False)
    for name, values in columns.items():
        made[name] = values
    return made


def index_names(frame: nw.DataFrame[Any] | nw.LazyFrame[Any]) -> list[str]:
    """Names of the index of a pandas or Dask frame; other tables have none."""
    native = frame.to_native()
    if isinstance(native, pd.DataFrame):
        return [str(name) for name in native.index.names if name is not None]
    return [str(native.index.name)] if frame.implementation.is_dask() else []


def unknown_column(name: str, present: list[Any], index: Iterable[str] = ()) -> DataError:
    """The error for a column that is not there, with what it may have been; ``index``: names of the index."""
    return DataError(f"column {name!r} is not in the data; {_hint(name, present, index)}")


def _hint(name: str, present: list[Any], index: Iterable[str]) -> str:
    if name in index:
        return "it is the index of the table, not a column; make it one with data.reset_index()"
    if not all(isinstance(column, str) for column in present) and name in map(str, present):
        return f"it is there as a number, not as text; rename the columns to text (the columns are {shorten(present)})"
    texts = list(map(str, present))
    twin = next((text for text in texts if _folded(text) == _folded(name)), None)
    if twin is not None and twin.strip() == name.strip():
        return f"{_visible(twin)} is; write {f'`{twin}`' if twin != twin.strip() else twin}, or rename it"
    if twin is not None and twin.strip().lower() == name.strip().lower():
        return f"did you mean {_visible(twin)}? Upper and lower case count"
    if twin is not None:
        odd = [unicodedata.name(letter, repr(letter)) for letter in twin if letter not in name]
        return f"{twin!r} is, which looks alike but is written with {shorten(odd)}; rename it, or copy its name"
    if (instead := hint_for_name(name, texts)) is not None:
        return instead
    close = difflib.get_close_matches(name, texts, n=3)
    if close:
        return f"did you mean {' or '.join(map(_visible, close))}?"
    return f"the columns are {shorten(map(_visible, present), 20)}"


def _visible(name: Any) -> str:
    """A name of a column, with the blanks that it begins or ends with."""
    text = str(name)
    ends = [end for end, bare in (("start", text.lstrip()), ("end", text.rstrip())) if bare != text]
    return f"`{text}` (with a blank at its {' and '.join(ends)})" if ends else text


def _folded(name: str) -> str:
    """One spelling for names that differ in case, in blanks around them, or in characters that look alike."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _to_pandas(series: nw.Series[Any], levels: Sequence[Any] | None) -> pd.Series:
    if isinstance(series.dtype, nw.Categorical | nw.Enum):
        return pd.Series(pd.Categorical(series.to_list(), categories=levels))
    if series.dtype.is_float() or (series.null_count() == 0 and series.dtype.is_numeric()):
        return pd.Series(series.to_numpy())
    return pd.Series(series.to_list(), dtype=object)


def normalize(column: pd.Series) -> pd.Series:
    """Numbers as float64, truth values as pandas' ``boolean``, text and categories as ``category``."""
    kind = column.dtype
    if pd.api.types.is_complex_dtype(kind):
        raise _complex(column, f"is complex (type {kind})")
    if pd.api.types.is_bool_dtype(kind):
        return column.astype("boolean")
    if pd.api.types.is_numeric_dtype(kind):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), name=column.name)
    if isinstance(kind, pd.CategoricalDtype):
        return column
    if isinstance(kind, pd.ArrowDtype) and hasattr(kind.pyarrow_dtype, "index_type"):
        return _from_dictionary(column, kind.pyarrow_dtype.ordered)
    if pd.api.types.is_string_dtype(kind) and not pd.api.types.is_object_dtype(kind):
        return _as_category(column.astype(object))
    return _normalize_objects(column) if pd.api.types.is_object_dtype(kind) else column


def _complex(column: pd.Series, found: str) -> DataError:
    return DataError(f"column {column.name!r} {found}; convert it to real numbers, such as its real part or its size")


def _from_dictionary(column: pd.Series, ordered: bool) -> pd.Series:
    """A dictionary of Arrow as a factor; one that is not ordered lists its values as they came, so they are sorted."""
    if ordered:
        levels = column.array.__arrow_array__().combine_chunks().dictionary.to_pylist()
    else:
        levels = sorted(pd.unique(column.dropna()).tolist())
    return pd.Series(pd.Categorical(column.to_list(), categories=levels), name=column.name)


def _normalize_objects(column: pd.Series) -> pd.Series:
    known = column[column.notna()]
    if not len(known):
        return pd.Series(np.full(len(column), np.nan), name=column.name)
    types = {type(value) for value in known}
    if any(issubclass(found, complex | np.complexfloating) for found in types):
        raise _complex(column, "has complex values")
    if types <= {bool, np.bool_}:
        return column.astype("boolean")
    numbers = [value for value in known if isinstance(value, Decimal | float | int | np.number)]
    if len(numbers) == len(known):
        return pd.Series(column.to_numpy(dtype=np.float64, na_value=np.nan), name=column.name)
    if numbers:
        odd = next(value for value in known if not isinstance(value, Decimal | float | int | np.number))
        raise DataError(
            f"column {column.name!r} mixes numbers with something else, e.g. {odd!r}; correct or convert it"
        )
    if not all(issubclass(found, str) for found in types):
        return column
    return _as_category(column if types <= {str} else column.map(str, na_action="ignore"))  # texts of NumPy


def _as_category(column: pd.Series) -> pd.Series:
    levels = sorted(column.dropna().unique())
    return pd.Series(pd.Categorical(column, categories=levels), name=column.name)


def is_numeric(column: pd.Series) -> bool:
    """Whether a selected column holds numbers (truth values do not count)."""
    return bool(pd.api.types.is_numeric_dtype(column.dtype)) and not pd.api.types.is_bool_dtype(column.dtype)


def refuse_infinite(table: pd.DataFrame) -> None:
    """Raise ``DataError`` for the first infinite value, naming column, row and value."""
    for name in table.columns:
        column = table[name]
        if column.dtype != np.float64:
            continue
        infinite = np.isinf(column.to_numpy())
        if infinite.any():
            row = int(np.argmax(infinite))
            raise DataError(
                f"column {name!r} has {int(infinite.sum())} infinite value(s), the first in row {row} "
                f"({float(column.iloc[row])}); replace or remove them"
            )


def cluster_codes(table: pd.DataFrame, group: tuple[str, ...]) -> tuple[NDArray[np.intp], pd.Index]:
    """Number the clusters in order of appearance.

    Returns
    -------
    codes : (n,) int array
        Cluster of each row, -1 where the id is missing.
    labels : Index of length J
        Id of each cluster; a MultiIndex for several columns.

    Raises
    ------
    DataError
        If ids cannot be compared (lists), are of several kinds (1 and "1"), or are floats of a size at which different
        ids are one float.
    """
    for name in group:
        refuse_mixed(table[name])
        refuse_rounded(table[name])
    parts = [_factorize(table[name]) for name in group]
    for name, (_, labels) in zip(group, parts, strict=True):
        refuse_spellings(pd.Index(labels, name=name))
    if len(parts) == 1:
        codes, labels = parts[0]
        return codes, _as_integer(pd.Index(labels, name=group[0]))
    missing = np.logical_or.reduce([codes < 0 for codes, _ in parts])
    joined = np.zeros(len(table), dtype=np.int64)
    for codes, labels in parts:
        joined = joined * max(len(labels), 1) + codes
    codes, first = _first_appearance(np.where(missing, -1, joined))
    columns = [pd.Index(labels)[part[first]] for part, labels in parts]
    return codes, pd.MultiIndex.from_arrays(columns, names=list(group))


def _factorize(column: pd.Series) -> tuple[NDArray[np.intp], Any]:
    try:
        codes, labels = pd.factorize(column)
    except TypeError as error:
        raise DataError(
            f"the ids in column {column.name!r} cannot be compared ({error}); convert them to numbers or text"
        ) from error
    if isinstance(labels, pd.CategoricalIndex):
        labels = pd.Index(labels.to_numpy())
    return codes, labels


def _first_appearance(keys: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Codes of non-negative keys by order of appearance, and the row where each first stands."""
    known = np.flatnonzero(keys >= 0)
    codes = np.full(len(keys), -1, dtype=np.intp)
    codes[known], uniques = pd.factorize(keys[known])
    first = np.full(len(uniques), -1, dtype=np.intp)
    first[codes[known][::-1]] = known[::-1]
    return codes, first


def _as_integer(labels: pd.Index) -> pd.Index:
    """Ids that are whole numbers in a float column (because some are missing) are shown as such."""
    if labels.dtype == np.float64:
        values = labels.to_numpy()
        if np.all(values == np.floor(values)):
            return pd.Index(values.astype(np.int64), name=labels.name)
    return labels
