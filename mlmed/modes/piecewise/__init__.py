"""Separate equations (Krull and MacKinnon): fits, effects, intervals, text."""

from mlmed.modes.piecewise.entry import PiecewiseResults, piecewise
from mlmed.modes.piecewise.intervals import PIECEWISE_INTERVALS

__all__ = ["PIECEWISE_INTERVALS", "PiecewiseResults", "piecewise"]
