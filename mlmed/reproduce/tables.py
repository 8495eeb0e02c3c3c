"""Published numbers and ours side by side, as a data frame and as text; the files of published numbers."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import pandas as pd

from mlmed.report.text import WIDTH, as_html, format_number, render_pairs, render_table
from mlmed.reproduce.pairs import Pair, decimals, long_frame

NAN = float("nan")
#: Characters for a table; a wider one is split into blocks of columns below each other.
TABLE_WIDTH = 110


def published(name: str) -> dict[str, Any]:
    """Numbers printed in a source document, as text to keep the printed digits.

    Examples
    --------
    >>> published("gpa")["lmer"]["reml_criterion"]
    '261'
    """
    return _load("published", name)


def reference(name: str) -> dict[str, Any]:
    """Numbers of other software, with versions.

    Examples
    --------
    >>> reference("sleepstudy")["software"].split()[0]
    'lme4'
    """
    return _load("reference", name)


def _load(kind: str, name: str) -> dict[str, Any]:
    text = resources.files("mlmed.reproduce").joinpath(kind, f"{name}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@dataclass(frozen=True, slots=True)
class _Cell:
    """One cell: column, row, value, and its text."""

    heading: str
    term: str
    value: float | str
    text: str


@dataclass(frozen=True, slots=True)
class Compared:
    """A titled table of numbers.

    Attributes
    ----------
    title : str
        Heading.
    pairs : tuple of Pair
        Its numbers, row by row.
    """

    title: str
    pairs: tuple[Pair, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """One row per term: published columns, ours, differences; NaN for missing numbers."""
        terms = list(dict.fromkeys(pair.term for pair in self.pairs))
        frame = pd.DataFrame({"term": terms})
        for block in self._blocks():
            for heading in dict.fromkeys(cell.heading for cell in block):
                values = {cell.term: cell.value for cell in block if cell.heading == heading}
                blank = "" if isinstance(next(iter(values.values())), str) else NAN
                frame[heading] = [values.get(term, blank) for term in terms]
        return frame

    def __str__(self) -> str:
        shown = [_shown(block) for block in self._blocks()]
        parts: list[pd.DataFrame] = []
        for block in shown:
            together = parts[-1].merge(block, on="term", how="outer", sort=False) if parts else block
            if parts and set(parts[-1]["term"]) == set(block["term"]) and _width(together) <= TABLE_WIDTH:
                parts[-1] = together.set_index("term").loc[parts[-1]["term"]].reset_index()
            else:
                parts.append(block)
        heading = "\n".join(textwrap.wrap(self.title, TABLE_WIDTH))
        return "\n\n".join([f"{heading}\n{render_table(parts[0])}", *map(render_table, parts[1:])])

    def _blocks(self) -> list[list[_Cell]]:
        """The columns of each quantity."""
        quantities = dict.fromkeys(pair.quantity for pair in self.pairs)
        return [list(_cells([p for p in self.pairs if p.quantity == q], q)) for q in quantities]


def _cells(pairs: Sequence[Pair], quantity: str) -> Iterator[_Cell]:
    """Published columns, our columns, then differences and notes."""
    places: dict[str, int] = {}
    for pair in pairs:
        if (found := decimals(pair.printed)) is not None:
            places[pair.term] = max(found, places.get(pair.term, 0))
    compared = list(dict.fromkeys((p.by, p.ours_by) for p in pairs if p.by and p.ours_by))
    for pair in pairs:
        if pair.by:
            yield _Cell(f"{pair.by} {quantity}".rstrip(), pair.term, pair.published, pair.printed)
    for pair in pairs:
        if pair.ours_by:
            shown = _digits(pair.ours, places.get(pair.term), 1 if pair.printed.startswith("<") else 6)
            yield _Cell(f"{pair.ours_by} {quantity}".rstrip(), pair.term, pair.ours, shown)
    for by, ours_by in compared:
        own = [pair for pair in pairs if (pair.by, pair.ours_by) == (by, ours_by)]
        name = f"difference {quantity}".rstrip() if len(compared) == 1 else f"{ours_by} - {by} {quantity}".rstrip()
        yield from (_Cell(name, pair.term, pair.difference, _short(pair.difference)) for pair in own)
        if any(pair.mc_error > 0.0 for pair in own):
            name = f"in MC errors {quantity}".rstrip() if len(compared) == 1 else f"{by} MC errors {quantity}".rstrip()
            yield from (_Cell(name, pair.term, pair.in_mc_errors, _rounded(pair.in_mc_errors, 1)) for pair in own)
        if any(pair.posterior_sd > 0.0 for pair in own):
            name = f"in posterior SDs {quantity}".rstrip()
            yield from (_Cell(name, p.term, p.in_posterior_sds, _rounded(p.in_posterior_sds, 2)) for p in own)
    if any(pair.note for pair in pairs):
        yield from (_Cell("ours is", pair.term, pair.note, pair.note) for pair in pairs)


def _digits(value: float, places: int | None, significant: int) -> str:
    if value != value:
        return "-"
    if places is not None:
        return f"{value:.{places}f}"
    return format_number(value) if significant > 1 else f"{value:.1g}"


def _short(value: float) -> str:
    if value != value:
        return "-"
    return "0" if abs(value) < 1e-14 else f"{value:.2g}"


def _rounded(value: float, places: int) -> str:
    return "-" if value != value else f"{round(value, places) + 0.0:.{places}f}"  # the sum makes -0.0 a plain zero


def _shown(block: Sequence[_Cell]) -> pd.DataFrame:
    """The cells of a block as text, rows in their order."""
    terms = list(dict.fromkeys(cell.term for cell in block))
    columns: dict[str, list[str]] = {"term": terms}
    for heading in dict.fromkeys(cell.heading for cell in block):
        texts = {cell.term: cell.text for cell in block if cell.heading == heading}
        columns[heading] = [texts.get(term, "-") for term in terms]
    return pd.DataFrame(columns)


def _width(table: pd.DataFrame) -> int:
    """Characters of a rendered line."""
    return sum(max(len(name), *table[name].map(len)) + 2 for name in table.columns) - 2


@dataclass(frozen=True, slots=True)
class Reproduction:
    """An example of the source documents: published numbers against ours.

    Attributes
    ----------
    name, title, source : str
        Its name for `run`, its title, the source of the published numbers.
    compared : tuple of Compared
        The tables, number by number.
    notes : tuple of str
        Reasons for numbers that are not expected to agree.

    Examples
    --------
    >>> table = Compared("Slopes", (Pair("x", "", "R", ".61", "ours", 0.6118),))
    >>> print(Reproduction("toy", "one slope", "a page", (table,)))
    toy: one slope
    ==============
    Published  a page
    <BLANKLINE>
    Slopes
    term    R  ours  difference
    x     .61  0.61      0.0018
    """

    name: str
    title: str
    source: str
    compared: tuple[Compared, ...]
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """By title: published columns, our columns, differences (ours minus theirs); NaN where there is none."""
        return {table.title: table.frame for table in self.compared}

    def to_frame(self) -> pd.DataFrame:
        """One row per number: table, term, quantity, published_by, printed, published, ours_by, ours, difference, ...

        ``mc_error`` is the Monte Carlo standard error of the difference, if one of the two was drawn;
        ``posterior_sd`` the posterior standard deviation of a mean compared with a likelihood estimate.
        """
        return long_frame((table.title, table.pairs) for table in self.compared)

    def __str__(self) -> str:
        heading = f"{self.name}: {self.title}"
        parts = [f"{heading}\n{'=' * len(heading)}\n{render_pairs([('Published', self.source)])}"]
        parts += [str(table) for table in self.compared]
        if self.notes:
            parts.append("Notes\n" + "\n".join(_note(note) for note in self.notes))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        return as_html(str(self))


def _note(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, initial_indent="- ", subsequent_indent="  "))
