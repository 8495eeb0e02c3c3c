"""One comparison of ours with somebody else's number, and what all comparisons share.

Three questions are asked of other software's fits, in this order: is our criterion at their parameters
equal to their log-likelihood; is our optimum never worse than theirs; do the estimates agree as far as
the spread of the references allows. Published tables are compared number by number.
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
#: Our criterion evaluated at the parameters another program reports, relative.
AT_THEIRS = 1e-8
#: How far below theirs our log-likelihood may be, absolute.
NEVER_WORSE = 1e-7
#: Estimates, relative; lme4 was run to rhoend 1e-10, which leaves about this much in flat directions.
#: A covariance can be zero, so it is measured on the scale of a correlation: against sqrt(var_i var_j).
ESTIMATES = 1e-5
#: lme4's default optimizer, which printed the page's tables, also stops short: allowed beyond half a digit.
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
        """Whether ours rounds to what was printed; True if nothing was."""
        decimals = len(self.printed.partition(".")[2])
        return not self.printed or abs(self.ours - self.theirs) <= 0.5 * 10.0**-decimals * (1.0 + 1e-9)

    @property
    def ok(self) -> bool:
        """Whether it holds; a NaN does not."""
        return bool(self.difference <= self.tolerance)


def load_json(kind: str, name: str) -> dict[str, Any]:
    folder = PUBLISHED_AT if kind == "published" else HERE / kind
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def absolute(table: str, quantity: str, ours: float, theirs: float | str, tolerance: float) -> Check:
    """Absolute difference; ``theirs`` is text when it was printed."""
    printed = theirs if isinstance(theirs, str) else ""
    return Check(table, quantity, ours, float(theirs), abs(ours - float(theirs)), tolerance, printed)


def relative(
    table: str, quantity: str, ours: float, theirs: float, tolerance: float, size: float | None = None
) -> Check:
    scale = abs(theirs) if size is None else size
    return Check(table, quantity, ours, theirs, abs(ours - theirs) / scale, tolerance)


def printed(table: str, quantity: str, ours: float, printed: str, *, short: float = 0.0) -> Check:
    """Half a unit in the last printed place, plus ``short``."""
    decimals = len(printed.partition(".")[2])
    return absolute(table, quantity, ours, printed, 0.5 * 10.0**-decimals * (1.0 + 1e-9) + short)


@cache
def load_data(name: str) -> pd.DataFrame:
    return mlmed.datasets.load(name)


def fit_mediation(name: str, method: str) -> mlmed.Results:
    """The Bauer-Preacher-Gil model of one of the two data sets."""
    m, y, x, group = ("m", "y", "x", "id") if name == "ml_sim" else ("Med", "y", "X", "group")
    return mlmed.mediate(
        f"{m} ~ {x} + (1 + {x} | {group})",
        f"{y} ~ {m} + {x} + (1 + {m} + {x} | {group})",
        data=load_data(name),
        method=method,  # type: ignore[arg-type]
    )


#: Our names of the columns of the stacked data.
STACKED = ("sm", "smx", "sy", "sym", "syx")
