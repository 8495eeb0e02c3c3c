"""Errors and warnings: what was found, what it means, what to do."""

from __future__ import annotations

__all__ = [
    "BoundaryWarning",
    "ConvergenceWarning",
    "CovarianceWarning",
    "DataError",
    "DatasetError",
    "DroppedRowsWarning",
    "EffectError",
    "FamilyWarning",
    "FormulaError",
    "LevelWarning",
    "MlmedError",
    "MlmedWarning",
    "NotIdentifiedError",
]


class MlmedError(Exception):
    """Root of every error that mlmed raises on purpose."""


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
