"""The stored answers: one compressed JSON, numbers apart from texts."""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from validation.lock.flatten import Number

__all__ = ["STORE", "Stored", "read", "write"]

STORE = Path(__file__).parent / "stored.json.xz"


@dataclass(frozen=True, slots=True)
class Stored:
    """Numbers and texts by path, and of what they are.

    Attributes
    ----------
    about : dict
        What this is, versions, the kernel of the linear algebra.
    numbers, texts : dict
        By path.
    noise : dict
        By how much of its size a number moved between kernels of the linear algebra, where that is not nothing.
    """

    about: dict[str, Any]
    numbers: dict[str, Number]
    texts: dict[str, str]
    noise: dict[str, float] = field(default_factory=dict)


def write(stored: Stored, path: Path = STORE) -> None:
    """A number is itself, or itself and its size where that is another one."""
    numbers = {name: _packed(one) for name, one in sorted(stored.numbers.items())}
    texts, noise = dict(sorted(stored.texts.items())), dict(sorted(stored.noise.items()))
    document = {"about": stored.about, "numbers": numbers, "texts": texts, "noise": noise}
    text = json.dumps(document, ensure_ascii=False, indent=0)
    path.write_bytes(lzma.compress(text.encode("utf-8"), preset=9))


def read(path: Path = STORE) -> Stored:
    """What was stored."""
    document = json.loads(lzma.decompress(path.read_bytes()).decode("utf-8"))
    numbers = {
        name: Number.of(one[0], one[1]) if isinstance(one, list) else Number.of(one)
        for name, one in document["numbers"].items()
    }
    return Stored(document["about"], numbers, document["texts"], document["noise"])


def _packed(one: Number) -> float | int | list[float]:
    value = int(one.value) if float(one.value).is_integer() and abs(one.value) < 2.0**53 else one.value
    return value if one.size <= abs(one.value) else [value, float(f"{one.size:.3g}")]
