"""Stored answers against those of today: numbers by tolerance, texts exactly, layout apart; renamed before."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path
from typing import Any

from validation.lock.flatten import SEPARATOR, Number
from validation.lock.store import Stored

__all__ = ["Compared", "Difference", "Renames", "Tolerances", "compare"]

HERE = Path(__file__).parent
#: Relative tolerance where no rule says otherwise.
EXACT = 1e-12
#: A number may move by this many times what it moved between kernels, but never by more than the limit.
MARGIN, LIMIT = 10.0, 1e-9
#: Numbers in texts that tell how the search went, or are the rounding error of something else.
NOISE = re.compile(
    r"(?<=gradient )[\d.e+-]+|(?<=Newton decrement )[\d.e+-]+|(?<=smallest curvature )[\d.e+-]+|\d+(?= evaluations)"
    r"|\b\d(?:\.\d+)?e-(?:0[89]|[1-9]\d+)\b"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that does not agree.

    Attributes
    ----------
    path : str
        Under today's names.
    what : str
        What is different, for a reader.
    by : float
        Difference in units of its tolerance; infinite where one side is missing.
    """

    path: str
    what: str
    by: float = math.inf


@dataclass(frozen=True, slots=True)
class Compared:
    """What differs.

    Attributes
    ----------
    numbers, texts : tuple of Difference
        Differences; the worst first.
    layout : tuple of Difference
        Texts that differ in blanks and rules only.
    new : tuple of str
        Numbers that were not stored.
    gone : int
        Paths that are gone on purpose.
    n_numbers, n_texts : int
        How many were compared.
    same, loose : int
        Numbers that are the same to the last bit; those that moved by more than 1e-12, but not by more than allowed.
    """

    numbers: tuple[Difference, ...]
    texts: tuple[Difference, ...]
    layout: tuple[Difference, ...]
    new: tuple[str, ...]
    gone: int
    n_numbers: int
    n_texts: int
    same: int
    loose: int


