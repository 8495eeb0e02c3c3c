"""Roots of the clusters' rows, for cross-products that have lost digits, and the criterion computed from them.

With Z = P E' of a cluster, P orthonormal, the rows of [X y] are P times ``reduced`` and a rest orthogonal to Z. Divided
by residual sds, V is 1 on the rest and ``W = 1 + E'G E`` in the basis P. W = K K' comes from the factor of the stacked
rows [L'E; 1]: W, with its squared ratios of sds, is never formed, and all sums are of positive terms (eq. 3b to 10b).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.data.layout import Layout
from mlmed.data.roots import equation_columns, root_maps, triangular_roots
from mlmed.errors import NotIdentifiedError
from mlmed.lmm.clusters import Sums, factor_clusters, ordered_map
from mlmed.lmm.covariance import Block, square
from mlmed.lmm.cross import ResidualTables
from mlmed.lmm.maps import EquationMaps
from mlmed.lmm.problem import Problem, Roots
from mlmed.lmm.sigma import LOWEST_OF_ROOTS

Array = NDArray[np.float64]

#: Sd of an effect given those before it, as a share of its own sd, below which it is the rounding error of zero.
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
        Maps of the model.
    layout : Layout
        Layout of the Grams.
    columns : R sequences of K (n_r,) arrays
        Gram columns on the rows of every equation.
    codes : R (n_r,) int arrays
        Cluster of each row.
    n_clusters : int
        J.
    """
    tables = [
        triangular_roots([own[k] for k in equation_columns(layout, r)], at, n_clusters)
        for r, (own, at) in enumerate(zip(columns, codes, strict=True))
    ]
    return assembled_roots(maps, layout, tables)


def own_effects(roots: Roots, effects: NDArray[np.intp]) -> Array:
    """Regression coefficients on Z of one equation in the half of the clusters with the smallest errors, (n, k).

    In others, with nearly collinear columns, they reflect residuals more than the variation between clusters.
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

    Estimated by regressions of single clusters. Huge slopes determine an intercept nearly exactly, unless predictors
    are centred at one particular point; in these units they do not, and derivatives do not cancel. Effects are mixed
    in unstructured blocks only, and effects that share one variance share one scale.
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
        at = square(block.index)
        if block.structure != "unstructured":
            size = np.sqrt((unit[at] ** 2).sum(axis=1))
            common = block.structure != "diagonal"
            unit[at] = np.diag(np.full(len(size), np.exp(np.log(size).mean())) if common else size)
    return [unit[own.random, own.random] for own in maps]


def _lower_unit(values: Array) -> Array:
    """Lower-triangular root of the covariance of the columns of values, (n, k), pivots floored at rounding errors."""
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
    """Roots with Z replaced by ``Z @ T``, (q, k); ``stratum`` and ``kept``: equations of the old and new columns."""
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
    """Variances of the random effects (q,) and of the residuals (R,), from regressions of single clusters.

    Where these are not informative, ``level`` and ``variance`` are kept.

    Raises
    ------
    NotIdentifiedError
        They fit a response exactly.
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


@dataclass(frozen=True, slots=True)
class Rooted:
    """One chunk of n clusters at one (G, sigma2), rows divided by the residual sds of their equations.

    Attributes
    ----------
    half : (n, q, p + 1) array
        K^-1 P'[X y].
    solved : (n, q, p + 1) array
        W^-1 P'[X y].
    inverse_root, inverse : (n, q, q) arrays
        K^-1 and W^-1.
    reach : (n, q, q) array
        W^-1 E' = P'V^-1 Z.
    S : (n, q, q) array
        E K^-T, with Z'V^-1 Z = S S'.
    logdet : float
        Sum of the log determinants of W.
    """

    half: Array
    solved: Array
    inverse_root: Array
    inverse: Array
    reach: Array
    S: Array
    logdet: float

    @property
    def Q(self) -> Array:
        """Z'V^-1 Z, (n, q, q)."""
        return self.S @ _turned(self.S)

    @property
    def V(self) -> Array:
        """Z'V^-1 [X y], (n, q, p + 1)."""
        return self.S @ self.half

    def turned(self, turn: Array) -> Rooted:
        """Replace the columns [X y] by ``[X y] @ turn``."""
        return replace(self, half=self.half @ turn, solved=_turned(self.inverse_root) @ (self.half @ turn))

    def tables(self, *, reml: bool) -> Array:
        """Q and T = V W V' of eq. 8, (n, 2, q, q), for columns in which W is the identity, or 1 at the last (ML)."""
        V = _weighted(self.V, reml)
        return np.stack([self.S @ _turned(self.S), V @ _turned(V)], axis=1)


