"""Passes over the clusters: chunks in order over threads, rows weighted by the residual covariance, factors, sums.

Equation numbers refer to ``docs/math.md``. Clusters are taken in chunks that stay in cache. Within a chunk every
q x q product over clusters is one batched ``matmul`` (cluster index first), much cheaper than ``einsum`` for few
clusters and for many. Only the Cholesky recursion has the cluster index last: it loops over vector operations on
clusters.

A row whose responses O are observed has the precision Sigma_OO^-1. So every entry of the weighted cross-products of
Z, X and y is the cross-product of the pattern times a number that depends on the entry's two equations (eq. 90, 91).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtri
from threadpoolctl import threadpool_limits

from mlmed.errors import DataError
from mlmed.lmm.problem import Cross, Problem

Array = NDArray[np.float64]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Environment variable that sets the number of threads.
VARIABLE = "MLMED_THREADS"
#: Share of a response's residual sd unexplained by the others, below which Sigma_OO counts as singular.
SINGULAR = 1e-13
#: Entries of the cross-products per chunk: with their temporaries they fit a 1 MB cache (512 clusters at q = 5,
#: p = 5). Larger arrays also cost a page fault for every 4 kB, each time they are allocated.
ENTRIES = 28_160
#: Pivot of a cluster's Z'R^-1 Z, as a share of its diagonal entry, below which it is the rounding error of zero.
DEPENDENT = 1e-13
#: Clusters from which chunks twice as large are faster (and threads may be).
MANY = 65_536


def worker_count() -> int:
    """Threads for a pass over many clusters: the processors this process may use (8 at most), or MLMED_THREADS.

    Raises
    ------
    DataError
        If MLMED_THREADS is not a positive whole number.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8))
    if not asked.isdigit() or int(asked) < 1:
        raise DataError(f"{VARIABLE} must be a positive whole number of threads; found {asked!r}")
    return int(asked)


def ordered_map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """``map`` over threads, results in order; numpy releases the interpreter lock inside its loops."""
    if workers == 1:
        yield from map(function, items)
        return
    # one BLAS thread per worker thread, or they would compete for the same processors
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


@dataclass(frozen=True, slots=True)
class Whitener:
    """Matrices that make the residuals of each pattern's rows independent with variance 1, at one Sigma (eq. 91).

    Attributes
    ----------
    half : (P, R, R) array
        C^-1 with C C' = Sigma_OO, C lower triangular, in the rows and columns O of every pattern, zero elsewhere.
    precision : (P, R, R) array
        Sigma_OO^-1 = C^-T C^-1, likewise.
    logdet : float
        log|R| of all rows.
    """

    half: Array
    precision: Array
    logdet: float


def whitener(cross: Cross, root: Array) -> Whitener:
    """The whitener of Sigma = ``root @ root.T``.

    Sigma is not formed: that would lose the small differences of nearly equal responses.

    Parameters
    ----------
    cross : Cross
        The patterns and their rows.
    root : (R, R) array
        A factor of Sigma. Columns may be zero if Sigma_OO of every pattern is regular.

    Raises
    ------
    numpy.linalg.LinAlgError
        If Sigma_OO of a pattern is singular.
    """
    half = np.zeros((len(cross.observed), *root.shape))
    logdet = 0.0
    for target, own, nobs in zip(half, cross.observed, cross.nobs, strict=True):
        mine = root[own]
        lower = root if own.all() and not np.triu(root, 1).any() else np.asarray(np.linalg.qr(mine.T, mode="r")).T
        pivots = np.abs(lower.diagonal())
        if pivots.min() <= SINGULAR * np.sqrt((mine**2).sum(axis=1).max()):
            raise np.linalg.LinAlgError("the residual covariance of responses observed together is singular")
        target[np.ix_(own, own)] = dtrtri(lower, lower=1)[0]
        logdet += 2.0 * float(nobs) * float(np.log(pivots).sum())
    return Whitener(half, half.swapaxes(1, 2) @ half, logdet)


def smallest_share(cross: Cross, root: Array) -> float:
    """The smallest share of a residual variance left unexplained by the other responses of a row."""
    made, variances = whitener(cross, root), np.einsum("rk,rk->r", root, root)
    inflation = np.einsum("prr,r->pr", made.precision, variances)  # 1 / share of the observed, 0 elsewhere
    return float(1.0 / inflation.max())


