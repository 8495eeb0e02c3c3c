"""Covariance structures: theta <-> L <-> G <-> natural parameters.

Every structure is described by two sets of constant matrices (docs/math.md, eq. 13 and 14):

* the factor L is linear in theta, ``L = sum_k theta_k Lambda_k``, so G = L L' can reach the boundary exactly;
* G is linear in its natural parameters tau, ``G = sum_k tau_k E_k``, where standard errors are computed.

A singular G lies on a face of the cone, where L has fewer columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from mlmed.errors import FormulaError
from mlmed.options import STRUCTURES, Structure, one_of

Array = NDArray[np.float64]

#: A Cholesky pivot below this share of its diagonal entry is rounding error of an exact zero.
ROUNDING = 1e-12
#: The same for covariances that are drawn from: predictors with a mean above 3e6 sds are refused, so no direction of
#: estimated coefficients is shorter.
DRAWN_ROUNDING = 1e-13
#: Share of its variance below which a pivot of G may be zero; the criterion decides.
SUSPECT = 1e-5
#: Share of the largest sd below which a direction's sd is the rounding error of zero.
GONE = 1e-6


@dataclass(frozen=True, slots=True)
class Block:
    """Random effects that share one covariance structure.

    Attributes
    ----------
    index : tuple of int
        Positions in the random-effects vector u.
    structure : str
        One of ``STRUCTURES``.
    """

    index: tuple[int, ...]
    structure: Structure = "unstructured"

    def __post_init__(self) -> None:
        """Refuse an unknown structure."""
        one_of(self.structure, STRUCTURES, "covariance", error=FormulaError)


@lru_cache(maxsize=256)
def square(index: tuple[int, ...]) -> tuple[NDArray[np.intp], ...]:
    """Indexer of the rows and columns ``index`` of a matrix."""
    return np.ix_(index, index)


def _unit(q: int, a: int, b: int) -> Array:
    out = np.zeros((q, q))
    out[a, b] = 1.0
    return out


def _constant(matrices: list[Array], q: int) -> Array:
    """Stack the matrices in a read-only array, as it is cached and shared."""
    out = np.array(matrices).reshape(-1, q, q)
    out.flags.writeable = False
    return out


def _projectors(q: int, index: tuple[int, ...]) -> tuple[Array, Array]:
    """Averaging and centring matrices of a block: the eigenspaces of an exchangeable covariance."""
    rows = square(index)
    mean, centre = np.zeros((q, q)), np.zeros((q, q))
    mean[rows] = 1.0 / len(index)
    centre[rows] = np.eye(len(index)) - 1.0 / len(index)
    return mean, centre


@lru_cache(maxsize=256)
def factor_basis(block: Block, q: int, *, order: tuple[int, ...] | None = None, rank: int | None = None) -> Array:
    """Matrices Lambda_k of ``L = sum theta_k Lambda_k`` (eq. 13), shape (n_theta, q, q).

    Parameters
    ----------
    block : Block
        The block.
    q : int
        Random effects in all blocks.
    order : tuple of int, optional
        Unstructured only: order of the effects in the triangular factor (a permutation of ``block.index``).
    rank : int, optional
        Unstructured only: columns of the factor; fewer than the block's size gives the face of singular G.
    """
    index = block.index
    if block.structure == "unstructured":
        rows = index if order is None else order
        columns = index[: len(index) if rank is None else rank]
        basis = [_unit(q, rows[i], columns[j]) for j in range(len(columns)) for i in range(j, len(rows))]
    elif block.structure == "diagonal":
        basis = [_unit(q, i, i) for i in index]
    elif block.structure == "identity" or len(index) == 1:
        basis = [sum((_unit(q, i, i) for i in index), np.zeros((q, q)))]
    else:
        basis = list(_projectors(q, index))
    return _constant(basis, q)


def natural_pairs(block: Block) -> list[tuple[int, int]]:
    """Row and column of each natural parameter in G: variances, then covariances by column."""
    index = block.index
    if block.structure == "unstructured":
        below = [(index[i], index[j]) for j in range(len(index)) for i in range(j + 1, len(index))]
        return [(i, i) for i in index] + below
    if block.structure == "diagonal":
        return [(i, i) for i in index]
    if block.structure == "identity" or len(index) == 1:
        return [(index[0], index[0])]
    return [(index[0], index[0]), (index[1], index[0])]


@lru_cache(maxsize=256)
def natural_basis(block: Block, q: int) -> Array:
    """Matrices E_k of ``G = sum tau_k E_k`` (eq. 14), shape (n_tau, q, q)."""
    index = block.index
    if block.structure in ("unstructured", "diagonal"):
        pairs = natural_pairs(block)
        basis = [_unit(q, a, b) if a == b else _unit(q, a, b) + _unit(q, b, a) for a, b in pairs]
    else:
        variances = sum((_unit(q, i, i) for i in index), np.zeros((q, q)))
        basis = [variances]
        if block.structure == "exchangeable" and len(index) > 1:
            ones = np.zeros((q, q))
            ones[square(index)] = 1.0
            basis.append(ones - variances)
    return _constant(basis, q)


def psd_cholesky(G: Array, *, tol: float = 0.0) -> Array:
    """Lower-triangular L with L L' = G for positive semidefinite G, exact zero columns at zero pivots.

    Parameters
    ----------
    G : (q, q) array
        Positive semidefinite matrix.
    tol : float
        Pivots at or below ``tol`` times their diagonal entry count as zero.
    """
    rest = np.array(G, dtype=float)
    q = len(rest)
    L = np.zeros_like(rest)
    for k in range(q):
        if rest[k, k] <= tol * max(G[k, k], 0.0) or rest[k, k] <= 0.0:
            continue
        column = rest[k:, k] / np.sqrt(rest[k, k])
        L[k:, k] = column
        rest[k:, k:] -= column[:, None] * column
    return L


def normal_root(G: Array) -> Array:
    """The factor L, (q, q), of positive semidefinite G = L L', for draws of normal vectors.

    Lower-triangular, hence unique and continuous in G: the same random numbers give the same draws whatever the last
    digits of G. These digits would decide the signs of eigenvectors and, with equal eigenvalues, their directions.
    """
    size = np.sqrt(np.abs(np.diag(G)))
    size = np.where(size > 0.0, size, 1.0)
    return np.asarray(size[:, None] * psd_cholesky(G / np.outer(size, size), tol=DRAWN_ROUNDING))


def pivoted_order(G: Array, index: tuple[int, ...], *, tol: float) -> tuple[tuple[int, ...], int]:
    """Order effects by decreasing Cholesky pivot and count the pivots above ``tol`` (numerical rank).

    Pivots are relative to the diagonal entry, so the answer does not depend on units.
    """
    part = G[square(index)]
    variances = part.diagonal().tolist()
    scale = np.sqrt(np.maximum(variances, np.finfo(float).tiny))
    rest = part / (scale[:, None] * scale)
    left = list(range(len(index)))
    chosen: list[int] = []
    rank = 0
    while left:
        pivots = rest.diagonal().tolist()
        k = max(left, key=lambda i: pivots[i] if variances[i] > tol else -1.0)
        chosen.append(k)
        left.remove(k)
        if pivots[k] > tol and variances[k] > tol:
            rank = len(chosen)
            rest -= rest[:, k, None] * (rest[:, k] / pivots[k])
    return tuple(index[k] for k in chosen), rank


def factor_coordinates(block: Block, G: Array) -> Array:
    """Entries of theta whose factor gives ``G`` on this block (inverse of ``factor_basis``), shape (n_theta,).

    ``G`` must have the block's structure and be positive semidefinite.
    """
    index = block.index
    part = G[square(index)]
    if block.structure == "unstructured":
        L = psd_cholesky(part, tol=ROUNDING)
        return np.concatenate([L[j:, j] for j in range(len(index))])
    variances = np.diag(part)
    if block.structure == "diagonal":
        return np.sqrt(variances)
    if block.structure == "identity" or len(index) == 1:
        return np.sqrt(variances[:1])
    covariance = part[1, 0]
    eigenvalues = variances[0] + np.array([len(index) - 1.0, -1.0]) * covariance
    return np.sqrt(np.clip(eigenvalues, 0.0, None))


def canonical_factor(blocks: tuple[Block, ...], factor: Array) -> Array:
    """The lower-trapezoidal factor of ``factor @ factor.T`` with as many nonzero columns as ``factor``.

    By QR, without forming G: this keeps the rank of a factor on a face of the cone, where a Cholesky factorization of
    G would have to guess which pivots are rounding errors.

    Parameters
    ----------
    blocks : tuple of Block
        Covariance structures.
    factor : (q, q) array
        Any factor whose columns are in the blocks of their rows; zero columns where G is singular.

    Returns
    -------
    L : (q, q) array
        The factor, pivots positive, zero columns last in every unstructured block.
    """
    L = np.zeros_like(factor)
    for block in blocks:
        at = square(block.index)
        own = factor[at]
        if block.structure == "unstructured":
            columns = own[:, np.abs(own).max(axis=0) > 0.0]
            upper: Array = np.asarray(np.linalg.qr(columns.T, mode="r")) if columns.size else np.empty((0, len(own)))
            pivots = upper[np.arange(len(upper)), (upper != 0.0).argmax(axis=1)]
            lower = np.zeros_like(own)
            lower[:, : len(upper)] = (upper * np.sign(pivots)[:, None]).T + 0.0  # no negative zero
            L[at] = lower
            continue
        entries = factor_coordinates(block, factor @ factor.T)
        L += np.einsum("k,kab->ab", entries, factor_basis(block, len(factor)))
    return L


def inside_cone(block: Block, G: Array, *, floor: float) -> Array:
    """Nearest matrix to ``G`` of the block's structure whose eigenvalues are at least ``floor`` (both (q, q)).

    Entries outside the block are zero.
    """
    index = block.index
    part = G[square(index)]
    size = len(index)
    if block.structure == "unstructured":
        values, vectors = np.linalg.eigh(0.5 * (part + part.T))
        part = (vectors * np.clip(values, floor, None)) @ vectors.T
    elif block.structure == "diagonal":
        part = np.diag(np.clip(np.diag(part), floor, None))
    elif block.structure == "identity" or size == 1:
        part = np.eye(size) * max(float(np.trace(part)) / size, floor)
    else:
        total = float(part.sum()) / size
        rest = max((float(np.trace(part)) - total) / (size - 1), floor)
        part = np.full((size, size), (max(total, floor) - rest) / size) + rest * np.eye(size)
    out = np.zeros_like(G)
    out[square(index)] = part
    return out


def pivoted_chart(blocks: tuple[Block, ...], factor: Array, metric: Array) -> tuple[Array, Array]:
    """Coordinates of G for the search: unstructured blocks in the units of the data, pivots in decreasing order.

    Parameters
    ----------
    blocks : tuple of Block
        Covariance structures.
    factor : (q, q) array
        Any factor of G.
    metric : (q, q) array
        Z'V^-1 Z, averaged over clusters.

    Returns
    -------
    basis : (K, q, q) array
        Matrices Lambda_k: A times those of a triangular factor, with A A' the inverse of the metric (eq. 89c).
    coordinates : (K,) array
        theta with ``L L' = G``.
    """
    bases, coordinates = [], []
    for block in blocks:
        if block.structure != "unstructured":
            bases.append(factor_basis(block, len(factor)))
            coordinates.append(factor_coordinates(block, factor @ factor.T))
            continue
        whole, own = whitened_block(block, factor, metric)
        order, _ = pivoted_order(own @ own.T, tuple(range(len(own))), tol=ROUNDING)
        upper = np.asarray(np.linalg.qr(own[list(order)].T, mode="r"))
        lower = upper.T * np.where(upper.diagonal() < 0.0, -1.0, 1.0)
        bases.append(whole @ factor_basis(block, len(factor), order=tuple(block.index[k] for k in order)))
        coordinates.append(np.concatenate([lower[j:, j] for j in range(len(order))]))
    return np.concatenate(bases), np.concatenate(coordinates)


def natural_turn(blocks: tuple[Block, ...], metric: Array) -> Array:
    """Coefficients (n_tau, n_tau) of A E_k A' in the E_l, with the units A of ``pivoted_chart`` (eq. 89c).

    ``metric`` (q, q) as there; structures other than unstructured keep their natural parameters.
    """
    q = len(metric)
    parts = []
    for block in blocks:
        basis = natural_basis(block, q)
        if block.structure == "unstructured":
            whole, _ = whitened_block(block, np.eye(q), metric)
            rows, columns = np.array(natural_pairs(block)).T
            parts.append((whole @ basis @ whole.T)[:, rows, columns])
        else:
            parts.append(np.eye(len(basis)))
    return np.asarray(block_diag(*parts), dtype=np.float64)


def whitened_block(block: Block, factor: Array, metric: Array) -> tuple[Array, Array]:
    """Units A of a block, (q, q) with ones elsewhere, and A^-1 times its part of the factor, (size, size).

    A A' is the inverse of the block's part of the metric: a variance of 1 in these units is the sampling variance of
    one cluster's effects. If responses are nearly equal, so are the units of their random effects.
    """
    at = square(block.index)
    size = np.sqrt(np.maximum(metric[at].diagonal(), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(metric[at] / np.outer(size, size))
    # only units: directions whose information is lost to rounding take the smallest that can be told from zero
    root = np.sqrt(np.maximum(values, ROUNDING * max(float(values[-1]), 1.0)))
    whole = np.eye(len(factor))
    whole[at] = (vectors / root) @ vectors.T / size[:, None]  # the symmetric root: axes stay close to the effects
    return whole, np.asarray((vectors * root) @ vectors.T @ (size[:, None] * factor[at]))


@dataclass(frozen=True, slots=True)
class Face:
    """A face of the cone: the columns of the factor left in each block.

    Attributes
    ----------
    basis : (K, q, q) array
        Matrices Lambda_k that remain.
    theta : (K,) array
        Coordinates of the point on the face.
    rank : int
        Rank of G there.
    """

    basis: Array
    theta: Array
    rank: int


def factor_rank(blocks: tuple[Block, ...], L: Array) -> int:
    """Rank of G = L L': nonzero columns of unstructured factors, numerical rank of others."""
    rank = 0
    for block in blocks:
        own = L[square(block.index)]
        size = float(np.abs(own).max())
        if block.structure == "unstructured" or size == 0.0:
            rank += int((np.abs(own).max(axis=0) > 0.0).sum())
        else:  # a symmetric root: a direction may vanish without a zero column
            rank += int(np.linalg.matrix_rank(own, tol=GONE * size))
    return rank


