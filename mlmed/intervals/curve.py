"""The curve of a profile, for pictures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlmed.intervals.profile_search import STIFFNESS, End, Profiler
from mlmed.options import MOST_POINTS, check_count, check_level

__all__ = ["check_points", "curve_points"]


def curve_points(profiler: Profiler, ends: tuple[End, End], *, points: int) -> pd.DataFrame:
    """Points of the profile from a little before one end to a little beyond the other.

    Returns
    -------
    DataFrame
        value, drop (of the log-likelihood), zeta (signed root of twice the drop).
    """
    rows = [(profiler.estimate, 0.0, 0.0)]
    strength = 2.0 * STIFFNESS / profiler.unit**2
    for side, end in zip((-1, 1), ends, strict=True):
        if np.isnan(end.value):  # the curve cannot be followed there
            continue
        far = 1.12 * np.sqrt(max(end.drop, 1e-8))  # a little beyond the end, in equal steps of zeta
        start, value, zeta, rate = profiler.optimum, profiler.estimate, 0.0, 1.0 / profiler.unit
        for goal in np.linspace(0.0, far, points // 2 + 1)[1:]:
            aim = value + side * (goal - zeta) / rate
            at, start = profiler.point(aim + side * 2.0 * goal * rate / strength, start)
            if at.note:
                break
            if abs(at.value - value) < 1e-12 * profiler.unit:  # an edge that a weak pull does not leave
                rate *= 0.5
                continue
            value, zeta = at.value, float(np.sqrt(max(at.drop, 0.0)))
            rate = side * at.slope / (2.0 * zeta) if zeta > 0.0 and side * at.slope > 0.0 else rate
            rows.append((value, 0.5 * at.drop, side * zeta))
        if np.isfinite(end.value):
            rows.append((end.value, 0.5 * end.drop, side * np.sqrt(max(end.drop, 0.0))))
    return pd.DataFrame(sorted(rows), columns=["value", "drop", "zeta"])


def check_points(points: int, level: float) -> None:
    """Refuse what makes no curve."""
    check_level(level)
    check_count(points, "points of the curve", name="points", least=4, most=MOST_POINTS)
