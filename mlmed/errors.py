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
    "UnavailableError",
    "abridged",
    "filtering",
    "warn",
]

#: Held while warning filters are changed, which all threads share.
_FILTERS = threading.RLock()


#: Most letters of a message, which may quote formulas, names or values of any length.
LONGEST = 4_000


def abridged(text: str) -> str:
    """Cut the middle out of an overlong message."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} ... {text[-half:]}"


class MlmedError(Exception):
    """Root of every error that mlmed raises on purpose; overlong messages lose their middle.

    ``code`` names the failure, by which failed fits are counted; by default the class.
    """

    def __init__(self, message: object = "", *, code: str = "") -> None:
        self.code = code or type(self).__name__
        super().__init__(abridged(str(message)))


class FormulaError(MlmedError, ValueError):
    """A formula or another request cannot be read, or contradicts itself."""


class DataError(MlmedError, ValueError):
    """The table does not hold what the equations need."""


class DatasetError(MlmedError, LookupError):
    """A named example data set cannot be found, fetched or trusted."""


class NotIdentifiedError(MlmedError, ValueError):
    """The data cannot tell some parameters of the model apart."""


class EffectError(MlmedError, ValueError):
    """A quantity was asked for that the fitted model does not define."""


class UnavailableError(EffectError, AttributeError):
    """A fit of this kind does not have the attribute; also an AttributeError, so that ``hasattr`` is false."""


class MlmedWarning(UserWarning):
    """Root of every warning of mlmed."""


class DroppedRowsWarning(MlmedWarning):
    """Rows were left out of an equation (missing values, missing cluster id)."""


class CategoryWarning(MlmedWarning):
    """Categories have no order in the table, so the reference level is the first of the alphabet."""


class IdWarning(MlmedWarning):
    """Cluster ids look alike, or are used again in every upper group: rows may be in the wrong cluster."""


class LabelWarning(MlmedWarning):
    """Value labels of a file became the levels of factors, or could not."""


class MissingMarkWarning(MlmedWarning):
    """A mark of missing values, such as ".", is a level of a factor."""


class BoundaryWarning(MlmedWarning):
    """The optimum lies on the boundary: the random-effects covariance is singular."""


class CovarianceWarning(MlmedWarning):
    """The formulas as written do not let the random slopes of two paths covary."""


class FamilyWarning(MlmedWarning):
    """A response with two values is fitted as if it were normal."""


class LevelWarning(MlmedWarning):
    """A variable that is constant within clusters has a random slope, or the role of a row-level variable."""


class ConvergenceWarning(MlmedWarning):
    """The optimum could not be certified."""


def warn(message: str, category: type[MlmedWarning], *, stacklevel: int) -> None:
    """Warn the user; ``stacklevel`` as of ``warnings.warn``."""
    warnings.warn(message, category, stacklevel=stacklevel + 1)


@contextmanager
def filtering(*, ignore: type[Warning] | None = None, error: Sequence[type[Warning]] = ()) -> Iterator[None]:
    """Filter warnings of other packages inside a block.

    Filters belong to the process, so blocks of two threads wait for each other; keep them short.
    """
    with _FILTERS, warnings.catch_warnings():
        if ignore is not None:
            warnings.simplefilter("ignore", ignore)
        for category in error:
            warnings.simplefilter("error", category)
        yield
