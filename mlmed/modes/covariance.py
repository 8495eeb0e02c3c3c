"""Every named covariance of the estimates, model-based or robust."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlmed.modes.fitting import Fitted
from mlmed.options import ALL_KINDS, VCOV_KINDS, one_of
from mlmed.reml.alone import Alone, moves_of_one, without_rounding
from mlmed.reml.percluster import ClusterProducts, cluster_products
from mlmed.reml.sandwich import sandwich_vcov
from mlmed.reml.vcov import Directions, Vcov, information_of, parameter_vcov, without

__all__ = [
    "BOUNDARY_NOTE",
    "alone_in",
    "covariance",
    "lost_along",
    "lost_in_replicates",
    "named",
    "too_few",
]

#: Kinds that let the fixed effects move with the variances.
PROPAGATED = ("joint", "cluster")
BOUNDARY_NOTE = "boundary (singular) fit: standard error of a boundary value"
#: A sandwich is a sum over clusters, so they limit its rank.
FEW = "{what} from {J} clusters has rank {rank} at most for {n} {parameters}: do not trust it"
ALONE = (
    "no robust standard error: without {{owners}} it cannot be estimated, so the others do not show how it varies; "
    "{remedy}, or a model in which more {what} give it"
)
#: Beside a bootstrap of clusters or rows. Most replicates without the owner fail; in strata there are none.
RESAMPLED = (
    "no interval: without {{owners}} it cannot be estimated, so all replicates that give it have that same {one} in "
    "them and do not show how it varies; {remedy}, or a model in which more {one}s give it"
)


def covariance(fitted: Fitted, kind: str) -> Vcov:
    """Covariance of psi in one of its versions.

    Raises
    ------
    EffectError
        Unknown kind.
    """
    one_of(kind, ALL_KINDS, "vcov")
    if kind in VCOV_KINDS:
        return _at_the_edge(fitted, kind, parameter_vcov(fitted.estimates, kind))
    products = cluster_products(fitted.working, fitted.grams)
    found = sandwich_vcov(fitted.working, fitted.optimum, products, kind, reml=fitted.reml)
    note = too_few(f"vcov={kind!r}", len(fitted.clusters), len(found.matrix), "parameters")
    found = _at_the_edge(fitted, kind, found.saying(note=note))
    text = lost_along("use vcov='block'", "clusters")
    return without(found, alone_in(fitted, text, products).below(len(found.matrix)))


def too_few(what: str, J: int, n: int, parameters: str) -> str:
    """What to say of a cluster-robust covariance of n parameters from J clusters; empty if they are enough."""
    return "" if n < J else FEW.format(what=what, J=J, rank=J - 1, n=n, parameters=parameters)


def lost_along(remedy: str, what: str) -> str:
    """The text of ``Directions`` that one cluster, or row, alone notices."""
    return ALONE.format(remedy=remedy, what=what)


def lost_in_replicates(remedy: str, one: str = "cluster") -> str:
    """The same for a bootstrap that draws clusters, or rows."""
    return RESAMPLED.format(remedy=remedy, one=one)


def alone_in(fitted: Fitted, text: str, products: ClusterProducts | None = None) -> Directions:
    """Directions of the fixed effects that a single cluster alone notices."""
    if products is None:
        products = cluster_products(fitted.working, fitted.grams)
    found = moves_of_one(fitted.working, fitted.optimum, products)
    return named(found, text, [f"cluster {fitted.clusters[j]} ({fitted.group_name})" for j in found.owners])


def named(found: Alone, text: str, owners: Sequence[str]) -> Directions:
    """Moves with what is said of them, and of whom."""
    return Directions(found.moves, text, tuple(owners))


def _at_the_edge(fitted: Fitted, kind: str, V: Vcov) -> Vcov:
    """Flag what rests on the curvature in the variances of a singular matrix, where they cannot move freely.

    These are the variances and covariances of G, or of the residuals, and, where the fixed effects move with them, the
    fixed effects.
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
        # in a balanced design beta does not move with the variances
        moved = without_rounding(estimates.beta_gradient[:, of] * units, errors)
        matrix[:p] = np.where(moved != 0.0, estimates.beta_gradient[:, of], 0.0)
    return V.saying(edge=(Directions(matrix, BOUNDARY_NOTE, ("",) * matrix.shape[1]),))
