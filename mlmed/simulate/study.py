"""Bias of a*b when slopes covary: four estimators of the indirect effect on the same data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from mlmed.effects.delta import Quantity, std_error
from mlmed.effects.paths import effect_quantities
from mlmed.effects.routes import Routes, find_routes
from mlmed.errors import DataError, EffectError
from mlmed.fit.lmm import LmmFit, fit_model
from mlmed.fit.vcov import covariance
from mlmed.formula import parse_equation
from mlmed.options import check_count, check_jobs, check_level, check_number, check_seed, one_of, several
from mlmed.replication import Failure, replicate
from mlmed.report.plots.lines import plot_study
from mlmed.report.text import as_html, render_pairs, render_table
from mlmed.simulate.performance import missing, plain, why_missing, with_error
from mlmed.simulate.population import BPGTruth, Population, Source, default_truth, whole
from mlmed.simulate.trials import VALUES, Outcome, Template, failed, summarized
from mlmed.system.system import System

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = NDArray[np.float64]

MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"
#: Two fits, one per equation; the joint fit without and with its covariance; the same by ML.
ESTIMATORS = ("separate a*b", "joint a*b", "joint a*b + cov_ab, REML", "joint a*b + cov_ab, ML")
COLUMNS = (
    "cov_ab", "estimator", "truth", "mean", "bias", "bias_mcse", "sd", "sd_mcse", "rmse", "rmse_mcse", "mean_se",
    "coverage", "coverage_mcse", "n", "n_failed", "n_no_interval", "share_missing", "note",
)  # fmt: skip
FOOT = (
    "In brackets: Monte Carlo standard errors; of missing, the share of the data sets. Coverage: of the intervals\n"
    "that exist."
)
SHOWN = ("bias", "sd", "rmse", "coverage")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Task for ``replicate``: one data set for each covariance, all estimators on it.

    Attributes
    ----------
    sources : tuple of Source
        Populations.
    size : (int, int)
        Clusters, and rows in each.
    level : float
        Coverage of the intervals.
    mediator, outcome, joint : Template
        The models.
    routes : Routes
        The routes of the joint model.
    """

    sources: tuple[Source, ...]
    size: tuple[int, int]
    level: float
    mediator: Template
    outcome: Template
    joint: Template
    routes: Routes

    @classmethod
    def of(cls, sources: tuple[Source, ...], size: tuple[int, int], level: float) -> Comparison:
        """Build with models read from a data set of ample size."""
        data = Source.of().draw(50, 10, np.random.default_rng(0)).data
        first, second = parse_equation(MEDIATOR), parse_equation(OUTCOME)
        specs = (System(equations) for equations in ((first,), (second,), (first, second)))
        m, y, joint = (Template(fit_model(spec, data)) for spec in specs)
        return cls(sources, size, level, m, y, joint, find_routes(joint.example.layout, treatment="x"))

    def __call__(self, rng: np.random.Generator) -> list[Outcome]:
        """One outcome per covariance, with the estimators as terms; its data do not depend on the other covariances."""
        entropy = int(rng.integers(2**63))
        found = []
        for source in self.sources:
            key = int(np.float64(source.truth.cov_ab).view(np.uint64))
            own = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(key,)))
            found.append(self._estimates(source.draw(*self.size, own).data))
        return found

    def _estimates(self, data: pd.DataFrame) -> Outcome:
        m, y = self.mediator.fit(data), self.outcome.fit(data)
        reml, ml = self.joint.fits(data, ("reml", "ml"))
        parts = [
            self._part(separate_product, m, y),
            self._part(joint_product, reml, self.routes),
            self._part(joint_indirect, reml, self.routes),
            self._part(joint_indirect, ml, self.routes),
        ]
        return Outcome(
            np.concatenate([part.values for part in parts]),
            sum((part.failures for part in parts), ()),
            sum((part.notes for part in parts), ()),
        )

    def _part(self, estimator: Callable[..., tuple[Quantity, Array, str]], *fits: Any) -> Outcome:
        """The interval of an estimator, or the failure of a fit that it needs."""
        failure = next((one for one in fits if isinstance(one, Failure)), None)
        return self._interval(*estimator(*fits)) if failure is None else failed(1, failure)

    def _interval(self, quantity: Quantity, V: Array, reason: str) -> Outcome:
        """Second-order delta interval of one quantity."""
        error = std_error(quantity, V)
        half = float(ndtri(0.5 + self.level / 2.0)) * error
        values = np.array([[quantity.estimate, error, quantity.estimate - half, quantity.estimate + half]])
        return Outcome(values, (None,), (reason if np.isnan(error) else "",))