def _weighted(columns: Array, reml: bool) -> Array:
    """The columns with nonzero weight in W of eq. 8, once P = 1."""
    return columns if reml else columns[..., -1:]


def _turned(matrices: Array) -> Array:
    return matrices.transpose(0, 2, 1)


def _scaled(problem: Problem, sigma2: Array, part: slice) -> tuple[Array, Array]:
    """E_j and the reduced rows, divided by the residual sds."""
    assert problem.roots is not None
    weight = (1.0 / np.sqrt(sigma2))[problem.stratum][:, None]
    return problem.roots.Z[part] * weight, problem.roots.reduced[part] * weight


def _lower_root(T: Array) -> Array:
    """Lower-triangular K with K K' = 1 + T'T, (n, q, q), from the rows [T; 1]."""
    one = np.broadcast_to(np.eye(T.shape[2]), T.shape)
    upper = np.linalg.qr(np.concatenate([T, one], axis=1), mode="r")
    return _turned(upper * np.copysign(1.0, np.einsum("nii->ni", upper))[:, :, None])


def _forward(K: Array, right: Array) -> Array:
    """K^-1 right, K lower triangular: (n, q, q), (n, q, k)."""
    out = np.empty_like(right)
    for i in range(K.shape[1]):
        out[:, i] = right[:, i] - np.matmul(K[:, i, None, :i], out[:, :i])[:, 0]
        out[:, i] /= K[:, i, i, None]
    return out


def rooted(problem: Problem, L: Array, sigma2: Array, part: slice) -> Rooted:
    """Factor one chunk of clusters at G = L L'."""
    E, reduced = _scaled(problem, sigma2, part)
    _, q, k = reduced.shape
    K = _lower_root(L.T @ E)
    found = _forward(K, np.concatenate([reduced, _turned(E), np.broadcast_to(np.eye(q), E.shape)], axis=2))
    half, S, own = found[:, :, :k], _turned(found[:, :, k : k + q]), found[:, :, k + q :]
    back = _turned(own)
    logdet = 2.0 * float(np.log(np.einsum("nii->ni", K)).sum())
    return Rooted(half, back @ half, own, back @ own, back @ _turned(S), S, logdet)


def given_effects(problem: Problem, L: Array, sigma2: Array, part: slice) -> tuple[Array, Array]:
    """H and H B of eq. 4 for one chunk, (n, q, q) and (n, q, p + 1); with roots from the stacked rows [E'L; 1]."""
    if problem.roots is None:
        factored = factor_clusters(problem, L, sigma2, part)
        return factored.H, factored.HB
    E, reduced = _scaled(problem, sigma2, part)
    T = _turned(E) @ L
    K = _lower_root(T)
    # with [T; 1] = [O; K'^-1] K' the orthonormal O = T K'^-1, and K^-1 L'B = O' P'[X y]
    return _forward(K, np.broadcast_to(L.T, T.shape)), _forward(K, _turned(T)) @ reduced


def _joined(roots: Roots, sigma2: Array, halves: list[Array]) -> Array:
    """Upper-triangular root of [X y]'V^-1 [X y], (p + 1, p + 1), with a positive diagonal where it is not zero."""
    k = roots.reduced.shape[2]
    rest = roots.total / np.sqrt(sigma2)[:, None, None]
    upper = np.asarray(
        np.linalg.qr(np.concatenate([rest.reshape(-1, k), *(half.reshape(-1, k) for half in halves)]), mode="r")
    )
    return np.asarray(upper * np.copysign(1.0, upper.diagonal())[:, None])


