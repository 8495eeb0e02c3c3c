"""Power and coverage of a planned design: fit simulated data sets as users will and count their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import unwrap
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd

from mlmed.api.mediate import mediate
from mlmed.api.piecewise import piecewise
from mlmed.effects import paths, separate
from mlmed.effects.paths import PathCatalogue
from mlmed.effects.separate import SeparateCatalogue
from mlmed.errors import DataError, EffectError, NotIdentifiedError
from mlmed.fit.lmm import LmmFit
from mlmed.intervals.values import interval_of
from mlmed.lmm.resample import not_certified
from mlmed.options import (
    Design,
    Interval,
    Method,
    check_count,
    check_jobs,
    check_level,
    check_seed,
    check_text,
    one_of,
    several,
    shown,
)
from mlmed.replication import Failure, replicate
from mlmed.report.plots.lines import plot_power
from mlmed.report.text import as_html, render_pairs, render_table
from mlmed.results.results import Results
from mlmed.simulate.performance import missing, plain, why_missing, with_error
from mlmed.simulate.population import BPGTruth, Population, Source, whole
from mlmed.simulate.trials import Analysis, Outcome, Template, Trial, failed, outcome_of, summarized

if TYPE_CHECKING:
    from matplotlib.axes import Axes


#: The fitted model by design, with every random effect that the population may have.
FORMULAS = {
    "1-1-1": ("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"),
    "2-1-1": ("m ~ x + (1 | id)", "y ~ m + x + (1 + m | id)"),
    "2-2-1": ("m ~ x", "y ~ m + x + (1 | id)"),
}
#: Columns of the table.
COLUMNS = (
    "n_clusters", "cluster_size", "term", "truth", "mean", "bias", "bias_mcse", "sd", "sd_mcse", "mean_se", "power",
    "power_mcse", "power_of_all", "coverage", "coverage_mcse", "n", "n_failed", "n_no_interval", "share_missing",
    "n_singular", "note",
)  # fmt: skip
FOOT = (
    "In brackets: Monte Carlo standard errors; of missing, the share of the data sets. Power and coverage: of the\n"
    "intervals that exist (power_of_all: of all data sets)."
)


def interval_options(design: str, interval: str, vcov: str | None, draws: int | None, level: float) -> dict[str, Any]:
    """Checked arguments of ``effects`` without the seed; ``vcov`` defaults to ``joint`` if the interval uses one."""
    level = check_level(level)
    known = paths.INTERVALS if design == "1-1-1" else separate.INTERVALS
    uses = known[one_of(interval, known, "interval")]
    if draws is not None and uses and "n" not in uses:
        raise EffectError(f"interval={shown(interval)} draws nothing; leave out draws=")
    kind = "joint" if vcov is None and "vcov" in uses else vcov
    given = {"vcov": kind, "n": draws, "seed": 0 if "seed" in uses else None}
    asked = interval_of(interval, given, known)
    kept: dict[str, Any] = {name: getattr(asked, name) for name in ("vcov", "n") if name in uses}
    return {"interval": interval, "level": level, **kept}


def analysis_for(source: Source, formulas: tuple[str, str], method: Method, options: dict[str, Any]) -> Analysis:
    """Build the analysis and try it on a data set of ample size, so that invalid requests fail at once."""
    data = source.draw(50, 10, np.random.default_rng(0)).data
    tried = {"vcov": options["vcov"]} if "vcov" in options else {}
    if source.design != "1-1-1":
        unwrap(piecewise)(*formulas, data, treatment="x", method=method).effects(**tried)
        return PiecewiseAnalysis(formulas, method, SeparateCatalogue.terms, options)
    fit = unwrap(mediate)(*formulas, data, treatment="x", method=method)
    terms = tuple(fit.effects(**tried)["term"])
    return JointAnalysis(Template(fit.fit), terms, options)


def _seed(options: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Add a seed for intervals by simulation."""
    return {"seed": int(rng.integers(2**31))} if "n" in options else {}


@dataclass(frozen=True, slots=True)
class JointAnalysis:
    """Joint fit of both equations, as by ``mediate``.

    Attributes
    ----------
    template : Template
        The model.
    terms : tuple of str
        Rows of its effects table.
    options : dict
        Arguments of ``effects``.
    """

    template: Template
    terms: tuple[str, ...]
    options: dict[str, Any]

    def __call__(self, data: pd.DataFrame, rng: np.random.Generator) -> Outcome:
        """Fit, and take the intervals."""
        fitted = self.template.fit(data)
        if isinstance(fitted, Failure):
            return failed(len(self.terms), fitted)
        table = Results(fitted, PathCatalogue("x")).effects(**self.options, **_seed(self.options, rng))
        return outcome_of(table, self.terms, singular=fitted.is_singular)