class Renames:
    """Old names to new ones; see ``renames.toml``."""

    def __init__(self, rules: Mapping[str, Any]) -> None:
        self.columns: dict[str, str] = dict(rules.get("columns", {}))
        self.labels: dict[str, str] = dict(rules.get("labels", {}))
        self.words: dict[str, str] = dict(rules.get("words", {}))
        self.gone, self.reworded = (
            re.compile("|".join(translate(one) for one in rules.get(kind, {})) or r"(?!)")
            for kind in ("gone", "reworded")
        )
        self.added = frozenset(rules.get("added", {}))
        patterns = rules.get("patterns", [])
        wrong = [rule["in"] for rule in patterns if rule["in"] not in ("columns", "labels", "texts")]
        if wrong:
            raise ValueError(f"a pattern is in columns, labels or texts; found {wrong[0]!r}")
        self.patterns = {
            where: [(re.compile(rule["find"]), rule["replace"]) for rule in patterns if rule["in"] == where]
            for where in ("columns", "labels", "texts")
        }
        self.places = [
            (re.compile(translate(one["path"])), one["find"], one["replace"]) for one in rules.get("places", [])
        ]
        self._whole = _any_of(self.labels)

    @staticmethod
    def load(path: Path = HERE / "renames.toml") -> Renames:
        """Of a file."""
        return Renames(tomllib.loads(path.read_text(encoding="utf-8")))

    def path(self, old: str) -> str:
        """A path under new names."""
        case, *parts = old.split(SEPARATOR)
        new = SEPARATOR.join([case, *map(self._part, parts)])
        return self.placed(new, new)

    def placed(self, path: str, text: str) -> str:
        """A path or a text with what is called otherwise in its place, under the new path."""
        for where, find, replace in self.places:
            text = text.replace(find, replace) if where.match(path) else text
        return text

    def _part(self, part: str) -> str:
        if part.startswith("[") and part.endswith("]"):
            return f"[{' | '.join(self.label(one) for one in part[1:-1].split(' | '))}]"
        dot, name = (".", part[1:]) if part.startswith(".") else ("", part)
        return dot + self._changed(name, self.columns, "columns")

    def is_added(self, path: str) -> bool:
        """Whether it is in a column that the store does not have."""
        return any(part.removeprefix(".") in self.added for part in path.split(SEPARATOR))

    def label(self, old: str) -> str:
        """A term, parameter or effect."""
        return self._changed(old, self.labels, "labels")

    def _changed(self, old: str, known: Mapping[str, str], where: str) -> str:
        new = known.get(old, old)
        for find, replace in self.patterns[where]:
            new = find.sub(replace, new)
        return new

    def text(self, old: str, *, names: str = "") -> str:
        """A text; ``names`` says that every line is a label or every word a column."""
        if names == "labels":
            return "\n".join(" | ".join(map(self.label, line.split(" | "))) for line in old.split("\n"))
        if names == "columns":
            return " ".join(self._changed(one, self.columns, "columns") for one in old.split(" "))
        new = self._whole.sub(lambda found: self.labels[found.group()], old) if self.labels else old
        for word, other in self.words.items():
            new = new.replace(word, other)
        for find, replace in self.patterns["texts"]:
            new = find.sub(replace, new)
        return new


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Any of the names as a whole: the longest first, and no part of a longer name."""
    known = "|".join(re.escape(one) for one in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![\w:.~])(?:{known})(?![\w:.~])")


class Tolerances:
    """Relative tolerance by path; see ``tolerances.toml``."""

    def __init__(self, rules: Iterable[Mapping[str, Any]]) -> None:
        self.rules = [(re.compile(translate(rule["path"])), rule) for rule in rules]

    @staticmethod
    def load(path: Path = HERE / "tolerances.toml") -> Tolerances:
        """Of a file."""
        return Tolerances(tomllib.loads(path.read_text(encoding="utf-8")).get("rules", []))

    def of(self, path: str) -> tuple[float, float]:
        """Relative and absolute tolerance."""
        found = next((rule for pattern, rule in reversed(self.rules) if pattern.match(path)), {})
        return found.get("relative", EXACT), found.get("absolute", 0.0)


def compare(stored: Stored, today: Stored, renames: Renames, tolerances: Tolerances) -> Compared:
    """Every path of the store, and what is new."""
    names = {renames.path(old): old for old in (*stored.numbers, *stored.texts)}
    if len(names) < len(stored.numbers) + len(stored.texts):
        raise ValueError("renames.toml makes two paths one; let its rules be narrower")
    numbers, texts, layout, gone, shares = [], [], [], 0, []
    for path, old in names.items():
        there = path in today.numbers or path in today.texts
        if not there and (renames.gone.match(old) or renames.gone.match(path)):
            gone += 1
        elif old in stored.numbers:
            noise = min(LIMIT, MARGIN * stored.noise.get(old, 0.0))
            found = _number(path, stored.numbers[old], today.numbers.get(path), noise, tolerances)
            numbers += found
            shares.append(math.inf if found else _share(stored.numbers[old], today.numbers[path]))
        else:
            was, now = _renamed(path, stored.texts[old], renames), today.texts.get(path)
            if renames.reworded.match(path) or (now is None and not was):
                continue
            if path.endswith("columns") and now is not None:
                now = " ".join(one for one in now.split(" ") if one in was.split(" ") or one not in renames.added)
            found, spaced = _text(path, was, now)
            texts += found
            layout += spaced
    more = [path for path in (*today.texts, *today.numbers) if path not in names and not renames.is_added(path)]
    texts += [Difference(path, f"new: {_short(today.texts[path])}") for path in more if path in today.texts]
    new = tuple(path for path in more if path in today.numbers)
    worst = tuple(sorted(numbers, key=lambda one: -one.by))
    same, loose = sum(share == 0.0 for share in shares), sum(EXACT < share < math.inf for share in shares)
    return Compared(worst, tuple(texts), tuple(layout), new, gone, len(stored.numbers), len(stored.texts), same, loose)


def _share(old: Number, new: Number) -> float:
    """How far two numbers that agree are apart, as a share of their size."""
    if old.value == new.value or math.isnan(old.value):
        return 0.0
    return abs(old.value - new.value) / old.size if old.size > 0.0 else 1.0


def _renamed(path: str, old: str, renames: Renames) -> str:
    last = path.rpartition(SEPARATOR)[2]
    names = {"rows": "labels", "names": "labels", "columns": "columns"}.get(last, "")
    return renames.placed(path, renames.text(old, names=names))


def _number(path: str, old: Number, new: Number | None, noise: float, tolerances: Tolerances) -> list[Difference]:
    if new is None:
        return [Difference(path, f"missing, was {old.value!r}")]
    if old.value == new.value or (math.isnan(old.value) and math.isnan(new.value)):
        return []
    relative, absolute = tolerances.of(path)
    bound = max(relative, noise) * max(old.size, abs(new.value) if math.isfinite(new.value) else 0.0) + absolute
    apart = abs(old.value - new.value)
    if apart <= bound:
        return []
    by = apart / bound if bound > 0.0 and math.isfinite(apart) else math.inf
    return [Difference(path, f"{old.value!r} -> {new.value!r} (by {apart:.2g}, allowed {bound:.2g})", by)]


def _text(path: str, old: str, new: str | None) -> tuple[list[Difference], list[Difference]]:
    if new is None:
        return [Difference(path, f"missing, was: {_short(old)}")], []
    if old == new or NOISE.sub("#", old) == NOISE.sub("#", new):
        return [], []
    if _plain(old) == _plain(new):
        return [], [Difference(path, "blanks and rules")]
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "stored", "today", n=0, lineterm="")
    return [Difference(path, "\n".join(line for line in lines if line[:2] not in ("--", "++", "@@")))], []


def _plain(text: str) -> str:
    """Without what only arranges the words, and without the numbers of the search."""
    return NOISE.sub("#", re.sub(r"\s+", " ", re.sub(r"[-=+|]{2,}", "", text)).strip())


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]} ..."
