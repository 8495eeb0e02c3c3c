"""Potential-outcome effects of replicates: rows or clusters drawn, both equations refitted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmed.effects.average import ClusterSlopes, Parameters, Setting, average_effects
from mlmed.effects.potential import CONTRASTS
from mlmed.effects.setting import Chain, Part, Rows
from mlmed.effects.uncertainty import Law, contrast_covariance
from mlmed.errors import EffectError
from mlmed.fit.lmm import LmmFit
from mlmed.fit.resampling import Plan, Source
from mlmed.fit.vcov import alone_in, lost_in_replicates
from mlmed.glm.fit import Regression
from mlmed.lmm.covariance import ROUNDING, psd_cholesky
from mlmed.lmm.ranef import mode_law
from mlmed.lmm.resample import CaseRefit, Refit, case_resampler
from mlmed.lmm.vcov import Directions
from mlmed.replication import Failure, Replicate, Resampled

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Refitted:
    """One equation of a replicate.

    Attributes
    ----------
    beta : (p,) array
        Fixed effects.
    noise : (2, n) or (2, 1) array
        Spread of the response around its linear predictor, as ``Setting.noise``.
    u : (J, q) array
        Modes of the drawn clusters, 0 for others; no columns without random effects.
    singular : bool
        Whether the optimum lies on the boundary.
    """

    beta: Array
    noise: Array
    u: Array
    singular: bool = False


@dataclass(frozen=True, slots=True)
class MixedRefit:
    """Refit of a mixed model to listed clusters.

    Attributes
    ----------
    equation : CaseRefit
        The model and its clusters, in the order of the setting.
    basis : (n_tau, q, q) array
        Matrices E_k with G = sum tau_k E_k.
    modes : bool
        Whether random effects enter by their modes.
    Z : (2, n, q) array
        Columns of random effects that are integrated out into the spread of the response; otherwise n is 0.
    """

    equation: CaseRefit
    basis: Array
    modes: bool
    Z: Array

    def __call__(self, index: Indices) -> Refitted | Failure:
        """Fit the listed clusters."""
        problem = self.equation.cases.at(index)
        found = self.equation.fitted(problem)
        if isinstance(found, Failure):
            return found
        p, T = problem.n_fixed, len(self.basis)
        beta, tau, sigma2 = found.values[:p], found.values[p : p + T], found.values[p + T :]
        G = np.einsum("k,kab->ab", tau, self.basis)
        noise = np.full((2, 1), np.sqrt(sigma2[0]))
        if self.Z.shape[1]:
            noise = np.sqrt(np.einsum("tna,ab,tnb->tn", self.Z, G, self.Z, optimize=True) + sigma2[0])
        J = self.equation.cases.A.shape[2]
        u = np.zeros((J, 0))
        if self.modes:
            units = self.equation.refit.units
            L = np.asarray(np.linalg.solve(units.Z_map, psd_cholesky(G, tol=ROUNDING)), dtype=np.float64)
            at_beta = np.asarray(np.linalg.solve(units.X_map, beta - units.offset), dtype=np.float64)
            u = np.zeros((J, G.shape[0]))
            u[index] = mode_law(problem, L, sigma2 / units.y_scale**2, at_beta, units).modes
        return Refitted(beta, noise, u, found.singular)


@dataclass(frozen=True, slots=True)
class ChainRefit:
    """Refit of both equations to listed rows or clusters, and the five contrasts averaged over them.

    Attributes
    ----------
    setting : Setting
        The original rows.
    mediator, outcome : Regression or MixedRefit
        Both equations.
    codes : (n,) int array
        The cluster, or the row itself, that each row of the setting belongs to.
    """

    setting: Setting
    mediator: Regression | MixedRefit
    outcome: Regression | MixedRefit
    codes: Indices

    def __call__(self, index: Indices) -> Replicate | Failure:
        """Fit, and average."""
        weights = np.bincount(index, minlength=int(self.codes.max()) + 1).astype(np.float64)[self.codes]
        if isinstance(mediator := self._fitted(self.mediator, weights, index), Failure):
            return mediator
        if isinstance(outcome := self._fitted(self.outcome, weights, index), Failure):
            return outcome
        setting = replace(self.setting, weights=weights, noise=mediator.noise)
        parameters = Parameters(mediator.beta[None], outcome.beta[None], mediator.u[None], outcome.u[None])
        return Replicate(average_effects(setting, parameters)[0], mediator.singular or outcome.singular)

    def _fitted(self, equation: Regression | MixedRefit, weights: Array, index: Indices) -> Refitted | Failure:
        if isinstance(equation, MixedRefit):
            return equation(index)
        fit = equation.counted(weights)
        if isinstance(fit, Failure):
            return fit
        return Refitted(fit.beta, np.full((2, 1), np.sqrt(fit.sigma2)), np.empty((len(self.setting.starts), 0)))


def source_of_chain(chain: Chain, rows: Rows, laws: tuple[Law, Law], slopes: ClusterSlopes, plan: Plan) -> Source:
    """Source of replicates: clusters if a column names them, otherwise rows.

    Raises
    ------
    EffectError
        Another kind of replicate is asked for.
    """
    if plan.kind != "case" or plan.within or plan.strata is not None:
        raise EffectError(
            "a bootstrap of mlmed.causal draws clusters, or rows where there are none; leave out kind, within and "
            "strata"
        )
    grouping, order = chain.grouping, rows.order
    codes = np.arange(len(order)) if grouping is None else grouping.codes[order]
    ids = pd.RangeIndex(len(order)) if grouping is None else grouping.clusters
    first, second = (_refit(chain, rows, part) for part in chain.parts)
    cases = Resampled(ChainRefit(rows.setting, first, second, codes), (np.arange(len(ids)),))
    kind, lost = "row" if grouping is None else "cluster", _lost(chain, laws, slopes)
    return Source(cases, cases, len(CONTRASTS), ids, kind, lost)


def _lost(chain: Chain, laws: tuple[Law, Law], slopes: ClusterSlopes) -> tuple[Directions, ...]:
    """Directions of the contrasts that a single cluster, or row, alone identifies."""
    remedy = "use interval='delta' and vcov='iid'"
    if chain.grouping is not None:
        remedy = "use interval='delta' of equations with random terms, without cluster="
    text = lost_in_replicates(remedy, "row" if chain.grouping is None else "cluster")
    alone = [
        alone_in(part.fit, text) if isinstance(part.fit, LmmFit) else part.fit.alone_in(text) for part in chain.parts
    ]
    first, second = (replace(law, vcov=law.vcov.losing([one])) for law, one in zip(laws, alone, strict=True))
    return contrast_covariance(slopes, first, second).vcov.lost


def _refit(chain: Chain, rows: Rows, part: Part) -> Regression | MixedRefit:
    where, fit = f"equation {part.name}, ", part.fit
    if not isinstance(fit, LmmFit):
        design = fit.design
        X, y = design.X[rows.order], design.y[rows.order]
        return Regression(fit.family, part.name, design.names, y, X, fit.psi, where)
    assert chain.grouping is not None
    cases = case_resampler(fit.spec, fit.grams).reordered(fit.clusters.get_indexer(chain.grouping.clusters))
    refit = CaseRefit(where, cases, Refit.of(fit.working, fit.optimum, reml=fit.reml))
    random = rows.setting.random
    modes = bool(random.mediator.shape[2] or random.outcome.shape[2])
    Z = rows.averaged_out if part is chain.mediator else np.empty((2, 0, len(fit.estimates.G)))
    return MixedRefit(refit, fit.estimates.tau_basis, modes, Z)
