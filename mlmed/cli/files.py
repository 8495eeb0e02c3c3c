"""Files that a command reads and writes, and the parsing of DATA and other values.

Targets are checked before anything is read, and written whole.
"""

from __future__ import annotations

import argparse
import difflib
import glob
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mlmed import datasets
from mlmed.api.grams import Grams
from mlmed.atomic import check_target, replacing, write_text
from mlmed.cli.stopping import print_text
from mlmed.data.frames import column_names, replaced
from mlmed.data.readers import (
    Labels,
    ReadOptions,
    check_source,
    file_status,
    is_grams,
    labels_message,
    open_parquet,
    read_labelled,
    with_category_order,
    with_levels,
)
from mlmed.errors import DataError, LabelWarning, warn
from mlmed.formula import Equation, parse_equation
from mlmed.glm.family import BINARY
from mlmed.options import check_formulas
from mlmed.quadrature.rows import read_equations


def read(options: argparse.Namespace) -> Any:
    """Read DATA: Grams, Parquet through DuckDB, another file, or an example data set."""
    codes = True if options.codes == [] else tuple(options.codes or ())
    check_source(options.data)
    given = ReadOptions(options.encoding, tuple(options.missing), codes)
    other = _other_source(options.data)
    if other is not None:
        given.refuse(options.data)
        return _with_order(other, options) if options.data.endswith(".parquet") else other
    table, labels, spellings = read_labelled(options.data, given)
    if not labels.complete and not labels.partial and not spellings:
        return table
    asked = _asked_columns(table, options)
    texts = {name: found.texts for name, found in spellings.items() if name in asked.clusters}
    table = replaced(table, texts)  # 1.1 and 1.10 are two ids
    return _with_labels(table, labels, asked, codes) if labels.complete or labels.partial else table


def _other_source(source: str) -> Any | None:
    """Data other than a file to be read into memory (Grams, Parquet, examples); None for a file."""
    if is_grams(source):
        return Grams.load(source)
    if source.endswith(".parquet") and (relation := open_parquet(source)) is not None:
        return relation
    if file_status(source) is None:
        if source in datasets.names():
            return datasets.load(source)
        close = difflib.get_close_matches(source, datasets.names(), n=1)
        if close and not Path(source).suffix:
            raise DataError(f"there is no file or data set {source!r}; did you mean {close[0]}?")
    return None


def _with_order(other: Any, options: argparse.Namespace) -> Any:
    """Restore the order of the categories used in Parquet files; stored Grams stay unchanged."""
    if isinstance(other, Grams):
        return other
    return with_category_order(other, options.data, sorted(_asked_columns(other, options).used))


@dataclass(frozen=True, slots=True)
class _Asked:
    """Columns that a command reads, columns that must be numbers, and cluster ids."""

    used: frozenset[str]
    numbers: frozenset[str]
    clusters: frozenset[str]


def _with_labels(table: pd.DataFrame, labels: Labels, asked: _Asked, codes: bool | tuple[str, ...]) -> pd.DataFrame:
    """Labelled columns as factors, except those that must be numbers; warns about columns in use."""
    table, shown = with_levels(table, labels, True if codes is True else {*(codes or ()), *asked.numbers})
    said = [f"{message}; --codes keeps numbers"] if (message := labels_message(shown, asked.used)) else []
    if not codes and (kept := sorted(asked.numbers & set(labels.complete))):
        said.append(f"labelled, but numbers are needed: {', '.join(kept)}")
    if said:
        warn("; ".join(said), LabelWarning, stacklevel=2)
    return table