def first_of_roots(
    problem: Problem, roots: Roots, L: Array, sigma2: Array, slices: list[slice], workers: int
) -> tuple[Array, float, float, Sequence[slice | Rooted]]:
    """Factor of S, log|V|, the size of rounding errors and the parts of the second pass (eq. 5b).

    Only rows are factored, never sums of squares.
    """
    if not np.isfinite(L).all() or not np.isfinite(sigma2).all() or sigma2.min() <= 0.0:
        raise np.linalg.LinAlgError("a residual variance has gone to zero")
    keep = len(slices) == 1

    def reduced(part: slice) -> tuple[Array, float, float, Rooted | None]:
        made = rooted(problem, L, sigma2, part)
        rows = made.half.reshape(-1, made.half.shape[2])
        longest = float(np.linalg.norm(roots.reduced[part, :, -1] / np.sqrt(sigma2)[problem.stratum]))
        return np.asarray(np.linalg.qr(rows, mode="r")), made.logdet, longest, made if keep else None

    halves: list[Array] = []
    logdet, length = float(problem.nobs @ np.log(sigma2)), 0.0
    kept: list[slice | Rooted] = []
    for half, part_logdet, longest, made in ordered_map(reduced, slices, workers):
        halves.append(half)
        logdet, length = logdet + part_logdet, max(length, longest)
        if made is not None:
            kept.append(made)
    upper = _joined(roots, sigma2, halves)
    if not (np.isfinite(upper).all() and np.isfinite(logdet)) or upper.diagonal()[:-1].min(initial=1.0) <= 0.0:
        raise np.linalg.LinAlgError("X'V^-1 X is not positive definite")
    # the rounding error of a half is that of its rows, and enters the value times its length
    return upper.T, logdet, max(length * float(np.abs(upper[-1, -1])), 1.0), kept or slices


@dataclass(slots=True)
class RootSums(Sums):
    """Sums over clusters for the residual variances of a diagonal Sigma; mixed and pairs are empty below order 2.

    Attributes
    ----------
    own : (R, p + 1, p + 1) array
        Cross-products of the rows of V^-1 [X y] in the basis P, by equation.
    trace : (R,) array
        Trace of W^-1 by equation.
    mixed : (2, R, q, q) array
        Z'V^-1 I_r V^-1 Z in the basis P, and the same with the second V^-1 replaced by that of eq. 9 to 10.
    pairs : (2, R, R) array
        tr(W^-1 I_r W^-1 I_s), and the quadratic form.
    """

    own: Array
    trace: Array
    mixed: Array
    pairs: Array


def root_sums(problem: Problem, at: Rooted, *, reml: bool, second: bool) -> RootSums:
    """Sums of one chunk for columns in which W of eq. 8 is the identity, or 1 at the last under ML (eq. 8b)."""
    member, D, E = problem.member, at.solved, at.inverse
    squares = np.matmul(D.transpose(1, 2, 0), D.transpose(1, 0, 2))
    k = D.shape[2]
    own = (member @ squares.reshape(len(squares), -1)).reshape(-1, k, k)
    trace = member @ np.einsum("naa->a", E)
    if not second:
        return RootSums(own, trace, np.zeros(0), np.zeros(0))
    q, Y, moved = len(squares), at.reach, _weighted(D, reml)
    along = moved @ _turned(_weighted(at.V, reml))
    mixed = [np.matmul(Y.transpose(1, 2, 0), table.transpose(1, 0, 2)).reshape(q, q * q) for table in (Y, along)]
    pairs = [np.einsum("nab,nab->ab", E, E), np.einsum("nab,nab->ab", moved @ _turned(moved), E)]
    return RootSums(
        own,
        trace,
        np.stack([(member @ one).reshape(-1, q, q) for one in mixed]),
        np.stack([member @ one @ member.T for one in pairs]),
    )


def root_tables(problem: Problem, sums: RootSums, turn: Array, sigma2: Array, *, reml: bool) -> ResidualTables:
    """Terms of gradient and Hessian; ``turn`` as in ``Rooted.turned``."""
    assert problem.roots is not None
    total, inverse = problem.roots.total @ turn, 1.0 / sigma2
    rest = (total.transpose(0, 2, 1) @ total) * inverse[:, None, None]
    own = (rest + sums.own) * inverse[:, None, None]
    free = problem.nobs - problem.n_clusters * problem.member.sum(axis=1)  # rows orthogonal to all Z
    trace = (free + sums.trace) * inverse
    of_rest, form = (np.einsum("rii->ri", table)[:, 0 if reml else -1 :].sum(axis=1) for table in (rest, own))
    if not sums.pairs.size:
        return ResidualTables(trace, own, np.zeros(0), np.zeros(0), form)
    mixed = 0.5 * (sums.mixed + sums.mixed.swapaxes(-1, -2)) * inverse[:, None, None]
    pairs = sums.pairs * (inverse[:, None] * inverse)
    diagonal = pairs.reshape(2, -1)[:, :: len(sigma2) + 1]
    diagonal[0] += inverse**2 * free
    diagonal[1] += inverse**2 * of_rest
    return ResidualTables(trace, own, mixed, pairs, form)
