"""How far two runs of drawn effects may lie apart: Monte Carlo errors of means, medians, quantiles and p values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from mlmed.effects.potential import RATIOS
from mlmed.reproduce.pairs import Pair, by_term, mean_error, proportion_error

__all__ = ["drawn_errors", "drawn_pairs", "with_medians"]

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


def is_share(term: str) -> bool:
    """Whether an effect is a share of the total effect; R takes the median of its draws."""
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
    """The table with shares estimated by the median of their draws, as R does: an interval without coverage."""
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
        What was printed.
    ours : DataFrame
        Our table.
    errors : mapping
        From `drawn_errors`.
    names : mapping
        Their term to our term.
    by, ours_by : str
        Headings of the two columns.
    draws : (int, int)
        Draws of theirs and of ours: the errors are those of the difference of two independent runs.
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
