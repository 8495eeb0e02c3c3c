"""Files to pandas tables, by extension; value labels of Stata and SPSS, categories of Parquet."""

from __future__ import annotations

import contextlib
import glob
import importlib
import os
import re
import stat
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pandas as pd

from mlmed.data.delimited import Spellings, read_delimited
from mlmed.data.frames import _is_dictionary, _was_categorical, column_names, engine_rows, first_line, refuse_unknown
from mlmed.errors import CategoryWarning, DataError, IdWarning, LabelWarning, warn
from mlmed.text import shorten


class _Read(NamedTuple):
    """A table, code -> label by column, and columns of delimited text with several spellings of a number."""

    table: pd.DataFrame
    labels: Mapping[str, Mapping[Any, Any]] = {}
    spellings: Mapping[str, Spellings] = {}


#: Numbers in several spellings may be ids if texts have this many rows on average; with fewer they are measurements.
ROWS_OF_ID = 2

# Errors of readers for bytes that do not fit the extension.
_UNREADABLE = (ValueError, LookupError, TypeError, OSError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for some kinds of files."""

    encoding: str | None = None  #: Delimited text; None for that of the byte-order mark, or UTF-8.
    missing: tuple[str, ...] = ()  #: Delimited text: marks of missing values.
    codes: bool | Collection[str] = False  #: Stata and SPSS: columns that stay numbers; True for all.
    as_text: tuple[str, ...] = ()  #: Delimited text: columns kept as text.

    def refuse(self, source: object, suffix: str = "") -> None:
        """Raise if an option does not apply to this extension or kind of data."""
        for name, value, kinds in (
            ("encoding", self.encoding, _DELIMITED),
            ("missing", self.missing, _DELIMITED),
            ("codes", self.codes, _WITH_LABELS),
            ("text", self.as_text, _DELIMITED),
        ):
            if value and suffix not in kinds:
                raise DataError(f"{name} is for files in {', '.join(kinds)}, and {source} is none; leave it out")


def read_table(
    path: str | os.PathLike[str],
    *,
    codes: bool | Collection[str] = False,
    encoding: str | None = None,
    missing: Sequence[str] = (),
    text: Sequence[str] = (),
) -> pd.DataFrame:
    r"""Read a table; the extension decides how.

    Parameters
    ----------
    path : str or path
        A file ending in ``.csv``, ``.csv.gz``, ``.tsv``, ``.dta`` (Stata), ``.sav`` (SPSS) or ``.parquet``,
        in lower or upper case. The last two need the extra ``io``.
    codes : bool or collection of str
        Stata and SPSS: labelled columns that stay numbers; True for all.
    encoding : str, optional
        Delimited text: by default that of the byte-order mark, or UTF-8.
    missing : sequence of str
        Delimited text: marks of missing values, such as ``"."``, besides empty cells, ``NA`` and the like.
    text : sequence of str
        Delimited text: columns kept as text, such as ids 1.1 and 1.10, which are one number.

    Returns
    -------
    pandas.DataFrame
        Shape (rows, columns).

    Notes
    -----
    *Delimited text.* If the separator of the extension does not split the lines evenly, a semicolon, tab or bar that
    does is used, and decimal commas are then understood. Whole numbers are never rounded: large ones with missing
    values among them are pandas' ``Int64``. Numbers that differ only in leading zeros (7 and 007) stay text, since they
    may be different ids. Other spellings of one number (1.1 and 1.10, 1E2 and 100) become that number; an ``IdWarning``
    names them where texts have at least two rows on average. Blanks around column names are removed.

    *Value labels* of Stata and SPSS become the levels of a factor, in the order of their codes, if every value that
    occurs has its own; a ``LabelWarning`` says so. A scale with labels at its ends only stays a number. All labels are
    kept in ``attrs["value_labels"]`` as ``{name: {value: label}}``, where the name is the column for SPSS and the label
    set for Stata; ``attrs["variable_labels"]`` has the descriptions of columns as ``{column: text}``.

    Raises
    ------
    DataError
        If the file is missing, empty, without rows, of an unknown extension or not readable as what its
        extension says, if the package that reads it is not installed, or if an option is not for such a file.

    Examples
    --------
    >>> import tempfile
    >>> from mlmed.data.readers import read_table
    >>> with tempfile.TemporaryDirectory() as place:
    ...     path = Path(place) / "small.csv"
    ...     _ = path.write_text("id;x\n1;0,5\n1;1,5\n")
    ...     table = read_table(path)
    >>> table["x"].tolist()
    [0.5, 1.5]
    """
    marks, written = ((given,) if isinstance(given, str) else tuple(given) for given in (missing, text))
    table, labels, spellings = read_labelled(path, ReadOptions(encoding, marks, codes, written))
    table, shown = with_levels(table, labels, codes)
    if said := labels_message(shown):
        warn(f"{said}; codes= names columns that are to stay numbers", LabelWarning, stacklevel=2)
    if merged := {name: found.pair for name, found in spellings.items() if found.rows >= ROWS_OF_ID}:
        pairs = ", ".join(f"{first} and {second} in column {name!r}" for name, (first, second) in merged.items())
        warn(
            f"different texts are the same number: {pairs}; if they are ids, keep them apart with text={list(merged)}",
            IdWarning,
            stacklevel=2,
        )
    return table


def read_labelled(
    path: str | os.PathLike[str], options: ReadOptions
) -> tuple[pd.DataFrame, Labels, Mapping[str, Spellings]]:
    """Read a table with codes of labelled values, their labels, and columns with several spellings of a number."""
    check_source(path)
    file = Path(os.path.expanduser(path))
    suffix, reader = _reader(file)
    _check_file(file)
    options.refuse(file, suffix)
    try:
        table, labels, spellings = reader(file, options)
    except DataError:  # a ValueError, already worded
        raise
    except pd.errors.EmptyDataError as error:
        raise _without_rows(file) from error
    except PermissionError as error:
        raise DataError(f"{file} must not be read ({error.strerror}). Change its permissions, or copy it.") from error
    except _UNREADABLE as error:
        raise _unreadable(file, suffix, error) from error
    if table.empty:
        raise _without_rows(file)
    return table, labelled(table, labels), spellings


def check_source(source: str | os.PathLike[str]) -> None:
    """Refuse an empty path, and addresses on the web or in an object store."""
    text = os.fspath(source)
    if not text.strip():
        raise DataError(f"{text!r} is no name of a file or data set; name one")
    if isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
        raise DataError(
            f"{text} is an address, and files are read from this machine only; download it first, or read it "
            "yourself, as with pandas.read_csv, and pass the data frame"
        )


def _reader(file: Path) -> tuple[str, Callable[[Path, ReadOptions], _Read]]:
    for suffix, reader in _READERS.items():
        if file.name.lower().endswith(suffix):
            return suffix, reader
    raise DataError(
        f"{file} has the extension {file.suffix!r}, which is not one that is known. "
        f"Known: {', '.join(_READERS)}. Save the table as one of these, or pass a data frame."
    )


def file_status(path: str | os.PathLike[str]) -> os.stat_result | None:
    """The status of a path; None if nothing is there.

    Raises ``DataError``: the name is invalid or too long, or access to a folder is denied.
    """
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(
            f"{os.fspath(path)} cannot be looked at: {error.strerror}. Check it and the permissions of its folders."
        ) from error
    except ValueError as error:  # a zero byte, or letters that no encoding has
        raise DataError(f"{os.fspath(path)!r} is not the name of a file ({error}). Check the path.") from error


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return "none any more"


def _is_file(source: str) -> bool:
    found = file_status(source)
    return found is not None and stat.S_ISREG(found.st_mode)


def _check_file(file: Path) -> None:
    found = file_status(file)
    if found is None:
        raise DataError(f"There is no file {file} (working directory: {_working_directory()}). Check the path.")
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{file} is not a file but a directory or device. Give the path of one file.")
    if found.st_size == 0:
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


def _read_text(file: Path, options: ReadOptions, *, separator: str = ",") -> _Read:
    table, spellings = read_delimited(
        file, separator, encoding=options.encoding, missing=options.missing, as_text=options.as_text
    )
    return _Read(table, spellings=spellings)


def _read_stata(file: Path, options: ReadOptions) -> _Read:
    table = pd.read_stata(file, convert_categoricals=False)
    with pd.read_stata(file, iterator=True) as content:
        table.attrs["value_labels"] = content.value_labels()
        table.attrs["variable_labels"] = _described(content.variable_labels())
    return _Read(table, _stata_labels(file, table) if table.attrs["value_labels"] else {})


def _stata_labels(file: Path, table: pd.DataFrame) -> dict[str, dict[Any, Any]]:
    """Code -> label by column.

    pandas returns the label sets but not their columns, so codes and labels of each column are compared.
    """
    found = {}
    for name, shown in _stata_shown(file, table).items():
        pairs = pd.DataFrame({"code": table[name], "label": shown.astype(object)}).dropna().drop_duplicates()
        found[str(name)] = dict(zip(pairs["code"], pairs["label"], strict=True))
    return found


def _stata_shown(file: Path, table: pd.DataFrame) -> dict[Any, pd.Series]:
    """Labelled columns as pandas converts them: categories, and values without a label unchanged."""
    try:
        shown = {name: column for name, column in pd.read_stata(file).items()}
    except ValueError:  # two codes of some column have the same label
        shown = {}
        for name in table.columns:
            with contextlib.suppress(ValueError):
                shown[name] = pd.read_stata(file, columns=[name])[name]
    numbers = [name for name in shown if pd.api.types.is_numeric_dtype(table[name].dtype)]
    return {name: shown[name] for name in numbers if isinstance(shown[name].dtype, pd.CategoricalDtype)}


def _read_spss(file: Path, options: ReadOptions) -> _Read:
    pyreadstat = _need("pyreadstat", ".sav")
    try:
        table, content = pyreadstat.read_sav(str(file), apply_value_formats=False)
    except pyreadstat.ReadstatError as error:
        raise _unreadable(file, ".sav", error) from error
    table.attrs["value_labels"] = content.variable_value_labels
    table.attrs["variable_labels"] = _described(content.column_names_to_labels)
    return _Read(table, content.variable_value_labels)


def _described(labels: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in labels.items() if text}


def _read_parquet(file: Path, options: ReadOptions) -> _Read:
    """Read whole numbers with missing values as pandas' nullable integers: floats would round long ids."""
    _need("pyarrow", ".parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    nullable = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}
    try:
        table = pq.read_table(file).to_pandas(types_mapper=nullable.get)
    except pa.ArrowException as error:  # damaged metadata, types that pandas does not have
        raise _unreadable(file, ".parquet", error) from error
    whole = [
        k for k in table if isinstance(table[k].dtype, tuple(map(type, nullable.values()))) and table[k].notna().all()
    ]
    return _Read(table.astype({name: table[name].dtype.numpy_dtype for name in whole}))


_DELIMITED = (".csv", ".csv.gz", ".tsv")
_WITH_LABELS = (".dta", ".sav")
_READERS: dict[str, Callable[[Path, ReadOptions], _Read]] = {
    ".csv": _read_text,
    ".csv.gz": _read_text,
    ".tsv": partial(_read_text, separator="\t"),
    ".dta": _read_stata,
    ".sav": _read_spss,
    ".parquet": _read_parquet,
}


def is_grams(source: str) -> bool:
    """Whether a file holds stored Grams (see ``mlmed.Grams.save``)."""
    if not source.endswith(".parquet") or not _is_file(source):
        return False
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return False
    try:
        return b"mlmed" in (pq.read_metadata(source).metadata or {})
    except (OSError, ValueError, pa.ArrowException):  # not a Parquet file: the reader reports it
        return False


def open_parquet(source: str) -> Any | None:
    """Parquet file(s) as a DuckDB relation, not read yet; None for one file without DuckDB installed.

    Raises ``DataError``: no file matches, or a pattern is given and DuckDB is missing.
    """
    pattern = any(sign in source for sign in "*?[")
    try:
        import duckdb
    except ImportError as error:
        if pattern:
            raise DataError(f'reading {source} needs DuckDB; install it with: pip install "mlmed[scale]"') from error
        return None
    if not pattern and not _is_file(source):
        raise DataError(f"there is no file {source}; check the path")
    try:
        # progress is polled: DuckDB's own bar would land in the output
        duckdb.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
        return duckdb.read_parquet(source)
    except duckdb.Error as error:
        raise DataError(f"cannot read {source}: {first_line(error)}; check the path and the files") from error


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of the values that occur, by column."""

    #: Factors: code -> label in the order of the codes, every value with its own label.
    complete: dict[str, dict[Any, str]]
    partial: dict[str, dict[Any, str]]  #: Numbers: code -> label where values lack a label or share one.


def labelled(table: pd.DataFrame, labels: Mapping[str, Mapping[Any, Any]]) -> Labels:
    """Sort the labelled columns of numbers by whether their labels can be levels.

    Labels that only repeat their code ("2" for 2) and labels of values that do not occur (codes of missing values) are
    ignored.
    """
    complete: dict[str, dict[Any, str]] = {}
    partial: dict[str, dict[Any, str]] = {}
    for name, known in labels.items():
        if not pd.api.types.is_numeric_dtype(table[name].dtype):
            continue
        codes = sorted(table[name].dropna().unique().tolist())
        own = {code: str(known[code]) for code in codes if code in known and not _repeats(known[code], code)}
        if own:
            whole = len(own) == len(codes) == len(set(own.values()))
            (complete if whole else partial)[name] = own
    return Labels(complete, partial)


def _repeats(label: Any, code: float) -> bool:
    try:
        return float(label) == code
    except (TypeError, ValueError):
        return False


def with_levels(table: pd.DataFrame, labels: Labels, codes: bool | Collection[str]) -> tuple[pd.DataFrame, Labels]:
    """Labelled columns as categories in the order of their codes, and the labels, used or unusable.

    ``table``: with the codes; not modified; ``labels``: of its columns; ``codes``: columns that stay numbers; True for
    all.

    Raises ``DataError``: a column in ``codes`` is unknown.
    """
    if codes is True:
        return table, Labels({}, {})
    kept = (codes,) if isinstance(codes, str) else tuple(codes or ())
    refuse_unknown(kept, column_names(table))
    complete = {name: own for name, own in labels.complete.items() if name not in kept}
    partial = {name: own for name, own in labels.partial.items() if name not in kept}
    made = {name: pd.Categorical(table[name].map(own), list(own.values())) for name, own in complete.items()}
    return table.assign(**made), Labels(complete, partial)


def labels_message(labels: Labels, used: Collection[str] | None = None) -> str:
    """A sentence on how labels of columns (of those in ``used``) were treated; empty without labels."""
    complete, partial = (
        [f"{name} ({_shown(own)})" for name, own in part.items() if used is None or name in used]
        for part in (labels.complete, labels.partial)
    )
    said = []
    if complete:
        said.append(f"value labels are the levels of {shorten(complete)}; the first is the reference")
    if partial:
        said.append(
            f"stayed numbers, because some value has no label or two have the same: {shorten(partial)}; check that "
            "the labelled ones are no codes of missing values"
        )
    return "; ".join(said)


def _shown(own: Mapping[Any, str]) -> str:
    return shorten([f"{code:g} {label}" for code, label in own.items()], most=4)


@engine_rows()
def with_category_order(relation: Any, source: str, names: Iterable[str]) -> Any:
    """A relation of Parquet files in which pandas' categories are DuckDB's ENUM, not text or numbers.

    ``relation``: the files as DuckDB reads them; ``source``: path or pattern of the files, for the schema and
    dictionaries that DuckDB ignores; ``names``: columns in use.

    Raises ``DataError``: a file has a name twice.
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
    """Values of a column in dictionary order over files and row groups, until all wanted ones are found."""
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
