"""Column names that are not Python names, and what they are called inside formulas.

A name such as ``NA.std``, ``my x`` or ``C`` (which would hide the function ``C()``) is replaced by a name that
formulaic reads without quotes; the code is reversible, so nothing has to be remembered.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable

from formulaic.transforms import TRANSFORMS

__all__ = ["FUNCTIONS", "display_name", "encode_quoted", "quote_columns", "safe_name"]

#: What a formula can call: formulaic's transforms, numpy, and element-wise built-ins.
FUNCTIONS = frozenset(TRANSFORMS) | {"np", "abs", "round", "float", "int", "Intercept"}

#: Beginning of the names of columns that mlmed makes inside an engine.
RESERVED = "mlmed_"

_SAFE = re.compile(r"Q_([0-9a-f]+)_Q")


def safe_name(name: str) -> str:
    """The name of a column inside formulas: itself where that is unambiguous.

    Examples
    --------
    >>> safe_name("x"), display_name(safe_name("NA.std")), display_name(safe_name("C"))
    ('x', 'NA.std', 'C')
    """
    reserved = name in FUNCTIONS or name.startswith(RESERVED)
    if name.isidentifier() and not keyword.iskeyword(name) and not reserved:
        return name
    return f"Q_{name.encode().hex()}_Q"


def display_name(text: str) -> str:
    """Names as the user wrote them; whole-number levels without decimals."""
    shown = _SAFE.sub(lambda hit: bytes.fromhex(hit[1]).decode(), text.replace("`", ""))
    return re.sub(r"(\[(?:T\.)?-?\d+)\.0\]", r"\1]", shown)


def encode_quoted(text: str) -> str:
    """Replace names in backticks by their safe names."""
    return re.sub(r"`([^`]*)`", lambda hit: safe_name(hit[1]), text)


def quote_columns(text: str, columns: Iterable[str]) -> str:
    """Put backticks around columns with dots, or named like functions or words of Python.

    Examples
    --------
    >>> quote_columns("np.log(NA.std) + class", ["NA.std", "class", "y"])
    'np.log(`NA.std`) + `class`'
    """
    unclear = {c for c in columns if not c.isidentifier() or keyword.iskeyword(c) or c in FUNCTIONS}
    odd = [c for c in sorted(unclear, key=len, reverse=True) if re.fullmatch(r"[\w.]+", c) and not c[0].isdigit()]
    if not odd:
        return text
    pattern = r"`[^`]*`|(?<![\w.])(?:" + "|".join(map(re.escape, odd)) + r")(?![\w.(])"
    return re.sub(pattern, lambda hit: hit[0] if hit[0].startswith("`") else f"`{hit[0]}`", text)
