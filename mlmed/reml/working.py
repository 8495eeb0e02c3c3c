"""Grams -> Problem in working units (unit scale, centred where the model allows it), and the way back.

Forming cross-products squares the condition number; columns are therefore shifted and scaled first and the
model is fitted to the new columns. Eq. 18 to 21 give the exact back-transformation: ``beta = offset + X_map
beta_w``, ``G = Z_map G_w Z_map'``, ``sigma2 = y_scale^2 sigma2_w``, and -2l changes by a known constant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams, equation_gram
from mlmed.data.layout import INTERCEPT, Layout
from mlmed.model import ModelSpec
from mlmed.reml.checks import (
    COLLINEAR,
    refuse_between,
    refuse_collinear,
    refuse_constant,
    refuse_few_rows,
    refuse_one_cluster,
    refuse_too_many,
    within_share,
)
from mlmed.reml.covariance import Block
from mlmed.reml.problem import Problem

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
    """

    problem: Problem
    blocks: tuple[Block, ...]
    units: Units
    between: tuple[str, ...] = ()


def random_blocks(spec: ModelSpec, layout: Layout) -> tuple[Block, ...]:
    """Positions in u (equation by equation, as typed) of every covariance block."""
    starts = np.cumsum([0, *(len(equation.random) for equation in layout.equations)])
    blocks = []
    for block in spec.blocks:
        index: list[int] = []
        for e, t in block.terms:
            terms = layout.equations[e].terms
            index += [int(starts[e]) + k for k, term in enumerate(terms) if term == t]
        blocks.append(Block(tuple(sorted(index)), block.structure))
    return tuple(blocks)


def build_working(spec: ModelSpec, layout: Layout, grams: Grams) -> Working:
    """Assemble A, B, C of eq. 3 for all equations.

    Raises
    ------
    NotIdentifiedError
        Collinear fixed effects (refused, not dropped), or as many random effects as rows.
    """
    blocks = random_blocks(spec, layout)
    q = sum(len(equation.random) for equation in layout.equations)
    p = sum(len(equation.fixed) for equation in layout.equations)
    R, J = len(layout.equations), len(grams.clusters)
    A, B, C = np.zeros((q, q, J)), np.zeros((q, p + 1, J)), np.zeros((R, p + 1, p + 1))
    units = Units(np.zeros((p, p)), np.zeros(p), np.zeros((q, q)), np.ones(R))
    stratum = np.repeat(np.arange(R), [len(equation.random) for equation in layout.equations])
    nobs = np.zeros(R, dtype=np.int64)
    y_scales = np.array([grams.scale[equation.response_at] for equation in layout.equations])
    between: list[str] = []
    first_p = first_q = 0
    for r, equation in enumerate(layout.equations):
        full = equation_gram(grams, r)
        xs = np.arange(first_p, first_p + len(equation.fixed))
        zs = np.arange(first_q, first_q + len(equation.random))
        first_p, first_q = first_p + len(xs), first_q + len(zs)
        X = _fixed_map(equation.fixed, equation.fixed_at, equation.response_at, grams)
        Z = _random_map(zs, equation.random, equation.random_at, y_scales, r, blocks, stratum, grams)
        units.X_map[np.ix_(xs, xs)] = X.back
        units.offset[xs] = X.offset
        units.Z_map[np.ix_(zs, zs)] = Z.back
        units.y_scale[r] = y_scales[r]
        total = full.sum(axis=2)
        columns = np.append(xs, p)
        right = np.column_stack([X.forward, X.response])
        C[r][np.ix_(columns, columns)] = right.T @ total @ right
        A[np.ix_(zs, zs)] = np.einsum("ka,klj,lb->abj", Z.forward, full, Z.forward, optimize=True)
        B[np.ix_(zs, columns)] = np.einsum("ka,klj,lb->abj", Z.forward, full, right, optimize=True)
        nobs[r] = round(float(total[0, 0]))
        between += [
            f"{equation.name}:{name}"
            for name, k in zip(equation.random, equation.random_at, strict=True)
            if k and within_share(full, k) <= COLLINEAR
        ]
        clusters = int((full[0, 0] > 0).sum())
        refuse_one_cluster(equation.name, clusters, ":".join(spec.group))
        refuse_constant(equation, total, grams)
        refuse_too_many(equation.name, equation.random, int(nobs[r]), clusters)
        refuse_few_rows(equation.name, int(nobs[r]), len(xs))
        refuse_between(equation.name, full, equation.response_at)
        refuse_collinear(C[r][np.ix_(xs, xs)], equation.name, equation.fixed)
    return Working(Problem(A, B, C, nobs, stratum), blocks, units, tuple(between))


@dataclass(frozen=True, slots=True)
class _Map:
    """Columns from Gram columns (forward), coefficients back to the user's (back, offset)."""

    forward: Array
    back: Array
    offset: Array
    response: Array


def _fixed_map(names: tuple[str, ...], at: tuple[int, ...], response_at: int, grams: Grams) -> _Map:
    """Centred and scaled columns when there is an intercept, only scaled otherwise (eq. 18)."""
    K, n = len(grams.columns), len(names)
    centre = INTERCEPT in names
    forward, back, offset = np.zeros((K, n)), np.zeros((n, n)), np.zeros(n)
    response = np.zeros(K)
    response[response_at] = 1.0
    y_shift, y_scale = grams.shift[response_at], grams.scale[response_at]
    if not centre:
        response[0] = y_shift / y_scale
    for i, k in enumerate(at):
        forward[k, i] = 1.0
        back[i, i] = y_scale / grams.scale[k]
        if k and not centre:
            forward[0, i] = grams.shift[k] / grams.scale[k]
    if centre:
        one = names.index(INTERCEPT)
        offset[one] = y_shift
        back[one, :] -= np.where(np.arange(n) == one, 0.0, grams.shift[list(at)] * np.diag(back))
    return _Map(forward, back, offset, response)


def _random_map(
    zs: NDArray[np.intp],
    names: tuple[str, ...],
    at: tuple[int, ...],
    y_scales: Array,
    r: int,
    blocks: tuple[Block, ...],
    stratum: NDArray[np.int64],
    grams: Grams,
) -> _Map:
    """Z columns by covariance block (eq. 19): only an unstructured block with an intercept may be centred."""
    K, n = len(grams.columns), len(names)
    forward, back = np.zeros((K, n)), np.zeros((n, n))
    for block in blocks:
        mine = [i for i, z in enumerate(zs) if int(z) in block.index]
        if not mine:
            continue
        one = next((i for i in mine if names[i] == INTERCEPT), None)
        centre = block.structure == "unstructured" and one is not None
        common = block.structure in ("identity", "exchangeable")
        lead = y_scales[stratum[block.index[0]]]
        for i in mine:
            k = at[i]
            unit = y_scales[r] / lead if common else grams.scale[k]  # z = raw column / unit
            back[i, i] = y_scales[r] / unit
            forward[k, i] = grams.scale[k] / unit
            if k and not centre:
                forward[0, i] = grams.shift[k] / unit
        if centre and one is not None:
            for i in mine:
                if i != one:
                    back[one, i] = -grams.shift[at[i]] * back[i, i]
    return _Map(forward, back, np.zeros(n), np.zeros(K))
