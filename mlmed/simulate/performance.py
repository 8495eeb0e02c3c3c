"""Performance of estimators over simulated data sets, with Monte Carlo errors (Morris, White & Crowther, 2019)."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.report.text import format_number

Array = NDArray[np.float64]

NAN = float("nan")
#: Width of text; decimals of numbers, and the size above which they have none.
WIDTH, DECIMALS, LARGE = 92, 3, 1e6


@dataclass(frozen=True, slots=True)
class Performance:
    """Performance of one estimator of one quantity; ``x_mcse`` is the Monte Carlo standard error of ``x``.

    Attributes
    ----------
    truth : float
        True value of the quantity.
    mean, bias, sd, rmse : float
        Mean, bias, standard deviation and root mean squared error of the estimates.
    mean_se : float
        Mean standard error, over the data sets that have one.
    power : float
        Share of the existing intervals that exclude 0; the rate of false positives if the truth is 0.
    power_of_all : float
        Share of all data sets with an interval that excludes 0: a missing interval counts as not significant.
    coverage : float
        Share of the existing intervals that cover the truth.
    n, n_failed, n_no_interval : int
        Data sets; without estimates; with estimates but no interval.
    share_missing : float
        Share of the data sets without an interval, for any reason.
    """

    truth: float
    mean: float
    bias: float
    bias_mcse: float
    sd: float
    sd_mcse: float
    rmse: float
    rmse_mcse: float
    mean_se: float
    power: float
    power_mcse: float
    power_of_all: float
    coverage: float
    coverage_mcse: float
    n: int
    n_failed: int
    n_no_interval: int
    share_missing: float

    def row(self) -> dict[str, float]:
        """As a row of a table."""
        return asdict(self)


def performance(values: Array, truth: float) -> Performance:
    """Performance from replicates.

    Parameters
    ----------
    values : (n, 4) array
        Estimate (NaN where the fit failed), standard error, ends of the interval (NaN where they do not exist).
    truth : float
        True value of the quantity.

    Examples
    --------
    >>> import numpy as np
    >>> found = performance(np.array([[1.0, 1.0, -1.0, 3.0], [3.0, 1.0, 1.0, 5.0]]), 2.5)
    >>> found.bias, found.power, found.coverage
    (-0.5, 0.5, 1.0)
    """
    estimate, std_error, low, high = np.asarray(values, dtype=np.float64).T
    made = np.isfinite(estimate)
    has = made & ~(np.isnan(low) | np.isnan(high))  # an end may be infinite
    error = estimate[made] - truth
    k, n = len(error), len(estimate)
    sd = float(error.std(ddof=1)) if k > 1 else NAN
    rmse = float(np.sqrt(np.mean(error**2))) if k else NAN
    squares = float(np.std(error**2, ddof=1)) if k > 1 else NAN
    found = has & ((low > 0.0) | (high < 0.0))
    power = float(np.mean(found[has])) if has.any() else NAN
    held = float(np.mean((low[has] <= truth) & (truth <= high[has]))) if has.any() else NAN
    known = made & np.isfinite(std_error)
    return Performance(
        truth=truth,
        mean=float(estimate[made].mean()) if k else NAN,
        bias=float(error.mean()) if k else NAN,
        bias_mcse=sd / np.sqrt(k) if k > 1 else NAN,
        sd=sd,
        sd_mcse=sd / np.sqrt(2.0 * (k - 1)) if k > 1 else NAN,
        rmse=rmse,
        rmse_mcse=squares / (2.0 * rmse * np.sqrt(k)) if k > 1 and rmse > 0.0 else NAN,
        mean_se=float(std_error[known].mean()) if known.any() else NAN,
        power=power,
        power_mcse=_of_share(power, int(has.sum())),
        power_of_all=float(np.mean(found)) if has.any() else NAN,
        coverage=held,
        coverage_mcse=_of_share(held, int(has.sum())),
        n=n,
        n_failed=n - k,
        n_no_interval=k - int(has.sum()),
        share_missing=1.0 - float(np.mean(has)),
    )


def _of_share(share: float, n: int) -> float:
    """Standard error of a proportion of n."""
    return float(np.sqrt(share * (1.0 - share) / n)) if n else NAN


def with_error(table: pd.DataFrame, name: str) -> list[str]:
    """A column as text, its Monte Carlo standard error in brackets."""
    return [_cell(*pair) for pair in zip(table[name], table[f"{name}_mcse"], strict=True)]


def plain(table: pd.DataFrame, name: str) -> list[str]:
    """A column as text."""
    return [_cell(value) for value in table[name]]


def _cell(value: float, error: float = NAN) -> str:
    """Three decimals, if these show the error (without one the value); else three significant digits."""
    known = not np.isnan(error)
    finest = error if known and error > 0.0 else abs(value)
    if finest == 0.0 or (finest >= 0.5 * 10.0**-DECIMALS and abs(value) < LARGE):
        shown, beside = f"{value:.{DECIMALS}f}", f"{error:.{DECIMALS}f}"
    else:
        shown, beside = format_number(float(value), 3), format_number(float(error), 3)
    return "-" if np.isnan(value) else f"{shown} ({beside})" if known else shown


def missing(table: pd.DataFrame) -> list[str]:
    """Number of data sets without an interval by row, with their share in brackets; ``0`` if there are none."""
    counts = table["n_failed"] + table["n_no_interval"]
    return [
        f"{count} ({100 * share:.3g}%)" if count else "0"
        for count, share in zip(counts, table["share_missing"], strict=True)
    ]


def why_missing(table: pd.DataFrame) -> str:
    """A line on data sets without an estimate or interval, from the row with most of them; empty if there are none."""
    counts = table["n_failed"] + table["n_no_interval"]
    if not counts.any():
        return ""
    note = table["note"].iloc[int(counts.to_numpy().argmax())]
    text = f"Missing: data sets without an estimate or an interval; the notes of the table say why. The most: {note}."
    return "\n" + textwrap.fill(text, WIDTH)