def separate_product(mediator: LmmFit, outcome: LmmFit) -> tuple[Quantity, Array, str]:
    """a*b of two fits, with the covariance (2, 2) of a and b, taken as independent (Sobel)."""
    values, variances, reasons = [], [], []
    for fitted, name in ((mediator, "x"), (outcome, "m")):
        k = fitted.layout.equations[0].fixed.index(name)
        V = covariance(fitted, "joint")
        values.append(float(fitted.estimates.beta[k]))
        variances.append(float(V.matrix[k, k]))
        reasons.append(V.reason)
    a, b = (Quantity(name, value, unit) for name, value, unit in zip("ab", values, np.eye(2), strict=True))
    return (a * b).named("a*b"), np.diag(variances), next(filter(None, reasons), "")


def joint_product(fitted: LmmFit, routes: Routes) -> tuple[Quantity, Array, str]:
    """a*b of the joint fit, without cov_ab."""
    found = effect_quantities(routes, fitted.estimates)
    V = covariance(fitted, "joint")
    return (found["a"] * found["b"]).named("a*b"), V.matrix, V.reason


def joint_indirect(fitted: LmmFit, routes: Routes) -> tuple[Quantity, Array, str]:
    """a*b + cov_ab of the joint fit."""
    V = covariance(fitted, "joint")
    return effect_quantities(routes, fitted.estimates)["indirect"], V.matrix, V.reason


@dataclass(frozen=True)
class StudyResults:
    """Estimators of the indirect effect, by the covariance of the slopes.

    Attributes
    ----------
    table : DataFrame
        One row per covariance and estimator: cov_ab, estimator, truth; mean, bias, sd, rmse of the estimates;
        mean_se; coverage of the existing intervals; n, n_failed, n_no_interval, share_missing (of n, without estimate
        or interval), note. Columns ``_mcse`` are Monte Carlo standard errors.
    draws : DataFrame
        One row per data set and estimator: cov_ab, replicate, estimator, estimate, std_error, conf_low, conf_high.
        All estimators see the same data.
    truth : BPGTruth
        The population, except for cov_ab.
    size : (int, int)
        Clusters, and rows in each.
    level : float
        Nominal coverage of the intervals.
    seed : int
        Seed of the simulation.
    """

    table: pd.DataFrame
    draws: pd.DataFrame
    truth: BPGTruth
    size: tuple[int, int]
    level: float
    seed: int

    @property
    def n(self) -> int:
        """Data sets of every covariance."""
        return int(self.table["n"].iloc[0])

    def plot(self, value: str = "bias", *, ax: Axes | None = None) -> Axes:
        """Bias, sd, rmse or coverage against the covariance, with 95% Monte Carlo intervals (extra ``plots``).

        ``ax``: axes to draw on.

        Raises
        ------
        EffectError
            Unknown value.
        """
        one_of(value, SHOWN, "value")
        title = f"{self.n} data sets of {self.size[0]} clusters of {self.size[1]}"
        return plot_study(self.table, value=value, level=self.level, title=title, ax=ax)

    def __repr__(self) -> str:
        values = ", ".join(f"{value:g}" for value in self.table["cov_ab"].unique())
        J, size = self.size
        return f"StudyResults({self.n} data sets of {J} clusters of {size}, seed {self.seed}; cov_ab {values})"

    def __str__(self) -> str:
        title = "Estimators of the indirect effect when slopes covary"
        shown = pd.DataFrame(
            {
                "estimator": self.table["estimator"],
                "cov_ab": plain(self.table, "cov_ab"),
                "truth": plain(self.table, "truth"),
                **{name: with_error(self.table, name) for name in SHOWN[:3]},
                "mean_se": plain(self.table, "mean_se"),
                "coverage": with_error(self.table, "coverage"),
                "missing": missing(self.table),
            }
        )
        sets = f"{self.n} for each covariance, {self.size[0]} clusters of {self.size[1]}, seed {self.seed}"
        pairs = [("Data sets", sets), ("Intervals", f"{100 * self.level:g}%, delta (second order), joint errors")]
        return "\n".join(
            [title, "=" * len(title), render_pairs(pairs), "", render_table(shown), FOOT + why_missing(self.table)]
        )

    def _repr_html_(self) -> str:
        return as_html(str(self))


