"""Sufficient statistics of a model, one evaluation of its criterion, and its derivatives in other coordinates.

With Sigma = B M B' the natural parameters of M are coordinates of Sigma (eq. 95b). If B B' is close to Sigma, they are
unit-free: all directions change the likelihood about equally, and nothing cancels with nearly equal responses. In
natural parameters derivatives are larger by 1 / (unexplained share of a variance), squared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.sigma import ResidualStructure

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Cross:
    """Sufficient statistics across equations, by pattern of observed responses (eq. 90).

    Attributes
    ----------
    observed : (P, R) bool array
        Equations that the rows of a pattern belong to.
    A : (P, J, q, q) array
        Z'Z of every pattern and cluster, all equations side by side.
    B : (P, J, q, p + R) array
        Z'[X Y], Y the R responses.
    C : (P, p + R, p + R) array
        [X Y]'[X Y], summed over clusters.
    nobs : (P,) array
        Rows of every pattern.
    owner : (p + R,) int array
        The equation that each column of [X Y] belongs to.
    """

    observed: NDArray[np.bool_]
    A: Array
    B: Array
    C: Array
    nobs: Array
    owner: NDArray[np.int64]

    @property
    def fold(self) -> Array:
        """Matrix, (p + R, p + 1), that adds the columns of all responses into y."""
        R = self.observed.shape[1]
        p = len(self.owner) - R
        out = np.zeros((p + R, p + 1))
        out[:p, :p] = np.eye(p)
        out[p:, p] = 1.0
        return out


@dataclass(frozen=True, slots=True)
class CrossProducts:
    """The terms of ``Cross``, cluster by cluster.

    Attributes
    ----------
    observed, owner
        As in ``Cross``.
    A, B : (P, J, q, q), (P, J, q, p + R) arrays
        As in ``Cross``.
    C : (P, J, p + R, p + R) array
        [X Y]'[X Y].
    nobs : (P, J) array
        Rows of every pattern and cluster.
    """

    observed: NDArray[np.bool_]
    A: Array
    B: Array
    C: Array
    nobs: Array
    owner: NDArray[np.int64]

    def summed(self) -> Cross:
        """C and nobs summed over clusters."""
        A, B = np.ascontiguousarray(self.A), np.ascontiguousarray(self.B)
        return Cross(self.observed, A, B, self.C.sum(axis=1), np.rint(self.nobs.sum(axis=1)), self.owner)

    def take(self, index: NDArray[np.intp]) -> CrossProducts:
        """Select the listed clusters, in this order."""
        A, B, C, nobs = (table.take(index, axis=1) for table in (self.A, self.B, self.C, self.nobs))
        return CrossProducts(self.observed, A, B, C, nobs, self.owner)


@dataclass(frozen=True, slots=True)
class Roots:
    """The rows of every cluster in rotated bases, by equation, with cross-products A, B and C (eq. 3b).

    Attributes
    ----------
    Z : (J, q, q) array
        Lower-triangular E_j with ``Z'Z = E_j E_j'``, block-diagonal over equations; zeros for columns collinear
        within the cluster.
    reduced : (J, q, p + 1) array
        ``E_j^-1 Z'[X y]``.
    rest : (J, R, p + 1, p + 1) array
        Upper-triangular roots of the part of [X y] orthogonal to Z, by equation.
    total : (R, p + 1, p + 1) array
        Roots of that part in all clusters together; computed from ``rest``.
    """

    Z: Array
    reduced: Array
    rest: Array
    total: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Join the clusters."""
        k = self.rest.shape[2]
        joined = [np.linalg.qr(own.reshape(-1, k), mode="r") for own in self.rest.transpose(1, 0, 2, 3)]
        object.__setattr__(self, "total", np.stack(joined))

    @property
    def squares(self) -> Array:
        """Cross-products of the part of [X y] orthogonal to Z, (R, p + 1, p + 1)."""
        return self.total.transpose(0, 2, 1) @ self.total

    def rows(self, equation: int, effects: NDArray[np.intp]) -> Array:
        """Pseudo-rows [Z X y] of one equation, (J, k + p + 1, k + p + 1), from its k random effects."""
        J, k, width = len(self.Z), len(effects), self.reduced.shape[2]
        out = np.zeros((J, k + width, k + width))
        out[:, :k, :k] = self.Z[:, effects[:, None], effects].transpose(0, 2, 1)
        out[:, :k, k:] = self.reduced[:, effects]
        out[:, k:, k:] = self.rest[:, equation]
        return out

    def take(self, index: NDArray[np.intp] | slice) -> Roots:
        """Select the listed clusters, in this order."""
        return Roots(self.Z[index], self.reduced[index], self.rest[index])


