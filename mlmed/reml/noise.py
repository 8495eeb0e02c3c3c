"""Residuals of rows: drawn jointly for all responses of a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["row_noise"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


def row_noise(root: Array, members: Sequence[Indices], n_rows: int, rng: np.random.Generator) -> tuple[Array, ...]:
    """Residuals of every equation on its own rows, from N(0, Sigma) of whole rows.

    Parameters
    ----------
    root : (R, R) array
        A factor of Sigma, ``Sigma = root @ root.T``, in the units of the residuals that are wanted.
    members : sequence of R (n_r,) int arrays
        Rows of each equation, positions among all rows.
    n_rows : int
        All rows; every row takes R numbers from ``rng``, whichever equations it belongs to.
    rng : Generator
        Where the numbers come from.

    Returns
    -------
    tuple of R (n_r,) arrays
    """
    noise = root @ rng.standard_normal((len(root), n_rows))
    return tuple(own if len(rows) == n_rows else own[rows] for own, rows in zip(noise, members, strict=True))
