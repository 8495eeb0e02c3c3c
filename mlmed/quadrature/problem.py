"""Columns of a location-scale model in working units, in chunks of clusters of similar size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.text import Compact

__all__ = ["Chunk", "Parameters", "Problem", "Structure", "build_chunks"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Rows per chunk: the weights of a chunk at all nodes should stay in the cache.
CHUNK_ROWS = 4096
#: Clusters of one chunk are padded to its largest; sizes may differ by this factor.
RAGGED = 1.25


@dataclass(frozen=True, slots=True, repr=False)
class Chunk(Compact):
    """Clusters of similar size, padded with rows of zeros to the largest, n.

    Attributes
    ----------
    at : (J,) int array
        Positions of the clusters in the model.
    size : (J,) array
        Rows that are not padding.
    y : (J, n) array
        Response.
    X, Z, W, V : (J, n, p), (J, n, q), (J, n, k), (J, n, d) arrays
        Fixed and random columns of the location, fixed and random columns of the scale.
    ZZ : (J, q (q + 1) / 2, n) array
        Lower triangle of z z' of every row.
    """

    at: Indices
    size: Array
    y: Array
    X: Array
    Z: Array
    W: Array
    V: Array
    ZZ: Array


@dataclass(frozen=True, slots=True, repr=False)
class Structure(Compact):
    """Which entries of the factor of G are free.

    The random effects stand in the order (t, u), scale before location: G = L L' with L lower triangular, so that
    ``t = L_tt s``, ``u = L_ut s + L_uu w`` with s and w standard normal.

    Attributes
    ----------
    d, q : int
        Random effects of the scale and of the location.
    rows, columns : (m,) int arrays
        Free entries of L: the lower triangle of every unstructured block, the diagonal of the others.
    """

    d: int
    q: int
    rows: Indices
    columns: Indices

    @classmethod
    def of_blocks(cls, d: int, q: int, blocks: list[int], diagonal: frozenset[int]) -> Structure:
        """From the block of every effect, in the order (t, u), and the blocks without covariances."""
        free = [
            (i, j)
            for i in range(d + q)
            for j in range(i + 1)
            if i == j or (blocks[i] == blocks[j] and blocks[i] not in diagonal)
        ]
        at = np.array(free, dtype=np.intp).reshape(-1, 2)
        return cls(d, q, at[:, 0], at[:, 1])

    def factor(self, entries: Array) -> Array:
        """L, (d + q, d + q), of its free entries, (m,)."""
        L = np.zeros((self.d + self.q, self.d + self.q))
        L[self.rows, self.columns] = entries
        return L


@dataclass(frozen=True, slots=True)
class Parameters:
    """Theta taken apart.

    Attributes
    ----------
    beta, tau : (p,), (k,) arrays
        Fixed effects of the location and of the log sd.
    L_tt, L_ut, L_uu : (d, d), (q, d), (q, q) arrays
        Parts of the factor of G.
    """

    beta: Array
    tau: Array
    L_tt: Array
    L_ut: Array
    L_uu: Array


@dataclass(frozen=True, slots=True, repr=False)
class Problem(Compact):
    """Everything that the likelihood needs, in working units.

    Attributes
    ----------
    chunks : tuple of Chunk
        All rows.
    J : int
        Clusters.
    nobs : int
        Rows.
    p, k : int
        Fixed effects of the location and of the scale.
    structure : Structure
        Random effects.
    offset : float
        What is added to every log sd: minus the logarithm of the response's unit.
    """

    chunks: tuple[Chunk, ...]
    J: int
    nobs: int
    p: int
    k: int
    structure: Structure
    offset: float

    @property
    def size(self) -> int:
        """Length of theta: (beta, tau, free entries of L)."""
        return self.p + self.k + len(self.structure.rows)

    def parameters(self, theta: Array) -> Parameters:
        """Theta, (size,), taken apart."""
        d = self.structure.d
        L = self.structure.factor(theta[self.p + self.k :])
        return Parameters(theta[: self.p], theta[self.p : self.p + self.k], L[:d, :d], L[d:, :d], L[d:, d:])


def build_chunks(y: Array, X: Array, Z: Array, W: Array, V: Array, codes: Indices) -> tuple[Chunk, ...]:
    """Sort rows by cluster and clusters by size, and pad.

    Parameters
    ----------
    y : (N,) array
        Response.
    X, Z, W, V : (N, .) arrays
        Columns.
    codes : (N,) int array
        Cluster of each row, 0 to J - 1, each of them used.
    """
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    return tuple(
        _chunk(members, sizes, [order[first[j] : first[j] + sizes[j]] for j in members], y, (X, Z, W, V))
        for members in _groups(sizes)
    )


def _groups(sizes: Indices) -> Iterator[Indices]:
    by_size = np.argsort(sizes, kind="stable")
    start = 0
    for stop in range(1, len(by_size) + 1):
        if stop < len(by_size):
            largest = sizes[by_size[stop]]
            fits = largest * (stop + 1 - start) <= CHUNK_ROWS and largest <= RAGGED * sizes[by_size[start]] + 2
            if fits:
                continue
        yield by_size[start:stop]
        start = stop


def _chunk(
    members: Indices, sizes: Indices, rows: list[Indices], y: Array, columns: tuple[Array, Array, Array, Array]
) -> Chunk:
    n = int(sizes[members].max())
    filled = np.arange(n) < sizes[members][:, None]
    source = np.concatenate(rows)

    def padded(values: Array) -> Array:
        out = np.zeros((len(members), n, *values.shape[1:]))
        out[filled] = values[source]
        return out

    X, Z, W, V = map(padded, columns)
    i, j = np.tril_indices(Z.shape[2])
    ZZ = np.ascontiguousarray((Z[..., i] * Z[..., j]).transpose(0, 2, 1))
    return Chunk(members, sizes[members].astype(np.float64), padded(y), X, Z, W, V, ZZ)
