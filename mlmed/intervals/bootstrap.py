"""Bootstrap of a fit: replicates, and intervals from their draws."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.catalogue import EffectSet
from mlmed.effects.delta import COLUMNS
from mlmed.effects.draws import draw_interval
from mlmed.errors import EffectError
from mlmed.fit.resampling import Plan
from mlmed.lmm.vcov import said_along
from mlmed.notes import joined
from mlmed.options import (
    ENDS,
    check_count,
    check_level,
    check_list,
    check_seed,
    check_text,
    one_of,
    own_words,
)
from mlmed.replication import Failure, LeaveOut, Replicate, leave_out, replicate, stacked
from mlmed.report.plots.distributions import plot_draws
from mlmed.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = NDArray[np.float64]
#: A function from replicates (n, width) to effects by name.
Columns = Callable[[Array], Mapping[str, Array]]


def draws_table(
    draws: pd.DataFrame,
    estimates: pd.Series,
    *,
    level: float,
    ends: str = "percentile",
    notes: Mapping[str, str],
    missing: Mapping[str, str],
    untested: Collection[str] = (),
    unspread: Mapping[str, str] = {},
    jackknife: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Tabulate intervals from draws, one row per column.

    ``notes`` by term are added to those of the draws; a term in ``missing`` has that note and no interval. Terms in
    ``untested`` (variances) have no test, those in ``unspread`` (ratios) no standard error, and that note.
    """
    level = check_level(level)
    rows, df = [], np.inf if ends == "normal" else np.nan
    for term in draws.columns:
        if term in missing:
            rows.append((term, float(estimates[term]), *[np.nan] * 2, df, *[np.nan] * 3, missing[term]))
            continue
        values, estimate = draws[term].to_numpy(), float(estimates[term])
        left_out = None if jackknife is None else jackknife[term].to_numpy()
        found = draw_interval(values, estimate, level=level, ends=ends, jackknife=left_out)
        test = (np.nan, np.nan) if term in untested else (found.statistic, found.p_value)
        spread, more = (found.std_error, test[0]), ""
        if term in unspread and np.isfinite(found.low):
            spread, more = (np.nan, np.nan), unspread[term]
        note = joined(notes.get(term, ""), found.note, more)
        rows.append((term, estimate, *spread, df, test[1], found.low, found.high, note))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _jackknife(left_out: LeaveOut, columns: Columns, width: int, ids: pd.Index, n_jobs: int | None) -> pd.DataFrame:
    """Leave-one-out estimates, a row per unit."""
    units = left_out.units
    found = leave_out(left_out.without, units, n_jobs=n_jobs)
    return pd.DataFrame(columns(stacked(found, width))).set_index(ids[units])


