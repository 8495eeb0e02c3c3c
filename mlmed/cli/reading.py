"""What DATA on the command line means, and where results go."""

from __future__ import annotations

import difflib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlmed import datasets
from mlmed.data.readers import is_grams, open_parquet, read_table
from mlmed.errors import DataError
from mlmed.modes.grams import Grams

__all__ = ["given_at", "given_pair", "number_or_text", "read", "scan_progress", "write"]


def read(source: str) -> Any:
    """Grams, Parquet through DuckDB, another file, or an example data set."""
    if is_grams(source):
        return Grams.load(source)
    if source.endswith(".parquet") and (relation := open_parquet(source)) is not None:
        return relation
    if Path(source).exists():
        return read_table(source)
    if source in datasets.names():
        return datasets.load(source)
    close = difflib.get_close_matches(source, datasets.names(), n=1)
    if close and not Path(source).suffix:
        raise DataError(f"there is no file or data set {source!r}; did you mean {close[0]}?")
    return read_table(source)


@contextmanager
def scan_progress(data: Any) -> Iterator[None]:
    """A bar on standard error while DuckDB scans; nothing for other data or where nobody watches."""
    if not sys.stderr.isatty() or not type(data).__module__.startswith(("duckdb", "_duckdb")):
        yield
        return
    import duckdb
    from tqdm import tqdm

    done = threading.Event()

    def watch() -> None:
        with tqdm(total=100, bar_format="scan {percentage:3.0f}% |{bar}| {elapsed}", leave=False) as bar:
            while not done.wait(0.2):
                bar.n = max(float(duckdb.default_connection().query_progress()), 0.0)
                bar.refresh()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def number_or_text(text: str) -> float | str:
    """A number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def given_pair(values: list[str] | None) -> tuple[Any, Any] | None:
    """``--contrast FROM TO``."""
    return None if values is None else (number_or_text(values[0]), number_or_text(values[1]))


def given_at(pieces: list[str] | None) -> dict[str, Any] | None:
    """``--at NAME=VALUE ...`` as a mapping."""
    if pieces is None:
        return None
    found: dict[str, Any] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if not equals or not name or not value:
            raise DataError(f"--at takes NAME=VALUE, as in --at w=1; found {piece!r}")
        found[name] = number_or_text(value)
    return found


def write(text: str, out: Path | None) -> None:
    """To a file or to standard output."""
    if out is None:
        sys.stdout.write(text + "\n")
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}; check the folder and its permissions") from error
