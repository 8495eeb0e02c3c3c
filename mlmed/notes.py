"""Notes on a fit or a number: a code to compare, a text to show; fits return them, user functions warn of them."""

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
#: The warning class of each code.
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
#: Codes whose notes are joined in one warning.
TOGETHER: tuple[Code, ...] = ("rows-left-out", "missing-mark", "doubtful-ids")


@dataclass(frozen=True, slots=True)
class Note:
    """A note on a fit.

    Attributes
    ----------
    code : Code
        Its kind; programs compare this, never the text.
    text : str
        The text to show.

    Examples
    --------
    >>> Note("boundary", "the covariance has rank 1 of 2").about("equation m")
    Note(code='boundary', text='equation m: the covariance has rank 1 of 2')
    """

    code: Code
    text: str

    def about(self, what: str) -> Note:
        """The same note, prefixed by the part of a larger fit it is about."""
        return replace(self, text=f"{what}: {self.text}")


def joined(*texts: str) -> str:
    """Join remarks to one text, each once, without empty ones.

    Examples
    --------
    >>> joined("t with 8 df", "", "unstable", "t with 8 df")
    't with 8 df; unstable'
    """
    return "; ".join(dict.fromkeys(filter(None, texts)))


def warn_of(notes: Iterable[Note], *, stacklevel: int) -> None:
    """Warn the user of the notes of a fit, each text once; ``stacklevel`` as in ``warnings.warn``."""
    said: dict[tuple[Code, str], list[str]] = {}
    for note in dict.fromkeys(notes):
        said.setdefault((note.code, "" if note.code in TOGETHER else note.text), []).append(note.text)
    for (code, _), texts in said.items():
        warn("; ".join(texts), WARNINGS[code], stacklevel=stacklevel + 1)


class Noted(Protocol):
    """Anything with notes."""

    @property
    def notes(self) -> tuple[Note, ...]:
        """Its notes."""


P = ParamSpec("P")
R = TypeVar("R", bound=Noted)


def warns(fit: Callable[P, R]) -> Callable[P, R]:
    """Decorate a user function to warn of the notes of the fit it returns; ``inspect.unwrap`` gives the silent one."""

    @wraps(fit)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        found = fit(*args, **kwargs)
        warn_of(found.notes, stacklevel=2)
        return found

    return told