@dataclass(frozen=True)
class BootstrapResults:
    """Replicates of a fit.

    Attributes
    ----------
    draws : DataFrame
        One row per replicate, one column per effect and parameter; NaN where the replicate failed.
    estimates : Series
        The estimates of the fit itself, by the same names.
    kind : str
        Type of replicate.
    seed : int
        Seed of the replicates.
    n_singular : int
        Replicates whose optimum lies on the boundary; they count like any other.
    failures : dict of Failure to int
        Replicates without certified estimates, counted by the code of the reason.
    fixed : dict of str to str
        Terms that the model fixes, and why.
    notes : dict of str to str
        Notes on other terms, such as values of moderators.
    lost : dict of str to str
        Terms without an interval, because one cluster alone identifies them, and why.
    variances : frozenset of str
        Variances, which have no test.
    unspread : dict of str to str
        Terms without a standard error, because their draws have no variance, and why.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> fit = mlmed.mixed("Med ~ X + (1 + X | group)", df)
    >>> boot = fit.bootstrap(50, seed=1)
    >>> boot
    BootstrapResults(50 replicates, kind 'case', seed 1: 0 failed, 0 singular)
    >>> boot.tidy(ends="normal").loc[1, ["conf_low", "conf_high"]].astype(float).round(1).tolist()
    [-0.0, 0.4]
    """

    draws: pd.DataFrame
    estimates: pd.Series
    kind: str
    seed: int
    n_singular: int
    failures: dict[Failure, int]
    fixed: dict[str, str]
    notes: dict[str, str]
    _leave_out: Callable[[], pd.DataFrame] = field(repr=False)
    lost: dict[str, str] = field(default_factory=dict)
    variances: frozenset[str] = frozenset()
    unspread: Mapping[str, str] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of replicates, failed ones included."""
        return len(self.draws)

    @property
    def n_failed(self) -> int:
        """Number of replicates without certified estimates."""
        return sum(self.failures.values())

    @cached_property
    def jackknife(self) -> pd.DataFrame:
        """Leave-one-out estimates by cluster (or row), exact refits, for the acceleration of ``bca``."""
        return self._leave_out()

    @own_words
    def tidy(
        self, *, ends: str = "percentile", level: float = 0.95, terms: str | Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Tabulate intervals of all effects and parameters.

        Parameters
        ----------
        ends : {"percentile", "bc", "bca", "basic", "normal"}
            Construction of the interval from the draws; see docs/choosing_intervals.md.
        level : float
            Coverage, a proportion.
        terms : str or sequence of str, optional
            Only these.

        Returns
        -------
        DataFrame
            term, estimate, std_error (standard deviation of the draws), statistic, df (infinite with normal
            ends, otherwise NaN), p_value (level at which the interval touches 0), conf_low, conf_high, note. Variances
            have neither statistic nor p value.

        Raises
        ------
        EffectError
            Unknown term or ends.
        """
        level = check_level(level)
        one_of(ends, ENDS, "ends")
        chosen = list(self.draws.columns) if terms is None else [terms] if isinstance(terms, str) else terms
        chosen = check_list(chosen, "terms", "names of terms")
        unknown = [term for term in chosen if not isinstance(term, str) or term not in self.draws.columns]
        if unknown:
            raise EffectError(f"no draws of {shown(unknown[0])}; there are {', '.join(self.draws.columns)}")
        jackknife = self.jackknife if ends == "bca" else None
        count = self._count()
        notes = {term: joined(self.notes.get(term, ""), count) for term in chosen}
        return draws_table(
            self.draws[chosen],
            self.estimates,
            level=level,
            ends=ends,
            notes=notes,
            missing=self.fixed
            | {term: joined(self.notes.get(term, ""), why, count) for term, why in self.lost.items()},
            untested=self.variances,
            unspread=self.unspread,
            jackknife=jackknife,
        )

    def _count(self) -> str:
        failed, singular = "", ""
        if self.failures:
            failure, count = max(self.failures.items(), key=lambda item: item[1])
            failed = f"{self.n - self.n_failed} of {self.n} draws; {self.n_failed} failed ({count}: {failure.text})"
        if self.n_singular:
            singular = f"{self.n_singular} of {self.n} replicates singular"
        return joined(failed, singular)

    @own_words
    def plot(
        self, term: str | None = None, *, ends: str = "percentile", level: float = 0.95, ax: Axes | None = None
    ) -> Axes:
        """Histogram of the draws of one term, with its interval (extra ``plots``); ``ax`` is where to draw.

        Raises
        ------
        EffectError
            Unknown term, or one whose draws are all the same.
        """
        usual = "indirect" if "indirect" in self.draws else str(self.draws.columns[0])
        name = usual if term is None else check_text(term, "term", "a term")
        row = self.tidy(ends=ends, level=level, terms=[name]).iloc[0]
        if self.draws[name].dropna().nunique() < 2:
            raise EffectError(f"the draws of {name} do not vary, so there is nothing to plot: {row.note}")
        title = f"{name}: {self.n - self.n_failed} {self.kind} draws, {100 * level:g}% {ends} interval"
        shown = {"estimate": row.estimate, "low": row.conf_low, "high": row.conf_high}
        return plot_draws(self.draws[name], **shown, title=f"{title}\n{row.note}", ax=ax)

    def __repr__(self) -> str:
        return (
            f"BootstrapResults({self.n} replicates, kind {self.kind!r}, seed {self.seed}: {self.n_failed} failed, "
            f"{self.n_singular} singular)"
        )


def run_bootstrap(effects: EffectSet, plan: Plan) -> BootstrapResults:
    """Run the replicates of a fit, and compute effects and parameters of each."""
    n, seed = check_count(plan.n, "replicates"), check_seed(plan.seed, "bootstrap()")
    source, columns, quantities = effects.source(plan), effects.columns, effects.drawn
    said = {term: said_along(source.lost, quantity.gradient, quantity.hessian) for term, quantity in quantities.items()}
    found = replicate(source.draw, n, seed=seed, n_jobs=plan.n_jobs, progress=plan.progress)
    draws = columns(stacked(found, source.width))
    fixed = {term: quantity.note for term, quantity in quantities.items() if quantity.is_fixed}
    seen = effects.seen(draws)
    return BootstrapResults(
        draws=pd.DataFrame(draws),
        estimates=pd.Series({term: quantity.estimate for term, quantity in quantities.items()}),
        kind=source.kind,
        seed=seed,
        n_singular=sum(one.singular for one in found if isinstance(one, Replicate)),
        failures=dict(Counter(one for one in found if isinstance(one, Failure))),
        fixed=fixed,
        notes={term: joined(q.note, seen.get(term, "")) for term, q in quantities.items() if term not in fixed},
        _leave_out=partial(_jackknife, source.left_out, columns, source.width, source.ids, plan.n_jobs),
        lost={term: why for term, why in said.items() if why},
        variances=frozenset(term for term, quantity in quantities.items() if quantity.kind == "variance"),
        unspread=dict(effects.unspread_replicates),
    )
