"""Profile likelihood of a fit: the curve, the interval, the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from mlmed.effects.delta import COLUMNS, Quantity, said_of, std_error
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.names import qualified
from mlmed.fit.starts import loglik_without
from mlmed.intervals.profile_search import End, Profiler, QuantityAt, constrained, find_end, profiler_for
from mlmed.intervals.sdcor import places
from mlmed.lmm.vcov import Vcov
from mlmed.notes import joined
from mlmed.report.plots.diagnostics import plot_profile

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from mlmed.intervals.profile_search import STIFFNESS
from mlmed.options import MOST_POINTS, check_count, check_level

#: Why an interval contains every correlation.
ANY = (
    "no correlation can be excluded: without {name} the log-likelihood drops by {drop:.3g} only (not {target:.3g}), "
    "and where its variance goes to 0 the correlation can have any value"
)


@dataclass(frozen=True)
class ProfileResults:
    """The profile of one quantity.

    Attributes
    ----------
    term : str
        Its name.
    estimate : float
        Its value at the optimum.
    level : float
        Coverage of the interval, a proportion.
    ends : (End, End)
        Lower and upper end, each with the drop of -2l and all parameters there.
    curve : DataFrame
        value, drop (of the log-likelihood), zeta (signed root of twice the drop); a straight line of zeta against
        value is what normal theory assumes.
    place : str
        Values of moderators at which the quantity is taken; empty if it does not depend on any.
    """

    term: str
    estimate: float
    level: float
    ends: tuple[End, End]
    curve: pd.DataFrame
    place: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return self.ends[0].value, self.ends[1].value

    @property
    def note(self) -> str:
        """Note on the interval; usually empty."""
        return joined(*(end.note for end in self.ends))

    def root(self, term: str) -> ProfileResults:
        """Transform the profile of a variance to that of its standard deviation."""
        low, high = (replace(end, value=float(np.sqrt(end.value))) for end in self.ends)
        curve = self.curve.assign(value=np.sqrt(self.curve["value"]))
        return replace(self, term=term, estimate=float(np.sqrt(self.estimate)), ends=(low, high), curve=curve)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the curve with its interval (extra ``plots``); ``ax`` is where to draw."""
        shown: dict[str, Any] = {
            "term": self.term,
            "estimate": self.estimate,
            "ends": self.interval,
            "level": self.level,
        }
        return plot_profile(self.curve, **shown, note=self.place, ax=ax)

    def __repr__(self) -> str:
        low, high = self.interval
        tail = f"; {self.note}" if self.note else ""
        percent, ends = f"{100 * self.level:g}%", [f"{end:.6g}" for end in (low, high) if not np.isnan(end)]
        shown = {
            0: f"no {percent} interval",
            1: f"no {percent} interval: one end only, {ends[0] if ends else ''}",
            2: f"{percent} interval {' to '.join(ends)}",
        }[len(ends)]
        return f"ProfileResults({self.term} {self.estimate:.6g}, {shown}{tail})"


def profiler_of(fitted: LmmFit, quantity_at: QuantityAt) -> Profiler:
    """Make the profiler of a quantity of a fit."""
    return profiler_for(quantity_at, fitted.estimates, fitted.working, fitted.optimum, reml=fitted.reml)


def profile_quantity(fitted: LmmFit, quantity_at: QuantityAt, *, level: float, points: int) -> ProfileResults:
    """Interval and curve of one quantity."""
    check_points(points, level)
    profiler, level = profiler_of(fitted, quantity_at), float(level)
    ends = (find_end(profiler, -1, level=level), find_end(profiler, 1, level=level))
    ends = _any_correlation(fitted, profiler.term, ends, level=level)
    curve, place = curve_points(profiler, ends, points=points), quantity_at(fitted.estimates).note
    return ProfileResults(profiler.term, profiler.estimate, level, ends, curve, place)


