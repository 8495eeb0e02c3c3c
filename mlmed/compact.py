"""Short texts of objects that hold data: shapes instead of numbers."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from mlmed.options import brief

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
    """A text of one attribute; what is long is told by its type."""
    kind = type(value).__name__
    if hasattr(value, "shape"):
        return f"{kind} {tuple(value.shape)}"
    text = repr(value) if isinstance(value, Compact) else brief(value, LONGEST_PART)
    if 0 < len(text) <= LONGEST_PART:
        return text
    return f"{kind} of {len(value)}" if isinstance(value, tuple | list | set | frozenset | dict) else kind
