"""A regression in coordinates in which its likelihood is concave and well conditioned (docs/math.md, eq. 82, 84)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular

from mlmed.errors import NotIdentifiedError

__all__ = ["Block", "Margin", "block_of"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Margin:
    """One of the two regressions.

    Attributes
    ----------
    family : {"linear", "probit"}
        What kind.
    y : (n,) array
        Response; 0 and 1 for ``probit``.
    X : (n, p) array
        Columns.
    """

    family: str
    y: Array
    X: Array


@dataclass(frozen=True, slots=True)
class Block:
    """One regression in coordinates whose columns are orthogonal, so that units and collinearity do not matter.

    With X = Q R and least squares y = X b0 + s0 r, the error (y - X beta) / s is E theta with E = (-Q, r),
    theta = (R (beta - b0) / s, s0 / s); the index of a probit is Q theta with theta = R beta.

    Attributes
    ----------
    E : (n, p + 1) or (n, p) array
        Columns.
    R : (p, p) array
        Upper triangular.
    centre : (p,) array
        b0; zero for a probit.
    spread : float
        s0; NaN for a probit.
    """

    E: Array
    R: Array
    centre: Array
    spread: float

    @property
    def is_linear(self) -> bool:
        """Whether there is a scale."""
        return not np.isnan(self.spread)

    def to_theta(self, beta: Array, scale: float) -> Array:
        """From natural parameters."""
        if not self.is_linear:
            return np.asarray(self.R @ beta)
        return np.append(self.R @ (beta - self.centre) / scale, self.spread / scale)

    def natural(self, theta: Array) -> tuple[Array, float, Array]:
        """Coefficients, scale, and the derivatives of (coefficients, log scale) in theta (eq. 84)."""
        inverse = solve_triangular(self.R, np.eye(len(self.R)))
        if not self.is_linear:
            return inverse @ theta, float("nan"), inverse
        scale = self.spread / theta[-1]
        moved = scale * (inverse @ theta[:-1])
        J = np.zeros((len(theta), len(theta)))
        J[:-1, :-1], J[:-1, -1], J[-1, -1] = scale * inverse, -moved / theta[-1], -1.0 / theta[-1]
        return self.centre + moved, float(scale), J


def block_of(margin: Margin) -> Block:
    """One regression in its coordinates."""
    Q, R = np.linalg.qr(margin.X)
    if margin.family == "probit":
        return Block(Q, R, np.zeros(len(R)), float("nan"))
    projected = Q.T @ margin.y
    residual = margin.y - Q @ projected
    spread = float(np.sqrt(np.mean(residual**2)))
    if spread <= 1e-12 * float(np.abs(margin.y).max()):
        raise NotIdentifiedError("a linear equation fits its response without error, so there is no error to correlate")
    return Block(np.column_stack([-Q, residual / spread]), R, solve_triangular(R, projected), spread)
