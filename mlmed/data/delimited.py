"""Delimited text to a pandas table: encoding, separator, decimal sign, whole numbers without rounding."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mlmed.data.frames import refuse_unknown
from mlmed.data.ids import whole_number
from mlmed.errors import DataError
from mlmed.text import shorten

SEPARATORS = (",", ";", "\t", "|")
#: Lines read to find the separator.
LINES = 50
#: Byte-order marks and their encodings; the longer first, since one begins with another.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
#: Numbers with a second spelling, leading zeros apart: 1.10, 1., .5, 1E2; the sign is a point or comma.
OTHER_SPELLING = r"{sign}(\d*0)?(?!\d)|(?<!\d){sign}\d|\d[eE][+-]?\d"
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|\d*,\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, slots=True)
class _Text:
    """A decoded file and its separator."""

    content: str
    separator: str
    missing: tuple[str, ...]
    width: int
    decimal: str = "."

    def table(self, **options: Any) -> pd.DataFrame:
        return pd.read_csv(
            io.StringIO(self.content),
            sep=self.separator,
            decimal=self.decimal,
            na_values=list(self.missing),
            low_memory=False,
            index_col=False,
            usecols=range(self.width),  # separators at the ends of lines make no column
            **options,
        )


@dataclass(frozen=True, slots=True)
class Spellings:
    """A column with numbers in several spellings."""

    texts: pd.Series  #: The numbers as written.
    pair: tuple[str, str]  #: Two texts for one number, such as 1.1 and 1.10.
    rows: float  #: Mean number of rows per text.


def read_delimited(
    file: Path, usual: str, *, encoding: str | None, missing: Sequence[str], as_text: Sequence[str] = ()
) -> tuple[pd.DataFrame, dict[str, Spellings]]:
    """Read a table of delimited text.

    ``file``: compressed if its name ends in ``.gz``; ``usual``: the separator of its extension; another is used if only
    that splits the lines evenly; ``encoding``: by default that of the byte-order mark, or UTF-8; ``missing``: marks of
    missing values, besides empty cells, ``NA``, ``NaN`` and pandas' other marks; ``as_text``: columns kept as text.

    Returns
    -------
    table : DataFrame
        Blanks around column names are removed unless two names would become equal.
    spellings : dict
        Numeric columns with several spellings of one number.

    Raises ``DataError``: the bytes do not fit the encoding, a line has more or fewer fields than the header, a name
    occurs twice, or a column in ``as_text`` is unknown.
    """
    packed = file.read_bytes()
    raw = gzip.decompress(packed) if file.name.lower().endswith(".gz") else packed
    decoded = _decoded(raw, file, encoding)
    content, separator = _split(decoded, usual)
    header = checked_header(content, separator, file, skipped=int(content is not decoded))
    text = _Text(content, separator, tuple(missing), len(header))
    table = text.table()
    if separator != "," and any(_has_decimal_commas(table[name]) for name in table.columns):
        text = replace(text, decimal=",")
        table = text.table()
    names = _stripped([str(name) for name in table.columns])
    refuse_unknown(as_text, names)
    return _with_exact_numbers(table.set_axis(names, axis="columns"), text, as_text)


def _stripped(names: list[str]) -> list[str]:
    short = [name.strip() for name in names]
    return short if len(set(short)) == len(names) and all(short) else names


def _decoded(raw: bytes, file: Path, encoding: str | None) -> str:
    marked = next((name for mark, name in MARKS if raw.startswith(mark)), None)
    chosen = encoding or marked or "utf-8"
    if chosen == "utf-8" and b"\0" in raw:
        raise DataError(
            f"{file} cannot be read as {file.suffix}: it has zero bytes, as text in UTF-16 without a mark at its start "
            "has. Save it as UTF-8, or say its encoding, encoding='utf-16-le' in read_table() or --encoding utf-16-le"
        )
    try:
        content = raw.decode(chosen)
    except LookupError as error:
        raise DataError(f"there is no encoding {chosen!r}; write one such as 'latin-1' or 'utf-16'") from error
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file} cannot be read as {file.suffix}: line {line} is not text in {chosen} (byte "
            f"0x{raw[error.start]:02x}). Save it as UTF-8, or say its encoding, encoding='latin-1' in read_table() or "
            "--encoding latin-1, often right for files of Excel or older programs"
        ) from error
    return content.removeprefix("\ufeff")


def _split(content: str, usual: str) -> tuple[str, str]:
    """The text without Excel's line ``sep=;``, and the separator."""
    named = re.match(r"sep=(.)\r?\n", content)
    if named:
        return content[named.end() :], named[1]
    lines = [line for line in content[:100_000].splitlines()[: LINES + 1] if line.strip()]
    lines = lines[:-1] if len(lines) > LINES else lines
    evenly = {sign: number for sign in SEPARATORS if (number := _fields(lines, sign)) > 1}
    if not evenly and lines:  # lines of different lengths are refused later; the header tells the separator
        evenly = {sign: lines[0].count(sign) for sign in SEPARATORS if sign in lines[0]}
    if usual in evenly or not evenly:
        return content, usual
    return content, max(evenly, key=lambda sign: evenly[sign])


