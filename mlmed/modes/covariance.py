"""Every named covariance of the estimates, model-based or robust."""

from __future__ import annotations

from dataclasses import replace

from mlmed.errors import EffectError
from mlmed.modes.fitting import Fitted
from mlmed.reml.percluster import cluster_products
from mlmed.reml.sandwich import ROBUST_KINDS, sandwich_vcov
from mlmed.reml.vcov import VCOV_KINDS, ParameterVcov, parameter_vcov

__all__ = ["ALL_KINDS", "covariance"]

#: A sandwich is a sum over clusters, so they limit its rank.
FEW = "vcov={kind!r} from {J} clusters has rank {rank} at most for {n} parameters: do not trust it"
ALL_KINDS = (*VCOV_KINDS, *ROBUST_KINDS)


def covariance(fitted: Fitted, kind: str) -> ParameterVcov:
    """Covariance of psi in one of its versions.

    Raises
    ------
    EffectError
        Unknown kind.
    """
    if kind in VCOV_KINDS:
        return parameter_vcov(fitted.estimates, kind)
    if kind not in ROBUST_KINDS:
        raise EffectError(f"vcov must be one of {', '.join(ALL_KINDS)}; found {kind!r}")
    products = cluster_products(fitted.working, fitted.grams)
    found = sandwich_vcov(fitted.working, fitted.optimum, products, kind, reml=fitted.reml)
    J, n = len(fitted.clusters), len(found.matrix)
    return replace(found, note=FEW.format(kind=kind, J=J, rank=J - 1, n=n)) if n >= J else found
