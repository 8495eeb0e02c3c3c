"""Changes of the estimates without one cluster: by formula for all clusters at once, or by refitting.

Three answers, from cheap to exact: ``fixed_variance_changes`` (beta alone, exact if the variances stay),
``one_step_changes`` (one step of all parameters), ``refit_changes`` (the optimum without the cluster).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import chunks
from mlmed.lmm.estimates import Estimates, to_estimates
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.percluster import ClusterProducts, ClusterTerms, cluster_terms, psi_basis
from mlmed.lmm.resample import DEFICIENT, CaseResampler, Refit
from mlmed.lmm.sandwich import FULL_LEVERAGE, leverages
from mlmed.lmm.vcov import POSITIVE, information_of
from mlmed.lmm.working import Working
from mlmed.replication import Failure, Replicate, leave_out, stacked

Array = NDArray[np.float64]

ALONE = Failure("alone", "without this cluster the fixed effects cannot be told apart")
FEW = Failure("few-clusters", "without this cluster fewer than two clusters are left in an equation")
FLAT = Failure("flat", "without this cluster the Hessian of the variances is not positive definite; refit without it")
SINGULAR = Failure(
    "singular", "the optimum is singular, where the variances do not follow a Newton step; refit without the cluster"
)


@dataclass(frozen=True, slots=True)
class Influence:
    """Changes of the estimates when one cluster is left out, one row per cluster, in the user's units.

    Attributes
    ----------
    changes : (n, p + n_tau + S) array
        psi without the cluster minus psi; (n, p), beta alone, if the variances are held fixed. NaN where it
        does not exist.
    cooks : (n,) array
        Cook's distance of beta.
    failures : tuple of Failure or None
        Why a row is NaN; None if it is not.
    """

    changes: Array
    cooks: Array
    failures: tuple[Failure | None, ...]


def cooks_distance(changes: Array, P_inv: Array) -> Array:
    """``change' P change / p`` of every row: squared distance in units of the covariance of beta, (n,).

    Parameters
    ----------
    changes : (n, p) array
        Changes of beta.
    P_inv : (p, p) array
        Covariance of beta.
    """
    whitened = np.linalg.solve(np.linalg.cholesky(P_inv), changes.T)
    return np.einsum("in,in->n", whitened, whitened) / len(P_inv)


def _influence(changes: Array, estimates: Estimates, failures: Sequence[Failure | None]) -> Influence:
    p = len(estimates.beta)
    return Influence(changes, cooks_distance(changes[:, :p], estimates.P_inv), tuple(failures))


@dataclass(frozen=True, slots=True)
class _Deleted:
    """Generalized least squares without each of n clusters, the variances held fixed.

    Attributes
    ----------
    P_inv : (n, p, p) array
        (P - P_j)^-1; NaN where ``alone``.
    change : (n, p) array
        beta without the cluster minus beta; NaN where ``alone``.
    alone : (n,) bool array
        Whether some fixed effect is estimated from that cluster alone.
    """

    P_inv: Array
    change: Array
    alone: NDArray[np.bool_]


def _deleted(terms: ClusterTerms, optimum: Optimum) -> _Deleted:
    """(P - P_j)^-1 by the leverages of the cluster, the eigenvalues of P_j relative to P."""
    at = optimum.evaluation
    p = len(at.beta)
    root = np.asarray(np.linalg.cholesky(at.P_inv), dtype=np.float64)
    own = terms.cross[:p, :p].transpose(2, 0, 1)
    leverage, vectors = leverages(own, root)
    alone = leverage[:, -1] > 1.0 - FULL_LEVERAGE
    left = np.where(alone[:, None], np.nan, 1.0 - leverage)
    spread = root @ vectors
    P_inv = spread / left[:, None, :] @ spread.transpose(0, 2, 1)
    score = np.einsum("imj,m->ji", terms.cross[:p], np.append(-at.beta, 1.0))
    return _Deleted(P_inv, -np.einsum("jab,jb->ja", P_inv, score), alone)


def _terms(
    working: Working, optimum: Optimum, products: ClusterProducts, part: slice, *, information: bool = False
) -> ClusterTerms:
    basis = psi_basis(working.problem, working.blocks)
    return cluster_terms(working.problem, products, basis, optimum.L, optimum.sigma2, part, information=information)


def fixed_variance_changes(working: Working, optimum: Optimum, products: ClusterProducts, *, reml: bool) -> Influence:
    """Exact changes of beta without each cluster at the variances of the full fit: ``-(P - P_j)^-1 X_j'V_j^-1 r_j``.

    Defined for singular optima, too. Parameters as in ``refit_changes``.
    """
    found = [_deleted(_terms(working, optimum, products, part), optimum) for part in chunks(working.problem)]
    changes = np.concatenate([part.change for part in found]) @ working.units.X_map.T
    failures = [ALONE if alone else None for part in found for alone in part.alone]
    return _influence(changes, to_estimates(working, optimum, reml=reml), failures)


def one_step_changes(working: Working, optimum: Optimum, products: ClusterProducts, *, reml: bool) -> Influence:
    """Approximate changes of all parameters, one step of the criterion without each cluster.

    beta moves to its exact value without the cluster at the variances of the full fit. There the gradient of the
    deleted criterion in (tau, sigma2) is exact, with |P - P_j| in place of |P| under REML. The step divides it
    by ``H - I_j``, the observed Hessian of the full fit minus the *expected* Hessian of the cluster; beta follows
    by its derivative. A literal Newton step would take the observed Hessian of the cluster, which grows with the
    cluster's residuals and spoils the step for the very clusters that stand out. Where all clusters have the
    same rows of X and Z = X, the step is exact. Parameters as in ``refit_changes``.

    Returns
    -------
    Influence
        All NaN with a reason at a singular optimum or where the Hessian is not positive definite; use
        ``fixed_variance_changes`` or ``refit_changes`` there.
    """
    problem = working.problem
    estimates = to_estimates(working, optimum, reml=reml)
    p, n = problem.n_fixed, problem.n_fixed + len(estimates.hessian)
    reason = information_of(estimates)[1]
    changes = np.full((problem.n_clusters, n), np.nan)
    if optimum.is_singular or reason:
        failure = SINGULAR if optimum.is_singular else Failure("information", reason)
        return Influence(changes, changes[:, 0].copy(), (failure,) * problem.n_clusters)
    total = _total(working, optimum, products)
    failures: list[Failure | None] = []
    for part in chunks(problem):
        terms = _terms(working, optimum, products, part, information=True)
        deleted = _deleted(terms, optimum)
        step, flat = _step(terms, total, deleted, optimum.evaluation.beta, estimates.hessian, reml)
        changes[part, :p] = step[:, :p] @ working.units.X_map.T
        changes[part, p:] = step[:, p:] @ estimates.tau_map.T
        failures += [ALONE if a else FLAT if f else None for a, f in zip(deleted.alone, flat, strict=True)]
    return _influence(changes, estimates, failures)


def _total(working: Working, optimum: Optimum, products: ClusterProducts) -> tuple[Array, Array]:
    """Sums of ``trace`` and ``moved`` over all clusters, (K,) and (K, p + 1, p + 1)."""
    K = working.problem.residual.size + len(psi_basis(working.problem, working.blocks))
    trace, moved = np.zeros(K), np.zeros((K, *working.problem.C.shape[1:]))
    for part in chunks(working.problem):
        terms = _terms(working, optimum, products, part)
        trace += terms.trace.sum(axis=-1)
        moved += terms.moved.sum(axis=-1)
    return trace, moved


def _step(
    terms: ClusterTerms, total: tuple[Array, Array], deleted: _Deleted, beta: Array, hessian: Array, reml: bool
) -> tuple[Array, NDArray[np.bool_]]:
    """Step of (beta, tau, sigma2), (n, p + K), NaN if the Hessian is flat, and flags of that, (n,)."""
    p = len(beta)
    contrast = np.column_stack([-beta - deleted.change, np.ones(len(deleted.change))])
    moved = (total[1][..., None] - terms.moved).transpose(3, 0, 1, 2)  # (n, K, p + 1, p + 1)
    pulled = np.einsum("jkim,jm->jki", moved, contrast)
    gradient = (total[0][:, None] - terms.trace).T - np.einsum("jki,ji->jk", pulled, contrast)
    if reml:
        gradient -= np.einsum("jkim,jim->jk", moved[..., :p, :p], deleted.P_inv)
    slope = -np.einsum("jab,jkb->jak", deleted.P_inv, pulled[..., :p])  # eq. 12 without the cluster
    size = np.sqrt(np.diag(hessian))
    scaled = (hessian - terms.information.transpose(2, 0, 1)) / np.outer(size, size)
    values, vectors = np.linalg.eigh(scaled)
    flat = values[:, 0] < POSITIVE
    values[flat] = np.nan
    along = np.einsum("jka,jk->ja", vectors, gradient / size)
    variances = -np.einsum("jka,ja->jk", vectors, along / values) / size
    return np.column_stack([deleted.change + np.einsum("jak,jk->ja", slope, variances), variances]), flat


@dataclass(frozen=True, eq=False)
class WithoutOne:
    """Fits without one cluster, for ``leave_out``; holds cross-products, no rows.

    Attributes
    ----------
    working, optimum : Working, Optimum
        The model and its optimum.
    products : ClusterProducts
        Its cross-products by cluster.
    reml : bool
        Criterion.
    """

    working: Working
    optimum: Optimum
    products: ClusterProducts
    reml: bool

    @property
    def units(self) -> NDArray[np.intp]:
        """The clusters."""
        return np.arange(self.working.problem.n_clusters)

    def without(self, unit: int) -> Replicate | Failure:
        """All clusters but one."""
        refused = self._refused[unit]
        if refused is not None:
            return refused
        found = self._refit.fit(self._cases.without(unit))
        if isinstance(found, Failure):
            return ALONE if found == DEFICIENT else found.within("without this cluster: ")
        return found

    @cached_property
    def _refit(self) -> Refit:
        return Refit.of(self.working, self.optimum, reml=self.reml)

    @cached_property
    def _cases(self) -> CaseResampler:
        problem = self.working.problem
        return CaseResampler(problem.A, problem.B, self.products, problem.stratum, problem.roots)

    @cached_property
    def _refused(self) -> list[Failure | None]:
        """Why a cluster cannot be left out; None if it can."""
        alone = fixed_variance_changes(self.working, self.optimum, self.products, reml=self.reml).failures
        present = self.products.nobs > 0
        left = (present.sum(axis=1)[:, None] - present).min(axis=0)
        return [failure or (FEW if few else None) for failure, few in zip(alone, left < 2, strict=True)]


def refit_changes(
    working: Working,
    optimum: Optimum,
    products: ClusterProducts,
    *,
    reml: bool,
    clusters: Sequence[int] | None = None,
    n_jobs: int | None = None,
) -> Influence:
    """Exact changes: the criterion is minimized again without each of the clusters.

    Parameters
    ----------
    working, optimum : Working, Optimum
        The model and its optimum, from which the searches start.
    products : ClusterProducts
        From ``cluster_products(working, grams)``.
    reml : bool
        Restricted likelihood or not.
    clusters : sequence of int, optional
        Positions of the clusters to leave out; all by default.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one.

    Returns
    -------
    Influence
        One row per cluster in ``clusters``; NaN with a reason where the smaller data do not identify the model
        or its optimum is not certified.
    """
    estimates = to_estimates(working, optimum, reml=reml)
    chosen = np.arange(working.problem.n_clusters) if clusters is None else np.asarray(clusters, dtype=np.intp)
    found = leave_out(WithoutOne(working, optimum, products, reml).without, chosen, n_jobs=n_jobs)
    base = np.concatenate([estimates.beta, estimates.tau, estimates.sigma2])
    failures = [one if isinstance(one, Failure) else None for one in found]
    return _influence(stacked(found, len(base)) - base, estimates, failures)
