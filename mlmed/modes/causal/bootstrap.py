"""Nonparametric bootstrap of ``causal``: rows or clusters drawn, both equations fitted again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.average import Parameters, Setting, average_effects
from mlmed.effects.delta import Quantity
from mlmed.effects.potential import all_effects
from mlmed.effects.uncertainty import contrast_covariance, slopes_at
from mlmed.errors import DataError, NotIdentifiedError
from mlmed.glm.fit import GlmFit, fit_glm
from mlmed.modes.bootstrap import BootstrapResults
from mlmed.modes.causal.fit import EquationFit, Grouping, alone_of
from mlmed.modes.causal.setting import Chain, Prepared
from mlmed.modes.causal.tables import without_spread
from mlmed.modes.covariance import lost_in_replicates
from mlmed.modes.fitting import Fitted
from mlmed.reml.covariance import ROUNDING, psd_cholesky
from mlmed.reml.posterior import mode_law
from mlmed.reml.refit import Refit
from mlmed.reml.resample import CaseResampler, case_resampler
from mlmed.reml.vcov import Directions, said_along
from mlmed.replication import leave_out, replicate

__all__ = ["CausalBootstrap", "CausalReplicate", "bootstrap_causal"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Refitted:
    """One equation of a replicate.

    Attributes
    ----------
    beta : (p,) array
        Fixed effects.
    u : (J, q) array
        Modes of the clusters that were drawn, 0 for the others; no columns without random effects.
    noise : (2, n) or (2, 1) array
        Spread of the response around its linear predictor, as ``Setting.noise``.
    singular : bool
        Whether the optimum lies on the boundary.
    """

    beta: Array
    u: Array
    noise: Array
    singular: bool = False


@dataclass(frozen=True, slots=True)
class PlainRefit:
    """An ordinary regression, fitted again with other counts of its rows.

    Attributes
    ----------
    family, response : str
        Family and name of the response.
    names : tuple of str
        Columns of X.
    y, X : (n,), (n, p) arrays
        Data.
    start : (p,) array
        Where the search begins.
    J : int
        Clusters of the setting.
    """

    family: str
    response: str
    names: tuple[str, ...]
    y: Array
    X: Array
    start: Array
    J: int

    def __call__(self, weights: Array, index: Indices) -> Refitted:
        """Fit; ``index`` is not needed."""
        kept = weights > 0.0
        fit = fit_glm(
            self.family,
            self.y[kept],
            self.X[kept],
            names=self.names,
            response=self.response,
            weights=weights[kept],
            start=self.start,
        )
        return Refitted(fit.beta, np.empty((self.J, 0)), np.full((2, 1), np.sqrt(fit.sigma2)))


@dataclass(frozen=True, slots=True)
class MixedRefit:
    """A mixed model, fitted again to drawn clusters.

    Attributes
    ----------
    source : CaseResampler
        Cross-products by cluster, in the order of the setting.
    refit : Refit
        The model and where its search begins.
    basis : (n_tau, q, q) array
        Matrices E_k with G = sum tau_k E_k.
    modes : bool
        Whether random effects enter by their modes.
    Z : (2, n, q) array
        Columns of the random effects where they are averaged out in the spread of the response; otherwise n is 0.
    J : int
        Clusters of the setting.
    """

    source: CaseResampler
    refit: Refit
    basis: Array
    modes: bool
    Z: Array
    J: int

    def __call__(self, weights: Array, index: Indices) -> Refitted:
        """Fit the listed clusters; ``weights`` are not needed.

        Raises
        ------
        NotIdentifiedError
            The replicate has no certified optimum.
        """
        problem = self.source.at(index)
        found = self.refit.fit(problem)
        if found.reason:
            raise NotIdentifiedError(found.reason)
        p, T = problem.n_fixed, len(self.basis)
        beta, tau, sigma2 = found.psi[:p], found.psi[p : p + T], found.psi[p + T :]
        G = np.einsum("k,kab->ab", tau, self.basis)
        noise = np.full((2, 1), np.sqrt(sigma2[0]))
        if self.Z.shape[1]:
            noise = np.sqrt(np.einsum("tna,ab,tnb->tn", self.Z, G, self.Z, optimize=True) + sigma2[0])
        u = np.zeros((self.J, 0))
        if self.modes:
            units = self.refit.units
            L = np.asarray(np.linalg.solve(units.Z_map, psd_cholesky(G, tol=ROUNDING)), dtype=np.float64)
            at_beta = np.asarray(np.linalg.solve(units.X_map, beta - units.offset), dtype=np.float64)
            u = np.zeros((self.J, G.shape[0]))
            u[index] = mode_law(problem, L, sigma2 / units.y_scale**2, at_beta, units).modes
        return Refitted(beta, u, noise, found.singular)


@dataclass(frozen=True, slots=True)
class CausalReplicate:
    """Effects of one replicate.

    Attributes
    ----------
    contrasts : (5,) array
        NaN if a fit failed.
    singular : bool
        Whether a mixed model lies on the boundary.
    reason : str
        Why it failed; empty otherwise.
    """

    contrasts: Array
    singular: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CausalTask:
    """Draw rows or clusters, fit both equations, average over what was drawn; a task for ``replicate``.

    Attributes
    ----------
    setting : Setting
        Of the original rows.
    mediator, outcome : PlainRefit or MixedRefit
        Both equations.
    units : (n,) int array
        The cluster, or the row itself, that each row of the setting belongs to.
    """

    setting: Setting
    mediator: PlainRefit | MixedRefit
    outcome: PlainRefit | MixedRefit
    units: Indices

    @property
    def n_units(self) -> int:
        """What is drawn from."""
        return int(self.units.max()) + 1

    def __call__(self, rng: np.random.Generator) -> CausalReplicate:
        """One replicate."""
        return self.at(rng.integers(self.n_units, size=self.n_units))

    def without(self, unit: int) -> CausalReplicate:
        """All rows or clusters but one (the jackknife)."""
        return self.at(np.delete(np.arange(self.n_units), unit))

    def at(self, index: Indices) -> CausalReplicate:
        """Effects with the listed rows or clusters."""
        weights = np.bincount(index, minlength=self.n_units).astype(np.float64)[self.units]
        try:
            mediator, outcome = self.mediator(weights, index), self.outcome(weights, index)
        except (DataError, NotIdentifiedError) as error:
            return CausalReplicate(np.full(5, np.nan), False, str(error))
        setting = replace(self.setting, weights=weights, noise=mediator.noise)
        parameters = Parameters(mediator.beta[None], outcome.beta[None], mediator.u[None], outcome.u[None])
        return CausalReplicate(average_effects(setting, parameters)[0], mediator.singular or outcome.singular)


class CausalBootstrap(BootstrapResults):
    """Replicates of both fits; see ``BootstrapResults``."""

    def tidy(
        self, *, method: str = "percentile", level: float = 0.95, terms: str | Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Intervals of all effects, as ``BootstrapResults.tidy``; shares of the total have no standard error."""
        return without_spread(super().tidy(method=method, level=level, terms=terms))


