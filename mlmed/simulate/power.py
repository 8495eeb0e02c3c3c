"""Power and coverage of a planned design, by simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import pandas as pd

from mlmed.errors import EffectError
from mlmed.options import (
    Design,
    Interval,
    Method,
    check_count,
    check_jobs,
    check_seed,
    check_text,
    one_of,
    several,
)
from mlmed.replication import replicate
from mlmed.report.text import as_html, render_pairs, render_table
from mlmed.simulate.analyses import FORMULAS, analysis_for, interval_options
from mlmed.simulate.generate import Population, Source
from mlmed.simulate.performance import missing, plain, why_missing, with_error
from mlmed.simulate.pictures import plot_power
from mlmed.simulate.population import BPGTruth, whole
from mlmed.simulate.trials import Outcome, Trial, summarized

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PowerResults", "power"]

#: Columns of the table.
COLUMNS = (
    "n_clusters", "cluster_size", "term", "truth", "mean", "bias", "bias_mcse", "sd", "sd_mcse", "mean_se", "power",
    "power_mcse", "power_of_all", "coverage", "coverage_mcse", "n", "n_failed", "n_no_interval", "share_missing",
    "n_singular", "note",
)  # fmt: skip


@dataclass(frozen=True)
class PowerResults:
    """Power and coverage by design and effect.

    Attributes
    ----------
    table : DataFrame
        One row per size and effect: n_clusters, cluster_size, term, truth; mean, bias, sd of the estimates; mean_se;
        power, the share of existing intervals that leave out 0 (where the truth is 0 it is the rate of false
        positives); power_of_all, the share of all data sets that have an interval which leaves out 0; coverage, the
        share of existing intervals that hold the truth; n, n_failed, n_no_interval, share_missing (of n, without
        estimate or interval), n_singular; note. Columns ``_mcse`` are Monte Carlo standard errors.
    truth : BPGTruth
        The population.
    design : str
        Level of x, m and y.
    model : (str, str)
        The equations that were fitted.
    asked : str
        Interval, standard errors, coverage, criterion.
    seed : int
        Of the simulation.
    """

    table: pd.DataFrame
    truth: BPGTruth
    design: str
    model: tuple[str, str]
    asked: str
    seed: int

    @property
    def n(self) -> int:
        """Data sets of every size."""
        return int(self.table["n"].iloc[0])

    def plot(self, term: str = "indirect", *, value: str = "power") -> Axes:
        """Power or coverage against clusters, one line per cluster size, with 95% Monte Carlo intervals (``plots``).

        Raises
        ------
        EffectError
            Unknown term or value.
        """
        if check_text(term, "term", "a term") not in set(self.table["term"]):
            raise EffectError(f"no term {term!r}; there are {', '.join(self.table['term'].unique())}")
        one_of(value, ("power", "coverage"), "value")
        rows = self.table[self.table["term"] == term]
        title = f"true {term} {rows['truth'].iloc[0]:.3g}; {self.n} data sets a point; {self.asked}"
        most = rows["share_missing"].max()
        title += f"\nof the intervals that exist: up to {100 * most:.3g}% of the data sets have none" if most else ""
        return plot_power(rows, term=term, value=value, title=title)

    def __repr__(self) -> str:
        sizes = len(self.table[["n_clusters", "cluster_size"]].drop_duplicates())
        what = f"design {self.design}, {self.n} data sets of {'each of ' if sizes > 1 else ''}{sizes} size(s)"
        return f"PowerResults({what}, seed {self.seed}; {self.asked})"

    def __str__(self) -> str:
        title = f"Power by simulation, design {self.design}"
        shown = pd.DataFrame(
            {
                "clusters": self.table["n_clusters"],
                "size": self.table["cluster_size"],
                "term": self.table["term"],
                "truth": plain(self.table, "truth"),
                **{name: with_error(self.table, name) for name in ("bias", "sd")},
                "mean_se": plain(self.table, "mean_se"),
                **{name: with_error(self.table, name) for name in ("power", "coverage")},
                "missing": missing(self.table),
            }
        )
        pairs = [
            ("Data sets", f"{self.n} of each size, seed {self.seed}"), ("Model", self.model[0]), ("", self.model[1]),
            ("Intervals", self.asked),
        ]  # fmt: skip
        return "\n".join(
            [title, "=" * len(title), render_pairs(pairs), "", render_table(shown), FOOT + why_missing(self.table)]
        )

    def _repr_html_(self) -> str:
        return as_html(str(self))


FOOT = (
    "In brackets: Monte Carlo standard errors; of missing, the share of the data sets. Power and coverage: of the\n"
    "intervals that exist (power_of_all: of all data sets)."
)


def power(
    n_clusters: int | Sequence[int],
    cluster_size: int | Sequence[int],
    *,
    n: int = 500,
    interval: Interval = "delta",
    vcov: str | None = None,
    level: float = 0.95,
    method: Method = "reml",
    draws: int | None = None,
    mediator: str | None = None,
    outcome: str | None = None,
    design: Design = "1-1-1",
    seed: int,
    n_jobs: int | None = None,
    progress: bool = False,
    **population: Unpack[Population],
) -> PowerResults:
    """Power and coverage of the paths and effects in a planned design.

    Data sets are drawn from a population with ``bpg``, fitted as ``mediate`` does (in designs with variables at level 2
    as ``piecewise`` does), and their intervals counted.

    Parameters
    ----------
    n_clusters, cluster_size : int or sequence of int
        Planned sizes, all clusters alike; sequences give every combination.
    n : int
        Data sets of each size. A share near 0.8 then has the Monte Carlo error 0.4 / sqrt(n).
    interval : {"delta", "monte-carlo", "profile", "bootstrap", "product"}
        As in ``effects`` of the fit (``profile`` of the joint one, ``product`` of separate ones); an effect is found if
        its interval leaves out 0. A profile exists at singular fits, too, and takes some 20 times as long as the fit.
    vcov : str, optional
        Standard errors, where the interval uses them; by default ``"joint"``.
    level : float
        Coverage of the intervals: 1 less the level of the test.
    method : {"reml", "ml"}
        Criterion.
    draws : int, optional
        Draws of each interval (``monte-carlo``) or replicates (``bootstrap``).
    mediator, outcome : str, optional
        The model that will be fitted, by default with every random effect that the design can have.
    design : {"1-1-1", "2-1-1", "2-2-1"}
        Level of x, m and y: 2 is constant within clusters.
    seed : int
        Of the simulation; required. A size has the same numbers alone and in a grid, and for any ``n_jobs``.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one.
    progress : bool
        Show a progress bar on standard error.
    **population
        ``a``, ``b``, ``cprime``, ``cov_ab``, ``G``, ``sigma2``, ``intercepts``, ``truth``, ``x_between``, ``skewed``,
        as in ``bpg``: with ``a`` or ``b`` in design 1-1-1 also ``cov_ab`` (or ``G``, or ``truth``).

    Raises
    ------
    DataError, EffectError, FormulaError
        What was found, what it means, what to do.

    Examples
    --------
    >>> import mlmed
    >>> found = mlmed.simulate.power([30, 60], 8, n=20, a=0.3, b=0.3, cov_ab=0.03, seed=1)
    >>> found.table.loc[found.table["term"] == "a", ["n_clusters", "truth", "power"]].values.tolist()
    [[30.0, 0.3, ...], [60.0, 0.3, ...]]
    """
    check_count(n, "data sets")
    seed, jobs = check_seed(seed, "power()"), check_jobs(n_jobs)
    sizes = tuple((J, rows) for rows in _sizes(cluster_size, "cluster_size") for J in _sizes(n_clusters, "n_clusters"))
    source = Source.of(design, **population)
    options = interval_options(design, interval, vcov, draws, level)
    usual = FORMULAS[design]
    model = (usual[0] if mediator is None else mediator, usual[1] if outcome is None else outcome)
    analysis = analysis_for(source, model, method, options)
    trial = Trial(source, sizes, analysis)
    found = replicate(trial, n, seed=seed, n_jobs=jobs, progress=progress)
    rows = [
        row
        for size, outcomes in zip(sizes, zip(*found, strict=True), strict=True)
        for row in _rows(size, outcomes, analysis.terms, source.truth)
    ]
    used = f"{options['vcov']} errors, " if "vcov" in options else ""
    asked = f"{interval}, {used}{100 * level:g}%, {method.upper()}"
    return PowerResults(pd.DataFrame(rows, columns=list(COLUMNS)), source.truth, design, model, asked, seed)


def _sizes(value: int | Sequence[int], name: str) -> list[int]:
    found = [whole(one, name) for one in several(value)]
    if not found:
        raise EffectError(f"{name} is empty; give a number or several")
    return found


def _rows(
    size: tuple[int, int], outcomes: Sequence[Outcome], terms: tuple[str, ...], truth: BPGTruth
) -> list[dict[str, Any]]:
    """The rows of one size."""
    common = {"n_clusters": size[0], "cluster_size": size[1], "n_singular": sum(one.singular for one in outcomes)}
    return [{**common, "term": term, **summarized(outcomes, k, truth.effects[term])} for k, term in enumerate(terms)]
