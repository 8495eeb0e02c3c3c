"""Short texts of objects that hold data: shapes instead of numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["Compact"]

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
    """A text of one attribute; what is long is not written out first."""
    kind = type(value).__name__
    if hasattr(value, "shape"):
        return f"{kind} {tuple(value.shape)}"
    if isinstance(value, tuple | list | set | frozenset | dict):
        text = repr(value) if len(value) <= LONGEST_PART and not _nested(value) else ""
        return text if 0 < len(text) <= LONGEST_PART else f"{kind} of {len(value)}"
    text = repr(value) if isinstance(value, Compact | str | int | float | None) else kind
    return text if len(text) <= LONGEST_PART else kind


def _nested(values: Any) -> bool:
    """Whether a container holds more than plain values."""
    return not all(isinstance(value, str | int | float | None) for value in values)
