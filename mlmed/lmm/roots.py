"""Roots of the clusters' rows in working units: what an evaluation needs where cross-products have lost digits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.data.layout import Layout
from mlmed.data.roots import equation_columns, root_maps, triangular_roots
from mlmed.errors import NotIdentifiedError
from mlmed.lmm.covariance import Block
from mlmed.lmm.maps import EquationMaps
from mlmed.lmm.problem import Problem, Roots
from mlmed.lmm.sigma import LOWEST_OF_ROOTS

__all__ = ["assembled_roots", "effect_units", "own_effects", "simulated_roots", "spread_guess", "with_columns"]

Array = NDArray[np.float64]

#: Smallest spread of an effect, given those before it, as a share of its own: less is the rounding error of none.
ROUNDING = 1e-10


def assembled_roots(maps: Sequence[EquationMaps], layout: Layout, tables: Sequence[Array]) -> Roots:
    """Roots of Gram columns, R tables (J, k_r, k_r) -> those of [Z X y] of all equations (eq. 3b)."""
    J, q, p, R = len(tables[0]), maps[-1].random.stop, maps[-1].fixed.stop, len(maps)
    out = np.zeros((J, q, q)), np.zeros((J, q, p + 1)), np.zeros((J, R, p + 1, p + 1))
    for r, (own, root) in enumerate(zip(maps, tables, strict=True)):
        whole = np.column_stack([own.Z, own.X, own.response])[equation_columns(layout, r)]
        made = root_maps(root, whole)
        _place(out, r, made, np.arange(q)[own.random], np.append(np.arange(p)[own.fixed], p))
    return Roots(*out)


def simulated_roots(
    maps: Sequence[EquationMaps],
    layout: Layout,
    columns: Sequence[Sequence[Array]],
    codes: Sequence[NDArray[np.intp]],
    n_clusters: int,
) -> Roots:
    """Roots of simulated rows.

    Parameters
    ----------
    maps : sequence of EquationMaps
        Of the model.
    layout : Layout
        Of the Grams.
    columns : R sequences of K (n_r,) arrays
        Gram columns on the rows of every equation.
    codes : R (n_r,) int arrays
        Their clusters.
    n_clusters : int
        J.
    """
    tables = [
        triangular_roots([own[k] for k in equation_columns(layout, r)], at, n_clusters)
        for r, (own, at) in enumerate(zip(columns, codes, strict=True))
    ]
    return assembled_roots(maps, layout, tables)


def own_effects(roots: Roots, effects: NDArray[np.intp]) -> Array:
    """Regression coefficients on Z of one equation in the half of the clusters that know them best, (n, k).

    Others, where columns hardly differ, say more of their residuals than of the spread between clusters.
    """
    root = roots.Z[:, effects[:, None], effects].transpose(0, 2, 1)  # upper triangular
    whole = (np.einsum("nii->ni", root) > 0.0).all(axis=1)
    root, reduced = root[whole], roots.reduced[whole][:, effects, -1, None]
    noise = np.square(np.linalg.inv(root)).sum(axis=2)  # over the residual variance
    if not noise.size:
        return reduced[:, :, 0]
    worst = (noise / np.median(noise, axis=0)).max(axis=1)
    best = np.argsort(worst, kind="stable")[: max(len(worst) // 2, len(effects) + 2)]
    return np.asarray(np.linalg.solve(root[best], reduced[best])[:, :, 0])


def effect_units(maps: Sequence[EquationMaps], grams: Grams, blocks: Sequence[Block]) -> list[Array]:
    """Lower-triangular units (q_r, q_r) in which the effects of an equation vary between clusters by about 1.

    Regressions of single clusters tell them. Where slopes are huge an intercept follows from them nearly exactly, at
    any place of the predictors but one; in these units it does not, and derivatives do not cancel. Effects are mixed
    in unstructured blocks only, and share one scale where they share one variance.
    """
    assert grams.roots is not None
    roots, q = assembled_roots(maps, grams.layout, grams.roots.tables), maps[-1].random.stop
    unit = np.eye(q)
    known = [(own.random.start, own_effects(roots, np.arange(q)[own.random])) for own in maps]
    for block in blocks:
        for first, values in known:
            mine = np.array([k for k in block.index if first <= k < first + values.shape[1]], dtype=np.intp)
            if len(mine) and len(values) > values.shape[1] + 1:
                unit[np.ix_(mine, mine)] = _lower_unit(values[:, mine - first])
        at = np.ix_(block.index, block.index)
        if block.structure != "unstructured":
            size = np.sqrt((unit[at] ** 2).sum(axis=1))
            common = block.structure != "diagonal"
            unit[at] = np.diag(np.full(len(size), np.exp(np.log(size).mean())) if common else size)
    return [unit[own.random, own.random] for own in maps]


def _lower_unit(values: Array) -> Array:
    """Lower-triangular root of the covariance of the columns of values, (n, k), its pivots at least rounding errors."""
    n = len(values)
    upper = np.linalg.qr(values - values.mean(axis=0), mode="r") / np.sqrt(n - 1.0)
    lower = upper.T * np.copysign(1.0, upper.diagonal())
    size = np.sqrt((lower**2).sum(axis=1))
    lower[size == 0.0] = np.eye(len(lower))[size == 0.0]
    np.fill_diagonal(lower, np.maximum(lower.diagonal(), ROUNDING * size))
    return np.asarray(lower)


def _place(
    out: tuple[Array, Array, Array], r: int, root: Array, effects: NDArray[np.intp], columns: NDArray[np.intp]
) -> None:
    """Write the parts of one equation's root (J, k, k) to ``Z``, ``reduced`` and ``rest``."""
    n, (Z, reduced, rest) = len(effects), out
    every = np.arange(len(root))
    Z[np.ix_(every, effects, effects)] = root[:, :n, :n].transpose(0, 2, 1)
    reduced[np.ix_(every, effects, columns)] = root[:, :n, n:]
    rest[:, r][np.ix_(every, columns, columns)] = root[:, n:, n:]


