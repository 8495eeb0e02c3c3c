"""The criterion as a function of theta: a plain value that users can hold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.reml.covariance import Block, factor_basis
from mlmed.reml.criterion import evaluate
from mlmed.reml.problem import Evaluation, Problem

__all__ = ["Objective", "ThetaEvaluation", "objective_for"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ThetaEvaluation:
    """The criterion at one theta.

    Attributes
    ----------
    value : float
        -2l.
    gradient : (n,) array
        Derivative with respect to theta = (entries of L, log-Cholesky entries of Sigma) (eq. 15).
    hessian : (n, n) array
        Second derivatives in theta (eq. 16).
    natural : Evaluation
        The same point in natural parameters.
    """

    value: float
    gradient: Array
    hessian: Array
    natural: Evaluation


@dataclass(frozen=True, slots=True)
class Objective:
    """-2l as a function of theta = (l, log-Cholesky entries of Sigma), with L = sum_k l_k Lambda_k.

    Attributes
    ----------
    problem : Problem
        Cross-products.
    basis : (K, q, q) array
        The matrices Lambda_k.
    reml : bool
        Restricted likelihood or not.

    Notes
    -----
    ``objective(theta)`` is the value; ``objective.derivatives(theta)`` adds gradient and Hessian.
    """

    problem: Problem
    basis: Array
    reml: bool

    @property
    def n_factor(self) -> int:
        """Entries of theta that make up L."""
        return len(self.basis)

    def factor(self, theta: Array) -> Array:
        """Factor L at theta, (q, q)."""
        K, q, _ = self.basis.shape
        return (theta[:K] @ self.basis.reshape(K, q * q)).reshape(q, q)

    def residual_part(self, theta: Array) -> Array:
        """The entries of theta that make up Sigma, (S,)."""
        return theta[self.n_factor : self.n_factor + self.problem.residual.size]

    def sigma2(self, theta: Array) -> Array:
        """Residual parameters at theta, (S,)."""
        return self.problem.residual.values(self.residual_part(theta))

    def is_lost(self, theta: Array) -> bool:
        """Whether a residual variance has gone to zero: the criterion has no minimum that way."""
        return self.problem.residual.degenerate(self.residual_part(theta))

    def __call__(self, theta: Array) -> float:
        """-2l at theta; infinite where the residual variances leave the range of floating point."""
        return evaluate(self.problem, self.factor(theta), self.sigma2(theta), reml=self.reml, order=0).value

    def derivatives(self, theta: Array) -> ThetaEvaluation:
        """Value, gradient and Hessian at theta."""
        natural = evaluate(self.problem, self.factor(theta), self.sigma2(theta), reml=self.reml, order=2)
        return self.in_chart(theta, natural)

    def in_chart(self, theta: Array, natural: Evaluation) -> ThetaEvaluation:
        """Derivatives in theta from those in natural parameters at the same point; no cluster is visited."""
        L, structure, part = self.factor(theta), self.problem.residual, self.residual_part(theta)
        J = self.jacobian(theta)
        hessian = J.T @ natural.hessian @ J
        K, S, q, qq = self.n_factor, structure.size, len(L), L.size
        slope = natural.gradient[:qq].reshape(q, q)
        # eq. 16: d2G/dl_k dl_m = Lambda_k Lambda_m' + Lambda_m Lambda_k'
        turned = (slope @ self.basis).reshape(K, qq)
        hessian[:K, :K] += 2.0 * (self.basis.reshape(K, qq) @ turned.T)
        hessian[K : K + S, K : K + S] += structure.curvature(part, natural.gradient[qq : qq + S])
        return ThetaEvaluation(natural.value, natural.gradient @ J, hessian, natural)

    def jacobian(self, theta: Array) -> Array:
        """d(vec G, sigma2)/d theta, (q*q + S, n) (eq. 15); coordinates after those (beta) stand for themselves."""
        L, structure, part = self.factor(theta), self.problem.residual, self.residual_part(theta)
        K, S, q = self.n_factor, structure.size, len(L)
        free = len(theta) - K - S
        J = np.zeros((q * q + S + free, K + S + free))
        half = (self.basis.reshape(K * q, q) @ L.T).reshape(K, q, q)
        J[: q * q, :K] = (half + half.transpose(0, 2, 1)).reshape(K, q * q).T
        J[q * q : q * q + S, K : K + S] = structure.jacobian(part)
        J[q * q + S :, K + S :] = np.eye(free)
        return J


def objective_for(problem: Problem, blocks: tuple[Block, ...], *, reml: bool) -> Objective:
    """The criterion over the whole cone of the given covariance structures."""
    basis = [factor_basis(block, problem.n_random) for block in blocks]
    return Objective(problem, np.concatenate(basis), reml)
