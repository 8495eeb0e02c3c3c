"""Every named covariance of the estimates, model-based or robust."""

from __future__ import annotations

from mlmed.errors import EffectError
from mlmed.modes.fitting import Fitted
from mlmed.reml.percluster import cluster_products
from mlmed.reml.sandwich import ROBUST_KINDS, sandwich_vcov
from mlmed.reml.vcov import VCOV_KINDS, ParameterVcov, parameter_vcov

__all__ = ["ALL_KINDS", "covariance"]

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
    return sandwich_vcov(fitted.working, fitted.optimum, products, kind, reml=fitted.reml)
