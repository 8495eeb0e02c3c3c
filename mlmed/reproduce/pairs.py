"""One published number beside ours: printed digits, Monte Carlo errors of means, medians, quantiles and p values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from mlmed.effects.potential import RATIOS

NAN = float("nan")
#: Columns of ``Reproduction.to_frame``.
LONG_COLUMNS = (
    "table", "term", "quantity", "published_by", "printed", "published", "ours_by", "ours", "difference", "mc_error",
    "in_mc_errors", "posterior_sd", "in_posterior_sds", "note",
)  # fmt: skip
#: (quantity, key of the printed row, column of ours) of a table of drawn effects.
DRAWN = (
    ("", "estimate", "estimate"),
    ("low", "conf_low", "conf_low"),
    ("high", "conf_high", "conf_high"),
    ("p", "p_value", "p_value"),
)
#: Coverage of the published intervals.
LEVEL = 0.95
#: Errors are those of a run of this many draws.
BASE = 1000
Errors = Mapping[str, Mapping[str, float]]


def number(printed: str) -> float:
    """A printed text as a number; NaN if empty.

    R prints ``<2e-16`` if no draw lies on the other side of zero, a p value of 0.

    Examples
    --------
    >>> [number(text) for text in ("-.1144", "<2e-16", "")]
    [-0.1144, 0.0, nan]
    """
    if not printed:
        return NAN
    return 0.0 if printed.startswith("<") else float(printed)


def decimals(printed: str) -> int | None:
    """Decimals of a printed number; None if it is not a plain number.

    Examples
    --------
    >>> [decimals(text) for text in ("-.1144", "261", "<2e-16")]
    [4, 0, None]
    """
    digits = printed.lstrip("-").replace(".", "", 1)
    return len(printed.partition(".")[2]) if digits.isdigit() else None


def half_unit(printed: str) -> float:
    """Half a unit of the last printed digit, the largest rounding error; 0 if it is not a plain number.

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
        Row of the table and quantity: "" for the estimate, "SE", "low", "high", "p", ...
    by, printed : str
        Publisher and printed text; both "" if unpublished.
    ours_by : str
        Our fit; "" if we have no such number.
    ours : float
        Our number; NaN if we have none.
    mc_error : float
        Monte Carlo standard error of the difference; NaN if neither side was drawn.
    posterior_sd : float
        Of a posterior mean compared with a likelihood estimate; otherwise NaN.
    note : str
        What our number is, if the heading does not say.
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
        """The difference in posterior standard deviations; NaN without one, or if it was printed as 0.00."""
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


def is_share(term: str) -> bool:
    """Whether an effect is a share of the total effect, estimated in R by the median of its draws."""
    return term in RATIOS


def drawn_errors(table_at: Callable[[float], pd.DataFrame], ours: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Monte Carlo standard errors of a run of 1,000 draws, from other draws of the same quantities.

    A mean has sd / sqrt(n). The quantile at q of n draws lies between those at q -+ sqrt(q (1 - q) / n) about as
    often as a normal variable lies within one standard error, whatever the distribution of the draws.

    Parameters
    ----------
    table_at : callable
        Coverage to table of effects, always from the same draws.
    ours : DataFrame
        The table that is compared, with standard deviations and p values.

    Returns
    -------
    dict
        Term to {estimate, conf_low, conf_high, p_value}.
    """
    tail = (1.0 - LEVEL) / 2.0
    reach, half = math.sqrt(tail * (1.0 - tail) / BASE), 0.5 / math.sqrt(BASE)
    outer, inner, middle = (by_term(table_at(level)) for level in (LEVEL + 2 * reach, LEVEL - 2 * reach, 2 * half))
    errors = {}
    for term, row in by_term(ours).items():
        spread = middle[term]["conf_high"] - middle[term]["conf_low"]
        errors[term] = {
            "estimate": 0.5 * spread if is_share(term) else mean_error(row["std_error"], BASE),
            "conf_low": 0.5 * (inner[term]["conf_low"] - outer[term]["conf_low"]),
            "conf_high": 0.5 * (outer[term]["conf_high"] - inner[term]["conf_high"]),
            "p_value": proportion_error(row.get("p_value", float("nan")), BASE),
        }
    return errors


def with_medians(ours: pd.DataFrame, table_at: Callable[[float], pd.DataFrame]) -> pd.DataFrame:
    """The table with shares estimated by the median of their draws, as in R: an interval of coverage 0."""
    middle = by_term(table_at(1e-9))
    estimates = [
        middle[term]["conf_low"] if is_share(term) else estimate
        for term, estimate in zip(ours["term"], ours["estimate"], strict=True)
    ]
    return ours.assign(estimate=estimates)


def drawn_pairs(
    rows: list[dict[str, str]],
    ours: pd.DataFrame,
    errors: Errors,
    names: Mapping[str, str],
    *,
    by: str,
    draws: tuple[int, int],
    ours_by: str = "ours",
) -> list[Pair]:
    """Published rows of drawn effects beside ours.

    Parameters
    ----------
    rows : list
        Printed rows.
    ours : DataFrame
        Our table.
    errors : mapping
        From `drawn_errors`.
    names : mapping
        Their term to our term.
    by, ours_by : str
        Headings of the two columns.
    draws : (int, int)
        Their draws and ours; errors are of the difference of two independent runs.
    """
    scale = math.sqrt(BASE * sum(1.0 / n for n in draws))
    own = by_term(ours)
    return [
        Pair(row["term"], quantity, by, row[key], ours_by, own[term][column], scale * errors[term][column])
        for row in rows
        for quantity, key, column in DRAWN
        if key in row
        for term in (names[row["term"]],)
    ]
