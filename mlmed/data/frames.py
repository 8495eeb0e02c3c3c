"""Any dataframe -> the columns an analysis reads, in pandas, with the order of their categories."""

from __future__ import annotations

import difflib
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from narwhals.exceptions import DuplicateError, NarwhalsError

from mlmed.data.values import refuse_odd_cells
from mlmed.errors import DataError
from mlmed.habits import hint_for_name
from mlmed.text import shorten

#: Errors of the engines by module; looked up in loaded modules only.
ERRORS = {
    "duckdb": "Error",
    "ibis.common.exceptions": "IbisError",
    "polars.exceptions": "PolarsError",
    "py4j.protocol": "Py4JError",
    "pyarrow.lib": "ArrowException",
    "pyspark.errors": "PySparkException",
}


@contextmanager
def engine_rows() -> Iterator[None]:
    """Turn errors of an engine, which come only when rows are read, into ``DataError``.

    Raises ``DataError``: the connection is closed, a table or file is gone, a value does not have its type.
    """
    try:
        yield
    except _errors() as error:
        raise DataError(
            f"the rows cannot be read from the engine that holds them: {first_line(error)}. Check that its connection "
            "is open, that its tables and files are still there and that its columns can be computed, or give a data "
            "frame"
        ) from error


def first_line(error: BaseException) -> str:
    """The message of an engine without the query and plan that follow."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".! ")


def _errors() -> tuple[type[Exception], ...]:
    """Errors of the file system, of narwhals, and of the loaded engines."""
    own = (getattr(sys.modules[module], name) for module, name in ERRORS.items() if module in sys.modules)
    return (OSError, NarwhalsError, *own)


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
    """Original names of the columns; refuses a table without columns or with one name twice."""
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
    return [str(name) for name in (data.columns if _is_plain(data) else schema_names(_wrap(data)))]


def _is_plain(data: Any) -> bool:
    """Whether data are a pandas table whose column names need no check."""
    return isinstance(data, pd.DataFrame) and len(data.columns) > 0 and data.columns.is_unique


def select_columns(data: Any, wanted: Iterable[str], *, keep: Iterable[str] = ()) -> pd.DataFrame:
    """Take the wanted columns as a pandas frame with a fresh index.

    Numbers become float64, truth values pandas' ``boolean``, text and categories ``category``; the columns
    in ``keep`` (cluster ids) stay as they are.

    Raises
    ------
    DataError
        If a column is unknown, the table has no rows, or a column mixes numbers and text.
    """
    wanted = frozenset(wanted)
    if wanted:
        return pd.DataFrame(selected_columns(data, wanted, keep=keep))
    frame = _wrap(data)
    return pd.DataFrame(index=pd.RangeIndex(len(_in_memory(frame, schema_names(frame)[:1]))))


@engine_rows()
def selected_columns(data: Any, wanted: Iterable[str], *, keep: Iterable[str] = ()) -> dict[str, pd.Series]:
    """The same as columns; numbers may share memory with the table: do not modify them."""
    wanted, keep = sorted(wanted), frozenset(keep)
    native, present = data, list(data.columns) if _is_plain(data) else []
    if not present:
        frame = _wrap(data)
        native, present = frame.to_native(), schema_names(frame)
    refuse_unknown(wanted, present, data)
    if not isinstance(native, pd.DataFrame):
        eager = _in_memory(frame, wanted)
        native = eager.to_native()
    if isinstance(native, pd.DataFrame):
        columns = {name: native[name] for name in wanted}
    else:
        columns = {name: _to_pandas(eager[name], declared_levels(frame, name)).rename(name) for name in wanted}
    for name, column in columns.items():
        refuse_odd_cells(column, name)
    if not len(native):
        raise DataError("the data have no rows; check the file or the filter that made them")
    index = pd.RangeIndex(len(native))
    made = ((name, column if name in keep else normalize(column)) for name, column in columns.items())
    return {name: pd.Series(column.array, index=index, name=name, copy=False) for name, column in made}


def _in_memory(frame: nw.DataFrame[Any] | nw.LazyFrame[Any], names: list[Any]) -> nw.DataFrame[Any]:
    """Read some columns into memory."""
    if frame.implementation.is_dask():  # narwhals gives an Arrow table, in which categories have no order
        return nw.from_native(frame.to_native()[names].compute(), eager_only=True)
    chosen = taken(frame, {name: name for name in names})
    return chosen.collect() if isinstance(chosen, nw.LazyFrame) else chosen


def taken(frame: nw.DataFrame[Any] | nw.LazyFrame[Any], names: Mapping[Any, Any]) -> Any:
    """Rename and select columns as a narwhals frame, whatever characters their names have.

    DuckDB and Spark would read ``a.b`` as a part of ``a`` and Spark ``ID`` as ``id``, Dask ``self`` as an argument,
    Polars ``*`` and ``^x$`` as patterns.
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
    """A table with new values in some columns of any name (``assign`` cannot take ``self``).

    Examples
    --------
    >>> replaced(pd.DataFrame({"self": [1.0], "x": [2.0]}), {"self": 3.0}).to_dict("list")
    {'self': [3.0], 'x': [2.0]}
    """
    made = table.copy(deep=False)
    for name, values in columns.items():
        made[name] = values
    return made


