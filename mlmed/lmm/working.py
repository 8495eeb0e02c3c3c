"""Grams -> Problem in working units (unit scale, centred if the model allows it), and the back-transformation.

Forming cross-products squares the condition number; columns are therefore shifted and scaled first and the
model is fitted to the new columns. Eq. 18 to 21 give the exact back-transformation: ``beta = offset + X_map
beta_w``, ``G = Z_map G_w Z_map'``, ``sigma2 = y_scale^2 sigma2_w``, and -2l changes by a known constant.
A fit and every resampled problem use the same maps; both call ``assemble``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mlmed.data.grams import Grams, column_sums, total_gram
from mlmed.data.layout import Layout
from mlmed.limits import refuse_columns, refuse_effects
from mlmed.lmm.checks import (
    COLLINEAR,
    absorbed_effects,
    empty_intercepts,
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
from mlmed.lmm.maps import CrossMaps, EquationMaps, cross_maps, fixed_map, product_maps, random_map, summed_cross
from mlmed.lmm.problem import Problem, Roots
from mlmed.lmm.roots import assembled_roots, effect_units, with_columns
from mlmed.lmm.sigma import ResidualStructure
from mlmed.names import labelled
from mlmed.system.system import System

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: Most clusters for which every start is tried on all of them; size of a sample otherwise.
MOST = 500


@dataclass(frozen=True, slots=True)
class Assembly:
    """Maps from products to a Problem, the same for every replicate of a model.

    Attributes
    ----------
    equations : tuple of EquationMaps
        Maps of the columns.
    AB : (q * q + q * (p + 1), P * K * (K + 1) / 2) sparse array
        A, then B, from the products of all P patterns.
    C : (R * (p + 1) ** 2, P * K * (K + 1) / 2) sparse array
        C by equation, from the same products.
    member : (R, P) array
        1 where the rows of a pattern belong to an equation, else 0.
    stratum : (q,) int array
        The equation that each random effect belongs to.
    cross : CrossMaps or None
        Maps to products across equations, from those of one pattern; None if residuals are independent.
    roots : Roots or None
        Roots of the Grams' rows, if their products have lost digits.
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


def random_blocks(spec: System, layout: Layout, without: Collection[int] = ()) -> tuple[Block, ...]:
    """Positions in u (equation by equation, as typed) of every covariance block.

    Effects ``without`` information are left out of unstructured blocks with other effects, where covariances are free.
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


def assembly_for(spec: System, grams: Grams) -> Assembly:
    """Build the maps of a model in the working units of ``grams``."""
    blocks = random_blocks(spec, grams.layout, empty_intercepts(grams))
    return build_assembly(blocks, grams, correlated=spec.correlated)


def build_assembly(blocks: tuple[Block, ...], grams: Grams, *, correlated: bool) -> Assembly:
    """Build the maps of every column, and from them the sparse maps of the products.

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
        X, X_back, offset, response = fixed_map(equation, grams)
        Z, Z_back = random_map(equation, random, r, blocks, stratum, grams)
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
    return Assembly(tuple(maps), *product_maps(maps, member), member, stratum, cross, roots)


def _in_spread_units(
    maps: list[EquationMaps], blocks: tuple[Block, ...], grams: Grams
) -> tuple[list[EquationMaps], Roots]:
    """Scale random effects to vary between clusters by about 1: the new maps, and the roots of the new columns."""
    assert grams.roots is not None
    units = effect_units(maps, grams, blocks)
    moved = [replace(own, Z=own.Z @ unit, Z_back=own.Z_back @ unit) for own, unit in zip(maps, units, strict=True)]
    return moved, assembled_roots(moved, grams.layout, grams.roots.tables)