def _fields(lines: list[str], separator: str) -> int:
    """Number of fields of every line; 0 if lines differ."""
    counts = {len(row) for row in csv.reader(lines, delimiter=separator)}
    return counts.pop() if len(counts) == 1 else 0


def _has_decimal_commas(column: pd.Series) -> bool:
    if not pd.api.types.is_string_dtype(column.dtype):
        return False
    texts = [str(value).strip() for value in column.dropna().unique()]
    return any("," in text for text in texts) and all(map(DECIMAL_COMMA.fullmatch, texts))


def _with_exact_numbers(
    table: pd.DataFrame, text: _Text, as_text: Sequence[str]
) -> tuple[pd.DataFrame, dict[str, Spellings]]:
    """Keep whole numbers that floats would round as integers; collect other numbers with several spellings."""
    padded = re.search(rf'(^|[\s"{re.escape(text.separator)}])[+-]?0\d', text.content, re.MULTILINE) is not None
    varied = padded or re.search(OTHER_SPELLING.format(sign=re.escape(text.decimal)), text.content) is not None
    columns = {str(name): table[name] for name in table.columns}
    asked = {name for name in columns if name in as_text}
    doubtful = {
        name for name, column in columns.items() if _is_rounded(column) or (padded and _is_whole(column))
    } - asked
    repeating = {name for name, column in columns.items() if varied and _has_equal_floats(column)} - asked
    if not asked | doubtful | repeating:
        return table, {}
    written = text.table(dtype=str).set_axis(table.columns, axis="columns")
    columns |= {name: written[name] for name in asked}
    columns |= {name: _exact(columns[name], written[name]) for name in doubtful}
    found = {name: _spellings(columns[name], written[name]) for name in columns if name in repeating}
    return pd.DataFrame(columns, index=table.index), {name: several for name, several in found.items() if several}


def _has_equal_floats(column: pd.Series) -> bool:
    return bool(column.dtype == np.float64 and column.dropna().duplicated().any())


def _spellings(column: pd.Series, texts: pd.Series) -> Spellings | None:
    """The texts of a column of floats if two of them are one number.

    The sign of a zero and decimals of zero are ignored: 1 becomes 1.0 when floats are written.
    """
    if column.dtype != np.float64:
        return None
    bare = texts.str.strip().str.removeprefix("+").str.replace(r"[.,]0*$", "", regex=True)
    known = pd.DataFrame({"number": column, "text": bare}).dropna()
    known["text"] = known["text"].mask(known["number"] == 0.0, known["text"].str.removeprefix("-"))
    different = known.drop_duplicates()
    same = different[different["number"].duplicated(keep=False)]
    if same.empty:
        return None
    first, second = same.loc[same["number"] == same["number"].iloc[0], "text"].iloc[:2]
    return Spellings(texts, (first, second), len(known) / len(different))


def _is_whole(column: pd.Series) -> bool:
    if pd.api.types.is_integer_dtype(column.dtype):
        return True
    if column.dtype != np.float64:
        return False
    known = column.dropna().to_numpy()
    return bool(len(known)) and bool(np.array_equal(known, np.floor(known)))


def _is_rounded(column: pd.Series) -> bool:
    """Floats too large for every whole number; or text with empty values, which pandas makes of very large numbers."""
    if column.dtype == np.float64:
        return bool(column.abs().max() >= 2.0**53)
    return bool((column == "").any())


def _exact(column: pd.Series, texts: pd.Series) -> pd.Series:
    """Exact whole numbers; text if some differ only in leading zeros; anything else unchanged."""
    present = texts.dropna()
    found = [whole_number(text) for text in present]
    numbers = [number for number in found if number is not None]
    if len(numbers) < len(found):
        return column
    if present.str.strip().str.removeprefix("+").nunique() > len(set(numbers)):
        return texts
    gaps = texts.isna().to_numpy()
    for kind, low, high in ((np.int64, -(2**63), 2**63), (np.uint64, 0, 2**64)):
        if low <= min(numbers) and max(numbers) < high:
            values = np.zeros(len(texts), dtype=kind)
            values[~gaps] = np.array(numbers, dtype=kind)
            whole = pd.arrays.IntegerArray(values, gaps) if gaps.any() else values
            return pd.Series(whole, index=texts.index)
    out = pd.Series(pd.NA, index=texts.index, dtype=object)
    out[texts.notna()] = numbers
    return out


def checked_header(content: str, separator: str, file: Path, *, skipped: int = 0) -> list[str]:
    """Names in the header, after a check that every line has one value for each.

    Without this check pandas takes the first column as row names where lines have one field more than the header, which
    shifts all columns, fills short lines up with missing values, and renames the second of two equal names.

    ``content``: the text; ``separator``: of fields; ``file``: for messages; ``skipped``: lines of the file before the
    text.

    Raises ``DataError``: a name occurs twice, or a line has more fields than the header (empty ones at its end ignored)
    or fewer.
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
