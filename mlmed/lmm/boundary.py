"""Singular optima: reach the face of the cone exactly, and check that leaving it does not pay.

A singular G is a legitimate optimum. After the search, directions of G that have collapsed are removed,
the criterion is optimized again on that face, and the face is kept only if the criterion agrees. The
multiplier (the gradient along the removed directions) then certifies it: it must not be negative (eq. 17).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.covariance import (
    Block,
    factor_basis,
    factor_coordinates,
    pivoted_order,
    psd_cholesky,
    whitened_block,
)
from mlmed.lmm.directions import along
from mlmed.lmm.objective import Objective, ThetaEvaluation
from mlmed.lmm.optimizer import NewtonSettings, Step, newton
from mlmed.lmm.problem import Evaluation, Problem
from mlmed.lmm.sigma import ResidualChart, symmetric_slope

__all__ = ["Face", "factor_rank", "multiplier", "on_face", "on_residual_face", "residual_multiplier"]

Array = NDArray[np.float64]

#: A pivot of G below this share of its variance may be zero; the criterion decides.
SUSPECT = 1e-5
#: Share of the largest sd below which that of a direction is the rounding error of zero.
GONE = 1e-6
#: How much -2l may rise when a suspect direction is set to zero: less than the certificate lets leaving promise.
AGREES = 4e-9


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


def find_face(blocks: tuple[Block, ...], factor: Array, metric: Array) -> Face:
    """The face that G lies on or close to; arguments and units as in ``pivoted_chart``."""
    q = len(factor)
    bases, coordinates, rank = [], [], 0
    for block in blocks:
        if block.structure == "unstructured":
            whole, own = whitened_block(block, factor, metric)
            W = own @ own.T
            order, k = pivoted_order(W, tuple(range(len(W))), tol=SUSPECT)
            L = psd_cholesky(W[np.ix_(order, order)])
            at = tuple(block.index[i] for i in order)
            bases.append(whole @ factor_basis(block, q, order=at, rank=k))
            coordinates.append(np.concatenate([L[j:, j] for j in range(k)]) if k else np.empty(0))
            rank += k
            continue
        basis = factor_basis(block, q)
        theta = factor_coordinates(block, factor @ factor.T)
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
    L, natural = objective.factor(theta), point.natural
    face = find_face(blocks, L, natural.spread / objective.problem.n_clusters)
    if face.rank == sum(len(block.index) for block in blocks):
        return None
    restricted = replace(objective, basis=face.basis)
    start = np.append(face.theta, theta[objective.n_factor :])
    end, found, steps = newton(restricted, start, NewtonSettings(polish=False), abandon=restricted.is_lost)
    rounding = NewtonSettings().noise * natural.size
    return None if found.value > point.value + AGREES + rounding else (restricted, end, found, steps)


def on_residual_face(
    objective: Objective, blocks: tuple[Block, ...], theta: Array, point: ThetaEvaluation
) -> tuple[Objective, Array, ThetaEvaluation, tuple[Step, ...]] | None:
    """The same for Sigma, which may be singular if no row has all responses; returns as ``on_face``."""
    if objective.problem.cross is None:
        return None
    chart, part = objective.chart.on_face(objective.residual_root(theta), tol=SUSPECT)
    if chart.rank == objective.problem.n_strata:
        return None
    restricted = replace(objective, chart=chart)
    start = np.concatenate([theta[: objective.n_factor], part, objective.free_part(theta)])
    try:
        end, found, steps = newton(restricted, start, NewtonSettings(polish=False), abandon=restricted.is_lost)
    except np.linalg.LinAlgError:  # rows have all the responses of the face: Sigma is small there, not singular
        return None
    rounding = NewtonSettings().noise * point.natural.size
    return None if found.value > point.value + AGREES + rounding else (restricted, end, found, steps)


def residual_multiplier(chart: ResidualChart, theta: Array, at: Evaluation) -> tuple[float, Array]:
    """The multiplier of Sigma, and the step that its slope suggests, in sigma2 (S,); as ``multiplier``."""
    structure = chart.structure
    if chart.rank is None or chart.base is None:
        return np.inf, np.zeros(structure.size)
    own, of_Sigma = along(at, structure, chart.base), slice(at.spread.size, at.spread.size + structure.size)
    null = np.linalg.svd(chart.factor(theta))[0][:, chart.rank :]
    values, vectors = np.linalg.eigh(null.T @ symmetric_slope(structure, own.gradient[of_Sigma]) @ null)
    entries = structure.squared(null @ vectors[:, :1])
    size = float(np.sqrt(entries @ own.information[of_Sigma, of_Sigma] @ entries))
    lowest = float(values[0]) / size
    return lowest, max(-lowest, 0.0) / size * structure.squared(chart.base @ null @ vectors[:, :1])


def multiplier(problem: Problem, blocks: tuple[Block, ...], factor: Array, at: Evaluation) -> tuple[float, Array]:
    """Smallest slope of -2l along a direction that G lacks (eq. 17), and the step (q, q) that it suggests.

    A slope is counted in units of the curvature, tr(V^-1 ZDZ' V^-1 ZDZ') of its direction D: its square is twice the
    drop of -2l that leaving promises. Infinite where G is interior.

    Parameters
    ----------
    problem : Problem
        Cross-products.
    blocks : tuple of Block
        Covariance structures.
    factor : (q, q) array
        Factor of G, with columns of zeros for what is missing.
    at : Evaluation
        Criterion and derivatives there.
    """
    q = len(factor)
    slope, curvature = at.gradient[: q * q].reshape(q, q), at.information[: q * q, : q * q]
    lowest, step = np.inf, np.zeros((q, q))
    for block in blocks:
        for direction in _missing(block, factor, slope, at.spread / problem.n_clusters):
            size = float(np.sqrt(direction.ravel() @ curvature @ direction.ravel()))
            found = float((slope * direction).sum()) / size
            if found < lowest:
                lowest, step = found, max(-found, 0.0) / size * direction
    return lowest, step


def _missing(block: Block, factor: Array, slope: Array, metric: Array) -> list[Array]:
    """Directions (q, q) that a block of G lacks: of an unstructured one, that of the smallest slope."""
    q, at = len(factor), np.ix_(block.index, block.index)
    if block.structure != "unstructured":
        theta = factor_coordinates(block, factor @ factor.T)
        return [matrix @ matrix.T for matrix in factor_basis(block, q)[theta == 0.0]]
    rank = int((np.abs(factor[at]).max(axis=0) > 0.0).sum())
    if rank == len(block.index):
        return []
    whole, own = whitened_block(block, factor, metric)
    null = whole[at] @ np.linalg.svd(own)[0][:, rank:]
    ahead = null @ np.linalg.eigh(null.T @ slope[at] @ null)[1][:, :1]
    direction = np.zeros((q, q))
    direction[at] = ahead @ ahead.T
    return [direction]
