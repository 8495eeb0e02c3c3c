"""Variances of predictions, variance components taken as known (docs/math.md, eq. 73)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.ranef import ModeLaw

__all__ = ["mean_variance", "posterior_variance", "quadratic"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


def quadratic(rows: Array, matrix: Array) -> Array:
    """``x'M x`` of every row (n, k), (n,)."""
    return np.vecdot(rows @ matrix, rows)


def mean_variance(X: Array, own: slice, P_inv: Array) -> Array:
    """Variance of x'beta-hat, (n,); ``own`` says which fixed effects the columns of X (n, p_r) belong to."""
    return quadratic(X, P_inv[own, own])


def posterior_variance(X: Array, Z: Array, at: Indices, own: tuple[slice, slice], law: ModeLaw, P_inv: Array) -> Array:
    """Variance of ``x'(beta-hat - beta) + z'(u-hat - u)`` for rows of clusters that are in the data.

    Given beta the modes have the error variance N and move by ``-slide`` with it, so that this is
    ``(x - slide'z)'P^-1 (x - slide'z) + z'N z``: Henderson's matrix, without inverting it.

    Parameters
    ----------
    X, Z : (n, p_r), (n, q_r) arrays
        Columns of one equation.
    at : (n,) int array
        Cluster of each row.
    own : (slice, slice)
        Which fixed and random effects of the model the columns belong to.
    law : ModeLaw
        Random effects of every cluster given the data.
    P_inv : (p, p) array
        (X'V^-1 X)^-1.
    """
    fixed, random = own
    lever = -np.einsum("nk,nkp->np", Z, law.slide[at][:, random])
    lever[:, fixed] += X
    spread = np.einsum("nak,nk->na", law.root[at][:, :, random], Z)
    return quadratic(lever, P_inv) + np.vecdot(spread, spread)
