"""One comparison of our number with another's, and helpers shared by all comparisons.

Fits of other software are checked in this order: our criterion at their parameters equals their log-likelihood; our
optimum is never worse than theirs; the estimates agree within the spread of the references. Published tables are
compared number by number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

import mlmed

HERE = Path(__file__).parent
#: Published numbers travel with the package; ``mlmed reproduce`` prints them.
PUBLISHED_AT = Path(mlmed.__file__).parent / "reproduce" / "published"

#: Stata stops up to 1e-6 short of the optimum and prints 7 digits.
PUBLISHED = 2e-6
#: Our criterion at the parameters another program reports, relative.
AT_THEIRS = 1e-8
#: Largest shortfall of our log-likelihood, absolute.
NEVER_WORSE = 1e-7
#: Estimates, relative; lme4 with rhoend 1e-10 is this precise in flat directions.
#: Covariances can be zero, so they are compared relative to sqrt(var_i var_j).
ESTIMATES = 1e-5
#: lme4's default optimizer, used on the page, also stops short: allowed beyond half a digit.
SHORT = 2e-6


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: ``difference`` must not exceed ``tolerance``."""

    table: str
    quantity: str
    ours: float
    theirs: float
    difference: float
    tolerance: float
    printed: str = ""

    @property
    def same_digits(self) -> bool:
        """Whether ours rounds to the printed number; True if none was printed."""
        decimals = len(self.printed.partition(".")[2])
        return not self.printed or abs(self.ours - self.theirs) <= 0.5 * 10.0**-decimals * (1.0 + 1e-9)

    @property
    def ok(self) -> bool:
        """Whether the check holds; False for NaN."""
        return bool(self.difference <= self.tolerance)


def load_json(kind: str, name: str) -> dict[str, Any]:
    folder = PUBLISHED_AT if kind == "published" else HERE / kind
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def absolute(table: str, quantity: str, ours: float, theirs: float | str, tolerance: float) -> Check:
    """Check an absolute difference; ``theirs`` is text if printed."""
    printed = theirs if isinstance(theirs, str) else ""
    return Check(table, quantity, ours, float(theirs), abs(ours - float(theirs)), tolerance, printed)


def relative(
    table: str, quantity: str, ours: float, theirs: float, tolerance: float, size: float | None = None
) -> Check:
    scale = abs(theirs) if size is None else size
    return Check(table, quantity, ours, theirs, abs(ours - theirs) / scale, tolerance)


def printed(table: str, quantity: str, ours: float, printed: str, *, short: float = 0.0) -> Check:
    """Check to half a unit in the last printed place, plus ``short``."""
    decimals = len(printed.partition(".")[2])
    return absolute(table, quantity, ours, printed, 0.5 * 10.0**-decimals * (1.0 + 1e-9) + short)


@cache
def load_data(name: str) -> pd.DataFrame:
    return mlmed.datasets.load(name)


def fit_mediation(name: str, method: str) -> mlmed.Results:
    """Fit the Bauer-Preacher-Gil model to one of the two data sets."""
    m, y, x, group = ("m", "y", "x", "id") if name == "ml_sim" else ("Med", "y", "X", "group")
    return mlmed.mediate(
        f"{m} ~ {x} + (1 + {x} | {group})",
        f"{y} ~ {m} + {x} + (1 + {m} + {x} | {group})",
        data=load_data(name),
        method=method,  # type: ignore[arg-type]
    )


#: Our names of the columns of the stacked data.
STACKED = ("sm", "smx", "sy", "sym", "syx")
