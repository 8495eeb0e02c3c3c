"""Separate equations (Krull and MacKinnon): fits, effects, intervals, text."""

from mlmed.modes.piecewise.entry import PiecewiseResults, piecewise
from mlmed.options import PIECEWISE_INTERVALS

__all__ = ["PIECEWISE_INTERVALS", "PiecewiseResults", "piecewise"]
