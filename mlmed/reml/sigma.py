"""The residual covariance of a row: natural parameters <-> Sigma <-> theta (docs/math.md, eq. 89)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ResidualStructure"]

Array = NDArray[np.float64]

#: Log residual sd (response scaled to sd 1) below which the criterion is taken to be unbounded.
LOWEST_LOG_SD = -14.0
#: Share of a residual variance that other responses leave, below which they leave nothing (correlation .9999995).
EXPLAINED = 1e-6


@dataclass(frozen=True, slots=True)
class ResidualStructure:
    """Covariance Sigma of the residuals of one row across R equations.

    Natural parameters are the R variances and, if correlated, the covariances column by column. The coordinates of
    the search are a log-Cholesky factor, Sigma = K K': log K_rr first (log sds where Sigma is diagonal), then the
    entries of K below the diagonal.

    Attributes
    ----------
    R : int
        Equations.
    correlated : bool
        Whether covariances are parameters or zero.
    """

    R: int
    correlated: bool = False

    @property
    def at(self) -> NDArray[np.intp]:
        """Row and column of Sigma that each parameter is, (S, 2)."""
        pairs = [(r, r) for r in range(self.R)]
        if self.correlated:
            pairs += [(r, s) for s in range(self.R) for r in range(s + 1, self.R)]
        return np.array(pairs, dtype=np.intp)

    @property
    def size(self) -> int:
        """Natural parameters, S."""
        return self.R * (self.R + 1) // 2 if self.correlated else self.R

    @property
    def basis(self) -> Array:
        """Matrices D_s with Sigma = sum of parameters times D_s, (S, R, R)."""
        out = np.zeros((self.size, self.R, self.R))
        rows, columns = self.at.T
        every = np.arange(self.size)
        out[every, rows, columns] = out[every, columns, rows] = 1.0
        return out

    def matrix(self, values: Array) -> Array:
        """Sigma, (R, R), from natural parameters (S,)."""
        out = np.zeros((self.R, self.R))
        rows, columns = self.at.T
        out[rows, columns] = out[columns, rows] = values
        return out

    def root(self, values: Array) -> Array:
        """Lower-triangular factor of Sigma, (R, R), from natural parameters (S,)."""
        return np.asarray(np.linalg.cholesky(self.matrix(values)), dtype=np.float64)

    def factor(self, theta: Array) -> Array:
        """Lower-triangular K with Sigma = K K', (R, R), from coordinates (S,)."""
        K = np.diag(np.exp(theta[: self.R]))
        rows, columns = self.at[self.R :].T
        K[rows, columns] = theta[self.R :]
        return K

    def values(self, theta: Array) -> Array:
        """Natural parameters (S,) at coordinates (S,)."""
        if not self.correlated:
            return np.exp(2.0 * theta)
        K = self.factor(theta)
        rows, columns = self.at.T
        return np.einsum("sk,sk->s", K[rows], K[columns])

    def coordinates(self, values: Array) -> Array:
        """Coordinates (S,) of natural parameters (S,) that are a covariance matrix.

        Raises
        ------
        numpy.linalg.LinAlgError
            If they are not.
        """
        if not self.correlated:
            return 0.5 * np.log(values)
        K = np.linalg.cholesky(self.matrix(values))
        rows, columns = self.at[self.R :].T
        return np.append(np.log(np.diag(K)), K[rows, columns])

    def _moves(self, theta: Array) -> Array:
        """Derivatives of K in theta, (S, R, R)."""
        out = np.zeros((self.size, self.R, self.R))
        rows, columns = self.at.T
        out[np.arange(self.size), rows, columns] = np.append(np.exp(theta[: self.R]), np.ones(self.size - self.R))
        return out

    def jacobian(self, theta: Array) -> Array:
        """d(natural parameters)/d theta, (S, S)."""
        if not self.correlated:
            return np.diag(2.0 * np.exp(2.0 * theta))
        K, moves = self.factor(theta), self._moves(theta)
        rows, columns = self.at.T
        half = moves @ K.T
        return (half + half.transpose(0, 2, 1))[:, rows, columns].T

    def curvature(self, theta: Array, gradient: Array) -> Array:
        """Sum of ``gradient`` (S,) times the second derivatives of the natural parameters in theta, (S, S)."""
        if not self.correlated:
            return np.diag(4.0 * np.exp(2.0 * theta) * gradient)
        K, moves = self.factor(theta), self._moves(theta)
        weight = 0.5 * (self.matrix(gradient) + np.diag(gradient[: self.R]))
        # d2 Sigma/dk dl = M_k M_l' + M_l M_k', and M_k K' + K M_k' once more where k = l is a logarithm
        out = 2.0 * np.einsum("kab,ac,lcb->kl", moves, weight, moves, optimize=True)
        own = 2.0 * np.einsum("kab,ac,cb->k", moves, weight, K, optimize=True)
        logs = np.arange(self.R)
        out[logs, logs] += own[: self.R]
        return out

    def degenerate(self, theta: Array) -> bool:
        """Whether a residual variance has gone to zero, or that of a combination of responses."""
        if float(theta[: self.R].min()) < LOWEST_LOG_SD:
            return True
        variances = self.values(theta)[: self.R]
        return self.correlated and bool(np.any(np.exp(2.0 * theta[: self.R]) < EXPLAINED * variances))

    @property
    def lost(self) -> str:
        """What a degenerate Sigma means."""
        if not self.correlated:
            return (
                "a residual variance goes to zero and the likelihood grows without bound: the random effects fit a "
                "response exactly within clusters; use fewer random effects, or remove a predictor that repeats it"
            )
        return (
            "the residual covariance becomes singular: the random effects fit a response exactly within clusters, or a "
            "response is a linear combination of others, or so few rows have all responses that their residual "
            "correlations are not known together; use fewer random effects, remove a response, or residual='diagonal'"
        )

    def inside(self, values: Array, floor: Array) -> Array:
        """Parameters (S,) moved to variances of at least ``floor`` (R,) and a correlation matrix away from singular."""
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
