"""How values are shown in messages and tables: cut where they are long, shapes in place of numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

#: Letters of a value in a message; more than these are not read.
LETTERS = 120
#: Digits that Python writes of a whole number (``sys.set_int_max_str_digits`` refuses more than 4,300).
DIGITS = 50


def shown(value: Any) -> str:
    """A value as a message has it: short ones as they are written, long ones cut, tables and arrays by their type.

    Examples
    --------
    >>> import numpy as np
    >>> shown("text"), shown(0.5), shown(10**400), shown([1] * 100)
    ("'text'", '0.5', 'a whole number of 1329 bits', 'a list of 100')
    >>> shown(np.zeros((2, 3)))
    'a ndarray of shape (2, 3)'
    """
    if isinstance(value, Integral) and not isinstance(value, bool) and int(value).bit_length() > 3 * DIGITS:
        return f"a whole number of {int(value).bit_length()} bits"
    if isinstance(value, str | bytes) and len(value) > LETTERS:
        return f"{value[:LETTERS]!r}... ({len(value):,} letters)"
    kind = type(value).__name__
    if isinstance(getattr(value, "shape", None), tuple) and value.shape:
        return f"a {kind} of shape {value.shape}"
    if isinstance(value, tuple | list | set | frozenset | Mapping):
        return brief(value, LETTERS) or f"a {kind} of {len(value)}"
    if isinstance(value, str | bytes | Real | complex | None):
        return repr(value)
    text = repr(value)
    return text if len(text) <= LETTERS and "\n" not in text and " at 0x" not in text else f"a {kind}"


def brief(value: Any, most: int) -> str:
    """A plain value, or several in a container, written out in at most so many letters; empty if that cannot be.

    What is long or nested is not written out first.

    Examples
    --------
    >>> brief([1, "a"], 60), brief([[1], [2]], 60), brief(range(9), 60)
    ("[1, 'a']", '', '')
    """
    plain = str | bytes | Real | complex | None
    if isinstance(value, tuple | list | set | frozenset | Mapping):
        inside = [*value, *value.values()] if isinstance(value, Mapping) else list(value)
        if len(inside) > most or not all(isinstance(one, plain) and _is_short(one, most) for one in inside):
            return ""
    elif not isinstance(value, plain) or not _is_short(value, most):
        return ""
    text = repr(value)
    return text if len(text) <= most else ""


def _is_short(value: Any, most: int) -> bool:
    if isinstance(value, str | bytes):
        return len(value) <= most
    return not isinstance(value, Integral) or int(value).bit_length() <= 3 * DIGITS


def cut(text: str, most: int = LETTERS) -> str:
    """A text of at most so many letters; of a longer one the beginning.

    Examples
    --------
    >>> cut("short"), cut("a long text", 8)
    ('short', 'a lon...')
    """
    return text if len(text) <= most else f"{text[: most - 3]}..."


def display_level(value: object) -> str:
    """A level of a factor or another value as text; whole numbers without decimals.

    Examples
    --------
    >>> display_level(2.0), display_level(0.5), display_level("2.0")
    ('2', '0.5', '2.0')
    """
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def typed(value: object) -> str:
    """A value as it can be typed: texts in quotation marks, numbers short.

    Examples
    --------
    >>> typed("b"), typed(2.0), typed(0.1 + 0.2)
    ("'b'", '2', '0.3')
    """
    if isinstance(value, float):
        return f"{value:g}"
    return repr(str(value)) if isinstance(value, str) else str(value)


def assigned(values: Mapping[str, object], digits: int = 6) -> str:
    """Names with their values, numbers of so many digits.

    Examples
    --------
    >>> assigned({"age": 30.1234, "arm": "tx"}, 3)
    'age = 30.1, arm = tx'
    """
    texts = {name: f"{v:.{digits}g}" if isinstance(v, float) else str(v) for name, v in values.items()}
    return ", ".join(f"{name} = {text}" for name, text in texts.items())


def shorten(values: Iterable[Any], most: int = 8, *, last: str = "") -> str:
    """Comma-separated values, the rest counted; whole numbers without decimals. ``last``: a word before the last one.

    Examples
    --------
    >>> shorten(range(12), most=3), shorten("abc", last="or")
    ('0, 1, 2 and 9 more', 'a, b or c')
    """
    texts = list(map(display_level, values))
    if len(texts) > most:
        texts, last = [*texts[:most], f"{len(texts) - most} more"], last or "and"
    if not last or len(texts) < 2:
        return ", ".join(texts)
    return f"{', '.join(texts[:-1])} {last} {texts[-1]}"


def listed(names: Iterable[str]) -> str:
    """What there is to choose from, in order, or that there is nothing.

    Examples
    --------
    >>> listed({"x", "w"}), listed([])
    ('w, x', 'none')
    """
    return shorten(sorted(names), 20) or "none"


#: Letters of one attribute and of the whole; what is longer is told by its type.
LONGEST_PART, LONGEST = 60, 500


class Compact:
    """A dataclass (with ``repr=False``) whose ``repr`` has shapes for arrays and tables, and types for what is long."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = [field.name for field in fields(self) if field.repr]  # type: ignore[arg-type]
        text = f"{type(self).__name__}({', '.join(f'{name}={_short(getattr(self, name))}' for name in names)})"
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}...)"


def _short(value: Any) -> str:
    """A text of one attribute; what is long is told by its type."""
    kind = type(value).__name__
    if hasattr(value, "shape"):
        return f"{kind} {tuple(value.shape)}"
    text = repr(value) if isinstance(value, Compact) else brief(value, LONGEST_PART)
    if 0 < len(text) <= LONGEST_PART:
        return text
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list | set | frozenset | dict) else kind