def find_face(blocks: tuple[Block, ...], factor: Array, metric: Array) -> Face:
    """The face that G lies on or close to; arguments and units as in ``pivoted_chart``."""
    q = len(factor)
    bases, coordinates, rank = [], [], 0
    for block in blocks:
        if block.structure == "unstructured":
            whole, own = whitened_block(block, factor, metric)
            W = own @ own.T
            order, k = pivoted_order(W, tuple(range(len(W))), tol=SUSPECT)
            L = psd_cholesky(W[square(order)])
            at = tuple(block.index[i] for i in order)
            bases.append(whole @ factor_basis(block, q, order=at, rank=k))
            coordinates.append(np.concatenate([L[j:, j] for j in range(k)]) if k else np.empty(0))
            rank += k
            continue
        basis = factor_basis(block, q)
        theta = factor_coordinates(block, factor @ factor.T)
        keep = theta**2 > SUSPECT * max(float((theta**2).max()), SUSPECT)
        bases.append(basis[keep])
        coordinates.append(theta[keep])
        rank += sum(np.linalg.matrix_rank(matrix) for matrix in basis[keep])
    return Face(np.concatenate(bases), np.concatenate(coordinates), int(rank))


def missing_directions(block: Block, factor: Array, slope: Array, metric: Array) -> list[Array]:
    """Directions (q, q) missing from a block of G: of an unstructured one, that of the smallest slope."""
    q, at = len(factor), square(block.index)
    if block.structure != "unstructured":
        theta = factor_coordinates(block, factor @ factor.T)
        return [matrix @ matrix.T for matrix in factor_basis(block, q)[theta == 0.0]]
    rank = int((np.abs(factor[at]).max(axis=0) > 0.0).sum())
    if rank == len(block.index):
        return []
    whole, own = whitened_block(block, factor, metric)
    null = whole[at] @ np.linalg.svd(own)[0][:, rank:]
    ahead = null @ np.linalg.eigh(null.T @ slope[at] @ null)[1][:, :1]
    direction = np.zeros((q, q))
    direction[at] = ahead @ ahead.T
    return [direction]
