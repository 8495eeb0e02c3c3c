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
    "IdWarning",
    "LabelWarning",
    "LevelWarning",
    "MissingMarkWarning",
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
