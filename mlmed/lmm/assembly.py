"""Cross-products of the Gram columns -> A, B, C in working units, by constant sparse maps (eq. 3, 18, 19).

A fit needs them once, a resampled problem every time; both call ``assemble``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mlmed.data.grams import Grams
from mlmed.data.layout import INTERCEPT, EquationLayout, Layout
from mlmed.lmm.covariance import Block
from mlmed.lmm.cross_products import CrossMaps, cross_maps, summed_cross
from mlmed.lmm.empty import empty_intercepts
from mlmed.lmm.maps import Entries, EquationMaps, entries, sparse
from mlmed.lmm.problem import Problem, Roots
from mlmed.lmm.roots import assembled_roots, effect_units
from mlmed.lmm.sigma import ResidualStructure
from mlmed.system.model import ModelSpec

__all__ = [
    "Assembly",
    "assemble",
    "assembly_for",
    "build_assembly",
    "cluster_cross",
    "random_blocks",
]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Assembly:
    """The way from products to a Problem; the same for every replicate of a model.

    Attributes
    ----------
    equations : tuple of EquationMaps
        Maps of the columns.
    AB : (q * q + q * (p + 1), P * K * (K + 1) / 2) sparse array
        A, then B, from the products of all P patterns.
    C : (R * (p + 1) ** 2, P * K * (K + 1) / 2) sparse array
        C by equation from the same.
    member : (R, P) array
        1 where the rows of a pattern belong to an equation, else 0.
    stratum : (q,) int array
        The equation that each random effect belongs to.
    cross : CrossMaps or None
        Products across equations, from those of one pattern; None where residuals are independent.
    roots : Roots or None
        Those of the rows that the Grams were made from, where their products have lost digits.
    """

    equations: tuple[EquationMaps, ...]
    AB: csr_array
    C: csr_array
    member: Array
    stratum: NDArray[np.int64]
    cross: CrossMaps | None = None
    roots: Roots | None = None

    @property
    def residual(self) -> ResidualStructure:
        """Structure of Sigma."""
        return ResidualStructure(len(self.equations), self.cross is not None)

    @property
    def n_fixed(self) -> int:
        """Fixed effects, p."""
        return int(self.equations[-1].fixed.stop)


def random_blocks(spec: ModelSpec, layout: Layout, without: Collection[int] = ()) -> tuple[Block, ...]:
    """Positions in u (equation by equation, as typed) of every covariance block.

    Effects ``without`` information are left out of unstructured blocks that have others, as their covariances are free.
    """
    starts = np.cumsum([0, *(len(equation.random) for equation in layout.equations)])
    blocks = []
    for block in spec.blocks:
        index: list[int] = []
        for e, t in block.terms:
            terms = layout.equations[e].terms
            index += [int(starts[e]) + k for k, term in enumerate(terms) if term == t]
        kept = [k for k in index if k not in without] if block.structure == "unstructured" else index
        blocks.append(Block(tuple(sorted(kept or index)), block.structure))
    return tuple(blocks)


def assembly_for(spec: ModelSpec, grams: Grams) -> Assembly:
    """The maps of a model whose working units are those of ``grams``."""
    blocks = random_blocks(spec, grams.layout, empty_intercepts(grams))
    return build_assembly(blocks, grams, correlated=spec.correlated)


def build_assembly(blocks: tuple[Block, ...], grams: Grams, *, correlated: bool) -> Assembly:
    """Maps of every column, and from them the sparse maps of the products.

    Parameters
    ----------
    blocks : tuple of Block
        Covariance structures of the random effects.
    grams : Grams
        Sufficient statistics, whose units are the working units.
    correlated : bool
        Whether residuals are correlated across equations.
    """
    equations = grams.layout.equations
    stratum = np.repeat(np.arange(len(equations)), [len(equation.random) for equation in equations])
    maps: list[EquationMaps] = []
    first_p = first_q = 0
    for r, equation in enumerate(equations):
        fixed = slice(first_p, first_p + len(equation.fixed))
        random = slice(first_q, first_q + len(equation.random))
        first_p, first_q = fixed.stop, random.stop
        X, X_back, offset, response = _fixed_map(equation, grams)
        Z, Z_back = _random_map(equation, random, r, blocks, stratum, grams)
        maps.append(EquationMaps(fixed, random, X, Z, response, X_back, offset, Z_back))
    roots = None
    if grams.roots is not None and not correlated:
        maps, roots = _in_spread_units(maps, blocks, grams)
    member = np.array(grams.patterns, dtype=np.float64).T
    cross = None
    if correlated:
        Z, X = (np.column_stack([getattr(one, name) for one in maps]) for name in ("Z", "X"))
        owner = np.concatenate(
            [np.repeat(np.arange(len(maps)), [one.X.shape[1] for one in maps]), np.arange(len(maps))]
        )
        cross = cross_maps(Z, np.column_stack([X, *(one.response for one in maps)]), owner, member.T.astype(bool))
    return Assembly(tuple(maps), *_product_maps(maps, member), member, stratum, cross, roots)


def _in_spread_units(
    maps: list[EquationMaps], blocks: tuple[Block, ...], grams: Grams
) -> tuple[list[EquationMaps], Roots]:
    """Maps with random effects in the units of their spread between clusters, and the roots of the columns there."""
    assert grams.roots is not None
    units = effect_units(maps, grams, blocks)
    moved = [replace(own, Z=own.Z @ unit, Z_back=own.Z_back @ unit) for own, unit in zip(maps, units, strict=True)]
    return moved, assembled_roots(moved, grams.layout, grams.roots.tables)


def assemble(assembly: Assembly, products: Array | csr_array, roots: Roots | None = None) -> Problem:
    """A, B, C of eq. 3 for all equations.

    Parameters
    ----------
    assembly : Assembly
        Maps of the model.
    products : (P, K * (K + 1) / 2, J) array, or (P * K * (K + 1) / 2, J) sparse array
        As in ``Grams``, for any number of clusters.
    roots : Roots, optional
        Of the same rows, where products have lost digits.
    """
    J, q, k = products.shape[-1], len(assembly.stratum), assembly.n_fixed + 1
    flat = products.reshape(-1, J) if isinstance(products, np.ndarray) else products
    AB = assembly.AB @ flat
    if not isinstance(AB, np.ndarray):
        AB = AB.toarray()
    total = flat.sum(axis=1)
    C = assembly.C @ total
    nobs = np.rint(assembly.member @ total.reshape(assembly.member.shape[1], -1)[:, 0]).astype(np.int64)
    R = len(assembly.equations)
    return Problem(
        AB[: q * q].reshape(q, q, J),
        AB[q * q :].reshape(q, k, J),
        C.reshape(R, k, k),
        nobs,
        assembly.stratum,
        None if assembly.cross is None else summed_cross(assembly.cross, products, q),
        roots,
    )


def cluster_cross(assembly: Assembly, products: Array) -> Array:
    """Per-cluster C, [X y]'[X y] of every equation, (R, p + 1, p + 1, J)."""
    J, k = products.shape[-1], assembly.n_fixed + 1
    return np.asarray(assembly.C @ products.reshape(-1, J)).reshape(len(assembly.equations), k, k, J)


def _product_maps(maps: Sequence[EquationMaps], member: Array) -> tuple[csr_array, csr_array]:
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


def _fixed_map(equation: EquationLayout, grams: Grams) -> tuple[Array, Array, Array, Array]:
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


def _random_map(
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
