"""Pictures of simulation studies (extra ``plots``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mlmed.report.plots import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_power", "plot_study"]

#: Half the width of a 95% Monte Carlo interval, in standard errors.
TWO = 1.96


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