def residual_units(cross: Cross, root: Array) -> Array:
    """Regular lower-triangular B with B B' the inverse of the average precision of rows, (R, R) (eq. 89b).

    With complete rows B B' = Sigma. B is regular even if Sigma is singular and no row has all responses.
    """
    average = np.einsum("prs,p->rs", whitener(cross, root).precision, cross.nobs) / cross.nobs.sum()
    # with J the exchange of rows, J A J = U U' gives A = (J U J)(J U J)', upper triangular, and its inverse is lower
    upper = np.linalg.cholesky(average[::-1, ::-1])[::-1, ::-1]
    return np.asarray(np.linalg.inv(upper).T, dtype=np.float64)


def weighted_tables(cross: Cross, stratum: NDArray[np.int64], weights: Array, part: slice) -> tuple[Array, Array]:
    """Z'(weights)Z, (S, n, q, q), and Z'(weights)[X y], (S, n, q, p + 1), of one chunk of clusters.

    All S matrices of weights, (S, P, R, R), at once: for a pair of equations the sum over patterns is a matrix product.
    """
    R = cross.observed.shape[1]
    p, effects = len(cross.owner) - R, [_run(stratum == r) for r in range(R)]
    columns = [_run(cross.owner[:p] == r) for r in range(R)]
    n, q = cross.A[0, part].shape[0], cross.A.shape[2]
    A, B = np.zeros((len(weights), n, q, q)), np.zeros((len(weights), n, q, p + 1))
    for r in range(R):
        for s in range(R):
            both = np.flatnonzero(cross.observed[:, r] & cross.observed[:, s])
            if not len(both):
                continue
            w = weights[:, both, r, s]
            A[:, :, effects[r], effects[s]] = _combined(w, cross.A[both, part, effects[r], effects[s]])
            B[:, :, effects[r], columns[s]] = _combined(w, cross.B[both, part, effects[r], columns[s]])
            B[:, :, effects[r], p] += _combined(w, cross.B[both, part, effects[r], p + s])
    return A, B


def _combined(weights: Array, tables: Array) -> Array:
    """Sums over patterns: (S, P), (P, ...) -> (S, ...)."""
    return (weights @ tables.reshape(len(tables), -1)).reshape(len(weights), *tables.shape[1:])


def _run(mine: NDArray[np.bool_]) -> slice:
    """The slice of a run of true values; empty if there is none."""
    at = np.flatnonzero(mine)
    return slice(int(at[0]), int(at[-1]) + 1) if len(at) else slice(0, 0)


def weighted_cross(cross: Cross, weights: Array) -> Array:
    """[X y]'(weights)[X y], (p + 1, p + 1), of all clusters."""
    return weighted_clusters(cross, weights, cross.C[:, None])[0]


def weighted_clusters(cross: Cross, weights: Array, C: Array) -> Array:
    """[X y]'(weights)[X y] of n clusters, (n, p + 1, p + 1), from their C, (P, n, p + R, p + R)."""
    whole = np.einsum("pcd,pncd->ncd", weights[:, cross.owner[:, None], cross.owner], C)
    return np.asarray(cross.fold.T @ whole @ cross.fold)


