"""Grams -> Problem in working units (unit scale, centred where the model allows it), and the way back.

Forming cross-products squares the condition number; columns are therefore shifted and scaled first and the
model is fitted to the new columns. Eq. 18 to 21 give the exact back-transformation: ``beta = offset + X_map
beta_w``, ``G = Z_map G_w Z_map'``, ``sigma2 = y_scale^2 sigma2_w``, and -2l changes by a known constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams, column_sums, total_gram
from mlmed.data.layout import Layout
from mlmed.data.memory import refuse_columns, refuse_effects
from mlmed.lmm.assembly import Assembly, assemble, build_assembly, random_blocks
from mlmed.lmm.checks import (
    COLLINEAR,
    absorbed_effects,
    refuse_absorbed,
    refuse_between,
    refuse_collinear,
    refuse_constant,
    refuse_few_rows,
    refuse_lost_digits,
    refuse_one_cluster,
    refuse_repeated,
    refuse_scales,
    refuse_unpaired,
    within_share,
)
from mlmed.lmm.covariance import Block
from mlmed.lmm.empty import empty_intercepts
from mlmed.lmm.problem import Problem
from mlmed.names import labelled
from mlmed.system.model import ModelSpec

__all__ = ["Units", "Working", "build_working"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Units:
    """The linear maps from working units to the user's (eq. 18 to 21).

    Attributes
    ----------
    X_map : (p, p) array
        ``beta = offset + X_map @ beta_w``.
    offset : (p,) array
        Shift of the response, at the intercepts.
    Z_map : (q, q) array
        ``u = Z_map @ u_w``.
    y_scale : (R,) array
        Scale of each response.
    """

    X_map: Array
    offset: Array
    Z_map: Array
    y_scale: Array

    def sigma_scale(self, at: NDArray[np.intp]) -> Array:
        """What takes residual parameters from working units to the user's, (S,); ``at`` as in ``Estimates``."""
        scale: Array = self.y_scale[at].prod(axis=1)
        return scale

    def criterion_shift(self, nobs: NDArray[np.int64], *, reml: bool) -> float:
        """What to add to -2l in working units to get -2l of the data as given (eq. 21)."""
        shift = 2.0 * float(nobs @ np.log(self.y_scale))
        return shift - 2.0 * float(np.linalg.slogdet(self.X_map)[1]) if reml else shift


@dataclass(frozen=True, slots=True)
class Working:
    """A problem ready for the engine.

    Attributes
    ----------
    problem : Problem
        Cross-products in working units.
    blocks : tuple of Block
        Covariance structures by position in u.
    units : Units
        The way back.
    between : tuple of str
        Random effects (not intercepts) of variables that do not vary within clusters.
    empty : tuple of str
        Random intercepts that are left out of every block, because all columns of their equations are centred within
        clusters.
    """

    problem: Problem
    blocks: tuple[Block, ...]
    units: Units
    between: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def build_working(spec: ModelSpec, layout: Layout, grams: Grams) -> Working:
    """Assemble A, B, C of eq. 3 for all equations.

    Raises
    ------
    NotIdentifiedError
        Collinear fixed effects (refused, not dropped), or random effects that the fixed ones make up.
    DataError
        Columns of unusual size, or cross-products that hold too few digits of what is left of a response.
    """
    without = empty_intercepts(grams)
    p, q = (
        sum(len(part) for part in parts) for parts in zip(*((e.fixed, e.random) for e in layout.equations), strict=True)
    )
    refuse_effects(q)
    refuse_columns(p, "the model", q)
    blocks = random_blocks(spec, layout, without)
    assembly = build_assembly(blocks, grams, correlated=spec.correlated)
    problem = assemble(assembly, grams.sums, assembly.roots)
    between: list[str] = []
    absorbed = np.zeros(problem.n_random, dtype=bool)
    for r, (equation, maps) in enumerate(zip(layout.equations, assembly.equations, strict=True)):
        nobs = int(problem.nobs[r])
        clusters = int((column_sums(grams, r, 0) > 0).sum())
        refuse_one_cluster(equation.name, clusters, ":".join(spec.group))
        refuse_constant(equation, total_gram(grams, r), grams)
        between += [
            labelled(equation.name, name)
            for name, k in zip(equation.random, equation.random_at, strict=True)
            if k and within_share(grams, r, k) <= COLLINEAR
        ]
        refuse_scales(equation, grams)
        refuse_few_rows(equation.name, nobs, len(equation.fixed))
        refuse_between(equation.name, grams, r, equation.response_at)
        refuse_lost_digits(r, equation.name, grams)
        own = problem.C[r, maps.fixed, maps.fixed]
        refuse_collinear(own, equation.name, equation.fixed)
        if spec.method == "reml":
            squares = np.einsum("kkj->kj", problem.A[maps.random, maps.random])
            absorbed[maps.random] = absorbed_effects(squares, problem.B[maps.random, maps.fixed], own)
            refuse_absorbed(equation.name, equation.random, (absorbed & _alone(blocks, absorbed))[maps.random])
    if problem.cross is not None:
        refuse_repeated(grams)
        refuse_unpaired(tuple(e.name for e in layout.equations), problem.cross.observed, problem.cross.nobs)
    known = {k for block in blocks for k in block.index}
    names = [labelled(equation.name, name) for equation in layout.equations for name in equation.random]
    empty = tuple(names[k] for k in without if k not in known)
    return Working(problem, blocks, _units(assembly, grams), tuple(between), empty)


def _alone(blocks: tuple[Block, ...], absorbed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Effects whose variance no effect that is not absorbed shares, (q,)."""
    out = np.ones(len(absorbed), dtype=bool)
    for block in blocks:
        index = list(block.index)
        out[index] = block.structure != "identity" or bool(absorbed[index].all())
    return out


def _units(assembly: Assembly, grams: Grams) -> Units:
    """Ways back of all equations side by side."""
    p, q = assembly.n_fixed, len(assembly.stratum)
    y_scale = grams.scale[[equation.response_at for equation in grams.layout.equations]]
    units = Units(np.zeros((p, p)), np.zeros(p), np.zeros((q, q)), y_scale)
    for maps in assembly.equations:
        units.X_map[maps.fixed, maps.fixed] = maps.X_back
        units.offset[maps.fixed] = maps.offset
        units.Z_map[maps.random, maps.random] = maps.Z_back
    return units