def index_names(data: Any) -> list[str]:
    """Names of the index of a pandas or Dask frame; other tables have none."""
    native: Any = nw.to_native(data, pass_through=True)
    if isinstance(native, pd.DataFrame):
        return [str(name) for name in native.index.names if name is not None]
    return [str(native.index.name)] if type(native).__module__.startswith("dask") else []


def refuse_unknown(wanted: Iterable[str], present: list[Any], data: Any = None) -> None:
    """Refuse unknown column names; ``data``: the table, if it may have an index."""
    for name in wanted:
        if name not in present:
            raise unknown_column(name, present, index_names(data))


def unknown_column(name: str, present: list[Any], index: Iterable[str] = ()) -> DataError:
    """The error for an unknown column, with a suggestion; ``index``: names of the index."""
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
    """A column name that shows leading and trailing blanks."""
    text = str(name)
    ends = [end for end, bare in (("start", text.lstrip()), ("end", text.rstrip())) if bare != text]
    return f"`{text}` (with a blank at its {' and '.join(ends)})" if ends else text


def _folded(name: str) -> str:
    """Fold names that differ in case, in surrounding blanks, or in look-alike characters to one spelling."""
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
    if kind == np.float64:
        return column
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
    """An Arrow dictionary as a factor; an unordered one lists values as they came, so they are sorted."""
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


def declared_levels(frame: nw.DataFrame[Any] | nw.LazyFrame[Any], name: str) -> tuple[Any, ...] | None:
    """Levels of a column in the order declared by its table; None without one, as for text.

    Polars' Enum, DuckDB's ENUM, Dask's categories, and Arrow dictionaries that are ordered or come from pandas declare
    an order; Polars' Categorical does not.
    """
    kind = frame.collect_schema()[name]
    if isinstance(kind, nw.Enum):
        return tuple(kind.categories)
    if not isinstance(kind, nw.Categorical):
        return None
    native = frame.to_native()
    if frame.implementation.is_pyarrow():
        return arrow_levels(native, name)
    if frame.implementation.is_dask():
        column = native[name]
        is_known = isinstance(column.dtype, pd.CategoricalDtype) and column.cat.known
        return tuple(column.cat.categories) if is_known else None
    return None


def arrow_levels(table: Any, name: str) -> tuple[Any, ...] | None:
    """Levels of an Arrow dictionary that is ordered or comes from pandas; None for others."""
    kind = table.schema.field(name).type
    if not kind.ordered and not _was_categorical(table.schema, name):
        return None
    chunks = table.column(name).unify_dictionaries().chunks
    return tuple(chunks[0].dictionary.to_pylist()) if chunks else ()


def _was_categorical(schema: Any, name: str) -> bool:
    columns = (schema.pandas_metadata or {}).get("columns", [])
    return any(one.get("name") == name and one.get("pandas_type") == "categorical" for one in columns)


def _is_dictionary(schema: Any, name: str) -> bool:
    return hasattr(schema.field(name).type, "index_type")


def unordered(data: Any, names: Iterable[str]) -> list[str]:
    """Named factors that are Categorical in Polars and so have lost their order."""
    frame = None if isinstance(data, pd.DataFrame) else nw.from_native(data, pass_through=True)
    if not isinstance(frame, nw.DataFrame | nw.LazyFrame) or not frame.implementation.is_polars():
        return []
    schema = frame.collect_schema()
    return [name for name in names if isinstance(schema.get(name), nw.Categorical)]


def lazy_frame(data: Any) -> nw.LazyFrame[Any] | None:
    """The data as a lazy frame if an engine holds them, None if they are in memory."""
    frame = None if isinstance(data, pd.DataFrame) else nw.from_native(data, pass_through=True)
    return frame if isinstance(frame, nw.LazyFrame) else None
