"""What an attack is made of: hostile values, calls of everything public, and what came of a try."""

from __future__ import annotations

import inspect
import math
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from mlmed.errors import MlmedError, MlmedWarning

mpl.use("Agg")

#: Functions of the user's, whose own errors reach the user as they are; and the usual 1,000 replicates.
OWN = frozenset({(name, label) for name in ("task", "expression") for label in ("function", "lambda", "class")}) | {
    ("n", "None")
}
#: Seconds above which a try hangs.
SLOW = 20


class Odd:
    """An object that no option means; comparing it with anything is an error."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]


#: What stands for a word, a number or a mapping, by name; functions make those that are used up or changed.
VALUES: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "0": lambda: 0,
    "-1": lambda: -1,
    "2": lambda: 2,
    "2.5": lambda: 2.5,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "-inf": lambda: -math.inf,
    "1e308": lambda: 1e308,
    "10**400": lambda: 10**400,
    "10**5000": lambda: 10**5000,
    "-10**400": lambda: -(10**400),
    "complex": lambda: 1 + 2j,
    "Fraction": lambda: Fraction(1, 3),
    "Decimal": lambda: Decimal("0.5"),
    "sNaN": lambda: Decimal("sNaN"),
    "NA": lambda: pd.NA,
    "NaT": lambda: pd.NaT,
    "empty text": lambda: "",
    "blank": lambda: " ",
    "word": lambda: "w=1",
    "number as text": lambda: "0.95",
    "surrogate": lambda: "\ud800",
    "NUL": lambda: "a\0b",
    "long text": lambda: "x" * 100_000,
    "many sums": lambda: "+".join(["x"] * 200),
    "brackets": lambda: "(" * 3000,
    "bytes": lambda: b"x",
    "array": lambda: np.array([1, 2]),
    "array of words": lambda: np.array(["delta", "block"]),
    "array 0-d": lambda: np.array(1.0),
    "array of one": lambda: np.array([1]),
    "empty array": lambda: np.array([]),
    "numpy text": lambda: np.str_("delta"),
    "numpy bool": lambda: np.bool_(True),
    "numpy int": lambda: np.int64(2),
    "numpy float": lambda: np.float32(0.9),
    "list": lambda: [],
    "list of words": lambda: ["a", "b"],
    "list in list": lambda: [[1, 2], [3]],
    "tuple": lambda: (1, 2),
    "list of itself": lambda: _own_member(),
    "dict": lambda: {},
    "dict of words": lambda: {"w": "z"},
    "dict of x": lambda: {"x": np.array([1.0, 2.0])},
    "dict of big": lambda: {"w": 10**400},
    "dict of sNaN": lambda: {"w": Decimal("sNaN")},
    "dict of None": lambda: {None: None},
    "dict of lists": lambda: {"w": [1], 3: {}},
    "set": lambda: {1, "a"},
    "Series": lambda: pd.Series([1.0, 2.0]),
    "DataFrame": lambda: pd.DataFrame({"a": [1, 2]}),
    "Index": lambda: pd.Index(["a", "b"]),
    "Timestamp": lambda: pd.Timestamp("2020-01-01"),
    "date": lambda: date(2020, 1, 1),
    "timedelta": lambda: timedelta(1),
    "range": lambda: range(3),
    "endless": lambda: _endless(),
    "generator": lambda: (k for k in "ab"),
    "function": lambda: len,
    "lambda": lambda: lambda *_: 1 / 0,
    "class": lambda: dict,
    "object": lambda: object(),
    "odd": Odd,
    "Path": lambda: Path("nowhere"),
    "module": lambda: np,
    "Ellipsis": lambda: ...,
}  # fmt: skip


def _endless() -> Iterator[int]:
    """No end; whoever reads it to the end is told as slow."""
    yield from range(1_000_000)
    raise TooSlow("an iterator without an end was read")


def _own_member() -> list[Any]:
    made: list[Any] = [1]
    made.append(made)
    return made


@dataclass(frozen=True)
class Subject:
    """Something that is called.

    Attributes
    ----------
    name : str
        Where it is found.
    call : callable
        It.
    given : mapping
        Arguments with which the call is answered, and short.
    names : tuple of str
        Arguments to be replaced.
    """

    name: str
    call: Callable[..., Any]
    given: Mapping[str, Any]
    names: tuple[str, ...]


@dataclass
class Tally:
    """Tries by what came of them, and the texts of those that should not be."""

    counts: dict[str, int] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def add(self, name: str, kind: str, said: str) -> None:
        """Count one try."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind in ("bare", "slow", "warned"):
            self.bad.append(f"{kind}: {name}: {said}")


class TooSlow(BaseException):
    """A try that did not end; no library catches it."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise ``TooSlow`` after so many seconds of this thread."""

    def give_up(*_: Any) -> None:
        raise TooSlow(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def tried(call: Callable[[], Any], *, seconds: int = SLOW) -> tuple[str, str]:
    """What came of a call: fits, refused, signature, bare, slow or warned; and what was said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with time_limit(seconds):
                call()
        except MlmedError as error:
            return _said("refused", str(error))
        except TooSlow as error:
            return "slow", str(error)
        except Exception as error:
            places = _places(error)
            signature = isinstance(error, TypeError) and not places
            text = f"{type(error).__name__}: {str(error)[:150]!r} at {' < '.join(places[::-1][:3])}"
            return ("signature" if signature else "bare"), text
    for one in caught:
        if not issubclass(one.category, MlmedWarning | DeprecationWarning | PendingDeprecationWarning):
            where = f"{Path(one.filename).name}:{one.lineno}"
            return "warned", f"{one.category.__name__}: {str(one.message)[:150]} at {where}"
    return "fits", ""


#: Letters of a message that a person reads.
LONGEST_MESSAGE = 4_100


def _said(kind: str, text: str) -> tuple[str, str]:
    if len(text) > LONGEST_MESSAGE:
        return "bare", f"a message of {len(text):,} letters: {text[:80]!r}"
    return kind, text


def _places(error: BaseException) -> list[str]:
    """Lines that the error came through, but for the one here."""
    out, at = [], error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        if Path(code.co_filename).parent.name != "hostile":
            out.append(f"{Path(code.co_filename).name}:{at.tb_lineno}")
        at = at.tb_next
    return out


def attack(subject: Subject, values: Mapping[str, Callable[[], Any]], tally: Tally, *, seconds: int = SLOW) -> None:
    """Put every value in the place of every argument, one at a time."""
    for argument in subject.names:
        for label, make in values.items():
            if (argument, label) in OWN:
                continue
            given = {**subject.given, argument: make()}
            kind, said = tried(lambda given=given: subject.call(**given), seconds=seconds)
            plt.close("all")
            tally.add(f"{subject.name}({argument}={label})", kind, said)


def arguments(call: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the arguments that may be given by name."""
    found = inspect.signature(call).parameters.values()
    return tuple(one.name for one in found if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY))