def with_columns(roots: Roots, T: Array, stratum: NDArray[np.int64], kept: NDArray[np.int64]) -> Roots:
    """Roots with Z replaced by ``Z @ T``, (q, k); equations of the old and of the new columns."""
    J, q, p = len(roots.Z), T.shape[1], roots.reduced.shape[2] - 1
    R = roots.rest.shape[1]
    out = np.zeros((J, q, q)), np.zeros((J, q, p + 1)), np.zeros((J, R, p + 1, p + 1))
    for r in range(R):
        old, new = np.flatnonzero(stratum == r), np.flatnonzero(kept == r)
        pseudo = roots.rows(r, old)
        mixed = np.concatenate([pseudo[:, :, : len(old)] @ T[np.ix_(old, new)], pseudo[:, :, len(old) :]], axis=2)
        flat = mixed.reshape(-1, mixed.shape[2])
        codes = np.repeat(np.arange(J), mixed.shape[1])
        root = triangular_roots(list(np.ascontiguousarray(flat.T)), codes, J)
        _place(out, r, root, new, np.arange(p + 1))
    return Roots(*out)


def spread_guess(problem: Problem, roots: Roots, level: Array, variance: Array) -> tuple[Array, Array]:
    """Variances of the random effects (q,) and of the residuals (R,) as regressions of single clusters have them.

    Where these say nothing, ``level`` and ``variance`` stay.

    Raises
    ------
    NotIdentifiedError
        They leave nothing of a response.
    """
    level, variance = level.copy(), variance.copy()
    for r in range(problem.n_strata):
        mine = np.flatnonzero(problem.stratum == r)
        values = own_effects(roots, mine)
        if len(mine) and len(values) > 2:
            level[mine] = values.var(axis=0)
        spent = int((np.einsum("nii->ni", roots.Z)[:, mine] > 0.0).sum())
        df = int(problem.nobs[r]) - spent - problem.n_fixed
        if df > 0:
            variance[r] = roots.total[r, -1, -1] ** 2 / df
            if variance[r] <= np.exp(2.0 * LOWEST_OF_ROOTS):
                raise NotIdentifiedError(problem.residual.lost)
    return level, variance
