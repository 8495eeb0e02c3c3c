"""Values as text in messages and tables: long ones cut, arrays by their shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

#: Most letters of a value in a message.
LETTERS = 120
#: Most digits shown of a whole number (``sys.set_int_max_str_digits`` refuses more than 4,300).
DIGITS = 50


def shown(value: Any) -> str:
    """A value in a message: short ones as written, long ones cut, tables and arrays by their type.

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
    """A plain value or a flat container in at most ``most`` letters; empty if it is longer or nested.

    Long or nested values are never written out.

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
    """A text cut to at most ``most`` letters.

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
    """A value as typed in code: texts in quotation marks, numbers short.

    Examples
    --------
    >>> typed("b"), typed(2.0), typed(0.1 + 0.2)
    ("'b'", '2', '0.3')
    """
    if isinstance(value, float):
        return f"{value:g}"
    return repr(str(value)) if isinstance(value, str) else str(value)


def assigned(values: Mapping[str, object], digits: int = 6) -> str:
    """Names with their values, numbers with ``digits`` digits.

    Examples
    --------
    >>> assigned({"age": 30.1234, "arm": "tx"}, 3)
    'age = 30.1, arm = tx'
    """
    texts = {name: f"{v:.{digits}g}" if isinstance(v, float) else str(v) for name, v in values.items()}
    return ", ".join(f"{name} = {text}" for name, text in texts.items())


def shorten(values: Iterable[Any], most: int = 8, *, last: str = "") -> str:
    """At most ``most`` values with commas, the rest counted; ``last``: a word before the last value.

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
    """The sorted names with commas, or "none".

    Examples
    --------
    >>> listed({"x", "w"}), listed([])
    ('w, x', 'none')
    """
    return shorten(sorted(names), 20) or "none"


#: Most letters of one attribute and of the whole; longer ones are shown by their type.
LONGEST_PART, LONGEST = 60, 500


class Compact:
    """A dataclass (with ``repr=False``) whose ``repr`` shows arrays by shape and long values by type."""

    __slots__ = ()

    def __repr__(self) -> str:
        names = [field.name for field in fields(self) if field.repr]  # type: ignore[arg-type]
        text = f"{type(self).__name__}({', '.join(f'{name}={_short(getattr(self, name))}' for name in names)})"
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}...)"


def _short(value: Any) -> str:
    """One attribute as text; long values by type."""
    kind = type(value).__name__
    if hasattr(value, "shape"):
        return f"{kind} {tuple(value.shape)}"
    text = repr(value) if isinstance(value, Compact) else brief(value, LONGEST_PART)
    if 0 < len(text) <= LONGEST_PART:
        return text
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list | set | frozenset | dict) else kind
