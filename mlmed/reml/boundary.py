"""Singular optima: reach the face of the cone exactly, and check that leaving it does not pay.

A singular G is a legitimate optimum. After the search, directions of G that have collapsed are removed,
the criterion is optimized again on that face, and the face is kept only if the criterion agrees. The
multiplier (the gradient along the removed directions) then certifies it: it must not be negative (eq. 17).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.reml.covariance import Block, factor_basis, factor_coordinates, pivoted_order, psd_cholesky
from mlmed.reml.objective import Objective, ThetaEvaluation
from mlmed.reml.optimizer import NewtonSettings, Step, newton
from mlmed.reml.problem import Problem

__all__ = ["Face", "factor_rank", "multiplier", "on_face"]

Array = NDArray[np.float64]

#: A pivot of G below this share of its variance may be zero; the criterion decides.
SUSPECT = 1e-5
#: Share of the largest sd below which that of a direction is the rounding error of zero.
GONE = 1e-6
#: How much -2l may rise when a suspect direction is set to zero.
AGREES = 1e-8


@dataclass(frozen=True, slots=True)
class Face:
    """A face of the cone: which columns of the factor are left in each block.

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
    """Rank of G = L L': the columns left in an unstructured factor, the directions left in any other."""
    rank = 0
    for block in blocks:
        own = L[np.ix_(block.index, block.index)]
        size = float(np.abs(own).max())
        if block.structure == "unstructured" or size == 0.0:
            rank += int((np.abs(own).max(axis=0) > 0.0).sum())
        else:  # a symmetric root: no column vanishes where a direction does
            rank += int(np.linalg.matrix_rank(own, tol=GONE * size))
    return rank


def find_face(blocks: tuple[Block, ...], G: Array) -> Face:
    """The face that G lies on or close to."""
    q = len(G)
    bases, coordinates, rank = [], [], 0
    for block in blocks:
        if block.structure == "unstructured":
            order, k = pivoted_order(G, block.index, tol=SUSPECT)
            L = psd_cholesky(G[np.ix_(order, order)])
            bases.append(factor_basis(block, q, order=order, rank=k))
            coordinates.append(np.concatenate([L[j:, j] for j in range(k)]) if k else np.empty(0))
            rank += k
            continue
        basis = factor_basis(block, q)
        theta = factor_coordinates(block, G)
        keep = theta**2 > SUSPECT * max(float((theta**2).max()), SUSPECT)
        bases.append(basis[keep])
        coordinates.append(theta[keep])
        rank += sum(np.linalg.matrix_rank(matrix) for matrix in basis[keep])
    return Face(np.concatenate(bases), np.concatenate(coordinates), int(rank))


def on_face(
    objective: Objective, blocks: tuple[Block, ...], theta: Array, point: ThetaEvaluation
) -> tuple[Objective, Array, ThetaEvaluation, tuple[Step, ...]] | None:
    """Optimize on the face next to theta; None where G is safely interior or the criterion objects.

    Returns
    -------
    objective : Objective
        The criterion on the face.
    theta : (n,) array
        Its optimum there.
    point : ThetaEvaluation
        Criterion and derivatives at theta.
    steps : tuple of Step
        The extra evaluations.
    """
    L = objective.factor(theta)
    face = find_face(blocks, L @ L.T)
    if face.rank == len(L):
        return None
    restricted = replace(objective, basis=face.basis)
    start = np.append(face.theta, theta[objective.n_factor :])
    end, found, steps = newton(restricted, start, NewtonSettings(polish=False), abandon=restricted.is_lost)
    return None if found.value > point.value + AGREES else (restricted, end, found, steps)


def multiplier(problem: Problem, blocks: tuple[Block, ...], G: Array, slope: Array) -> tuple[float, Array]:
    """Smallest slope of -2l along a direction that G lacks (eq. 17), and that direction (q, q).

    Zero where G is interior. Each direction is scaled to add, on average over rows, a variance of 1 to
    the response in working units, so the number has no units.
    """
    q = len(G)
    spread = np.einsum("aaj->a", problem.A) / problem.nobs[problem.stratum]
    unit = 1.0 / np.sqrt(np.where(spread > 0.0, spread, 1.0))
    worst, direction = np.inf, np.zeros((q, q))
    for block in blocks:
        index = list(block.index)
        if block.structure == "unstructured":
            scale = unit[index]
            values, vectors = np.linalg.eigh(G[np.ix_(index, index)] / np.outer(scale, scale))
            null = vectors[:, values <= 1e-9 * max(float(values.max()), 1e-9)] * scale[:, None]
            if not null.shape[1]:
                continue
            inner, turned = np.linalg.eigh(null.T @ slope[np.ix_(index, index)] @ null)
            candidates = [(float(inner[0]), null @ np.outer(turned[:, 0], turned[:, 0]) @ null.T)]
        else:
            theta = factor_coordinates(block, G)
            squares = [matrix @ matrix.T for matrix in factor_basis(block, q)[theta == 0.0]]
            square_scale = unit[index].min() ** 2
            candidates = [
                (float((slope * m).sum()) * square_scale, (m * square_scale)[np.ix_(index, index)]) for m in squares
            ]
        for value, part in candidates:
            if value < worst:
                worst, direction = value, np.zeros((q, q))
                direction[np.ix_(index, index)] = part
    return (worst if np.isfinite(worst) else 0.0), direction
