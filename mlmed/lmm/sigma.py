"""The residual covariance of a row: natural parameters, search coordinates (docs/math.md, section 20)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.covariance import ROUNDING, pivoted_order, psd_cholesky, square

Array = NDArray[np.float64]

#: Log residual sd (response scaled to sd 1) below which the criterion is taken to be unbounded.
LOWEST_LOG_SD = -14.0
#: The same, 1e-9, with roots of the rows: these resolve 1e-12 of a response in small clusters, so a residual variance
#: of 1e-18 of its squares to six digits.
LOWEST_OF_ROOTS = -20.7
LOWEST_SD = float(np.exp(LOWEST_LOG_SD))
#: Share of a residual variance unexplained by responses of the same row, below which it counts as zero. A tenth of
#: ``checks.REPEATED``: such data are refused before any search, or the variance is on its way to zero.
EXPLAINED = 1e-7
#: Smallest pivot of Sigma's factor at a start, as a share of the sd: its logarithm is a coordinate.
INSIDE = 1e-3


@dataclass(frozen=True, slots=True)
class ResidualStructure:
    """Covariance Sigma of the residuals of one row across R equations.

    Natural parameters are the R variances and, if correlated, the covariances column by column.

    Attributes
    ----------
    R : int
        Equations.
    correlated : bool
        Whether covariances are parameters (otherwise zero).
    """

    R: int
    correlated: bool = False

    @property
    def at(self) -> NDArray[np.intp]:
        """Row and column of each parameter in Sigma, (S, 2)."""
        return _entries(self.R, self.correlated)[0]

    @property
    def size(self) -> int:
        """Natural parameters, S."""
        return self.R * (self.R + 1) // 2 if self.correlated else self.R

    @property
    def basis(self) -> Array:
        """Matrices D_s with Sigma = sum of parameters times D_s, (S, R, R)."""
        return _entries(self.R, self.correlated)[1]

    def matrix(self, values: Array) -> Array:
        """Sigma, (R, R), from natural parameters (S,)."""
        out = np.zeros((self.R, self.R))
        rows, columns = self.at.T
        out[rows, columns] = out[columns, rows] = values
        return out

    def root(self, values: Array) -> Array:
        """Lower-triangular factor of Sigma, (R, R), from natural parameters (S,); zero columns if singular."""
        if not self.correlated and values.min() > 0.0:
            return np.asarray(np.diag(values / np.sqrt(values)))
        return psd_cholesky(self.matrix(values), tol=ROUNDING)

    def squared(self, root: Array) -> Array:
        """Natural parameters (S,) of ``root @ root.T``."""
        rows, columns = self.at.T
        return np.einsum("sk,sk->s", root[rows], root[columns])

    def congruence(self, matrix: Array) -> Array:
        """Coefficients (S, S) with ``matrix @ D_s @ matrix.T = sum_t out[s, t] D_t``; ``matrix`` is (R, R)."""
        rows, columns = self.at.T
        moved: Array = (matrix @ self.basis @ matrix.T)[:, rows, columns]
        return moved

    def lifted(self, root: Array) -> Array:
        """Floor the pivots of lower-triangular ``root``, (R, R), so that it is regular."""
        if not self.correlated:
            return root
        size = np.sqrt(np.einsum("rk,rk->r", root, root))
        out = root.copy()
        np.fill_diagonal(out, np.maximum(root.diagonal(), INSIDE * size))
        return out

    @property
    def lost(self) -> str:
        """Explanation of a likelihood without a maximum, for messages."""
        if not self.correlated:
            return (
                "a residual variance goes to zero and the likelihood grows without bound: the random effects fit a "
                "response exactly within clusters; use fewer random effects, or remove a predictor that repeats it"
            )
        return (
            "the residual covariance of responses that are observed together becomes singular: the random effects fit "
            "a response exactly within clusters, or a response is a linear combination of others, or so few rows have "
            "all of three or more responses that their correlations are not known together; use fewer random effects, "
            "remove a response, or residual='diagonal'"
        )

    def inside(self, values: Array, floor: Array) -> Array:
        """Move parameters (S,) to variances of at least ``floor`` (R,) and a well-conditioned correlation matrix."""
        variances = np.maximum(values[: self.R], floor)
        if not self.correlated:
            return variances
        rows, columns = self.at[self.R :].T
        sd = np.sqrt(variances)
        correlation = np.eye(self.R)
        correlation[rows, columns] = correlation[columns, rows] = values[self.R :] / (sd[rows] * sd[columns])
        lowest = float(np.linalg.eigvalsh(correlation)[0])
        shrink = min(1.0, 0.9 / max(1.0 - lowest, 1e-12))  # smallest eigenvalue of at least 0.1
        return np.append(variances, shrink * values[self.R :])


@lru_cache
def _entries(R: int, correlated: bool) -> tuple[NDArray[np.intp], Array]:
    """``at`` and ``basis`` of ``ResidualStructure``, cached and shared."""
    pairs = [(r, r) for r in range(R)] + [(r, s) for s in range(R) for r in range(s + 1, R) if correlated]
    at = np.array(pairs, dtype=np.intp)
    basis, every, (rows, columns) = np.zeros((len(at), R, R)), np.arange(len(at)), at.T
    basis[every, rows, columns] = basis[every, columns, rows] = 1.0
    at.flags.writeable = basis.flags.writeable = False
    return at, basis


@dataclass(frozen=True, slots=True)
class ResidualChart:
    """Coordinates of Sigma in the search.

    Sigma = B T T' B' with T a triangular factor. Its coordinates are log T_rr first (log sds where Sigma is diagonal),
    then the entries of T below the diagonal (eq. 89, 89b). On a face of the cone T has fewer columns, and all its
    entries are coordinates, as with L.

    Attributes
    ----------
    structure : ResidualStructure
        The natural parameters.
    base : (R, R) array or None
        Regular B; None (the identity) if residuals are independent: log sds have no units.
    rank : int or None
        Columns of T on a face; None inside the cone.
    order : tuple of int
        On a face, the order of rows in which T is triangular.
    """

    structure: ResidualStructure
    base: Array | None = None
    rank: int | None = None
    order: tuple[int, ...] = ()

    @property
    def at(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column of each coordinate in T, (n,) each."""
        if self.rank is None:
            rows, columns = self.structure.at.T
            return rows, columns
        R = self.structure.R
        pairs = np.array([(self.order[i], j) for j in range(self.rank) for i in range(j, R)], dtype=np.intp)
        return pairs[:, 0], pairs[:, 1]

    @property
    def size(self) -> int:
        """Coordinates, n."""
        return self.structure.size if self.rank is None else len(self.at[0])

    @property
    def _logs(self) -> int:
        """Number of leading coordinates that are logarithms."""
        return self.structure.R if self.rank is None else 0

    def factor(self, theta: Array) -> Array:
        """T at coordinates (n,), (R, R)."""
        T = np.zeros((self.structure.R, self.structure.R))
        T[self.at] = np.append(np.exp(theta[: self._logs]), theta[self._logs :])
        return T

    def root(self, theta: Array) -> Array:
        """A factor of Sigma at coordinates (n,), (R, R); lower triangular inside the cone."""
        T = self.factor(theta)
        return T if self.base is None else self.base @ T

    def values(self, theta: Array) -> Array:
        """Natural parameters (S,) of Sigma at coordinates (n,)."""
        if not self.structure.correlated:
            return np.exp(2.0 * theta)
        return self.structure.squared(self.root(theta))

    def coordinates(self, root: Array) -> Array:
        """Coordinates (n,) of Sigma with the regular factor ``root``, (R, R); for a chart of the whole cone."""
        T = np.linalg.solve(self.base, root) if self.base is not None else root
        if np.triu(T, 1).any():  # any factor -> the lower-triangular one
            upper = np.asarray(np.linalg.qr(T.T, mode="r"))
            T = upper.T * np.where(upper.diagonal() < 0.0, -1.0, 1.0)
        rows, columns = self.at
        below = slice(self.structure.R, None)
        return np.append(np.log(T.diagonal()), T[rows[below], columns[below]])

    def _moves(self, theta: Array) -> Array:
        """Derivatives of T in theta, (n, R, R)."""
        rows, columns = self.at
        out = np.zeros((self.size, self.structure.R, self.structure.R))
        slopes = np.append(np.exp(theta[: self._logs]), np.ones(self.size - self._logs))
        out[np.arange(self.size), rows, columns] = slopes
        return out

    def jacobian(self, theta: Array) -> Array:
        """d(natural parameters of M = T T')/d theta, (S, n)."""
        if not self.structure.correlated:
            return np.diag(2.0 * np.exp(2.0 * theta))
        T, moves = self.factor(theta), self._moves(theta)
        rows, columns = self.structure.at.T
        half = moves @ T.T
        return (half + half.transpose(0, 2, 1))[:, rows, columns].T

    def curvature(self, theta: Array, gradient: Array) -> Array:
        """Sum of ``gradient`` (S,) times the second derivatives of the natural parameters of M in theta, (n, n)."""
        if not self.structure.correlated:
            return np.diag(4.0 * np.exp(2.0 * theta) * gradient)
        T, moves = self.factor(theta), self._moves(theta)
        weight = symmetric_slope(self.structure, gradient)
        # d2 M/dk dl = M_k M_l' + M_l M_k', plus M_k T' + T M_k' if k = l is a logarithm
        out = 2.0 * np.einsum("kab,ac,lcb->kl", moves, weight, moves, optimize=True)
        own = 2.0 * np.einsum("kab,ac,cb->k", moves, weight, T, optimize=True)
        logs = np.arange(self._logs)
        out[logs, logs] += own[: self._logs]
        return out

    def on_face(self, root: Array, *, tol: float) -> tuple[ResidualChart, Array]:
        """The chart of the face that ``root`` (R, R) lies on or close to, and the coordinates there.

        Pivots below ``tol`` of a diagonal entry of M, which is in the units of the data, count as zero.
        """
        own = root if self.base is None else np.linalg.solve(self.base, root)
        M = own @ own.T
        order, rank = pivoted_order(M, tuple(range(len(M))), tol=tol)
        T = psd_cholesky(M[square(order)])
        chart = ResidualChart(self.structure, self.base, rank, order)
        return chart, np.concatenate([T[j:, j] for j in range(rank)])


def degenerate(root: Array) -> bool:
    """Whether a residual variance, or its share unexplained by the others, is zero; ``root`` (E, R) of E responses."""
    variances = np.einsum("rk,rk->r", root, root)
    if float(variances.min()) < LOWEST_SD**2:
        return True
    if len(root) == 1:
        return False
    left, sizes, _ = np.linalg.svd(root / np.sqrt(variances)[:, None], full_matrices=False)
    return bool(np.any(((left / np.maximum(sizes, LOWEST_SD)) ** 2).sum(axis=1) > 1.0 / EXPLAINED))


def symmetric_slope(structure: ResidualStructure, gradient: Array) -> Array:
    """The gradient in the natural parameters (S,) as a symmetric matrix M, (R, R), with tr(M D_s) = entry s."""
    return 0.5 * (structure.matrix(gradient) + np.diag(gradient[: structure.R]))
