"""Where results go: files that are checked before anything is read, and written whole."""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlmed import datasets
from mlmed.atomic import check_target, replacing, write_text
from mlmed.cli.stopping import print_text
from mlmed.errors import DataError

__all__ = ["check_targets", "save_picture", "write"]


def check_targets(options: argparse.Namespace) -> None:
    """Refuse ``--out`` and ``--plot`` that cannot be written, that are one file, or that the command reads.

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
    """Files that the command may read: DATA, what a pattern matches, and the files of example data sets."""
    source = getattr(options, "data", None)
    if source is not None:
        yield os.path.expanduser(source)
        if glob.has_magic(source) and "\0" not in source:
            yield from glob.iglob(source, recursive=True, include_hidden=True)
    yield from datasets.files()


def write(text: str, out: Path | None) -> None:
    """To a file or to standard output."""
    if out is None:
        print_text(f"{text}\n")
    else:
        write_text(out, f"{text}\n")


def _check_picture(path: Path) -> None:
    from mlmed.report.labels import pyplot

    known = pyplot().Figure().canvas.get_supported_filetypes().keys() - {"pgf"}  # which runs LaTeX
    if (kind := _kind(path)) not in known:
        raise DataError(
            f"cannot write the picture {path}: there is no kind {kind!r}; name a file such as plot.png or plot.pdf"
        )


def _kind(path: Path) -> str:
    """The format that the name of a picture asks for; PNG without one."""
    return path.suffix.removeprefix(".").lower() or "png"


def save_picture(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib; the extension of the file is its format."""
    with replacing(path) as file:
        figure.savefig(file, format=_kind(path))