def assemble(assembly: Assembly, products: Array | csr_array, roots: Roots | None = None) -> Problem:
    """Assemble A, B, C of eq. 3 for all equations.

    Parameters
    ----------
    assembly : Assembly
        Maps of the model.
    products : (P, K * (K + 1) / 2, J) array, or (P * K * (K + 1) / 2, J) sparse array
        As in ``Grams``, for any number of clusters.
    roots : Roots, optional
        Roots of the same rows, if products have lost digits.
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
        """Factors from working to user's units of residual parameters, (S,); ``at`` is ``Estimates.sigma_at``."""
        scale: Array = self.y_scale[at].prod(axis=1)
        return scale

    def criterion_shift(self, nobs: NDArray[np.int64], *, reml: bool) -> float:
        """-2l in the user's units minus -2l in working units (eq. 21)."""
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
        Maps to the user's units.
    between : tuple of str
        Random effects (not intercepts) of variables that do not vary within clusters.
    empty : tuple of str
        Random intercepts left out of every block, because all columns of their equations are centred within clusters.
    """

    problem: Problem
    blocks: tuple[Block, ...]
    units: Units
    between: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def build_working(spec: System, layout: Layout, grams: Grams) -> Working:
    """Assemble A, B, C of eq. 3 for all equations.

    Raises
    ------
    NotIdentifiedError
        Collinear fixed effects (refused, not dropped), or random effects in the span of the fixed ones.
    DataError
        Columns of extreme scale, or cross-products with too few digits of a response's residuals.
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
    """Effects whose variance parameter is shared with absorbed effects only, (q,)."""
    out = np.ones(len(absorbed), dtype=bool)
    for block in blocks:
        index = list(block.index)
        out[index] = block.structure != "identity" or bool(absorbed[index].all())
    return out


def _units(assembly: Assembly, grams: Grams) -> Units:
    """Join the back-transformations of all equations."""
    p, q = assembly.n_fixed, len(assembly.stratum)
    y_scale = grams.scale[[equation.response_at for equation in grams.layout.equations]]
    units = Units(np.zeros((p, p)), np.zeros(p), np.zeros((q, q)), y_scale)
    for maps in assembly.equations:
        units.X_map[maps.fixed, maps.fixed] = maps.X_back
        units.offset[maps.fixed] = maps.offset
        units.Z_map[maps.random, maps.random] = maps.Z_back
    return units


def spread_clusters(grams: Grams) -> NDArray[np.intp]:
    """Positions of ``MOST`` clusters, at equal steps in the order of their squared responses: one of every stratum.

    The choice depends on the data of the clusters, not on the order of rows.
    """
    J, responses = len(grams.clusters), dict.fromkeys(e.response_at for e in grams.layout.equations)
    diagonal = [k * (k + 1) // 2 + k for k in responses]
    size = np.sum([grams.row(p, at) for p in range(len(grams.patterns)) for at in diagonal], axis=0)
    middle = ((np.arange(MOST) + 0.5) * (J / MOST)).astype(np.intp)
    return np.argsort(size, kind="stable")[middle]


def sample_of(spec: System, grams: Grams) -> Problem | None:
    """The problem of a sample of clusters in the units of the whole; None if there are at most ``MOST``."""
    if len(grams.clusters) <= MOST:
        return None
    assembly, chosen = assembly_for(spec, grams), spread_clusters(grams)
    return assemble(assembly, grams.sums[..., chosen], None if assembly.roots is None else assembly.roots.take(chosen))


def only_effects(working: Working, keep: NDArray[np.intp]) -> Working:
    """Keep only some random effects, in the user's columns.

    The units of the fixed effects stay; ``Z_map`` becomes diagonal, because a slope without an intercept's random
    effect must not be centred (eq. 19).

    Parameters
    ----------
    working : Working
        The full model.
    keep : (k,) int array
        Positions of the kept effects, at least one.
    """
    full, Z_map = working.problem, working.units.Z_map
    # with roots effects are mixed and the diagonal may be zero, so the length of the row is the scale
    scale = np.diag(np.diag(Z_map) if full.roots is None else np.sqrt((Z_map**2).sum(axis=1)))
    T = np.asarray(np.linalg.solve(Z_map, scale), dtype=np.float64)[:, keep]
    A = np.einsum("ak,abj,bl->klj", T, full.A, T, optimize=True)
    B = np.einsum("ak,acj->kcj", T, full.B, optimize=True)
    cross = full.cross
    if cross is not None:
        cross = replace(cross, A=T.T @ cross.A @ T, B=T.T @ cross.B)
    place = {int(old): new for new, old in enumerate(keep)}
    blocks = tuple(
        replace(block, index=tuple(place[k] for k in block.index if k in place))
        for block in working.blocks
        if any(k in place for k in block.index)
    )
    units = replace(working.units, Z_map=scale[np.ix_(keep, keep)])
    stratum = full.stratum[keep]
    roots = None if full.roots is None else with_columns(full.roots, T, full.stratum, stratum)
    return Working(Problem(A, B, full.C, full.nobs, stratum, cross, roots), blocks, units)
