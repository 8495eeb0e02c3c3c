"""Sandwich covariances of ordinary regressions, robust to unequal variances or to clusters (docs/causal.md)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import EffectError, NotIdentifiedError
from mlmed.glm.fit import GlmFit

__all__ = ["HC_KINDS", "HcKind", "cluster_vcov", "hc_vcov"]

Array = NDArray[np.float64]
HcKind = Literal["HC0", "HC1", "HC2", "HC3"]
HC_KINDS: tuple[str, ...] = get_args(HcKind)
#: A leverage this close to 1 is 1 up to rounding: a coefficient is estimated from that row alone.
FULL_LEVERAGE = 1e-10


def hc_vcov(fit: GlmFit, kind: str) -> Array:
    """White's covariance and its small-sample versions, (p, p).

    Parameters
    ----------
    fit : GlmFit
        The regression.
    kind : {"HC0", "HC1", "HC2", "HC3"}
        Squared scores as they are, times n/(n - p), over 1 - h, over (1 - h)^2 (MacKinnon and White 1985); for
        generalized linear models as R's ``sandwich::vcovHC``.

    Raises
    ------
    EffectError
        Unknown kind.
    NotIdentifiedError
        A row with leverage 1, for ``HC2`` and ``HC3``.
    """
    if kind not in HC_KINDS:
        raise EffectError(f"a robust covariance is one of {', '.join(HC_KINDS)}; found {kind!r}")
    n, p = fit.X.shape
    free = 1.0 - fit.leverage
    if kind in ("HC2", "HC3") and free.min() < FULL_LEVERAGE:
        raise NotIdentifiedError(
            f"{kind} divides by 1 - leverage, but row {int(free.argmin())} has leverage 1 (it alone gives a "
            "coefficient); use HC0 or HC1"
        )
    weight = fit.score**2
    if kind == "HC1":
        weight = weight * (n / (n - p))
    elif kind in ("HC2", "HC3"):
        weight = weight / (free if kind == "HC2" else free**2)
    return _sandwich(fit.bread, (fit.X * weight[:, None]).T @ fit.X)


def cluster_vcov(fit: GlmFit, codes: NDArray[np.intp]) -> Array:
    """Covariance robust to dependence within clusters, (p, p): CR1, with the factor J/(J - 1).

    Parameters
    ----------
    fit : GlmFit
        The regression.
    codes : (n,) int array
        Cluster of each row, 0 to J - 1.

    Raises
    ------
    EffectError
        Fewer than two clusters.
    """
    J = int(codes.max()) + 1
    if J < 2:
        raise EffectError("a cluster-robust covariance needs at least two clusters; found one")
    rows = fit.X * fit.score[:, None]
    sums = np.column_stack([np.bincount(codes, weights=column, minlength=J) for column in rows.T])
    return _sandwich(fit.bread, np.asarray(sums.T @ sums * (J / (J - 1.0)), dtype=np.float64))


def _sandwich(bread: Array, meat: Array) -> Array:
    found = bread @ meat @ bread
    return 0.5 * (found + found.T)
