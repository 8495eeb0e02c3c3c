"""The order of categories, which says what level is the reference, in tables that keep it in other ways than pandas."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import narwhals as nw
import pandas as pd

from mlmed.data.engines import engine_rows
from mlmed.errors import CategoryWarning, DataError, warn

__all__ = ["arrow_levels", "declared_levels", "unordered", "with_category_order"]


def declared_levels(frame: nw.DataFrame[Any] | nw.LazyFrame[Any], name: str) -> tuple[Any, ...] | None:
    """Levels of a column in the order that its table has for them; None if it has none, as for text.

    Polars' Enum and DuckDB's ENUM have one, and so have the categories of Dask and dictionaries of Arrow that are
    ordered or come from pandas. Polars' Categorical has none.
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
    """Levels of a dictionary of Arrow that is ordered or was pandas' categories; others list values as they came."""
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
    """Those of the named factors that are Categorical in Polars: whatever order they had elsewhere is lost."""
    frame = nw.from_native(data, pass_through=True)
    if not isinstance(frame, nw.DataFrame | nw.LazyFrame) or not frame.implementation.is_polars():
        return []
    schema = frame.collect_schema()
    return [name for name in names if isinstance(schema.get(name), nw.Categorical)]


@engine_rows()
def with_category_order(relation: Any, source: str, names: Iterable[str]) -> Any:
    """A relation of Parquet files in which pandas' categories are DuckDB's ENUM, not text or numbers.

    Parameters
    ----------
    relation : DuckDB relation
        The files as DuckDB reads them.
    source : str
        Path or pattern of the files, for the schema and the dictionaries that DuckDB does not look at.
    names : iterable of str
        Columns that are used.

    Raises
    ------
    DataError
        A file has a name twice.
    """
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return relation
    files = sorted(glob.glob(source, recursive=True)) or [source]
    schema = pq.read_schema(files[0])
    twice = [name for name, count in Counter(schema.names).items() if count > 1]
    if twice:
        raise DataError(f"two columns of {files[0]} have the name {twice[0]}, of which DuckDB renames one; rename one")
    names = [name for name in names if name in schema.names]
    for name in names:
        if str(schema.field(name).type).startswith("duration"):  # DuckDB reads the whole numbers in the file
            raise DataError(
                f"column {name!r} holds durations, which are neither numbers nor text; convert it to numbers"
            )
    numbers = [name for name in names if _was_categorical(schema, name) and not _is_dictionary(schema, name)]
    if numbers:
        warn(
            f"{', '.join(numbers)}: categories in pandas, but numbers in the files, and numbers here; write "
            f"C({numbers[0]}) for a factor",
            CategoryWarning,
            stacklevel=3,
        )
    factors = [
        name
        for name in names
        if _is_dictionary(schema, name) and (schema.field(name).type.ordered or _was_categorical(schema, name))
    ]
    replaced = {}
    for name in factors:
        column = '"{}"'.format(name.replace('"', '""'))
        texts = dict(relation.project(f"{column} AS v, CAST({column} AS VARCHAR) AS t").distinct().fetchall())
        texts.pop(None, None)
        known = _dictionaries(files, name, set(texts))
        if texts.keys() <= set(known):
            levels = ", ".join("'{}'".format(texts[one].replace("'", "''")) for one in known if one in texts)
            replaced[column] = f"CAST(CAST({column} AS VARCHAR) AS ENUM ({levels}))" if texts else ""
        else:
            warn(
                f"the order of the categories of {name} is not in the files, so its levels are sorted",
                CategoryWarning,
                stacklevel=3,
            )
    made = ", ".join(f"{cast} AS {column}" for column, cast in replaced.items() if cast)
    return relation.project(f"* REPLACE ({made})") if made else relation


def _dictionaries(files: Sequence[str], name: str, wanted: set[Any]) -> list[Any]:
    """Values of a column in the order of the dictionaries of files and row groups, until all wanted ones are found."""
    import pyarrow.parquet as pq

    found: dict[Any, None] = {}
    for file in files:
        with pq.ParquetFile(file) as content:
            for group in range(content.num_row_groups):
                if wanted <= found.keys():
                    return list(found)
                column = content.read_row_group(group, columns=[name]).column(name)
                for chunk in column.chunks:
                    values = chunk.dictionary if hasattr(chunk, "dictionary") else chunk.unique()
                    found |= dict.fromkeys(values.to_pylist())
    return list(found)