def _asked_columns(table: Any, options: argparse.Namespace) -> _Asked:
    """The columns that a command reads; responses and all roles of ``stack`` must be numbers."""
    given = {options.cluster} if getattr(options, "cluster", None) else set()
    if options.command == "stack":
        roles = frozenset({options.x, options.m, options.y, *options.covariates})
        return _Asked(roles | given, roles, frozenset(given))
    if options.command == "location-scale":
        location, scale = read_equations(options.location, options.scale, table)
        equations: tuple[Equation, ...] = (location, scale)
        numbers = location.response_columns
    else:
        texts = options.formula if "formula" in options else (*check_formulas(options.mediator), options.outcome)
        equations = tuple(parse_equation(text, column_names(table)) for text in texts)
        families = [getattr(options, name, "linear") for name in ("family_m", "family_y")]
        binary = [family in BINARY for family in families] if "mediator" in options else [False] * len(equations)
        linear = [e.response_columns for e, two in zip(equations, binary, strict=True) if not two]
        numbers = frozenset().union(*linear)
    used = frozenset().union(*(e.variables for e in equations))
    return _Asked(used, numbers, frozenset(given).union(*(e.group_columns for e in equations)))


@contextmanager
def scan_progress(data: Any) -> Iterator[None]:
    """Show a bar on standard error while DuckDB scans; nothing for other data or without a terminal."""
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


def _number_or_text(text: str) -> float | str:
    """A number if the text is one, else the text."""
    try:
        return float(text)
    except ValueError:
        return text


def given_pair(values: list[str] | None) -> tuple[Any, Any] | None:
    """``--contrast FROM TO``."""
    return None if values is None else (_number_or_text(values[0]), _number_or_text(values[1]))


def given_at(pieces: list[str] | None) -> dict[str, Any] | None:
    """``--at NAME=VALUE ...`` as a mapping."""
    if pieces is None:
        return None
    found: dict[str, Any] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if not equals or not name or not value:
            raise DataError(f"--at takes NAME=VALUE, as in --at w=1; found {piece!r}")
        if name in found:
            raise DataError(f"--at gives {name} more than one value; each call holds it at one")
        found[name] = _number_or_text(value)
    return found


def check_targets(options: argparse.Namespace) -> None:
    """Refuse ``--out`` and ``--plot`` that cannot be written, that are the same file, or that the command reads.

    Raises
    ------
    DataError
        See ``mlmed.atomic.check_target``.
    """
    targets = [target for name in ("out", "plot") if (target := getattr(options, name, None)) is not None]
    if not targets:
        return
    inputs = list(_inputs(options))
    for target in targets:
        check_target(target, inputs)
    if len(targets) > len({os.path.realpath(target) for target in targets}):
        raise DataError(f"--out and --plot are both {targets[0]}; name two files")
    if getattr(options, "plot", None) is not None:
        _check_picture(options.plot)


def _inputs(options: argparse.Namespace) -> Iterator[str | Path]:
    """Files that the command may read: DATA, matches of a pattern, files of example data sets."""
    source = getattr(options, "data", None)
    if source is not None:
        yield os.path.expanduser(source)
        if glob.has_magic(source) and "\0" not in source:
            yield from glob.iglob(source, recursive=True, include_hidden=True)
    yield from datasets.files()


def write(text: str, out: Path | None) -> None:
    """Write a text to a file or to standard output."""
    if out is None:
        print_text(f"{text}\n")
    else:
        write_text(out, f"{text}\n")


def _check_picture(path: Path) -> None:
    from mlmed.report.plots.axes import pyplot

    known = pyplot().Figure().canvas.get_supported_filetypes().keys() - {"pgf"}  # pgf runs LaTeX
    if (kind := _kind(path)) not in known:
        raise DataError(
            f"cannot write the picture {path}: there is no kind {kind!r}; name a file such as plot.png or plot.pdf"
        )


def _kind(path: Path) -> str:
    """The format of a picture by its extension; PNG without one."""
    return path.suffix.removeprefix(".").lower() or "png"


def save_picture(axes: Any, path: Path) -> None:
    """Write the figure of axes of matplotlib; the extension of the file is its format."""
    with replacing(path) as file:
        axes.figure.savefig(file, format=_kind(path))
