"""What the engine works on and what one evaluation of its criterion returns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Evaluation", "Problem"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Problem:
    """Sufficient statistics of one mixed model (eq. 3), in whatever units the columns were given.

    A and B are held in memory cluster after cluster, whatever the layout of the arrays that were given.

    Attributes
    ----------
    A : (q, q, J) array
        Z'Z of every cluster, block-diagonal over equations.
    B : (q, p + 1, J) array
        Z'[X y] of every cluster.
    C : (R, p + 1, p + 1) array
        [X y]'[X y] of every equation, summed over clusters.
    nobs : (R,) int array
        Rows of every equation.
    stratum : (q,) int array
        The equation that each random effect belongs to.
    member : (R, q) array
        1 where a random effect belongs to an equation, else 0; made from ``stratum``.
    """

    A: Array
    B: Array
    C: Array
    nobs: NDArray[np.int64]
    stratum: NDArray[np.int64]
    member: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay out memory for passes over clusters; note who belongs where."""
        for name in ("A", "B"):
            by_cluster = np.ascontiguousarray(getattr(self, name).transpose(2, 0, 1))
            object.__setattr__(self, name, by_cluster.transpose(1, 2, 0))
        object.__setattr__(self, "member", (self.stratum == np.arange(len(self.C))[:, None]).astype(float))

    @property
    def n_random(self) -> int:
        """Random effects per cluster, q."""
        return self.A.shape[0]

    @property
    def n_fixed(self) -> int:
        """Fixed effects, p."""
        return self.C.shape[1] - 1

    @property
    def n_clusters(self) -> int:
        """Clusters, J."""
        return self.A.shape[2]

    @property
    def n_strata(self) -> int:
        """Equations, each with its own residual variance, R."""
        return self.C.shape[0]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The criterion -2l and its derivatives at one (G, sigma2), or at one (G, sigma2, beta).

    Attributes
    ----------
    value : float
        -2 log-likelihood, restricted if REML (eq. 7).
    beta : (p,) array
        Generalized least squares estimate given (G, sigma2), or the given one; then gradient, hessian and
        information have p more coordinates, those of beta.
    P_inv : (p, p) array
        (X'V^-1 X)^-1, the covariance of beta given (G, sigma2).
    gradient : (q*q + R,) array
        Derivative with respect to (vec G, sigma2), G taken without symmetry (eq. 8); empty below order 1.
    hessian : (q*q + R, q*q + R) array
        Second derivatives in the same coordinates (eq. 9-11); empty below order 2.
    information : (q*q + R, q*q + R) array
        tr(V^-1 V_k V^-1 V_l), the expected second derivatives of the ML criterion; empty below order 2.
    beta_gradient : (p, q*q + R) array
        Derivative of beta with respect to (vec G, sigma2) (eq. 12); empty below order 2.
    """

    value: float
    beta: Array
    P_inv: Array
    gradient: Array
    hessian: Array
    information: Array
    beta_gradient: Array
