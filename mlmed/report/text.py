"""Plain-text rendering of header pairs and tables; computes nothing, knows no result class."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

WIDTH = 92
_HEADINGS = {"std_error": "std.error", "p_value": "p"}


def as_html(text: str) -> str:
    """Format text for a notebook: HTML characters escaped, blanks and line breaks kept.

    Examples
    --------
    >>> as_html("x[a<b]")
    '<pre>x[a&lt;b]</pre>'
    """
    return f"<pre>{html.escape(text, quote=False)}</pre>"


def format_number(value: object, digits: int = 6) -> str:
    """Format a number with ``digits`` significant digits, fixed-point if readable.

    Fixed-point numbers have at most ``digits`` decimals, and no number fewer than three significant digits.

    Examples
    --------
    >>> [format_number(v) for v in (0.6118566, 1234567.0, 0.0000012, float("nan"), 3, "text")]
    ['0.611857', '1.23457e+06', '1.2e-06', '-', '3', 'text']
    >>> [format_number(v, 4) for v in (0.0123456, 0.00123456)]
    ['0.0123', '0.001235']
    """
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return "-"
    if value == 0.0:
        return "0"
    size = abs(value)
    if 10.0 ** (2 - digits) <= size < 1e6:
        decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
        return f"{value:.{min(decimals, digits)}f}"
    return f"{value:.{digits}g}"


def _format_p(value: float) -> str:
    return "-" if math.isnan(value) else "<1e-4" if value < 1e-4 else f"{value:.4f}"


def letter_of(table: pd.DataFrame) -> str:
    """Letter of the tests of a table by its degrees of freedom: t, or z where they are infinite.

    Without any there is no test, and the statistic is the ratio ``est/se``.

    Examples
    --------
    >>> [letter_of(pd.DataFrame({"df": [df]})) for df in (293.0, float("inf"), float("nan"))]
    ['t', 'z', 'est/se']
    """
    df = table["df"].to_numpy(dtype=np.float64)
    return "t" if np.isfinite(df).any() else "z" if np.isinf(df).any() else "est/se"


def render_table(table: pd.DataFrame, *, statistic: str | None = None) -> str:
    """Format a table: right-aligned columns, notes as numbered footnotes, ``df`` only if one is finite.

    ``statistic`` is the letter of the test statistic, by default that of the column ``df`` (``letter_of``).

    Examples
    --------
    >>> print(render_table(pd.DataFrame({"term": ["a"], "estimate": [0.5], "note": [""]})))
    term  estimate
    a     0.500000
    """
    notes = list(table["note"]) if "note" in table.columns else [""] * len(table)
    numbered = {note: k + 1 for k, note in enumerate(dict.fromkeys(note for note in notes if note))}
    shown: dict[str, list[str]] = {}
    if statistic is None:
        statistic = letter_of(table) if "df" in table.columns else "statistic"
    for name in table.columns:
        if name == "note" or (name == "df" and not np.isfinite(table[name]).any()):
            continue
        heading = statistic if name == "statistic" else _HEADINGS.get(name, name)
        cells = [
            _format_p(v) if name == "p_value" else format_number(v, 4 if name in ("statistic", "df") else 6)
            for v in table[name]
        ]
        shown[heading] = cells
    if numbered:
        shown[""] = [f"[{numbered[note]}]" if note else "" for note in notes]
    widths = {name: max(map(len, [name, *cells])) for name, cells in shown.items()}
    first = next(iter(shown))

    def line(cells: Sequence[str]) -> str:
        pieces = [
            cell.ljust(width) if name in (first, "") else cell.rjust(width)
            for (name, width), cell in zip(widths.items(), cells, strict=True)
        ]
        return "  ".join(pieces).rstrip()

    lines = [line(list(shown)), *(line(row) for row in zip(*shown.values(), strict=True))]
    for note, number in numbered.items():
        lines += textwrap.wrap(f"[{number}] {note}", WIDTH, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)


def render_pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Format pairs of name and value, one a line, values aligned and wrapped.

    Examples
    --------
    >>> print(render_pairs([("Rows", "800"), ("Clusters", "100")]))
    Rows      800
    Clusters  100
    """
    width = max(len(name) for name, _ in pairs)
    lines: list[str] = []
    for name, value in pairs:
        indent = " " * (width + 2)
        lines += textwrap.wrap(
            value,
            WIDTH,
            initial_indent=f"{name.ljust(width)}  ",
            subsequent_indent=indent,
            break_long_words=False,
        )
    return "\n".join(lines)
