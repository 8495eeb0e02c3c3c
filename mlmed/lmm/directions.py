"""Derivatives in Sigma along directions of one size, and natural parameters (docs/math.md, eq. 95b).

With Sigma = B M B' the natural parameters of M are coordinates of Sigma. Where B B' is close to Sigma, they are
unit-free: all directions change the likelihood by about as much, and nothing cancels where responses hardly differ.
In natural parameters derivatives are larger by 1 / (share of a variance that is left), squared.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.problem import Evaluation
from mlmed.lmm.sigma import ResidualStructure

__all__ = ["along", "plus", "turned", "with_natural"]

Array = NDArray[np.float64]


def turned(at: Evaluation, structure: ResidualStructure, matrix: Array) -> Evaluation:
    """An evaluation with derivatives along C D_s C' in the place of those along D_s; ``matrix`` is C, (R, R)."""
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
