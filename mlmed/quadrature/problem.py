"""Columns of a location-scale model in working units, in chunks of clusters of similar size; back-transformation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.layout import INTERCEPT
from mlmed.errors import NotIdentifiedError
from mlmed.lmm.checks import refuse_collinear
from mlmed.quadrature.rows import Part, Rows
from mlmed.text import Compact

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Rows per chunk, so that the weights of a chunk at all nodes stay in the cache.
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
        Number of rows without padding.
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
    """Free entries of the factor of G.

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
        """Build from the block of every effect, in the order (t, u), and the blocks without covariances."""
        free = [
            (i, j)
            for i in range(d + q)
            for j in range(i + 1)
            if i == j or (blocks[i] == blocks[j] and blocks[i] not in diagonal)
        ]
        at = np.array(free, dtype=np.intp).reshape(-1, 2)
        return cls(d, q, at[:, 0], at[:, 1])

    def factor(self, entries: Array) -> Array:
        """L, (d + q, d + q), from its free entries, (m,)."""
        L = np.zeros((self.d + self.q, self.d + self.q))
        L[self.rows, self.columns] = entries
        return L


@dataclass(frozen=True, slots=True)
class Parameters:
    """Theta split into its parts.

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
    """Data and structure for the likelihood, in working units.

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
        Constant added to every log sd: minus the logarithm of the response's unit.
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
        """Split theta, (size,), into its parts."""
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
        Cluster of each row, 0 to J - 1, all used.
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


@dataclass(frozen=True, slots=True, repr=False)
class Units(Compact):
    """Maps from working to user's units.

    Attributes
    ----------
    shift, unit : float
        The response is ``shift + unit * working response``.
    beta_map, tau_map : (p, p), (k, k) arrays
        ``beta = beta_map @ beta_working + shift * intercept``, ``tau = tau_map @ tau_working``.
    intercept : (p,) array
        1 at the intercept of the location, 0 elsewhere.
    random_map : (d + q, d + q) array
        The random effects (t, u) are ``random_map`` times those in working units.
    """

    shift: float
    unit: float
    beta_map: Array
    tau_map: Array
    intercept: Array
    random_map: Array


def build_problem(rows: Rows) -> tuple[Problem, Units]:
    """Build the problem in working units.

    Raises
    ------
    NotIdentifiedError
        Constant or collinear fixed columns.
    """
    name = rows.equations[0].name
    X, X_map = _fixed(rows.location, name)
    W, W_map = _fixed(rows.scale, f"{name}, scale")
    blocks, diagonal = rows.blocks
    d = len(rows.scale.random_names)
    V, V_map = _random(rows.scale, blocks[:d], diagonal)
    Z, Z_map = _random(rows.location, blocks[d:], diagonal)
    intercept = np.array([float(column == INTERCEPT) for column in rows.location.fixed_names])
    shift = float(rows.y.mean()) if intercept.any() else 0.0
    centred = rows.y - shift
    unit = float(np.sqrt(np.mean(centred**2)))
    q = Z.shape[1]
    number = {block: k for k, block in enumerate(dict.fromkeys(blocks))}
    structure = Structure.of_blocks(
        d, q, [number[block] for block in blocks], frozenset(number[block] for block in diagonal)
    )
    random_map = np.zeros((d + q, d + q))
    random_map[:d, :d], random_map[d:, d:] = V_map, unit * Z_map
    chunks = build_chunks(centred / unit, X, Z, W, V, rows.codes)
    problem = Problem(chunks, len(rows.clusters), len(rows.y), X.shape[1], W.shape[1], structure, -float(np.log(unit)))
    return problem, Units(shift, unit, unit * X_map, W_map, intercept, random_map)


def _fixed(part: Part, where: str) -> tuple[Array, Array]:
    """Scaled columns, centred if there is an intercept, and the map of their coefficients to user's units."""
    columns, names = part.fixed, part.fixed_names
    at = names.index(INTERCEPT) if INTERCEPT in names else None
    back = np.eye(len(names))
    means = columns.mean(axis=0)
    sizes = np.sqrt(np.mean(columns**2, axis=0))
    if at is not None:
        means[at] = 0.0
        spread = np.sqrt(np.mean((columns - means) ** 2, axis=0))
        for k, name in enumerate(names):
            if k != at and spread[k] <= 1e-7 * max(sizes[k], np.finfo(float).tiny):
                raise NotIdentifiedError(
                    f"equation {where}: the column {name!r} is constant ({means[k]:g}), so its effect cannot be told "
                    "from the intercept; remove it"
                )
        columns, sizes = columns - means, spread
        back[at] = -means / sizes
        back[at, at] = 1.0
    elif (sizes == 0.0).any():
        raise NotIdentifiedError(f"equation {where}: the column {names[int(np.argmin(sizes))]!r} is 0; remove it")
    scaled = columns / sizes
    refuse_collinear(scaled.T @ scaled, where, names)
    for k in range(len(names)):
        if k != at:
            back[k, k] = 1.0 / sizes[k]
    return scaled, back


def _random(part: Part, blocks: list[str], diagonal: frozenset[str]) -> tuple[Array, Array]:
    """Random columns, slopes centred if free to correlate with an intercept, and the map to user's units.

    Parameters
    ----------
    part : Part
        Location or scale.
    blocks : list of str
        Block of each random column.
    diagonal : frozenset of str
        Blocks without covariances.
    """
    names = part.random_names
    back = np.eye(len(names))
    out = part.random.copy()
    for k in range(len(names)):
        partner = [j for j in range(len(names)) if blocks[j] == blocks[k] and names[j] == INTERCEPT and j != k]
        mean = float(out[:, k].mean()) if partner and blocks[k] not in diagonal else 0.0
        size = float(np.sqrt(np.mean((out[:, k] - mean) ** 2)))
        if size <= 1e-7 * float(np.abs(part.random[:, k]).max(initial=np.finfo(float).tiny)):
            shown = names[k]
            raise NotIdentifiedError(
                f"the random effect of {shown!r} belongs to a column that is constant, so it cannot be told from the "
                "random intercept; remove it"
            )
        out[:, k] = (out[:, k] - mean) / size
        back[k, k] = 1.0 / size
        if mean:
            back[partner[0], k] = -mean / size
    return out, back


def effect_order(problem: Problem) -> NDArray[np.intp]:
    """Permutation from the order (t, u) to (u, t)."""
    d, q = problem.structure.d, problem.structure.q
    return np.concatenate([np.arange(d, d + q), np.arange(d)]).astype(np.intp)