@dataclass(frozen=True, slots=True)
class PiecewiseAnalysis:
    """Separate fits, as by ``piecewise``, for designs with variables at level 2.

    Attributes
    ----------
    formulas : (str, str)
        Mediator and outcome equation.
    method : str
        Criterion.
    terms : tuple of str
        Rows of its effects table with a true value.
    options : dict
        Arguments of ``effects``.
    """

    formulas: tuple[str, str]
    method: Method
    terms: tuple[str, ...]
    options: dict[str, Any]

    def __call__(self, data: pd.DataFrame, rng: np.random.Generator) -> Outcome:
        """Fit, and take the intervals."""
        try:
            fit = unwrap(piecewise)(*self.formulas, data, treatment="x", method=self.method)
        except (DataError, NotIdentifiedError) as error:
            return failed(len(self.terms), Failure.of(error))
        mixed = [one for one in fit.fit.once if isinstance(one, LmmFit)]  # effects do not depend on path c
        for one in mixed:
            if not one.converged:
                return failed(len(self.terms), not_certified(one.optimum))
        table = fit.effects(**self.options, **_seed(self.options, rng))
        return outcome_of(table, self.terms, singular=any(one.is_singular for one in mixed))


@dataclass(frozen=True)
class PowerResults:
    """Power and coverage by design and effect.

    Attributes
    ----------
    table : DataFrame
        One row per size and effect: n_clusters, cluster_size, term, truth; mean, bias, sd of the estimates; mean_se;
        power, the share of existing intervals that exclude 0 (the rate of false positives if the truth is 0);
        power_of_all, the share of all data sets with an interval that excludes 0; coverage, the share of existing
        intervals that cover the truth; n, n_failed, n_no_interval, share_missing (of n, without estimate or interval),
        n_singular; note. Columns ``_mcse`` are Monte Carlo standard errors.
    truth : BPGTruth
        The population.
    design : str
        Level of x, m and y.
    model : (str, str)
        The fitted equations.
    asked : str
        Settings of the analysis: interval, standard errors, coverage, criterion.
    seed : int
        Seed of the simulation.
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

    def plot(self, term: str = "indirect", *, value: str = "power", ax: Axes | None = None) -> Axes:
        """Power or coverage against clusters, one line per cluster size, with 95% Monte Carlo intervals (``plots``).

        ``ax``: axes to draw on.

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
        return plot_power(rows, term=term, value=value, title=title, ax=ax)

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

    Data sets are drawn with ``bpg``, fitted as by ``mediate`` (by ``piecewise`` in designs with variables at level 2),
    and their intervals counted.

    Parameters
    ----------
    n_clusters, cluster_size : int or sequence of int
        Planned numbers of clusters and of rows in each; sequences give every combination.
    n : int
        Data sets of each size. A share near 0.8 then has the Monte Carlo error 0.4 / sqrt(n).
    interval : {"delta", "monte-carlo", "profile", "bootstrap", "product"}
        As in ``effects`` of the fit (``profile`` of the joint one, ``product`` of separate ones); an effect is
        significant if its interval excludes 0. A profile exists at singular fits, too, and takes some 20 times as long
        as the fit.
    vcov : str, optional
        Standard errors, if the interval uses them; by default ``"joint"``.
    level : float
        Coverage of the intervals: 1 minus the level of the test.
    method : {"reml", "ml"}
        Criterion.
    draws : int, optional
        Draws of each interval (``monte-carlo``) or replicates (``bootstrap``).
    mediator, outcome : str, optional
        The fitted model, by default with every random effect that can exist in the design.
    design : {"1-1-1", "2-1-1", "2-2-1"}
        Level of x, m and y: 2 is constant within clusters.
    seed : int
        Seed of the simulation; required. A size has the same results alone and in a grid, and for any ``n_jobs``.
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
        Invalid arguments, population or formulas.

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
    """Table rows of one size."""
    common = {"n_clusters": size[0], "cluster_size": size[1], "n_singular": sum(one.singular for one in outcomes)}
    return [{**common, "term": term, **summarized(outcomes, k, truth.effects[term])} for k, term in enumerate(terms)]
