"""One published number beside ours, and the arithmetic of printed digits and Monte Carlo errors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

__all__ = [
    "LONG_COLUMNS",
    "Pair",
    "by_term",
    "decimals",
    "half_unit",
    "long_frame",
    "mean_error",
    "number",
    "proportion_error",
]

NAN = float("nan")
#: Columns of ``Reproduction.to_frame``.
LONG_COLUMNS = (
    "table", "term", "quantity", "published_by", "printed", "published", "ours_by", "ours", "difference", "mc_error",
    "in_mc_errors", "posterior_sd", "in_posterior_sds", "note",
)  # fmt: skip


def number(printed: str) -> float:
    """What was printed as a number; NaN where nothing was.

    R prints ``<2e-16`` where no draw lay on the other side of zero, which is a p value of 0.

    Examples
    --------
    >>> [number(text) for text in ("-.1144", "<2e-16", "")]
    [-0.1144, 0.0, nan]
    """
    if not printed:
        return NAN
    return 0.0 if printed.startswith("<") else float(printed)


def decimals(printed: str) -> int | None:
    """Decimals of what was printed; None where that is not a plain number.

    Examples
    --------
    >>> [decimals(text) for text in ("-.1144", "261", "<2e-16")]
    [4, 0, None]
    """
    digits = printed.lstrip("-").replace(".", "", 1)
    return len(printed.partition(".")[2]) if digits.isdigit() else None


def half_unit(printed: str) -> float:
    """Half a unit of the last printed digit: what rounding alone can do; 0 where that is not a plain number.

    Examples
    --------
    >>> half_unit("-.1144")
    5e-05
    """
    places = decimals(printed)
    return 0.0 if places is None else 0.5 * 10.0**-places


@dataclass(frozen=True, slots=True)
class Pair:
    """One number: theirs as printed, and ours. Either side may be missing.

    Attributes
    ----------
    term, quantity : str
        Row of the table, and which number of it: "" for the estimate, "SE", "low", "high", "p", ...
    by, printed : str
        Who published it, and the text that was printed; both "" where nobody did.
    ours_by : str
        Which fit of ours; "" where we have no such number.
    ours : float
        Our number, NaN where we have none.
    mc_error : float
        Monte Carlo standard error of the difference, NaN where neither side was drawn.
    posterior_sd : float
        Of a posterior mean that is compared with a likelihood estimate; NaN where no such comparison is made.
    note : str
        What ours is, where the heading does not say it.
    """

    term: str
    quantity: str = ""
    by: str = ""
    printed: str = ""
    ours_by: str = ""
    ours: float = NAN
    mc_error: float = NAN
    posterior_sd: float = NAN
    note: str = ""

    @property
    def published(self) -> float:
        """The printed number."""
        return number(self.printed)

    @property
    def difference(self) -> float:
        """Ours minus theirs."""
        return self.ours - self.published

    @property
    def in_mc_errors(self) -> float:
        """The difference beyond half a unit of the last printed digit, in Monte Carlo standard errors."""
        if not self.mc_error > 0.0:
            return NAN
        beyond = max(abs(self.difference) - half_unit(self.printed), 0.0)
        return math.copysign(beyond, self.difference) / self.mc_error

    @property
    def in_posterior_sds(self) -> float:
        """The difference in posterior standard deviations; NaN where there is none, or where it was printed as 0.00."""
        return self.difference / self.posterior_sd if self.posterior_sd > 0.0 else NAN


def by_term(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The numbers of a tidy table: term to column to number.

    Examples
    --------
    >>> by_term(pd.DataFrame({"term": ["x"], "estimate": [0.5], "note": [""]}))
    {'x': {'estimate': 0.5}}
    """
    numeric = table.set_index("term").select_dtypes("number")
    return {
        str(term): {str(column): float(value) for column, value in zip(numeric.columns, row, strict=True)}
        for term, row in zip(numeric.index, numeric.to_numpy(dtype=float), strict=True)
    }


def mean_error(sd: float, n: float) -> float:
    """Monte Carlo standard error of a mean of ``n`` independent draws (or as many effective ones).

    Examples
    --------
    >>> mean_error(0.08, 1600)
    0.002
    """
    return sd / math.sqrt(n)


def proportion_error(p: float, n: float) -> float:
    """Monte Carlo standard error of a two-sided p value that is twice a proportion of ``n`` draws.

    Examples
    --------
    >>> round(proportion_error(0.5, 1200), 6)
    0.025
    """
    return 2.0 * math.sqrt(p / 2.0 * (1.0 - p / 2.0) / n)


def long_frame(tables: Iterable[tuple[str, Iterable[Pair]]]) -> pd.DataFrame:
    """One row per number, columns ``LONG_COLUMNS``."""
    rows = [
        (
            title, p.term, p.quantity or "estimate", p.by, p.printed, p.published, p.ours_by, p.ours, p.difference,
            p.mc_error, p.in_mc_errors, p.posterior_sd, p.in_posterior_sds, p.note,
        )
        for title, pairs in tables
        for p in pairs
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(LONG_COLUMNS))
