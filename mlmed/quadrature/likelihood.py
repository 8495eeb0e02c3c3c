"""Log-likelihood of a location-scale model and its scores, by quadrature over the scale random effects.

Given s (t = L_tt s) a cluster is Gaussian, y ~ N(X beta + Z L_ut s, R + Z L_uu L_uu' Z') with R = diag(exp(2 eta)), and
u is integrated exactly. The scores are Fisher's identity by the same quadrature: the exact derivative of the sum at
nodes that stay where they are. See docs/location_scale.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.conditional import Conditional, conditional, symmetric_map
from mlmed.quadrature.nodes import Nodes
from mlmed.quadrature.problem import Chunk, Parameters, Problem

__all__ = ["Mixture", "conditional_loglik", "loglik", "posterior", "scores"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mixture:
    """What the data say of the random effects, in working units: given a node, t is known and u is normal.

    Attributes
    ----------
    share : (J, Q) array
        Posterior weights of the nodes.
    t : (J, d, Q) array
        Scale effects at the nodes.
    u, cov_u : (J, q, Q), (J, q, q, Q) arrays
        Means and covariances of the location effects given t.
    """

    share: Array
    t: Array
    u: Array
    cov_u: Array

    def moments(self) -> tuple[Array, Array]:
        """Means, (J, d + q), and covariances, (J, d + q, d + q), in the order (t, u)."""
        d = self.t.shape[1]
        b = np.concatenate([self.t, self.u], axis=1)
        mean = np.einsum("jk,jak->ja", self.share, b)
        off = b - mean[:, :, None]
        covariance = (self.share[:, None] * off) @ off.transpose(0, 2, 1)
        covariance[:, d:, d:] += np.einsum("jk,jabk->jab", self.share, self.cov_u)
        return mean, covariance


def conditional_loglik(problem: Problem, theta: Array, s: Array) -> Array:
    """Log f(y_j | s) at Q points of every cluster, (J, Q); ``s`` is (J, Q, d)."""
    at = problem.parameters(theta)
    out = np.empty(s.shape[:2])
    for chunk in problem.chunks:
        out[chunk.at] = conditional(chunk, at, problem.offset, s[chunk.at]).loglik
    return out


def _posterior(given: Array, nodes: Nodes, at: NDArray[np.intp]) -> tuple[Array, Array]:
    """Log-likelihood of every cluster, (J,), and posterior weights of its nodes, (J, Q)."""
    terms = given + nodes.log_weights[at]
    top = terms.max(axis=1)
    if not np.isfinite(top).all():
        return np.full(len(at), -np.inf), np.full(terms.shape, np.nan)
    shares = np.exp(terms - top[:, None])
    total = shares.sum(axis=1)
    return top + np.log(total), shares / total[:, None]


def loglik(problem: Problem, theta: Array, nodes: Nodes) -> float:
    """Log-likelihood in working units; minus infinity where it cannot be evaluated."""
    found = conditional_loglik(problem, theta, nodes.points)
    return float(_posterior(found, nodes, np.arange(problem.J))[0].sum())


def scores(problem: Problem, theta: Array, nodes: Nodes) -> tuple[Array, Array]:
    """Log-likelihood of every cluster, (J,), and its derivative in theta, (J, size)."""
    at = problem.parameters(theta)
    value, out = np.empty(problem.J), np.empty((problem.J, problem.size))
    for chunk in problem.chunks:
        s = nodes.points[chunk.at]
        given = conditional(chunk, at, problem.offset, s)
        value[chunk.at], share = _posterior(given.loglik, nodes, chunk.at)
        out[chunk.at] = _chunk_scores(problem, chunk, at, given, s, share)
    return value, out


def _chunk_scores(problem: Problem, chunk: Chunk, at: Parameters, given: Conditional, s: Array, share: Array) -> Array:
    q, d = problem.structure.q, problem.structure.d
    w, first = given.mean_w, np.tril_indices(q)
    J, n = chunk.y.shape
    u, uu = _moments_of_u(given, at)
    second = given.cov_w + w[:, :, None] * w[:, None]
    into_mean = given.c - np.einsum("jabk,jbk->jak", given.A, at.L_uu @ w)
    weighted_s = share[:, None] * s.transpose(0, 2, 1)
    lower = np.zeros((J, d + q, d + q))
    lower[:, d:, :d] = into_mean @ weighted_s.transpose(0, 2, 1)
    spread = (at.L_uu @ second.reshape(J, q, q * share.shape[1])).reshape(second.shape)
    lower[:, d:, d:] = (share[:, None] * given.c) @ w.transpose(0, 2, 1)
    lower[:, d:, d:] -= np.einsum("jabk,jbck->jac", share[:, None, None] * given.A, spread)
    # expected squared residuals are linear in (1, u, u u'); times 1 for tau, times s for L_tt
    coefficients = np.concatenate([np.ones((J, 1, share.shape[1])), u, uu], axis=1)
    by_s = np.concatenate([share[:, None], weighted_s], axis=1)
    nodes = (by_s[:, :, None] * coefficients[:, None]).reshape(J, -1, share.shape[1])
    rows = (nodes @ given.weights.transpose(0, 2, 1)).reshape(J, 1 + d, -1, n)
    factor = np.concatenate([[1.0], np.full(q, -2.0), np.where(first[0] == first[1], 1.0, 2.0)])
    squares = np.einsum("jkn,jskn->jsn", given.products * factor[:, None], rows)
    residual = rows[:, 0, 0] * given.e0 - np.einsum("jnk,jkn->jn", chunk.Z, rows[:, 0, 1 : 1 + q])
    beta = (residual[:, None] @ chunk.X)[:, 0]
    tau = ((squares[:, :1] - 1.0) @ chunk.W)[:, 0]
    lower[:, :d, :d] = (squares[:, 1:] @ chunk.V).transpose(0, 2, 1) - (
        chunk.V.sum(axis=1)[:, :, None] * weighted_s.sum(axis=2)[:, None]
    )
    return np.concatenate([beta, tau, lower[:, problem.structure.rows, problem.structure.columns]], axis=1)


def _moments_of_u(given: Conditional, at: Parameters) -> tuple[Array, Array]:
    """Posterior means of u given s, (J, q, Q), and of the lower triangle of u u', (J, q (q + 1) / 2, Q)."""
    i, j = np.tril_indices(len(at.L_uu))
    u = given.shift + at.L_uu @ given.mean_w
    return u, u[:, i] * u[:, j] + symmetric_map(at.L_uu) @ given.cov_w[:, i, j]


def posterior(problem: Problem, theta: Array, nodes: Nodes) -> Mixture:
    """Posterior of the random effects of every cluster, by the same quadrature."""
    at, (d, q) = problem.parameters(theta), (problem.structure.d, problem.structure.q)
    J, Q = nodes.log_weights.shape
    out = Mixture(np.empty((J, Q)), np.empty((J, d, Q)), np.empty((J, q, Q)), np.empty((J, q, q, Q)))
    for chunk in problem.chunks:
        s = nodes.points[chunk.at]
        given = conditional(chunk, at, problem.offset, s)
        out.share[chunk.at] = _posterior(given.loglik, nodes, chunk.at)[1]
        out.t[chunk.at] = at.L_tt @ s.transpose(0, 2, 1)
        out.u[chunk.at] = given.shift + at.L_uu @ given.mean_w
        out.cov_u[chunk.at] = np.einsum("ab,jbck,dc->jadk", at.L_uu, given.cov_w, at.L_uu, optimize=True)
    return out
