"""What the estimates would be without one cluster: by formula for all clusters at once, or by refitting.

Three answers, from cheap to exact: ``fixed_variance_changes`` (beta alone, exact if the variances stay),
``one_step_changes`` (one step of all parameters), ``refit_changes`` (the optimum without the cluster).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.reml.alone import FULL_LEVERAGE, leverages
from mlmed.reml.clusters import chunks
from mlmed.reml.estimates import Estimates, to_estimates
from mlmed.reml.fit import Optimum
from mlmed.reml.percluster import ClusterProducts, ClusterTerms, cluster_terms
from mlmed.reml.refit import DEFICIENT, Refit, Refitted
from mlmed.reml.resample import CaseResampler
from mlmed.reml.scores import psi_basis
from mlmed.reml.vcov import POSITIVE, information_of
from mlmed.reml.working import Working
from mlmed.replication import results_of

__all__ = [
    "Influence",
    "cooks_distance",
    "fixed_variance_changes",
    "one_step_changes",
    "refit_changes",
    "refits_without",
]

Array = NDArray[np.float64]

ALONE = "without this cluster the fixed effects cannot be told apart"
FEW = "without this cluster fewer than two clusters are left in an equation"
FLAT = "without this cluster the Hessian of the variances is not positive definite; refit without it"
SINGULAR = "the optimum is singular, where the variances do not follow a Newton step; refit without the cluster"


@dataclass(frozen=True, slots=True)
class Influence:
    """Changes of the estimates when one cluster is left out, one row per cluster, in the user's units.

    Attributes
    ----------
    changes : (n, p + n_tau + S) array
        psi without the cluster minus psi; (n, p), beta alone, where the variances are held fixed. NaN where it
        does not exist.
    cooks : (n,) array
        Cook's distance of beta.
    reasons : tuple of str
        Why a row is NaN; empty where it is not.
    """

    changes: Array
    cooks: Array
    reasons: tuple[str, ...]


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


def _influence(changes: Array, estimates: Estimates, reasons: Sequence[str]) -> Influence:
    p = len(estimates.beta)
    return Influence(changes, cooks_distance(changes[:, :p], estimates.P_inv), tuple(reasons))


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

    Defined for singular optima, too. The parameters are those of ``refit_changes``.
    """
    found = [_deleted(_terms(working, optimum, products, part), optimum) for part in chunks(working.problem)]
    changes = np.concatenate([part.change for part in found]) @ working.units.X_map.T
    reasons = [ALONE if alone else "" for part in found for alone in part.alone]
    return _influence(changes, to_estimates(working, optimum, reml=reml), reasons)


def one_step_changes(working: Working, optimum: Optimum, products: ClusterProducts, *, reml: bool) -> Influence:
    """Approximate changes of all parameters, one step of the criterion without each cluster.

    beta goes to its exact value without the cluster at the variances of the full fit. There the gradient of the
    deleted criterion in (tau, sigma2) is exact, with |P - P_j| in place of |P| under REML. The step divides it
    by ``H - I_j``, the observed Hessian of the full fit less the *expected* Hessian of the cluster; beta follows
    by its derivative. The observed Hessian of the cluster would be the literal Newton step, but it grows with
    the cluster's residuals and spoils the step for just the clusters that stand out. Where all clusters have the
    same rows of X and Z = X, the step is exact. The parameters are those of ``refit_changes``.

    Returns
    -------
    Influence
        All NaN with a reason at a singular optimum or where the Hessian is not positive definite; use
        ``fixed_variance_changes`` or ``refit_changes`` there.
    """
    problem = working.problem
    estimates = to_estimates(working, optimum, reml=reml)
    p, n = problem.n_fixed, problem.n_fixed + len(estimates.hessian)
    reason = SINGULAR if optimum.is_singular else information_of(estimates)[1]
    changes = np.full((problem.n_clusters, n), np.nan)
    if reason:
        return Influence(changes, changes[:, 0].copy(), (reason,) * problem.n_clusters)
    total = _total(working, optimum, products)
    reasons: list[str] = []
    for part in chunks(problem):
        terms = _terms(working, optimum, products, part, information=True)
        deleted = _deleted(terms, optimum)
        step, flat = _step(terms, total, deleted, optimum.evaluation.beta, estimates.hessian, reml)
        changes[part, :p] = step[:, :p] @ working.units.X_map.T
        changes[part, p:] = step[:, p:] @ estimates.tau_map.T
        reasons += [ALONE if a else FLAT if f else "" for a, f in zip(deleted.alone, flat, strict=True)]
    return _influence(changes, estimates, reasons)


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
    """Step of (beta, tau, sigma2), (n, p + K), NaN where it is flat, and where it is, (n,)."""
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


def refits_without(
    working: Working,
    optimum: Optimum,
    products: ClusterProducts,
    *,
    reml: bool,
    clusters: Sequence[int] | None = None,
    n_jobs: int | None = None,
) -> list[Refitted]:
    """Fits without each of the clusters, NaN with a reason where there is none; see ``refit_changes``.

    They do not depend on the number of workers.
    """
    import joblib

    problem = working.problem
    chosen = np.arange(problem.n_clusters) if clusters is None else np.asarray(clusters, dtype=np.intp)
    refused = _refused(working, optimum, products, reml)
    cases = CaseResampler(problem.A, problem.B, products, problem.stratum, problem.roots)
    n_psi = len(_psi(to_estimates(working, optimum, reml=reml)))
    task = Refit.of(cases, working, optimum, reml=reml, n_psi=n_psi)
    pieces = np.array_split(chosen, max(min(4 * joblib.effective_n_jobs(n_jobs), len(chosen)), 1))
    calls = ((task, cases, piece, [refused[j] for j in piece]) for piece in pieces)
    with results_of(_without, calls, n_jobs) as parts:
        return [one for part in parts for one in part]


def _refused(working: Working, optimum: Optimum, products: ClusterProducts, reml: bool) -> list[str]:
    """Why a cluster cannot be left out; empty where it can."""
    alone = fixed_variance_changes(working, optimum, products, reml=reml).reasons
    present = products.nobs > 0
    left = (present.sum(axis=1)[:, None] - present).min(axis=0)
    return [reason or (FEW if few else "") for reason, few in zip(alone, left < 2, strict=True)]


def _without(task: Refit, cases: CaseResampler, clusters: NDArray[np.intp], refused: Sequence[str]) -> list[Refitted]:
    missing = np.full(task.n_psi, np.nan)
    found = []
    for cluster, reason in zip(clusters, refused, strict=True):
        one = Refitted(missing, False, reason) if reason else task.fit(cases.without(int(cluster)))
        if one.reason and not reason:
            one = replace(one, reason=ALONE if one.reason == DEFICIENT else f"without this cluster: {one.reason}")
        found.append(one)
    return found


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
    found = refits_without(working, optimum, products, reml=reml, clusters=clusters, n_jobs=n_jobs)
    base = _psi(estimates)
    changes = np.array([one.psi for one in found]).reshape(len(found), len(base)) - base
    return _influence(changes, estimates, [one.reason for one in found])


def _psi(estimates: Estimates) -> Array:
    return np.concatenate([estimates.beta, estimates.tau, estimates.sigma2])
