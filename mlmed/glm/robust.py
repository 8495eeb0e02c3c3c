"""Sandwich covariances of ordinary regressions, robust to unequal variances or to clusters (docs/causal.md)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import EffectError
from mlmed.glm.fit import GlmFit
from mlmed.lmm.sandwich import FULL_LEVERAGE, Alone, gathered, leverages
from mlmed.options import HC_KINDS, one_of

__all__ = ["cluster_vcov", "hc_vcov", "moves_of_one"]

Array = NDArray[np.float64]


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

    Notes
    -----
    A row with leverage 1 fits itself, and its score is 0. It moves what it alone gives (``moves_of_one``), whose
    variance here says nothing, and nothing else, so it is left out.
    """
    one_of(kind, HC_KINDS, "kind")
    n, p = fit.X.shape
    alone = fit.leverage > 1.0 - FULL_LEVERAGE
    free = np.where(alone, np.inf, 1.0 - fit.leverage)
    weight = fit.score**2
    if kind == "HC1":
        weight = weight * (n / (n - p))
    elif kind in ("HC2", "HC3"):
        weight = weight / (free if kind == "HC2" else free**2)
    return _sandwich(fit.bread, (fit.X * weight[:, None]).T @ fit.X)


def cluster_vcov(fit: GlmFit, codes: NDArray[np.intp] | None = None, *, corrected: bool = True) -> Array:
    """Covariance robust to dependence within clusters, (p, p): CR1, with the factor J/(J - 1).

    Parameters
    ----------
    fit : GlmFit
        The regression.
    codes : (n,) int array, optional
        Cluster of each row, 0 to J - 1; by default every row is one.
    corrected : bool
        With that factor; without it is CR0.

    Raises
    ------
    EffectError
        Fewer than two clusters.
    """
    J = fit.nobs if codes is None else int(codes.max()) + 1
    if J < 2:
        raise EffectError("a cluster-robust covariance needs at least two clusters; found one")
    factor = J / (J - 1.0) if corrected else 1.0
    if codes is None:
        return factor * hc_vcov(fit, "HC0")
    rows = fit.X * fit.score[:, None]
    sums = np.column_stack([np.bincount(codes, weights=column, minlength=J) for column in rows.T])
    return _sandwich(fit.bread, np.asarray(sums.T @ sums * factor, dtype=np.float64))


def moves_of_one(fit: GlmFit, codes: NDArray[np.intp] | None = None) -> Alone:
    """What single clusters, or rows, alone notice.

    Parameters
    ----------
    fit : GlmFit
        The regression.
    codes : (n,) int array, optional
        Cluster of each row, 0 to J - 1; by default every row is one.
    """
    codes = np.arange(fit.nobs) if codes is None else codes
    weighted = fit.X * np.sqrt(fit.information)[:, None]
    size = np.linalg.norm(weighted, axis=0)
    Q, R = np.linalg.qr(weighted / size)  # orthogonal columns: the precision is the identity
    p = len(size)

    def found() -> Iterator[tuple[int, Array]]:
        # the largest leverage of a cluster is at most the sum of those of its rows
        for owner in np.flatnonzero(np.bincount(codes, weights=(Q * Q).sum(axis=1)) > 1.0 - FULL_LEVERAGE):
            own = Q[codes == owner]
            values, vectors = leverages((own.T @ own)[None], np.eye(p))
            yield int(owner), vectors[0][:, values[0] > 1.0 - FULL_LEVERAGE]

    return gathered(found(), np.linalg.inv(R) / size[:, None], np.sqrt(np.diag(fit.bread)))


def _sandwich(bread: Array, meat: Array) -> Array:
    found = bread @ meat @ bread
    return 0.5 * (found + found.T)