def bootstrap_causal(
    chain: Chain,
    prepared: Prepared,
    estimates: Mapping[str, Quantity],
    *,
    n: int,
    seed: int,
    n_jobs: int | None,
    progress: bool,
) -> CausalBootstrap:
    """Run the replicates: clusters where a column names them, otherwise rows."""
    lost = _lost(chain, prepared)
    said = {term: said_along(lost, quantity.gradient) for term, quantity in estimates.items()}
    task = _task(chain, prepared)
    found = replicate(task, n, seed=seed, n_jobs=n_jobs, progress=progress)
    fixed = {term: quantity.note for term, quantity in estimates.items() if quantity.is_fixed}
    return CausalBootstrap(
        draws=_frame(found),
        estimates=pd.Series({term: quantity.estimate for term, quantity in estimates.items()}),
        kind="cluster" if chain.grouping is not None else "row",
        seed=seed,
        n_singular=sum(one.singular for one in found),
        failures=dict(Counter(one.reason.split(" (")[0] for one in found if one.reason)),
        fixed=fixed,
        notes={term: quantity.note for term, quantity in estimates.items() if term not in fixed},
        _leave_out=partial(_jackknife, task, n_jobs),
        lost={term: why for term, why in said.items() if why},
    )


def _lost(chain: Chain, prepared: Prepared) -> tuple[Directions, ...]:
    """Directions of the contrasts that single clusters, or rows, alone notice."""
    delta = "use interval='delta' without robust="
    if chain.grouping is not None:
        delta = "use interval='delta' of equations with random terms, without cluster="
    text = lost_in_replicates(delta, "row" if chain.grouping is None else "cluster")
    laws = [
        replace(law, vcov=law.vcov.losing([alone_of(equation.fit, chain.grouping, text)]))
        for law, equation in ((prepared.mediator, chain.mediator), (prepared.outcome, chain.outcome))
    ]
    return contrast_covariance(slopes_at(prepared.setting, *laws), *laws).vcov.lost


def _jackknife(task: CausalTask, n_jobs: int | None) -> pd.DataFrame:
    return _frame(leave_out(task.without, np.arange(task.n_units), n_jobs=n_jobs))


def _frame(found: list[CausalReplicate]) -> pd.DataFrame:
    return pd.DataFrame(all_effects(np.array([one.contrasts for one in found])))


def _task(chain: Chain, prepared: Prepared) -> CausalTask:
    order, grouping = prepared.order, chain.grouping
    units = np.arange(len(order)) if grouping is None else grouping.codes[order]
    make: Callable[[EquationFit, bool], PlainRefit | MixedRefit] = partial(_refit, prepared=prepared, grouping=grouping)
    return CausalTask(prepared.setting, make(chain.mediator, True), make(chain.outcome, False), units)


def _refit(
    equation: EquationFit, is_mediator: bool, *, prepared: Prepared, grouping: Grouping | None
) -> PlainRefit | MixedRefit:
    design, order, J = equation.design, prepared.order, len(prepared.setting.starts)
    if isinstance(equation.fit, GlmFit):
        X, y = design.X[order], design.y[order]
        return PlainRefit(equation.family, equation.name, equation.names, y, X, equation.beta, J)
    assert grouping is not None
    modes = bool(prepared.setting.random.mediator.shape[2] or prepared.setting.random.outcome.shape[2])
    q = len(equation.fit.estimates.G)
    Z = prepared.averaged_out if is_mediator else np.empty((2, 0, q))
    return _mixed_refit(equation.fit, grouping, modes=modes, Z=Z, J=J)


def _mixed_refit(fit: Fitted, grouping: Grouping, *, modes: bool, Z: Array, J: int) -> MixedRefit:
    source = case_resampler(fit.spec, fit.grams).reordered(fit.clusters.get_indexer(grouping.clusters))
    size = len(fit.estimates.beta) + len(fit.estimates.tau) + len(fit.estimates.sigma2)
    task = Refit.of(source, fit.working, fit.optimum, reml=fit.reml, n_psi=size)
    return MixedRefit(source, task, fit.estimates.tau_basis, modes, Z, J)