def chunks(problem: Problem, size: int | None = None) -> list[slice]:
    """Slice the clusters into chunks of at most ``size``; with many fixed effects the sums are the costly part."""
    J, k = problem.n_clusters, problem.n_fixed + 1
    entries = ENTRIES if J < MANY else 2 * ENTRIES
    size = size or max(entries // (problem.n_random * (problem.n_random + k)), 64, k // 4)
    return [slice(start, min(start + size, J)) for start in range(0, J, size)]


@dataclass(frozen=True, slots=True)
class Factored:
    """One chunk of n clusters after eq. 4.

    Attributes
    ----------
    A, B : (n, q, q), (n, q, p + 1) arrays
        Cross-products weighted by 1/sigma2.
    H : (n, q, q) array
        ``K^-1 L'`` with ``K K' = I + L'A L``.
    HB : (n, q, p + 1) array
        ``H B``.
    both : (n, q, q + p + 1) array
        ``[H, HB]`` in one array.
    logdet : float
        Sum of the log determinants of ``I + L'A L``.
    """

    A: Array
    B: Array
    both: Array
    logdet: float

    @property
    def H(self) -> Array:
        """``K^-1 L'``."""
        return self.both[:, :, : self.A.shape[1]]

    def cluster_last(self) -> tuple[Array, Array, Array]:
        """A, B and H with the cluster index last, for ``einsum`` over clusters."""
        A, B, H = (np.ascontiguousarray(table.transpose(1, 2, 0)) for table in (self.A, self.B, self.H))
        return A, B, H

    @property
    def HB(self) -> Array:
        """``K^-1 L'B``."""
        return self.both[:, :, self.A.shape[1] :]


def product(left: Array, right: Array) -> Array:
    """Cluster-wise matrix product, cluster index last: (a, b, J), (b, c, J) -> (a, c, J)."""
    return np.einsum("abj,bcj->acj", left, right)


def weighted(problem: Problem, sigma2: Array, part: slice, precision: Array | None = None) -> tuple[Array, Array]:
    """Z'R^-1 Z and Z'R^-1 [X y] of one chunk of clusters; ``precision`` as in ``Whitener``, if known."""
    if problem.cross is not None:
        if precision is None:
            precision = whitener(problem.cross, problem.residual.root(sigma2)).precision
        A, B = weighted_tables(problem.cross, problem.stratum, precision[None], part)
        return A[0], B[0]
    weight = (1.0 / sigma2)[problem.stratum][:, None]
    # weights of full shape, so numpy loops over whole matrices, not over their rows
    A = np.multiply(problem.A[:, :, part].transpose(2, 0, 1), weight.repeat(problem.A.shape[1], axis=1), order="C")
    B = np.multiply(problem.B[:, :, part].transpose(2, 0, 1), weight.repeat(problem.B.shape[1], axis=1), order="C")
    return A, B


def factor_clusters(problem: Problem, L: Array, sigma2: Array, part: slice, precision: Array | None = None) -> Factored:
    """Cholesky factor of ``I + L'A L`` for one chunk of clusters, applied to ``L'`` (eq. 4)."""
    A, B = weighted(problem, sigma2, part, precision)
    n, q, k = B.shape
    work = np.empty((2 * q, q, n))  # columns of M = I + L'A L, then of L'; the second index is the row
    half = np.matmul(L.T, A.transpose(1, 2, 0))  # row by row of A: (q, q, n)
    np.matmul(L.T, half.reshape(q, q * n), out=work[:q].reshape(q, q * n))
    work[q:] = L[:, :, None]
    pivots = work[:q].reshape(q * q, n)[:: q + 1]
    pivots += 1.0
    for i in range(q - 1):  # right-looking Cholesky of M, roots left to the end, with forward substitution of L'
        row, rest = work[i:, i], work[i + 1 :, i + 1 :]
        rest -= row[1:, None] * (row[1 : q - i] / row[0])
    work[q:] /= np.sqrt(pivots)
    both = np.empty((n, q, q + k))
    H = both[:, :, :q]
    H[:] = work[q:].transpose(2, 1, 0)
    np.matmul(H, B, out=both[:, :, q:])
    return Factored(A, B, both, float(np.log(pivots).sum()))


@dataclass(slots=True)
class Sums:
    """Sums over clusters, accumulated chunk by chunk."""

    def add(self, other: Sums) -> None:
        """Add another chunk, of the same class, in place."""
        name: str
        for name in self.__slots__:
            total = getattr(self, name)
            total += getattr(other, name)


@dataclass(slots=True)
class ClusterSums(Sums):
    """Sums over clusters for derivatives in G (eq. 8 to 12); the last two empty below order 2.

    Attributes
    ----------
    QTF : (3, q, q) array
        Q = Z'V^-1 Z, T and F = I - N A; without F, (2, q, q), if computed from roots.
    Q_QT : (q*q, 2, q*q) array
        Products of the entries of Q with those of Q and of T.
    VV : (q*(p+1), q*(p+1)) array
        Products of the entries of V = Z'V^-1 [X y].
    """

    QTF: Array
    Q_QT: Array
    VV: Array


@dataclass(slots=True)
class DiagonalSums(Sums):
    """Sums over clusters for the residual variances of a diagonal Sigma; the last three empty below order 2.

    Attributes
    ----------
    residual : (q, p + 1, p + 1) array
        ``h'(B + V)`` by row of Z'; the symmetric part over equation r's rows is subtracted from C_r / sigma2_r in
        eq. 6b.
    F_QT : (2, q, q, q) array
        Row a of F times row a of Q and of T.
    NN, NT : (q, q) arrays
        ``(N A)_ac (N A)_ca`` and ``N_ac T_ca``.
    """

    residual: Array
    F_QT: Array
    NN: Array
    NT: Array


@dataclass(frozen=True, slots=True)
class Inverted:
    """Products with V^-1 in one chunk of n clusters (eq. 5, 6), N = L M^-1 L'.

    Attributes
    ----------
    part : Factored
        The chunk.
    N, NA : (n, q, q) arrays
        N and N A.
    h, V : (n, q, p + 1) arrays
        N B, and Z'V^-1 [X y] = B - A h.
    tables : (n, 3, q, q) array
        Q = Z'V^-1 Z, T = V W V' and F = I - N A, with V^-1 Z = R^-1 Z F.
    """

    part: Factored
    N: Array
    NA: Array
    h: Array
    V: Array
    tables: Array


def _transposed(matrices: Array) -> Array:
    return matrices.transpose(0, 2, 1)


def _cross(left: Array, right: Array) -> Array:
    """Sum over clusters of the outer products, row by row: (n, a, i), (n, a, k) -> (a, i, k)."""
    return np.matmul(left.transpose(1, 2, 0), right.transpose(1, 0, 2))


def inverted(part: Factored, weight: Array, L: Array | None = None) -> Inverted:
    """Products with V^-1. ``weight`` (p + 1, p + 1) is W of eq. 8: T = Z'V^-1[X y] W [X y]'V^-1 Z.

    With ``L`` (q, q) Q and V are computed by eq. 95c, for residuals that may be nearly equal: then A is large and
    A - A N A cancels.
    """
    n, q, k = part.B.shape
    product = _transposed(part.H) @ part.both
    N, h = product[:, :, :q], product[:, :, q:]
    NA = N @ part.A
    tables = np.empty((n, 3, q, q))
    Q, T, F = tables[:, 0], tables[:, 1], tables[:, 2]
    if L is None:
        V = part.B - part.A @ h  # Z'V^-1 [X y]
        np.subtract(part.A, part.A @ NA, out=Q)  # Z'V^-1 Z
    else:
        Q[:], V = _without_cancellation(part, L)
    # a copy: batched products read a contiguous last factor much faster than a transposed one
    np.matmul((V.reshape(n * q, k) @ weight).reshape(n, q, k), _transposed(V).copy(), out=T)
    np.subtract(np.eye(q), NA, out=F)  # V^-1 Z = R^-1 Z F
    return Inverted(part, N, NA, h, V, tables)


def _without_cancellation(part: Factored, L: Array) -> tuple[Array, Array]:
    """Q = S S' and V = S K^-1 C^-1 B with A = C C', K K' = I + C'G C and S = C K^-T (eq. 95c)."""
    C, reduced = _semidefinite_roots(part.A, part.B)
    half = L.T @ C
    K = np.linalg.cholesky(np.eye(len(L)) + _transposed(half) @ half)
    solved = np.linalg.solve(K, np.concatenate([_transposed(C), reduced], axis=2))
    S = _transposed(solved[:, :, : len(L)])
    return S @ _transposed(S), S @ solved[:, :, len(L) :]


def _semidefinite_roots(A: Array, B: Array) -> tuple[Array, Array]:
    """C with C C' = A, and C^-1 B, with zeros in the rows and columns of pivots that are zero up to rounding."""
    q = A.shape[1]
    rest, C, reduced = A.copy(), np.zeros_like(A), B.copy()
    for k in range(q):
        pivot, size = rest[:, k, k], A[:, k, k]
        real = pivot > DEPENDENT * size
        scale = np.divide(1.0, np.sqrt(np.where(real, pivot, 1.0)), out=np.zeros_like(pivot), where=real)
        C[:, k:, k] = rest[:, k:, k] * scale[:, None]
        reduced[:, k] *= scale[:, None]
        below = C[:, k + 1 :, k]
        rest[:, k + 1 :, k + 1 :] -= below[:, :, None] * below[:, None, :]
        reduced[:, k + 1 :] -= below[:, :, None] * reduced[:, None, k]
    return C, reduced


def chunk_sums(tables: Array, V: Array, *, second: bool) -> ClusterSums:
    """Sums of one chunk for the derivatives in G; ``tables`` (n, 2 or 3, q, q) and V as in ``Inverted``."""
    n, count, q, _ = tables.shape
    rows, Vs = tables.reshape(n, count * q * q), V.reshape(n, -1)
    total = (np.ones(n) @ rows).reshape(count, q, q)  # a product with ones is faster than a sum
    if not second:
        return ClusterSums(total, np.zeros(0), np.zeros(0))
    return ClusterSums(total, (rows[:, : q * q].T @ rows[:, : 2 * q * q]).reshape(q * q, 2, q * q), Vs.T @ Vs)


def diagonal_sums(made: Inverted, *, second: bool) -> DiagonalSums:
    """Sums of one chunk for the residual variances."""
    N, NA, h, T, F = made.N, made.NA, made.h, made.tables[:, 1], made.tables[:, 2]
    residual = _cross(h, made.part.B + made.V)
    if not second:
        return DiagonalSums(residual, *(np.zeros(0) for _ in range(3)))
    by_row, by_column = (1, 2, 0), (2, 1, 0)
    return DiagonalSums(
        residual,
        F_QT=np.matmul(F.transpose(by_row), made.tables[:, :2].transpose(1, 2, 0, 3)),
        NN=np.vecdot(NA.transpose(by_row), NA.transpose(by_column)),
        NT=np.vecdot(N.transpose(by_row), T.transpose(by_column)),
    )
