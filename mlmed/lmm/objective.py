"""The criterion as a function of theta."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.clusters import residual_units
from mlmed.lmm.covariance import Block, factor_basis, pivoted_chart
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.problem import Evaluation, Problem, along
from mlmed.lmm.sigma import LOWEST_LOG_SD, LOWEST_OF_ROOTS, ResidualChart, degenerate
from mlmed.numerics.certificate import FLAT

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

    @property
    def size(self) -> float:
        """Size of the terms of the value, to which its rounding error is proportional."""
        return self.natural.size

    @property
    def steepness(self) -> float:
        """Largest |g_k| / sqrt(|H_kk|) (eq. 34a): the same in any units of the coordinates."""
        diagonal = np.abs(self.hessian.diagonal())
        # floor tiny diagonals, so that scaling does not amplify rounding
        size = np.sqrt(np.maximum(diagonal, FLAT * max(float(diagonal.max()), 1.0)))
        return float((np.abs(self.gradient) / size).max())


@dataclass(frozen=True, slots=True)
class Objective:
    """-2l as a function of theta: L = sum_k l_k Lambda_k, then coordinates of Sigma, then (rarely) beta.

    Attributes
    ----------
    problem : Problem
        Cross-products.
    basis : (K, q, q) array
        The matrices Lambda_k.
    reml : bool
        Restricted likelihood or not.
    chart : ResidualChart
        The coordinates of Sigma.

    Notes
    -----
    ``objective(theta)`` is the value; ``objective.derivatives(theta)`` adds gradient and Hessian.
    """

    problem: Problem
    basis: Array
    reml: bool
    chart: ResidualChart

    @property
    def n_factor(self) -> int:
        """Number of entries of theta for L."""
        return len(self.basis)

    def factor(self, theta: Array) -> Array:
        """Factor L at theta, (q, q)."""
        K, q, _ = self.basis.shape
        return (theta[:K] @ self.basis.reshape(K, q * q)).reshape(q, q)

    def residual_part(self, theta: Array) -> Array:
        """The entries of theta for Sigma."""
        return theta[self.n_factor : self.n_factor + self.chart.size]

    def free_part(self, theta: Array) -> Array:
        """The entries of theta that are natural parameters themselves (a given beta)."""
        return theta[self.n_factor + self.chart.size :]

    def residual_root(self, theta: Array) -> Array:
        """A factor of Sigma at theta, (R, R)."""
        return self.chart.root(self.residual_part(theta))

    def sigma2(self, theta: Array) -> Array:
        """Residual parameters at theta, (S,)."""
        return self.chart.values(self.residual_part(theta))

    def is_lost(self, theta: Array) -> bool:
        """Whether a residual variance, or its share unexplained by responses of the same row, has gone to zero.

        The criterion has no minimum in that direction.
        """
        cross = self.problem.cross
        if cross is None:
            lowest = LOWEST_LOG_SD if self.problem.roots is None else LOWEST_OF_ROOTS
            return float(self.residual_part(theta).min()) < lowest
        root = self.residual_root(theta)
        return any(degenerate(root[own]) for own, rows in zip(cross.observed, cross.nobs, strict=True) if rows)

    def __call__(self, theta: Array) -> float:
        """-2l at theta; infinite where the residual variances leave the range of floating point."""
        return self.evaluation(theta, self.factor(theta), order=0).value

    def evaluation(self, theta: Array, L: Array, *, order: int = 2) -> Evaluation:
        """Criterion and natural derivatives at theta, with ``L`` as the factor of G."""
        root = None if self.problem.cross is None else self.residual_root(theta)
        at = self.sigma2(theta)
        return evaluate(self.problem, L, at, reml=self.reml, order=order, root=root, base=self.chart.base)

    def derivatives(self, theta: Array, factor: Array | None = None) -> ThetaEvaluation:
        """Value, gradient and Hessian at theta; ``factor`` (q, q) is L in another order of columns."""
        return self.in_chart(theta, self.evaluation(theta, self.factor(theta) if factor is None else factor))

    def in_chart(self, theta: Array, natural: Evaluation) -> ThetaEvaluation:
        """Derivatives in theta from those in natural parameters at the same point; no pass over clusters."""
        L, structure, part = self.factor(theta), self.problem.residual, self.residual_part(theta)
        own = natural if self.chart.base is None else along(natural, structure, self.chart.base)
        J = self.jacobian(theta)
        hessian = J.T @ own.hessian @ J
        K, S, n, q, qq = self.n_factor, structure.size, self.chart.size, len(L), L.size
        slope = own.gradient[:qq].reshape(q, q)
        # eq. 16: d2G/dl_k dl_m = Lambda_k Lambda_m' + Lambda_m Lambda_k'
        turned = (slope @ self.basis).reshape(K, qq)
        hessian[:K, :K] += 2.0 * (self.basis.reshape(K, qq) @ turned.T)
        hessian[K : K + n, K : K + n] += self.chart.curvature(part, own.gradient[qq : qq + S])
        return ThetaEvaluation(natural.value, own.gradient @ J, hessian, natural)

    def jacobian(self, theta: Array) -> Array:
        """d(vec G, natural parameters of M)/d theta (eq. 15); identity for the coordinates after those (beta)."""
        L, part = self.factor(theta), self.residual_part(theta)
        K, S, n, q = self.n_factor, self.problem.residual.size, self.chart.size, len(L)
        free = len(theta) - K - n
        J = np.zeros((q * q + S + free, K + n + free))
        half = (self.basis.reshape(K * q, q) @ L.T).reshape(K, q, q)
        J[: q * q, :K] = (half + half.transpose(0, 2, 1)).reshape(K, q * q).T
        J[q * q : q * q + S, K : K + n] = self.chart.jacobian(part)
        J[q * q + S :, K + n :] = np.eye(free)
        return J

    def recharted(self, blocks: tuple[Block, ...], theta: Array, spread: Array) -> tuple[Objective, Array]:
        """The same criterion in the units of the data at theta, and theta in its coordinates (eq. 89b, 89c).

        For an objective over the whole cone. ``spread`` (q, q) is Z'V^-1 Z at theta, summed over clusters.
        """
        basis, entries = pivoted_chart(blocks, self.factor(theta), spread / self.problem.n_clusters)
        chart, part = self.chart, self.residual_part(theta)
        if self.problem.cross is not None:
            root = self.residual_root(theta)
            chart = replace(chart, base=residual_units(self.problem.cross, root))
            part = chart.coordinates(root)
        return replace(self, basis=basis, chart=chart), np.concatenate([entries, part, self.free_part(theta)])


def objective_for(problem: Problem, blocks: tuple[Block, ...], *, reml: bool) -> Objective:
    """The criterion over the whole cone of the given covariance structures."""
    basis = [factor_basis(block, problem.n_random) for block in blocks]
    return Objective(problem, np.concatenate(basis), reml, ResidualChart(problem.residual))