def study(
    covariances: Sequence[float] = (-0.113, 0.0, 0.113),
    *,
    n_clusters: int = 50,
    cluster_size: int = 8,
    n: int = 200,
    level: float = 0.95,
    seed: int,
    n_jobs: int | None = None,
    progress: bool = False,
    **population: Unpack[Population],
) -> StudyResults:
    """Compare estimators of the indirect effect over values of cov(a_j, b_j).

    The indirect effect is E[a_j b_j] = a b + cov(a_j, b_j). Two separate fits have no covariance to add; their
    product misses it. Every data set is given to four estimators: the product of two separate REML fits (second-order
    Sobel error), the product of the joint REML fit without and with its covariance, and the latter by ML. See
    docs/why_ab_is_biased.md.

    Parameters
    ----------
    covariances : sequence of float
        Values of cov(a_j, b_j), in place of the population's.
    n_clusters, cluster_size : int
        Clusters, and rows in each.
    n : int
        Data sets for each covariance.
    level : float
        Coverage of the intervals.
    seed : int
        Seed of the simulation; required. Results do not depend on ``n_jobs``.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one.
    progress : bool
        Show a progress bar on standard error.
    **population
        ``a``, ``b``, ``cprime``, ``G``, ``sigma2``, ``intercepts``, ``truth``, ``x_between``, ``skewed``, as in
        ``bpg``.

    Raises
    ------
    DataError, EffectError
        Invalid arguments or population.

    Examples
    --------
    >>> import mlmed
    >>> found = mlmed.simulate.study([0.113], n=10, seed=1)
    >>> found.table[["estimator", "truth"]].iloc[[0, 2]].values.tolist()
    [['separate a*b', 0.473], ['joint a*b + cov_ab, REML', 0.473]]
    """
    check_count(n, "data sets")
    level = check_level(level)
    seed, jobs = check_seed(seed, "study()"), check_jobs(n_jobs)
    base = _population(population)
    sources = tuple(replace(base, truth=base.truth.with_cov_ab(value)) for value in _known(covariances))
    size = (whole(n_clusters, "n_clusters"), whole(cluster_size, "cluster_size"))
    comparison = Comparison.of(sources, size, level)
    found = replicate(comparison, n, seed=seed, n_jobs=jobs, progress=progress)
    by_source = list(zip(sources, zip(*found, strict=True), strict=True))
    rows = [
        {"cov_ab": source.truth.cov_ab, "estimator": name, **summarized(outcomes, k, source.truth.indirect)}
        for source, outcomes in by_source
        for k, name in enumerate(ESTIMATORS)
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return StudyResults(table, _draws(by_source), base.truth, size, level, seed)


def _population(values: Population) -> Source:
    """The population, except for the covariance of the slopes, given by ``covariances``.

    Raises
    ------
    EffectError
        A covariance is given for the population, too.
    """
    if values.get("cov_ab") is not None:
        raise EffectError(
            f"study() runs over values of cov(a_j, b_j), its first argument; cov_ab={values['cov_ab']!r} is a second "
            "answer to the same question: write study([...]) with the values"
        )
    said = values.copy()
    if said.get("truth") is None:
        said["truth"] = default_truth("1-1-1")
    return Source.of("1-1-1", **said)


def _known(covariances: Sequence[float]) -> list[float]:
    values = several(covariances)
    found = [
        check_number(value, "a value of cov(a_j, b_j)", error=DataError) + 0.0 for value in values
    ]  # no negative zero
    if not found:
        raise EffectError("covariances is empty; give values of cov(a_j, b_j)")
    return found


def _draws(by_source: list[tuple[Source, tuple[Outcome, ...]]]) -> pd.DataFrame:
    pieces = []
    for source, outcomes in by_source:
        values = np.array([one.values for one in outcomes])  # (n, estimators, 4)
        n = len(values)
        piece = {
            "cov_ab": source.truth.cov_ab,
            "replicate": np.repeat(np.arange(n), len(ESTIMATORS)),
            "estimator": list(ESTIMATORS) * n,
            **dict(zip(VALUES, values.reshape(-1, len(VALUES)).T, strict=True)),
        }
        pieces.append(pd.DataFrame(piece))
    return pd.concat(pieces, ignore_index=True)
