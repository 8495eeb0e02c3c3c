"""Residuals of rows: drawn jointly for all responses of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ResidualPool", "residual_pools", "row_noise"]

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


@dataclass(frozen=True, slots=True)
class ResidualPool:
    """Residuals that are resampled together.

    Attributes
    ----------
    equations : tuple of E ints
        The equations they belong to.
    at : tuple of E (n,) int arrays
        Positions among the rows of each equation.
    values : (E, n) array
        Centred residuals, reflated to their covariance in the model.
    root : (E, E) array
        A factor of that covariance; there are too few rows (at most 2 E) to resample where it has a size, and normal
        draws take their place.
    """

    equations: tuple[int, ...]
    at: tuple[Indices, ...]
    values: Array
    root: Array

    def draw_into(self, noise: Sequence[Array], rng: np.random.Generator) -> None:
        """Fill in the rows of these equations, (n_r,) each."""
        n = self.values.shape[1]
        if self.root.size:
            drawn = self.root @ rng.standard_normal((len(self.root), n))
        else:
            drawn = self.values[:, rng.integers(n, size=n)]
        for r, at, own in zip(self.equations, self.at, drawn, strict=True):
            noise[r][at] = own


def residual_pools(
    residuals: Sequence[Array], members: Sequence[Indices], Sigma: Array, *, joint: bool
) -> tuple[ResidualPool, ...]:
    """Centred and reflated residuals: equation by equation, or ``joint``, whole rows with the same responses.

    Parameters
    ----------
    residuals : sequence of R (n_r,) arrays
        Of every equation.
    members : sequence of R (n_r,) int arrays
        Rows of each equation, positions among all rows.
    Sigma : (R, R) array
        Residual covariance of a row in the same units.
    joint : bool
        Whether residuals of a row are correlated.
    """
    alone = [((r,), (np.arange(len(own)),)) for r, own in enumerate(residuals)]
    groups = _by_pattern(members) if joint else alone
    pools = []
    for equations, at in groups:
        values = np.array([residuals[r][own] for r, own in zip(equations, at, strict=True)])
        values -= values.mean(axis=1, keepdims=True)
        target = np.asarray(np.linalg.cholesky(Sigma[np.ix_(equations, equations)]), dtype=np.float64)
        E, n = values.shape
        if joint and n <= 2 * E:
            pools.append(ResidualPool(equations, at, values, target))
            continue
        reflated: Array = target @ np.linalg.solve(np.linalg.cholesky(values @ values.T / n), values)
        pools.append(ResidualPool(equations, at, reflated, np.empty((0, 0))))
    return tuple(pools)


def _by_pattern(members: Sequence[Indices]) -> list[tuple[tuple[int, ...], tuple[Indices, ...]]]:
    """Equations and positions in each of them, of every set of rows that have the same responses."""
    n = 1 + max(int(own.max()) for own in members)
    used = np.zeros((n, len(members)), dtype=bool)
    place = np.zeros((n, len(members)), dtype=np.intp)
    for r, own in enumerate(members):
        used[own, r] = True
        place[own, r] = np.arange(len(own))
    found = []
    for pattern in np.unique(used[used.any(axis=1)], axis=0):
        rows, equations = np.flatnonzero((used == pattern).all(axis=1)), np.flatnonzero(pattern)
        found.append((tuple(map(int, equations)), tuple(place[rows, r] for r in equations)))
    return found