def _any_correlation(fitted: LmmFit, term: str, ends: tuple[End, End], *, level: float) -> tuple[End, End]:
    """Replace ends of a correlation that the search lost by -1 and 1, if a variance of 0 is not excluded.

    As the variance of one effect goes to 0, the correlation is arbitrary and the model becomes that without the effect,
    whose log-likelihood bounds the whole profile from below.
    """
    if not any(np.isnan(end.value) for end in ends):
        return ends
    part, *effects = places(fitted, "correlation").get(term, ("", 0, 0))
    blocks = [block for block in fitted.working.blocks if block.structure == "unstructured"]
    if part != "random" or not any(set(effects) <= set(block.index) for block in blocks):
        return ends
    names = qualified(fitted, "random")
    drops = {names[k]: _drop_without(fitted, k) for k in effects}
    least, target = min(drops, key=lambda name: drops[name]), float(ndtri(0.5 + level / 2.0)) ** 2
    if drops[least] >= target:
        return ends
    note = ANY.format(name=least, drop=0.5 * drops[least], target=0.5 * target)
    low, high = (
        End(edge, drops[least], np.empty(0), note) if np.isnan(end.value) else end
        for edge, end in zip((-1.0, 1.0), ends, strict=True)
    )
    return low, high


def _drop_without(fitted: LmmFit, effect: int) -> float:
    """Drop of -2l without one random effect; infinite if that model cannot be fitted."""
    try:
        return 2.0 * (fitted.estimates.loglik - loglik_without(fitted, {effect}))
    except EffectError:
        return np.inf


def profile_table(
    fitted: LmmFit, quantities: dict[str, tuple[Quantity, QuantityAt]], V: Vcov, *, level: float
) -> pd.DataFrame:
    """Profile intervals of several quantities; the statistic is the signed root of the LR test of 0.

    Parameters
    ----------
    fitted : LmmFit
        The fit.
    quantities : dict of term to (Quantity, function)
        Each at the optimum, and as a function of the estimates.
    V : Vcov
        For the standard errors.
    level : float
        Coverage, a proportion.
    """
    check_points(4, level)
    rows = []
    for term, (quantity, quantity_at) in quantities.items():
        if quantity.is_fixed:
            rows.append((term, quantity.estimate, np.nan, np.nan, np.inf, *[np.nan] * 3, quantity.note))
            continue
        profiler = profiler_of(fitted, quantity_at)
        low, high = (find_end(profiler, side, level=level) for side in (-1, 1))
        root, why = _root_at_zero(profiler)
        error = said_of(quantity, V, order="second")
        said = f"std_error: {error}" if error else ""
        note = joined(quantity.note, low.note, high.note, why, said)
        se = std_error(quantity, V)
        rows.append((term, quantity.estimate, se, root, np.inf, 2.0 * ndtr(-abs(root)), low.value, high.value, note))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _root_at_zero(profiler: Profiler) -> tuple[float, str]:
    """Signed root of the likelihood-ratio statistic of 0, or NaN and the reason."""
    try:
        at = constrained(profiler, 0.0)
    except EffectError as error:
        return np.nan, f"no test: {error}"
    return float(np.sign(profiler.estimate) * np.sqrt(max(at.drop, 0.0))), at.note


def curve_points(profiler: Profiler, ends: tuple[End, End], *, points: int) -> pd.DataFrame:
    """Points of the profile from slightly beyond one end to slightly beyond the other.

    Returns
    -------
    DataFrame
        value, drop (of the log-likelihood), zeta (signed root of twice the drop).
    """
    rows = [(profiler.estimate, 0.0, 0.0)]
    strength = 2.0 * STIFFNESS / profiler.unit**2
    for side, end in zip((-1, 1), ends, strict=True):
        if np.isnan(end.value):  # the search was lost there
            continue
        far = 1.12 * np.sqrt(max(end.drop, 1e-8))  # slightly beyond the end, in equal steps of zeta
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
    """Check the number of points and the level."""
    check_level(level)
    check_count(points, "points of the curve", name="points", least=4, most=MOST_POINTS)
