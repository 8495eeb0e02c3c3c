"""Fields of delimited text: as many in every line as the header has names, and no name twice."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path
from typing import Any

from mlmed.data.frames import shorten
from mlmed.errors import DataError

__all__ = ["checked_header"]


def checked_header(content: str, separator: str, file: Path, *, skipped: int = 0) -> list[str]:
    """Names in the header of a table whose lines have one value for each of them.

    Without this check pandas takes the first column as row names where lines have one field more than the header, which
    shifts all columns, fills short lines up with missing values, and renames the second of two equal names.

    Parameters
    ----------
    content : str
        The text.
    separator : str
        What stands between two fields.
    file : Path
        For messages.
    skipped : int
        Lines of the file before the text.

    Raises
    ------
    DataError
        A name is there twice, or a line has more fields than the header (empty ones at its end apart) or fewer.
    """
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=separator)
    try:
        header = next((cells for cells in reader if not _is_blank(cells)), [])
        _refuse_twice(header, file)
        _check_lines(reader, header, file, skipped)
    except csv.Error as error:
        raise DataError(
            f"{file} cannot be read as {file.suffix}: line {reader.line_num + skipped}: {error}; a quotation mark that "
            "is not closed makes one field of all that follows. Correct that line"
        ) from error
    return header


def _is_blank(cells: list[str]) -> bool:
    """Whether pandas skips a line."""
    return not cells or (len(cells) == 1 and not cells[0].strip())


def _filled(cells: list[str]) -> int:
    """Fields up to the last one that is not empty; separators at the end of a line do no harm."""
    return next((k for k in range(len(cells), 0, -1) if cells[k - 1].strip()), 0)


def _check_lines(reader: Any, header: list[str], file: Path, skipped: int) -> None:
    most, least = len(header), _filled(header)
    wrong: list[tuple[int, int]] = []
    shifted = True
    for cells in reader:
        n = len(cells)
        if n == most:
            shifted = False
        elif not _is_blank(cells):
            shifted = shifted and n == most + 1
            if n < least or _filled(cells) > most:
                wrong.append((reader.line_num + skipped, n))
    if wrong:
        raise _wrong_number(wrong, header, file, shifted=shifted)


def _refuse_twice(header: list[str], file: Path) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1 and name.strip()]
    if twice:
        at = shorten(k + 1 for k, name in enumerate(header) if name == twice[0])
        raise DataError(
            f"the header of {file} has the name {twice[0]!r} more than once (fields {at}"
            f"{f'; so are {shorten(map(repr, twice[1:]))}' if twice[1:] else ''}), so that it does not say which "
            "column is meant; rename or remove one"
        )


def _wrong_number(wrong: list[tuple[int, int]], header: list[str], file: Path, *, shifted: bool) -> DataError:
    (line, fields), count = wrong[0], len(wrong)
    others = f" (and {count - 1} more line{'s' if count > 2 else ''})" if count > 1 else ""
    if fields < len(header):
        cure = "complete it, with separators for values that are missing, or remove it if it is no data"
    elif shifted:
        cure = (
            "if the first field of every line is a row name, as R writes them, name it in the header (col.names=NA in "
            "R's write.table), or save the table without row names"
        )
    else:
        cure = "correct it (a value that has the separator in it stands in quotation marks)"
    return DataError(
        f"line {line}{others} of {file} has {fields} field{'s' * (fields != 1)}, but the header has {len(header)} "
        f"name{'s' * (len(header) != 1)}, so values would stand in the wrong columns; {cure}"
    )
