"""Files to pandas tables, by extension."""

from __future__ import annotations

import importlib
import os
import struct
import sys
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from mlmed.errors import DataError

__all__ = ["engine_errors", "is_grams", "open_parquet", "read_table"]

# What the readers raise on bytes that are not what the extension says.
_UNREADABLE = (ValueError, OSError, EOFError, struct.error, zlib.error)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    r"""Read a table; the extension decides how.

    Parameters
    ----------
    path : str or path
        A file ending in ``.csv``, ``.csv.gz``, ``.tsv``, ``.dta`` (Stata), ``.sav`` (SPSS) or ``.parquet``,
        in lower or upper case. The last two need the extra ``io``.

    Returns
    -------
    pandas.DataFrame
        Shape (rows, columns).

    Notes
    -----
    Labelled values of Stata and SPSS stay the numbers they are, since a treatment coded 0/1 is wanted as 0/1
    in a model. The labels are kept in ``attrs["value_labels"]`` as ``{name: {value: label}}``, where the name
    is that of the column for SPSS and that of the label set for Stata, and the descriptions of the columns
    in ``attrs["variable_labels"]`` as ``{column: text}``.

    Raises
    ------
    DataError
        If the file is missing, empty, without rows, of an unknown extension or not readable as what its
        extension says, or if the package that reads it is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from mlmed.data.readers import read_table
    >>> with tempfile.TemporaryDirectory() as place:
    ...     path = Path(place) / "small.csv"
    ...     _ = path.write_text("id,x\n1,0.5\n1,1.5\n")
    ...     table = read_table(path)
    >>> table["x"].tolist()
    [0.5, 1.5]
    """
    file = Path(path).expanduser()
    suffix, reader = _reader(file)
    _check_file(file)
    try:
        table = reader(file)
    except DataError:  # a ValueError, already worded
        raise
    except pd.errors.EmptyDataError as error:
        raise _without_rows(file) from error
    except _UNREADABLE as error:
        raise _unreadable(file, suffix, error) from error
    if table.empty:
        raise _without_rows(file)
    return table


def _reader(file: Path) -> tuple[str, Callable[[Path], pd.DataFrame]]:
    for suffix, reader in _READERS.items():
        if file.name.lower().endswith(suffix):
            return suffix, reader
    raise DataError(
        f"{file} has the extension {file.suffix!r}, which is not one that is known. "
        f"Known: {', '.join(_READERS)}. Save the table as one of these, or pass a data frame."
    )


def _check_file(file: Path) -> None:
    if not file.exists():
        raise DataError(f"There is no file {file} (working directory: {Path.cwd()}). Check the path.")
    if not file.is_file():
        raise DataError(f"{file} is not a file but a directory or device. Give the path of one file.")
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty (0 bytes), so nothing was ever written to it. Save the table again.")


def _without_rows(file: Path) -> DataError:
    return DataError(
        f"{file} holds no rows of data (at most a header), so there is nothing to analyse. "
        f"Check that the table was saved with its data."
    )


def _unreadable(file: Path, suffix: str, error: BaseException) -> DataError:
    return DataError(
        f"{file} cannot be read as {suffix} ({error}): the file is damaged, or is of another kind than its "
        f"extension says. Check how it was saved."
    )


def _need(package: str, suffix: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise DataError(
            f"Reading {suffix} needs the package {package}, which cannot be imported ({error}). "
            f'Install it with: pip install "mlmed[io]"'
        ) from error


def _read_csv(file: Path) -> pd.DataFrame:
    return pd.read_csv(file)


def _read_tsv(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, sep="\t")


def _read_stata(file: Path) -> pd.DataFrame:
    table = pd.read_stata(file, convert_categoricals=False)
    with pd.read_stata(file, iterator=True) as content:
        table.attrs["value_labels"] = content.value_labels()
        table.attrs["variable_labels"] = _described(content.variable_labels())
    return table


def _read_spss(file: Path) -> pd.DataFrame:
    pyreadstat = _need("pyreadstat", ".sav")
    try:
        table, content = pyreadstat.read_sav(str(file), apply_value_formats=False)
    except pyreadstat.ReadstatError as error:
        raise _unreadable(file, ".sav", error) from error
    table.attrs["value_labels"] = content.variable_value_labels
    table.attrs["variable_labels"] = _described(content.column_names_to_labels)
    return table


def _described(labels: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in labels.items() if text}


def _read_parquet(file: Path) -> pd.DataFrame:
    _need("pyarrow", ".parquet")
    return pd.read_parquet(file, engine="pyarrow")


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": _read_csv,
    ".csv.gz": _read_csv,
    ".tsv": _read_tsv,
    ".dta": _read_stata,
    ".sav": _read_spss,
    ".parquet": _read_parquet,
}


def is_grams(source: str) -> bool:
    """Whether a file holds stored Grams (see ``mlmed.Grams.save``)."""
    if not source.endswith(".parquet") or not Path(source).is_file():
        return False
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return False
    try:
        return b"mlmed" in (pq.read_schema(source).metadata or {})
    except (OSError, ValueError):  # pyarrow's ArrowInvalid is a ValueError: no Parquet file, said by the reader
        return False


def open_parquet(source: str) -> Any | None:
    """Parquet file(s) as a DuckDB relation, not read yet; None if DuckDB is not installed and one file is meant.

    Raises
    ------
    DataError
        If no file matches, or a pattern is given and DuckDB is missing.
    """
    pattern = any(sign in source for sign in "*?[")
    try:
        import duckdb
    except ImportError as error:
        if pattern:
            raise DataError(f'reading {source} needs DuckDB; install it with: pip install "mlmed[scale]"') from error
        return None
    if not pattern and not Path(source).is_file():
        raise DataError(f"there is no file {source}; check the path")
    try:
        # progress is asked for, not printed by DuckDB, whose own bar would land in the output
        duckdb.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        return duckdb.read_parquet(source)
    except duckdb.Error as error:
        first = str(error).splitlines()[0]
        raise DataError(f"cannot read {source}: {first}; check the path and the files") from error


def engine_errors() -> tuple[type[Exception], ...]:
    """Errors of DuckDB while it scans files, if it has been loaded."""
    module = sys.modules.get("duckdb")
    return (module.Error,) if module is not None else ()
