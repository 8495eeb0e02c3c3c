"""What a reader should know of a fit or a number: values with a code, made into text only where they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Literal, ParamSpec, Protocol, TypeVar

from mlmed.errors import (
    BoundaryWarning,
    CategoryWarning,
    ConvergenceWarning,
    CovarianceWarning,
    DroppedRowsWarning,
    FamilyWarning,
    IdWarning,
    LevelWarning,
    MissingMarkWarning,
    MlmedWarning,
    warn,
)

# fmt: off
Code = Literal[
    "rows-left-out", "slope-between", "intercept-empty", "intercept-unused", "treatment-between", "mediator-between",
    "two-values", "slopes-apart", "not-certified", "exact-fit", "boundary", "no-order", "missing-mark", "doubtful-ids",
]
# fmt: on
#: The warning that a note of a fit becomes.
WARNINGS: dict[Code, type[MlmedWarning]] = {
    "rows-left-out": DroppedRowsWarning,
    "slope-between": LevelWarning,
    "intercept-empty": LevelWarning,
    "intercept-unused": LevelWarning,
    "treatment-between": LevelWarning,
    "mediator-between": LevelWarning,
    "two-values": FamilyWarning,
    "slopes-apart": CovarianceWarning,
    "not-certified": ConvergenceWarning,
    "exact-fit": ConvergenceWarning,
    "boundary": BoundaryWarning,
    "no-order": CategoryWarning,
    "missing-mark": MissingMarkWarning,
    "doubtful-ids": IdWarning,
}
#: All notes of such a code are said in one warning.
TOGETHER: tuple[Code, ...] = ("rows-left-out", "missing-mark", "doubtful-ids")


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to know of a fit.

    Attributes
    ----------
    code : Code
        What it is; this is compared, never the text.
    text : str
        What is shown.

    Examples
    --------
    >>> Note("boundary", "the covariance has rank 1 of 2").about("equation m")
    Note(code='boundary', text='equation m: the covariance has rank 1 of 2')
    """

    code: Code
    text: str

    def about(self, what: str) -> Note:
        """The same note of a part of a larger fit."""
        return replace(self, text=f"{what}: {self.text}")


def joined(*texts: str) -> str:
    """Several remarks as one text, each once, the empty ones left out.

    Examples
    --------
    >>> joined("t with 8 df", "", "unstable", "t with 8 df")
    't with 8 df; unstable'
    """
    return "; ".join(dict.fromkeys(filter(None, texts)))


def warn_of(notes: Iterable[Note], *, stacklevel: int) -> None:
    """Warn the user of the notes of a fit, each text once; ``stacklevel`` as of ``warnings.warn``."""
    said: dict[tuple[Code, str], list[str]] = {}
    for note in dict.fromkeys(notes):
        said.setdefault((note.code, "" if note.code in TOGETHER else note.text), []).append(note.text)
    for (code, _), texts in said.items():
        warn("; ".join(texts), WARNINGS[code], stacklevel=stacklevel + 1)


class Noted(Protocol):
    """What has notes."""

    @property
    def notes(self) -> tuple[Note, ...]:
        """What to know of it."""


P = ParamSpec("P")
R = TypeVar("R", bound=Noted)


def warns(fit: Callable[P, R]) -> Callable[P, R]:
    """Warn of the notes of the fit that a function returns to its user; ``inspect.unwrap`` has the silent function."""

    @wraps(fit)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        found = fit(*args, **kwargs)
        warn_of(found.notes, stacklevel=2)
        return found

    return told
