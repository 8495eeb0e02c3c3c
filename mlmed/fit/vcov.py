"""Every named covariance of the estimates, model-based or robust."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mlmed.fit.protocol import Solved
from mlmed.glm.fit import GlmFit, cluster_vcov, hc_vcov
from mlmed.lmm.percluster import ClusterProducts, cluster_products
from mlmed.lmm.sandwich import Alone, moves_of_one, sandwich_vcov, without_rounding
from mlmed.lmm.vcov import Directions, Vcov, information_of, parameter_vcov
from mlmed.options import HC_KINDS, check_vcov

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Kinds that propagate the variances to the fixed effects.
PROPAGATED = ("joint", "cluster")
BOUNDARY_NOTE = "boundary (singular) fit: standard error of a boundary value"
#: Clusters limit the rank of a sandwich, which is a sum over them.
FEW = "{what} from {J} clusters has rank {rank} at most for {n} {parameters}: do not trust it"
ALONE = (
    "no robust standard error: without {{owners}} it cannot be estimated, so the others do not show how it varies; "
    "{remedy}, or a model in which more {what} give it"
)
#: Note on a bootstrap of clusters or rows. Most replicates without the owner fail; in strata none lacks it.
RESAMPLED = (
    "no interval: without {{owners}} it cannot be estimated, so all replicates that give it have that same {one} in "
    "them and do not show how it varies; {remedy}, or a model in which more {one}s give it"
)


def _assumed(kind: str, fitted: Solved) -> Vcov:
    return _at_the_edge(fitted, kind, parameter_vcov(fitted.estimates, kind))


def _sandwich(kind: str, fitted: Solved) -> Vcov:
    """Cluster-robust covariance, without directions that a single cluster alone identifies."""
    products = cluster_products(fitted.working, fitted.grams)
    found = sandwich_vcov(fitted.working, fitted.optimum, products, kind, reml=fitted.reml)
    note = too_few(f"vcov={kind!r}", len(fitted.clusters), len(found.matrix), "parameters")
    lost = alone_in(fitted, lost_along("use vcov='block'", "clusters"), products).below(len(found.matrix))
    return _at_the_edge(fitted, kind, found.saying(note=note)).losing([lost])


def _in_rows(kind: str, fit: GlmFit, codes: Indices | None) -> Array:
    assert codes is None, kind  # not defined for rows in clusters
    return hc_vcov(fit, kind)


#: Every covariance by name: of psi of a linear mixed model (None: not defined), and of an ordinary regression (None:
#: the model's own) given the cluster of each row (None: every row is a cluster, where CR2 is HC2).
ESTIMATORS: dict[
    str, tuple[Callable[[Solved], Vcov] | None, Callable[[GlmFit, Indices | None], Array] | None]
] = {
    "block": (partial(_assumed, "block"), None),
    "joint": (partial(_assumed, "joint"), None),
    "CR0": (partial(_sandwich, "CR0"), partial(cluster_vcov, corrected=False)),
    "CR1": (partial(_sandwich, "CR1"), cluster_vcov),
    "CR2": (partial(_sandwich, "CR2"), partial(_in_rows, "HC2")),
    "cluster": (partial(_sandwich, "cluster"), cluster_vcov),
    "iid": (None, None),
    **{kind: (None, partial(_in_rows, kind)) for kind in HC_KINDS},
}  # fmt: skip


def covariance(fitted: Solved, kind: str) -> Vcov:
    """Covariance of psi, of one kind.

    Raises
    ------
    EffectError
        Unknown kind, or one for ordinary regressions.
    """
    estimate = ESTIMATORS[check_vcov(kind)][0]
    assert estimate is not None
    return estimate(fitted)


def plain_covariance(
    fit: GlmFit, kind: str, lost: Callable[[], Directions], *, codes: Indices | None = None, note: str = ""
) -> Vcov:
    """Covariance of an ordinary regression; ``lost``: directions that a single cluster or row alone identifies."""
    robust = ESTIMATORS[kind][1]
    if robust is None:
        return Vcov.one(fit.vcov, note=note)
    return Vcov.one(robust(fit, codes), note=note).losing([lost()])


def too_few(what: str, J: int, n: int, parameters: str) -> str:
    """Note on a cluster-robust covariance of n parameters from J clusters; empty if J is enough."""
    return "" if n < J else FEW.format(what=what, J=J, rank=J - 1, n=n, parameters=parameters)


def lost_along(remedy: str, what: str) -> str:
    """Note on ``Directions`` that one cluster, or row, alone identifies."""
    return ALONE.format(remedy=remedy, what=what)


def lost_in_replicates(remedy: str, one: str = "cluster") -> str:
    """``lost_along`` for a bootstrap of clusters, or rows."""
    return RESAMPLED.format(remedy=remedy, one=one)


def alone_in(fitted: Solved, text: str, products: ClusterProducts | None = None) -> Directions:
    """Directions of the fixed effects that a single cluster alone identifies."""
    if products is None:
        products = cluster_products(fitted.working, fitted.grams)
    found = moves_of_one(fitted.working, fitted.optimum, products)
    return named(found, text, [f"cluster {fitted.clusters[j]} ({fitted.group_name})" for j in found.owners])


def named(found: Alone, text: str, owners: Sequence[str]) -> Directions:
    """Directions from moves, with their note and the names of their owners."""
    return Directions(found.moves, text, tuple(owners))


def _at_the_edge(fitted: Solved, kind: str, V: Vcov) -> Vcov:
    """Flag errors that rely on the curvature in the variances of a singular matrix, which cannot move freely.

    These are errors of variances and covariances of G, or of the residuals, and of fixed effects that depend on them.
    """
    if not fitted.is_singular:
        return V
    estimates, optimum = fitted.estimates, fitted.optimum
    p, n_tau, n = len(estimates.beta), len(estimates.tau), len(estimates.tau_map)
    of = np.repeat([optimum.rank < optimum.size, optimum.residual_lost > 0], [n_tau, n - n_tau])
    matrix = np.zeros((len(V.matrix), int(of.sum())))
    matrix[p : p + n] = estimates.tau_map[:, of]
    if kind in PROPAGATED:
        units = np.sqrt(np.diag(information_of(estimates)[0]))[of]
        errors = np.sqrt(np.diag(estimates.P_inv))
        # in a balanced design beta does not depend on the variances
        moved = without_rounding(estimates.beta_gradient[:, of] * units, errors)
        matrix[:p] = np.where(moved != 0.0, estimates.beta_gradient[:, of], 0.0)
    return V.saying(edge=(Directions(matrix, BOUNDARY_NOTE, ("",) * matrix.shape[1]),))
