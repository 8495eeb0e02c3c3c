"""Errors and warnings: what was found, what it means, what to do."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

__all__ = [
    "BoundaryWarning",
    "CategoryWarning",
    "ConvergenceWarning",
    "CovarianceWarning",
    "DataError",
    "DatasetError",
    "DroppedRowsWarning",
    "EffectError",
    "FamilyWarning",
    "FormulaError",
    "IdWarning",
    "LabelWarning",
    "LevelWarning",
    "MissingMarkWarning",
    "MlmedError",
    "MlmedWarning",
    "NotIdentifiedError",
    "abridged",
    "filtering",
    "warn",
]

#: Held while the process's warning filters are changed: they are those of all threads.
_FILTERS = threading.RLock()


#: Letters of a message; what holds a formula, a name or a value of the user's may be of any length.
LONGEST = 4_000


def abridged(text: str) -> str:
    """A message without its middle where nobody would read all of it."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


class MlmedError(Exception):
    """Root of every error that mlmed raises on purpose; of a message that nobody would read the middle is left out.

    ``code`` says what went wrong where many fits are counted by what they failed for; by default the class.
    """

    def __init__(self, message: object = "", *, code: str = "") -> None:
        self.code = code or type(self).__name__
        super().__init__(abridged(str(message)))


class FormulaError(MlmedError, ValueError):
    """What was asked cannot be read, or contradicts itself."""


class DataError(MlmedError, ValueError):
    """The table does not hold what the equations need."""


class DatasetError(MlmedError, LookupError):
    """A named example data set cannot be found, fetched or trusted."""


class NotIdentifiedError(MlmedError, ValueError):
    """The data cannot tell some parameters of the model apart."""


class EffectError(MlmedError, ValueError):
    """A quantity was asked for that the fitted model does not define."""


class MlmedWarning(UserWarning):
    """Root of every warning of mlmed."""


class DroppedRowsWarning(MlmedWarning):
    """Rows were left out of an equation (missing values, missing cluster id)."""


class CategoryWarning(MlmedWarning):
    """Categories have no order where the rows are, so that the reference level is the first of the alphabet."""


class IdWarning(MlmedWarning):
    """Cluster ids look alike, or are used again in every upper group: rows may be in the wrong cluster."""


class LabelWarning(MlmedWarning):
    """Value labels of a file became the levels of factors, or could not."""


class MissingMarkWarning(MlmedWarning):
    """A mark of missing values, such as ".", is a level of a factor."""


class BoundaryWarning(MlmedWarning):
    """The optimum lies on the boundary: the random-effects covariance is singular."""


class CovarianceWarning(MlmedWarning):
    """The random slopes of two paths are kept from covarying by the way the formulas were written."""


class FamilyWarning(MlmedWarning):
    """A response with two values is fitted as if it were normal."""


class LevelWarning(MlmedWarning):
    """A variable that does not vary within clusters has a random slope, or the part of one of the rows."""


class ConvergenceWarning(MlmedWarning):
    """The optimum could not be certified."""


def warn(message: str, category: type[MlmedWarning], *, stacklevel: int) -> None:
    """Warn the user; ``stacklevel`` as of ``warnings.warn``."""
    warnings.warn(message, category, stacklevel=stacklevel + 1)


@contextmanager
def filtering(*, ignore: type[Warning] | None = None, error: Sequence[type[Warning]] = ()) -> Iterator[None]:
    """Filters for the warnings of other packages, inside one block at a time.

    The filters are those of the process, so that blocks of two threads must not overlap; they should be short.
    """
    with _FILTERS, warnings.catch_warnings():
        if ignore is not None:
            warnings.simplefilter("ignore", ignore)
        for category in error:
            warnings.simplefilter("error", category)
        yield
