"""How well estimators do over simulated data sets, Monte Carlo errors (Morris, White & Crowther, 2019), pictures."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.report.plots import new_axes
from mlmed.report.text import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Performance", "missing", "performance", "plain", "plot_power", "plot_study", "why_missing", "with_error"]

Array = NDArray[np.float64]

NAN = float("nan")
#: Of text; of numbers in it, and the size above which they have none.
WIDTH, DECIMALS, LARGE = 92, 3, 1e6
#: Half the width of a 95% Monte Carlo interval, in standard errors.
TWO = 1.96


@dataclass(frozen=True, slots=True)
class Performance:
    """Performance of one estimator of one quantity; ``_mcse`` is the Monte Carlo standard error of what is before it.

    Attributes
    ----------
    truth : float
        What was estimated.
    mean, bias, sd, rmse : float
        Of the estimates; sd is their standard deviation, rmse the root of their mean squared error.
    mean_se : float
        Mean standard error, over the data sets that have one.
    power : float
        Share of the intervals that exist that leave out 0. Where the truth is 0 this is the rate of false positives.
    power_of_all : float
        Share of all data sets whose interval leaves out 0: those without an interval have not found anything.
    coverage : float
        Share of the intervals that exist that hold the truth.
    n, n_failed, n_no_interval : int
        Data sets; those without estimates; those with estimates, but without an interval.
    share_missing : float
        Share of the data sets without an interval, for either reason.
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
        What is estimated.

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
    """Three decimals, where these show the error (without one the value); else three significant digits."""
    known = not np.isnan(error)
    finest = error if known and error > 0.0 else abs(value)
    if finest == 0.0 or (finest >= 0.5 * 10.0**-DECIMALS and abs(value) < LARGE):
        shown, beside = f"{value:.{DECIMALS}f}", f"{error:.{DECIMALS}f}"
    else:
        shown, beside = format_number(float(value), 3), format_number(float(error), 3)
    return "-" if np.isnan(value) else f"{shown} ({beside})" if known else shown


def missing(table: pd.DataFrame) -> list[str]:
    """How many data sets of each row have no interval, with their share in brackets; ``0`` where all have one."""
    counts = table["n_failed"] + table["n_no_interval"]
    return [
        f"{count} ({100 * share:.3g}%)" if count else "0"
        for count, share in zip(counts, table["share_missing"], strict=True)
    ]


def why_missing(table: pd.DataFrame) -> str:
    """A line on the data sets without an estimate or an interval, from the row that has most; empty if none are."""
    counts = table["n_failed"] + table["n_no_interval"]
    if not counts.any():
        return ""
    note = table["note"].iloc[int(counts.to_numpy().argmax())]
    text = f"Missing: data sets without an estimate or an interval; the notes of the table say why. The most: {note}."
    return "\n" + textwrap.fill(text, WIDTH)


def plot_power(table: pd.DataFrame, *, term: str, value: str, title: str) -> Axes:
    """Power or coverage against the number of clusters, one line per cluster size."""
    ax = new_axes()
    for size, rows in table.groupby("cluster_size"):
        ordered = rows.sort_values("n_clusters")
        ax.errorbar(
            ordered["n_clusters"], ordered[value], TWO * ordered[f"{value}_mcse"], marker="o", capsize=3,
            label=f"{size} rows a cluster",
        )  # fmt: skip
    if value == "power":
        ax.axhline(0.8, color="0.7", lw=1, ls="--")
        ax.set_ylim(0.0, 1.03)
    ax.set_xticks(sorted(table["n_clusters"].unique()))
    ax.set_xlabel("clusters")
    ax.set_ylabel(f"{value} of {term}")
    ax.set_title(title, fontsize="small")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_study(table: pd.DataFrame, *, value: str, level: float, title: str) -> Axes:
    """Bias, spread, error or coverage against cov(a_j, b_j), one line per estimator."""
    ax = new_axes()
    estimators = list(table["estimator"].unique())
    known = np.sort(table["cov_ab"].unique())
    apart = 0.006 * float(np.ptp(known)) if len(known) > 1 else 0.002  # so that markers do not hide each other
    if value == "bias":
        ax.plot(known, -known, color="0.7", ls="--", label="-cov($a_j$, $b_j$)", zorder=0)
        ax.axhline(0.0, color="0.85", lw=1, zorder=0)
    if value == "coverage":
        ax.axhline(level, color="0.7", ls="--", zorder=0)
    for k, estimator in enumerate(estimators):
        rows = table[table["estimator"] == estimator].sort_values("cov_ab")
        shift = apart * (k - 0.5 * (len(estimators) - 1))
        ax.errorbar(
            rows["cov_ab"] + shift, rows[value], TWO * rows[f"{value}_mcse"], marker="os^D"[k % 4], ms=5, capsize=3,
            ls="-", label=estimator,
        )  # fmt: skip
    ax.set_xlabel("cov($a_j$, $b_j$)")
    ax.set_ylabel(f"{value} of the indirect effect")
    ax.set_title(title, fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    return ax
