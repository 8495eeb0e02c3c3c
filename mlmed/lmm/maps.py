"""Constant sparse maps from packed products of Gram columns to cross-products of a model's columns (eq. 18, 19, 90)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array

from mlmed.data.grams import Grams
from mlmed.data.layout import INTERCEPT, EquationLayout
from mlmed.lmm.covariance import Block
from mlmed.lmm.problem import Cross, CrossProducts

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class EquationMaps:
    """One equation in working units; W holds the rows of the K Gram columns.

    Attributes
    ----------
    fixed, random : slice
        Positions of its p_r effects in beta and of its q_r effects in u.
    X : (K, p_r) array
        ``X_r = W @ X``.
    Z : (K, q_r) array
        ``Z_r = W @ Z``.
    response : (K,) array
        ``y_r = W @ response``: 1 at the response, its shift at the constant if there is no intercept.
    X_back, offset : (p_r, p_r), (p_r,) arrays
        ``beta_r = offset + X_back @ beta_w`` in the user's units (eq. 18).
    Z_back : (q_r, q_r) array
        ``u_r = Z_back @ u_w`` (eq. 19).
    """

    fixed: slice
    random: slice
    X: Array
    Z: Array
    response: Array
    X_back: Array
    offset: Array
    Z_back: Array


@dataclass(frozen=True, slots=True)
class Entries:
    """Nonzero weights of a product map: rows are entries of the result, columns are products of Gram columns."""

    row: Indices
    product: Indices
    weight: Array


def entries(left: Array, right: Array, left_at: Indices, right_at: Indices, width: int) -> Entries:
    """Weights of ``left' W'W right``, (K, a) and (K, b), at the rows ``left_at * width + right_at`` of the result."""
    i, a = np.nonzero(left)
    j, b = np.nonzero(right)
    row = (left_at[a] * width)[:, None] + right_at[b]
    high, low = np.maximum(i[:, None], j), np.minimum(i[:, None], j)
    weight = left[i, a][:, None] * right[j, b]
    return Entries(row.ravel(), (high * (high + 1) // 2 + low).ravel(), weight.ravel())


def sparse(pieces: Iterable[Entries], shape: tuple[int, int]) -> csr_array:
    """Join all pieces in one matrix, adding entries at the same place."""
    listed = list(pieces)
    row, product, weight = (np.concatenate([getattr(e, name) for e in listed]) for name in Entries.__slots__)
    return coo_array((weight, (row, product)), shape=shape).tocsr()


@dataclass(frozen=True, slots=True)
class CrossMaps:
    """Maps to products across equations (eq. 90).

    Attributes
    ----------
    AB : (q * (q + p + R), K * (K + 1) / 2) sparse array
        Z'[Z X Y], Y the R responses.
    C : ((p + R) ** 2, K * (K + 1) / 2) sparse array
        [X Y]'[X Y].
    observed : (P, R) bool array
        Equations that the rows of a pattern belong to.
    owner : (p + R,) int array
        The equation of each column of [X Y].
    """

    AB: csr_array
    C: csr_array
    observed: NDArray[np.bool_]
    owner: NDArray[np.int64]


def cross_maps(Z: Array, XY: Array, owner: NDArray[np.int64], observed: NDArray[np.bool_]) -> CrossMaps:
    """Build the maps from columns given as combinations of the K Gram columns.

    Parameters
    ----------
    Z, XY : (K, q), (K, p + R) arrays
        Columns of all equations side by side; the R responses last.
    owner, observed
        As in ``CrossMaps``.
    """
    q, width = Z.shape[1], XY.shape[1]
    n_products = len(Z) * (len(Z) + 1) // 2
    rows, columns = np.arange(q), np.arange(width)
    both = entries(Z, np.column_stack([Z, XY]), rows, np.arange(q + width), q + width)
    AB = sparse([both], (q * (q + width), n_products))
    C = sparse([entries(XY, XY, columns, columns, width)], (width * width, n_products))
    return CrossMaps(AB, C, observed, owner)


def summed_cross(maps: CrossMaps, products: Array | csr_array, q: int) -> Cross:
    """Products across equations by pattern, those without Z summed over clusters."""
    tables = _of_patterns(maps, products)
    A, B = _by_pattern(maps, tables, q)
    width = len(maps.owner)
    totals = [packed.sum(axis=1) for packed in tables]
    C = np.stack([(maps.C @ total).reshape(width, width) for total in totals])
    return Cross(maps.observed, A, B, C, np.rint([total[0] for total in totals]), maps.owner)


def _of_patterns(maps: CrossMaps, products: Array | csr_array) -> Sequence[Array | csr_array]:
    """Sums by pattern, from an array or from a sparse one with the patterns stacked."""
    if isinstance(products, np.ndarray):
        return list(products)
    n = maps.C.shape[1]
    return [products[first : first + n] for first in range(0, products.shape[0], n)]


def cross_products(maps: CrossMaps, products: Array, q: int) -> CrossProducts:
    """Products across equations by pattern and cluster."""
    A, B = _by_pattern(maps, list(products), q)
    P, _, J = products.shape
    width = len(maps.owner)
    C = np.empty((P, J, width, width))
    for target, packed in zip(C, products, strict=True):
        target[:] = np.asarray(maps.C @ packed).reshape(width, width, J).transpose(2, 0, 1)
    return CrossProducts(maps.observed, A, B, C, products[:, 0], maps.owner)


def _by_pattern(maps: CrossMaps, tables: Sequence[Array | csr_array], q: int) -> tuple[Array, Array]:
    P, J = len(tables), tables[0].shape[1]
    width = len(maps.owner)
    A, B = np.empty((P, J, q, q)), np.empty((P, J, q, width))
    for p, packed in enumerate(tables):
        moved = maps.AB @ packed
        both = (moved if isinstance(moved, np.ndarray) else moved.toarray()).reshape(q, q + width, J)
        A[p], B[p] = both[:, :q].transpose(2, 0, 1), both[:, q:].transpose(2, 0, 1)
    return A, B


def product_maps(maps: Sequence[EquationMaps], member: Array) -> tuple[csr_array, csr_array]:
    """Maps AB and C of ``Assembly`` from those of the columns; ``member`` (R, P) as there."""
    p, q, R = maps[-1].fixed.stop, maps[-1].random.stop, len(maps)
    K, P = len(maps[0].response), member.shape[1]
    n_products = K * (K + 1) // 2
    AB: list[Entries] = []
    C: list[Entries] = []
    for r, equation in enumerate(maps):
        zs = np.arange(equation.random.start, equation.random.stop)
        columns = np.append(np.arange(equation.fixed.start, equation.fixed.stop), p)
        right = np.column_stack([equation.X, equation.response])
        pieces = (
            (AB, 0, entries(equation.Z, equation.Z, zs, zs, q)),
            (AB, q * q, entries(equation.Z, right, zs, columns, p + 1)),
            (C, r * (p + 1) ** 2, entries(right, right, columns, columns, p + 1)),
        )
        for pattern in np.flatnonzero(member[r]):
            for target, first, own in pieces:
                target.append(Entries(first + own.row, pattern * n_products + own.product, own.weight))
    width = P * n_products
    return sparse(AB, (q * q + q * (p + 1), width)), sparse(C, (R * (p + 1) ** 2, width))


def fixed_map(equation: EquationLayout, grams: Grams) -> tuple[Array, Array, Array, Array]:
    """Centred and scaled columns when there is an intercept, only scaled otherwise (eq. 18).

    Returns the maps X, X_back, offset and response of ``EquationMaps``.
    """
    names, at = equation.fixed, equation.fixed_at
    K, n = len(grams.columns), len(names)
    centre = INTERCEPT in names
    forward, back, offset = np.zeros((K, n)), np.zeros((n, n)), np.zeros(n)
    response = np.zeros(K)
    response[equation.response_at] = 1.0
    y_shift, y_scale = grams.shift[equation.response_at], grams.scale[equation.response_at]
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
    return forward, back, offset, response


def random_map(
    equation: EquationLayout,
    random: slice,
    r: int,
    blocks: tuple[Block, ...],
    stratum: NDArray[np.int64],
    grams: Grams,
) -> tuple[Array, Array]:
    """Z columns by covariance block (eq. 19): only an unstructured block with an intercept may be centred.

    Returns the maps Z and Z_back of ``EquationMaps``.
    """
    names, at = equation.random, equation.random_at
    y_scales = grams.scale[[other.response_at for other in grams.layout.equations]]
    K, n = len(grams.columns), len(names)
    forward, back = np.zeros((K, n)), np.zeros((n, n))
    known = {k for block in blocks for k in block.index}
    alone = tuple(Block((k,)) for k in range(random.start, random.stop) if k not in known)
    for block in (*blocks, *alone):
        mine = [i for i in range(n) if random.start + i in block.index]
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
    return forward, back
