"""Column names that are not Python names, and their codes inside formulas.

A name such as ``NA.std``, ``my x``, ``C`` (which would hide the function ``C()``) or ``µg`` (whose first letter Python
replaces by another) is coded as a name that formulaic reads without quotes; the code is reversible.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from formulaic.transforms import TRANSFORMS

#: Names of functions in formulas, some only to be refused (``mlmed.syntax``).
FUNCTIONS = frozenset(TRANSFORMS) | {"np", "abs", "round", "float", "int", "Intercept"}

#: Separates an equation from its term in labels; the colon is left to interactions: ``m~x:w``.
OF_EQUATION = "~"
#: Prefix of columns that mlmed makes inside an engine.
RESERVED = "mlmed_"

_SAFE = re.compile(r"Q_([0-9a-f]+)_Q")
#: Text that looks like our code; typed by a user it is a name.
_CODES = r"\w*Q_[0-9a-f]+_Q\w*"
#: A name in backticks, or in patsy's Q(): a Python string, possibly with the other or an escaped quotation mark.
_QUOTED = re.compile(
    r"""`[^`]*`|(?<![\w.])Q\(\s*(?P<mark>['"])(?P<name>(?:(?!(?P=mark))[^\\`\n]|\\[^`\n])*)(?P=mark)\s*\)"""
)


def _is_plain(name: str) -> bool:
    """Whether Python reads the name as it stands, as a column; names that look like a code do not count."""
    same = unicodedata.normalize("NFKC", name) == name
    own = name in FUNCTIONS or name.startswith(("__", RESERVED)) or _SAFE.search(name)
    return name.isidentifier() and same and not keyword.iskeyword(name) and not own


def _is_word(name: str) -> bool:
    """Whether a name can be found in a formula without backticks."""
    return bool(name.isidentifier() or re.fullmatch(r"[\w.]+", name)) and not name[0].isdigit()


def needing_backticks(columns: Iterable[str]) -> list[str]:
    """Columns that cannot be found in a formula without backticks, such as ``my x``, longest first.

    Examples
    --------
    >>> needing_backticks(["x", "my x", "NA.std", "0"])
    ['my x']
    """
    odd = [c for c in sorted(columns, key=len, reverse=True) if not _is_plain(c) and not _is_word(c)]
    return [c for c in odd if re.search(r"[^\W\d]", c)]


@lru_cache(maxsize=4096)
def safe_name(name: str) -> str:
    """The name of a column inside formulas: itself if unambiguous, else its code.

    Examples
    --------
    >>> safe_name("x"), display_name(safe_name("NA.std")), display_name(safe_name("C"))
    ('x', 'NA.std', 'C')
    """
    if _is_plain(name):
        return name
    return f"Q_{name.encode(errors='surrogatepass').hex()}_Q"


def _decoded(hit: re.Match[str]) -> str:
    """The name behind a code; unchanged if a column merely looks like one."""
    try:
        name = bytes.fromhex(hit[1]).decode(errors="surrogatepass")
    except ValueError:
        return hit[0]
    return name if safe_name(name) == hit[0] else hit[0]


def decoded(text: str) -> str:
    """Replace codes by the names behind them.

    Examples
    --------
    >>> decoded(f"no operator before `{safe_name('my x')}`")
    'no operator before `my x`'
    """
    return _SAFE.sub(_decoded, text)


@lru_cache(maxsize=4096, typed=True)  # subclasses of str are kept
def display_name(text: str) -> str:
    """A label with names as the user wrote them and whole-number levels without decimals."""
    shown = decoded(text.replace("`", ""))
    shown = re.sub(r"(\[(?:[A-Z]\.)?-?\d+)\.0\]", r"\1]", shown)
    return text if shown == text else shown


def quoted_name(text: str) -> str:
    """Names as typed in a formula, in backticks where needed.

    Examples
    --------
    >>> quoted_name(safe_name("x")), quoted_name(safe_name("my x"))
    ('x', '`my x`')
    """
    shown = _SAFE.sub(lambda hit: hit[0] if (name := _decoded(hit)) == hit[0] else f"`{name}`", text)
    return text if shown == text else shown  # as above


def encode_quoted(text: str) -> str:
    """Replace names in backticks, or in Q('...'), by their safe names."""
    return re.sub(r"`([^`]*)`", lambda hit: safe_name(hit[1]), _with_backticks(text))


def _with_backticks(text: str) -> str:
    """Turn ``Q('my x')`` of patsy and statsmodels into ```my x```; an empty name stays and is refused later."""
    return _QUOTED.sub(lambda hit: f"`{_unquoted(hit['name'])}`" if hit["name"] else hit[0], text)


def _unquoted(text: str) -> str:
    """The content of a string literal, with escaped marks and backslashes resolved."""
    return re.sub(r"\\(['\"\\])", r"\1", text)


def quote_columns(text: str, columns: Iterable[str]) -> str:
    """Put backticks around columns that Python would misread (dots, keywords), and around names in Q('...').

    Examples
    --------
    >>> quote_columns("np.log(NA.std) + class + Q('my x')", ["NA.std", "class", "my x", "y"])
    'np.log(`NA.std`) + `class` + `my x`'
    """
    text = _with_backticks(text)
    odd = [re.escape(c) for c in sorted(columns, key=len, reverse=True) if not _is_plain(c) and _is_word(c)]
    pattern = r"`[^`]*`|(?<![\w.])(?:" + "|".join([*odd, _CODES]) + r")(?![\w.(])"
    return re.sub(pattern, lambda hit: hit[0] if hit[0].startswith("`") else f"`{hit[0]}`", text)


def labelled(equation: str, term: str) -> str:
    """The label of a term in an equation; the term alone without an equation.

    Examples
    --------
    >>> labelled("m", "x:w"), labelled("", "x:w")
    ('m~x:w', 'x:w')
    """
    return f"{equation}{OF_EQUATION}{term}" if equation else term