@dataclass(frozen=True, slots=True)
class Problem:
    """Sufficient statistics of one mixed model (eq. 3), in the units of the given columns.

    A and B are stored cluster by cluster, whatever the memory layout of the given arrays.

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
    cross : Cross or None
        Statistics for correlated residuals; None if Sigma is diagonal.
    roots : Roots or None
        Roots of the rows, if cross-products have lost digits; evaluations then use only these.
    member : (R, q) array
        1 where a random effect belongs to an equation, else 0; computed from ``stratum``.
    """

    A: Array
    B: Array
    C: Array
    nobs: NDArray[np.int64]
    stratum: NDArray[np.int64]
    cross: Cross | None = None
    roots: Roots | None = None
    member: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Lay out memory for passes over clusters; compute ``member``."""
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

    @property
    def residual(self) -> ResidualStructure:
        """Structure of Sigma."""
        return ResidualStructure(self.n_strata, self.cross is not None)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The criterion -2l and its derivatives at one (G, sigma2), or at one (G, sigma2, beta); S residual parameters.

    Attributes
    ----------
    value : float
        -2 log-likelihood, restricted if REML (eq. 7).
    beta : (p,) array
        Generalized least squares estimate given (G, sigma2), or the given one; then gradient, hessian and
        information have p more coordinates, those of beta.
    P_inv : (p, p) array
        (X'V^-1 X)^-1, the covariance of beta given (G, sigma2).
    gradient : (q*q + S,) array
        Derivative with respect to (vec G, sigma2), G taken without symmetry (eq. 8); empty below order 1.
    hessian : (q*q + S, q*q + S) array
        Second derivatives in the same coordinates (eq. 9-11); empty below order 2.
    information : (q*q + S, q*q + S) array
        tr(V^-1 V_k V^-1 V_l), the expected second derivatives of the ML criterion; empty below order 2.
    beta_gradient : (p, q*q + S) array
        Derivative of beta with respect to (vec G, sigma2) (eq. 12); empty below order 2.
    size : float
        Size of the terms of the value, such as y'R^-1 y; rounding errors are proportional to it.
    spread : (q, q) array
        Z'V^-1 Z summed over clusters: information on the random effects; empty below order 1.
    base : (R, R) array or None
        B, if derivatives in Sigma were taken along B E_s B' (eq. 95b), else None.
    along : Evaluation or None
        The same with derivatives in the coordinates of ``base`` instead of sigma2, as computed.
    """

    value: float
    beta: Array
    P_inv: Array
    gradient: Array
    hessian: Array
    information: Array
    beta_gradient: Array
    size: float = 1.0
    spread: Array = field(default_factory=lambda: np.empty((0, 0)))
    base: Array | None = None
    along: Evaluation | None = None


def turned(at: Evaluation, structure: ResidualStructure, matrix: Array) -> Evaluation:
    """An evaluation with derivatives along C D_s C' instead of D_s; ``matrix`` is C, (R, R)."""
    q2, S = at.spread.size, structure.size
    turn = np.eye(len(at.gradient))
    turn[q2 : q2 + S, q2 : q2 + S] = structure.congruence(matrix)
    own = turn[: q2 + S, : q2 + S]
    out = replace(at, gradient=turn @ at.gradient)
    if at.hessian.size:
        hessian, information = (turn @ table @ turn.T for table in (at.hessian, at.information))
        out = replace(out, hessian=hessian, information=information, beta_gradient=at.beta_gradient @ own.T)
    return out


def with_natural(at: Evaluation, structure: ResidualStructure, base: Array) -> Evaluation:
    """The evaluation in natural parameters, from one whose derivatives are in the coordinates of ``base``."""
    inverse: Array = np.asarray(np.linalg.inv(base), dtype=np.float64)
    return replace(turned(at, structure, inverse), base=base, along=at)


def along(at: Evaluation, structure: ResidualStructure, base: Array) -> Evaluation:
    """The evaluation in the coordinates of ``base``."""
    if at.along is None or at.base is None:
        return turned(at, structure, base)
    if at.base is base:
        return at.along
    between: Array = np.asarray(np.linalg.solve(at.base, base), dtype=np.float64)
    return turned(at.along, structure, between)


def plus(at: Evaluation, other: Evaluation, structure: ResidualStructure) -> Evaluation:
    """Add value, gradient and Hessian of ``other``, natural derivatives without a base."""
    out = replace(at, value=at.value + other.value, gradient=at.gradient + other.gradient)
    if at.hessian.size:
        out = replace(out, hessian=at.hessian + other.hessian)
    if at.along is None or at.base is None:
        return out
    own = turned(other, structure, at.base)
    return replace(out, along=plus(at.along, own, structure))
