"""Products across equations, by pattern of observed responses (docs/math.md, eq. 90)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mlmed.reml.maps import entries, sparse
from mlmed.reml.problem import Cross, CrossProducts

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


def summed_cross(maps: CrossMaps, products: Array, q: int) -> Cross:
    """Products across equations of every pattern, those without Z summed over clusters."""
    A, B = _by_pattern(maps, products, q)
    width = len(maps.owner)
    C = np.stack([(maps.C @ packed.sum(axis=1)).reshape(width, width) for packed in products])
    return Cross(maps.observed, A, B, C, np.rint(products[:, 0].sum(axis=1)), maps.owner)


def cross_products(maps: CrossMaps, products: Array, q: int) -> CrossProducts:
    """Products across equations of every pattern and cluster."""
    A, B = _by_pattern(maps, products, q)
    P, _, J = products.shape
    width = len(maps.owner)
    C = np.empty((P, J, width, width))
    for target, packed in zip(C, products, strict=True):
        target[:] = np.asarray(maps.C @ packed).reshape(width, width, J).transpose(2, 0, 1)
    return CrossProducts(maps.observed, A, B, C, products[:, 0], maps.owner)


def _by_pattern(maps: CrossMaps, products: Array, q: int) -> tuple[Array, Array]:
    P, _, J = products.shape
    width = len(maps.owner)
    A, B = np.empty((P, J, q, q)), np.empty((P, J, q, width))
    for p, packed in enumerate(products):
        both = np.asarray(maps.AB @ packed).reshape(q, q + width, J)
        A[p], B[p] = both[:, :q].transpose(2, 0, 1), both[:, q:].transpose(2, 0, 1)
    return A, B
