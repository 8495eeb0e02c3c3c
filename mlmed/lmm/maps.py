"""Sparse maps from the packed products of Gram columns to cross-products of the columns of a model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

__all__ = ["Entries", "EquationMaps", "entries", "sparse"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class EquationMaps:
    """One equation in working units; W stands for the rows of the K Gram columns.

    Attributes
    ----------
    fixed, random : slice
        Positions of its p_r effects in beta and of its q_r effects in u.
    X : (K, p_r) array
        ``X_r = W @ X``.
    Z : (K, q_r) array
        ``Z_r = W @ Z``.
    response : (K,) array
        ``y_r = W @ response``: 1 at the response, its shift at the constant if there is no intercept.
    X_back, offset : (p_r, p_r), (p_r,) arrays
        ``beta_r = offset + X_back @ beta_w`` in the user's units (eq. 18).
    Z_back : (q_r, q_r) array
        ``u_r = Z_back @ u_w`` (eq. 19).
    """

    fixed: slice
    random: slice
    X: Array
    Z: Array
    response: Array
    X_back: Array
    offset: Array
    Z_back: Array


@dataclass(frozen=True, slots=True)
class Entries:
    """Nonzero weights of a product map: rows are entries of the result, columns are products of Gram columns."""

    row: Indices
    product: Indices
    weight: Array


def entries(left: Array, right: Array, left_at: Indices, right_at: Indices, width: int) -> Entries:
    """Weights of ``left' W'W right``, (K, a) and (K, b), at the rows ``left_at * width + right_at`` of the result."""
    i, a = np.nonzero(left)
    j, b = np.nonzero(right)
    row = (left_at[a] * width)[:, None] + right_at[b]
    high, low = np.maximum(i[:, None], j), np.minimum(i[:, None], j)
    weight = left[i, a][:, None] * right[j, b]
    return Entries(row.ravel(), (high * (high + 1) // 2 + low).ravel(), weight.ravel())


def sparse(pieces: Iterable[Entries], shape: tuple[int, int]) -> csr_array:
    """All pieces as one matrix; entries at the same place add up."""
    listed = list(pieces)
    row, product, weight = (np.concatenate([getattr(e, name) for e in listed]) for name in Entries.__slots__)
    return coo_array((weight, (row, product)), shape=shape).tocsr()
