"""Products across equations, by pattern of observed responses (docs/math.md, eq. 90)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mlmed.lmm.maps import entries, sparse
from mlmed.lmm.problem import Cross, CrossProducts

__all__ = ["CrossMaps", "cross_maps", "cross_products", "summed_cross"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CrossMaps:
    """Maps to products across equations (eq. 90).

    Attributes
    ----------
    AB : (q * (q + p + R), K * (K + 1) / 2) sparse array
        Z'[Z X Y], Y the R responses.
    C : ((p + R) ** 2, K * (K + 1) / 2) sparse array
        [X Y]'[X Y].
    observed : (P, R) bool array
        Equations that the rows of a pattern belong to.
    owner : (p + R,) int array
        The equation of each column of [X Y].
    """

    AB: csr_array
    C: csr_array
    observed: NDArray[np.bool_]
    owner: NDArray[np.int64]


def cross_maps(Z: Array, XY: Array, owner: NDArray[np.int64], observed: NDArray[np.bool_]) -> CrossMaps:
    """Maps from the columns as combinations of the K Gram columns.

    Parameters
    ----------
    Z, XY : (K, q), (K, p + R) arrays
        Of all equations side by side; the R responses last.
    owner, observed
        As in ``CrossMaps``.
    """
    q, width = Z.shape[1], XY.shape[1]
    n_products = len(Z) * (len(Z) + 1) // 2
    rows, columns = np.arange(q), np.arange(width)
    both = entries(Z, np.column_stack([Z, XY]), rows, np.arange(q + width), q + width)
    AB = sparse([both], (q * (q + width), n_products))
    C = sparse([entries(XY, XY, columns, columns, width)], (width * width, n_products))
    return CrossMaps(AB, C, observed, owner)


def summed_cross(maps: CrossMaps, products: Array | csr_array, q: int) -> Cross:
    """Products across equations of every pattern, those without Z summed over clusters."""
    tables = _of_patterns(maps, products)
    A, B = _by_pattern(maps, tables, q)
    width = len(maps.owner)
    totals = [packed.sum(axis=1) for packed in tables]
    C = np.stack([(maps.C @ total).reshape(width, width) for total in totals])
    return Cross(maps.observed, A, B, C, np.rint([total[0] for total in totals]), maps.owner)


def _of_patterns(maps: CrossMaps, products: Array | csr_array) -> Sequence[Array | csr_array]:
    """Sums of every pattern, from an array or from a sparse one with the patterns below each other."""
    if isinstance(products, np.ndarray):
        return list(products)
    n = maps.C.shape[1]
    return [products[first : first + n] for first in range(0, products.shape[0], n)]


def cross_products(maps: CrossMaps, products: Array, q: int) -> CrossProducts:
    """Products across equations of every pattern and cluster."""
    A, B = _by_pattern(maps, list(products), q)
    P, _, J = products.shape
    width = len(maps.owner)
    C = np.empty((P, J, width, width))
    for target, packed in zip(C, products, strict=True):
        target[:] = np.asarray(maps.C @ packed).reshape(width, width, J).transpose(2, 0, 1)
    return CrossProducts(maps.observed, A, B, C, products[:, 0], maps.owner)


def _by_pattern(maps: CrossMaps, tables: Sequence[Array | csr_array], q: int) -> tuple[Array, Array]:
    P, J = len(tables), tables[0].shape[1]
    width = len(maps.owner)
    A, B = np.empty((P, J, q, q)), np.empty((P, J, q, width))
    for p, packed in enumerate(tables):
        moved = maps.AB @ packed
        both = (moved if isinstance(moved, np.ndarray) else moved.toarray()).reshape(q, q + width, J)
        A[p], B[p] = both[:, :q].transpose(2, 0, 1), both[:, q:].transpose(2, 0, 1)
    return A, B
