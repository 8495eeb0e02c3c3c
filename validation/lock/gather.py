"""From cases to ``{path: value}``: every answer, the warnings raised on the way, the errors of what was refused."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from validation.lock.adapter import Asked, Fit, Refused, ask
from validation.lock.cases import CASES, Case
from validation.lock.commands import COMMANDS
from validation.lock.flatten import SEPARATOR, Leaf, Number, flatten
from validation.lock.others import OTHERS
from validation.lock.refusals import REFUSALS
from validation.lock.warned import WARNED

__all__ = ["Gathered", "gather"]


@dataclass(slots=True)
class Gathered:
    """Everything that was asked.

    Attributes
    ----------
    leaves : dict
        Number or text by path.
    crashes : dict
        What failed in a way that nobody meant, by path.
    seconds : dict
        Processor time by case.
    """

    leaves: dict[str, Leaf] = field(default_factory=dict)
    crashes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Number]:
        """Only the numbers."""
        return {path: leaf for path, leaf in self.leaves.items() if isinstance(leaf, Number)}

    @property
    def texts(self) -> dict[str, str]:
        """Only the texts."""
        return {path: leaf for path, leaf in self.leaves.items() if isinstance(leaf, str)}

    def add(self, path: str, call: Callable[[], Any], *, firsts: bool = True) -> Any:
        """Keep an answer with its warnings, or its refusal; the answer, None without one."""
        value, found = None, []
        with _recorded() as heard:
            try:
                value = call()
                found = list(flatten(value, path, firsts=firsts))
            except Refused as error:
                found = [(f"{path}{SEPARATOR}refused", f"{type(error).__name__}: {error}")]
            except Exception as error:
                self.crashes[path] = f"{type(error).__name__}: {error}"
        said = [f"{one.category.__name__}: {one.message}" for one in heard]
        if said:
            found.append((f"{path}{SEPARATOR}warnings", "\n".join(said)))
        twice = [name for name, _ in found if name in self.leaves]
        if twice:
            raise ValueError(f"{twice[0]} is there twice; give one of the questions a label")
        self.leaves.update(found)
        return value


@contextmanager
def _recorded() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        yield heard


def gather(only: str = "") -> Gathered:
    """Ask everything, or only the cases with a part of a name."""
    out, fits = Gathered(), {}
    for name, case in CASES.items():
        if only in name:
            with _timed(out, name):
                _answers(out, name, case, fits)
    for kind, calls in (("other", OTHERS), ("refused", REFUSALS), ("warned", WARNED), ("command", COMMANDS)):
        for name, call in calls.items():
            path = f"{kind}: {name}"
            if only in path:
                with _timed(out, path):
                    out.add(path, call)
    return out


@contextmanager
def _timed(out: Gathered, name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    out.seconds[name] = time.process_time() - start


def _answers(out: Gathered, name: str, case: Case, fits: dict[str, Fit]) -> None:
    made = out.add(f"{name}{SEPARATOR}fit", lambda: _Silent(case.make()))
    if made is None:
        return
    for asked in _once(case.asked):
        path = f"{name}{SEPARATOR}{asked.name}"
        out.add(path, lambda asked=asked: ask(made.fit, _made(asked)), firsts=not (case.private and asked.rows))


@dataclass(frozen=True, slots=True)
class _Silent:
    """A fit, which is made but not kept."""

    fit: Fit

    def __str__(self) -> str:
        return "made"


def _made(asked: Asked) -> Asked:
    """With what functions among its arguments make."""
    args = tuple(one() if callable(one) else one for one in asked.args)
    return Asked(asked.what, args, asked.options, asked.label, asked.rows)


def _once(asked: Iterable[Asked]) -> Iterator[Asked]:
    """Questions that two lists of a case have in common, once."""
    seen = set()
    for one in asked:
        if one.name not in seen:
            seen.add(one.name)
            yield one
