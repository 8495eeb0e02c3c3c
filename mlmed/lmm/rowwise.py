"""Responses simulated row by row: reflated residuals, or normal draws if a model needs rows (docs/math.md).

Random effects are drawn cluster by cluster, residuals jointly for all responses of a row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.data.layout import Design, Layout
from mlmed.data.rows import Recode, Rows, derived_columns, recodes, row_products, unit_rows
from mlmed.lmm.clusters import weighted
from mlmed.lmm.covariance import ROUNDING, normal_root, psd_cholesky
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.problem import Problem
from mlmed.lmm.ranef import ModeLaw, conditional_modes, mode_law
from mlmed.lmm.roots import rooted, simulated_roots
from mlmed.lmm.simulation import Step, WorkingPoint, chain
from mlmed.lmm.working import Assembly, Working, assemble, assembly_for
from mlmed.system.system import System

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: Share of the conditional modes' largest reliability below which a direction is not spanned by them.
SPANNED = 1e-10


def row_noise(root: Array, members: Sequence[Indices], n_rows: int, rng: np.random.Generator) -> tuple[Array, ...]:
    """Draw residuals of every equation on its own rows, from N(0, Sigma) of whole rows.

    Parameters
    ----------
    root : (R, R) array
        A factor of Sigma, ``Sigma = root @ root.T``, in the units of the residuals.
    members : sequence of R (n_r,) int arrays
        Rows of each equation, positions among all rows.
    n_rows : int
        Number of rows; every row takes R numbers from ``rng``, whichever equations it belongs to.
    rng : Generator
        Source of the numbers.

    Returns
    -------
    tuple of R (n_r,) arrays
    """
    noise = root @ rng.standard_normal((len(root), n_rows))
    return tuple(own if len(rows) == n_rows else own[rows] for own, rows in zip(noise, members, strict=True))


@dataclass(frozen=True, slots=True)
class ResidualPool:
    """Residuals that are resampled together.

    Attributes
    ----------
    equations : tuple of E ints
        Their equations.
    at : tuple of E (n,) int arrays
        Positions among the rows of each equation.
    values : (E, n) array
        Centred residuals, reflated to their covariance in the model.
    root : (E, E) array
        A factor of that covariance if there are too few rows to resample (at most 2 E): draws are then normal. Empty
        otherwise.
    """

    equations: tuple[int, ...]
    at: tuple[Indices, ...]
    values: Array
    root: Array

    def draw_into(self, noise: Sequence[Array], rng: np.random.Generator) -> None:
        """Fill in the rows of these equations, (n_r,) each."""
        n = self.values.shape[1]
        if self.root.size:
            drawn = self.root @ rng.standard_normal((len(self.root), n))
        else:
            drawn = self.values[:, rng.integers(n, size=n)]
        for r, at, own in zip(self.equations, self.at, drawn, strict=True):
            noise[r][at] = own


def residual_pools(
    residuals: Sequence[Array], members: Sequence[Indices], Sigma: Array, *, joint: bool
) -> tuple[ResidualPool, ...]:
    """Centred and reflated residuals: equation by equation, or ``joint``, whole rows with the same responses.

    Parameters
    ----------
    residuals : sequence of R (n_r,) arrays
        Residuals of every equation.
    members : sequence of R (n_r,) int arrays
        Rows of each equation, positions among all rows.
    Sigma : (R, R) array
        Residual covariance of a row in the same units.
    joint : bool
        Whether the residuals of a row are correlated.
    """
    alone = [((r,), (np.arange(len(own)),)) for r, own in enumerate(residuals)]
    groups = _by_pattern(members) if joint else alone
    pools = []
    for equations, at in groups:
        values = np.array([residuals[r][own] for r, own in zip(equations, at, strict=True)])
        values -= values.mean(axis=1, keepdims=True)
        target = np.asarray(np.linalg.cholesky(Sigma[np.ix_(equations, equations)]), dtype=np.float64)
        E, n = values.shape
        if joint and n <= 2 * E:
            pools.append(ResidualPool(equations, at, values, target))
            continue
        reflated: Array = target @ np.linalg.solve(np.linalg.cholesky(values @ values.T / n), values)
        pools.append(ResidualPool(equations, at, reflated, np.empty((0, 0))))
    return tuple(pools)


def _by_pattern(members: Sequence[Indices]) -> list[tuple[tuple[int, ...], tuple[Indices, ...]]]:
    """Equations of every set of rows with the same responses, and positions in each equation."""
    n = 1 + max(int(own.max()) for own in members)
    used = np.zeros((n, len(members)), dtype=bool)
    place = np.zeros((n, len(members)), dtype=np.intp)
    for r, own in enumerate(members):
        used[own, r] = True
        place[own, r] = np.arange(len(own))
    found = []
    for pattern in np.unique(used[used.any(axis=1)], axis=0):
        rows, equations = np.flatnonzero((used == pattern).all(axis=1)), np.flatnonzero(pattern)
        found.append((tuple(map(int, equations)), tuple(place[rows, r] for r in equations)))
    return found


@dataclass(frozen=True, slots=True)
class RowModel:
    """Turns random effects and residuals into cross-products, row by row.

    Attributes
    ----------
    assembly : Assembly
        Maps to the working units of the fit.
    rows : Rows
        The data.
    products : (P, K * (K + 1) / 2, J) array
        Their cross-products.
    steps : tuple of R Steps
        The equations, in the order of simulation.
    members : tuple of R (n_r,) int arrays
        Rows of each equation.
    recodes : tuple of R Recodes or None
        Rules that rebuild columns computed from earlier responses.
    changed : frozenset of int
        Simulated or rebuilt Gram columns.
    layout : Layout
        Layout of the Grams.
    """

    assembly: Assembly
    rows: Rows
    products: Array
    steps: tuple[Step, ...]
    members: tuple[Indices, ...]
    recodes: tuple[Recode | None, ...]
    changed: frozenset[int]
    layout: Layout

    def problem(self, u: Array, noise: Sequence[Array]) -> Problem:
        """Simulate a Problem, with the roots of the rows if the model needs them."""
        columns, roots = self.columns(u, noise), None
        if self.assembly.roots is not None:
            parts = [[column[own] for column in columns] for own in self.members]
            codes = [self.rows.codes[own] for own in self.members]
            roots = simulated_roots(self.assembly.equations, self.layout, parts, codes, self.rows.shape[1])
        return assemble(self.assembly, self.squared(columns), roots)

    def squared(self, columns: Sequence[Array]) -> Array:
        """Products (P, K * (K + 1) / 2, J) of the result of ``columns``."""
        return row_products(self.rows, columns, base=self.products, changed=self.changed)

    def columns(self, u: Array, noise: Sequence[Array]) -> list[Array]:
        """K columns (N,) with simulated responses and columns computed from them.

        From random effects u (q, J) and residuals (n_r,) of every equation, in working units.
        """
        values = list(self.rows.values)
        for r, step in enumerate(self.steps):
            recode = self.recodes[r]
            if recode is not None:
                recode.apply(values)
            made = self._predictor(r, values, u) + noise[r]
            if len(made) < len(self.rows.codes):  # on other rows the response stays as observed
                new = values[step.response_at].copy()
                new[self.members[r]] = made
                made = new
            values[step.response_at] = made
        return values

    def residuals(self, u: Array) -> tuple[Array, ...]:
        """Observed responses minus (X beta + Z u), (n_r,) for each equation, given u, (q, J)."""
        return tuple(
            self.rows.values[step.response_at][own] - self._predictor(r, self.rows.values, u)
            for r, (step, own) in enumerate(zip(self.steps, self.members, strict=True))
        )

    def _predictor(self, equation: int, values: Sequence[Array], u: Array) -> Array:
        """X beta + Z u on the rows of one equation, (n_r,), in the units of the Grams."""
        step, own = self.steps[equation], self.members[equation]
        whole = len(own) == len(self.rows.codes)
        codes = self.rows.codes if whole else self.rows.codes[own]
        coefficients = step.coefficients(u)
        out = np.zeros(len(own))
        for k, fixed, random, by_cluster in zip(step.columns, step.fixed, step.random, coefficients, strict=True):
            column = values[k] if whole else values[k][own]
            out += column * (by_cluster[codes] if random.any() else fixed)
        return out


def row_model(spec: System, grams: Grams, point: WorkingPoint, design: Design, data: Any = None) -> RowModel:
    """Build the row model of a fit at the parameters to simulate from; see ``residual_resampler``."""
    rows = unit_rows(design, grams)
    assembly = assembly_for(spec, grams)
    steps = chain(assembly, grams, point)
    member = np.array(grams.patterns)[rows.pattern]
    members = tuple(np.flatnonzero(member[:, r]) for r in range(len(steps)))
    derived = {column.at for own in derived_columns(grams.layout) for column in own}
    changed = frozenset(derived | {step.response_at for step in steps})
    return RowModel(
        assembly, rows, grams.products, steps, members, recodes(spec, grams, rows, data), changed, grams.layout
    )


@dataclass(frozen=True, slots=True)
class _RowResampler(ABC):
    """Draws replicates row by row; subclasses draw random effects and residuals."""

    model: RowModel

    def draw(self, rng: np.random.Generator) -> Problem:
        """One replicate.

        Raises
        ------
        FormulaError
            If a transformation is not defined at a simulated value.
        """
        return self.model.problem(*self.draw_parts(rng))

    @abstractmethod
    def draw_parts(self, rng: np.random.Generator) -> tuple[Array, Sequence[Array]]:
        """Random effects (q, J) and residuals (n_r,) of one replicate, in working units."""


@dataclass(frozen=True, slots=True)
class RowParametricResampler(_RowResampler):
    """Parametric bootstrap: new responses drawn row by row, for any model that can be encoded again.

    For models without columns computed from a response, ``ParametricResampler`` has the same distribution and is
    faster.

    Attributes
    ----------
    model : RowModel
        The rows and the parameters.
    root : (q, q) array
        A factor of G.
    residual_root : (R, R) array
        A factor of Sigma.
    """

    root: Array
    residual_root: Array

    def draw_parts(self, rng: np.random.Generator) -> tuple[Array, Sequence[Array]]:
        """Random effects (q, J) and residuals (n_r,) of one replicate, in working units."""
        u = self.root @ rng.standard_normal((self.root.shape[1], self.model.rows.shape[1]))
        noise = row_noise(self.residual_root, self.model.members, len(self.model.rows.codes), rng)
        return u, noise


def row_parametric_resampler(
    spec: System, grams: Grams, point: WorkingPoint, design: Design, data: Any = None
) -> RowParametricResampler:
    """Build a parametric resampler of rows; parameters and errors as in ``residual_resampler``."""
    model = row_model(spec, grams, point, design, data)
    return RowParametricResampler(model, point.L, model.assembly.residual.root(point.sigma2))


@dataclass(frozen=True, slots=True)
class ResidualResampler(_RowResampler):
    """Residual bootstrap: reflated residuals of both levels (Carpenter, Goldstein and Rasbash, 2003).

    Attributes
    ----------
    model : RowModel
        The rows and the parameters.
    modes : (q, J) array
        Centred conditional modes, reflated so that their covariance is G; drawn as whole vectors.
    missing : (q, k) array
        Factor of the part of G that the modes do not span (fewer clusters than random effects); normal draws
        fill it. Usually k = 0.
    pools : tuple of ResidualPool
        Pools of residuals drawn together.
    """

    modes: Array
    missing: Array
    pools: tuple[ResidualPool, ...]

    def draw_parts(self, rng: np.random.Generator) -> tuple[Array, Sequence[Array]]:
        """Random effects (q, J) and residuals (n_r,) of one replicate, in working units."""
        J = self.modes.shape[1]
        u = self.modes[:, rng.integers(J, size=J)]
        if self.missing.shape[1]:
            u = u + self.missing @ rng.standard_normal((self.missing.shape[1], J))
        noise = [np.empty(len(own)) for own in self.model.members]
        for pool in self.pools:
            pool.draw_into(noise, rng)
        return u, noise


def residual_resampler(
    spec: System, grams: Grams, point: WorkingPoint, design: Design, data: Any = None
) -> ResidualResampler:
    """Build a resampler of the residuals of a fit.

    Parameters
    ----------
    spec : System
        The model.
    grams : Grams
        Its cross-products; their units define the working units of ``point``.
    point : WorkingPoint
        ``at_optimum(optimum)``.
    design : Design
        The rows that the Grams were made from (``build_design(spec, data)``).
    data : dataframe, optional
        The table itself; needed only if a predictor is computed from a response (``m:w``, ``np.log(m)``).

    Raises
    ------
    DataError
        If the rows are not those of the Grams, or a predictor cannot be rebuilt from simulated responses.
    """
    model = row_model(spec, grams, point, design, data)
    problem = assemble(model.assembly, grams.sums, model.assembly.roots)
    q = problem.n_random
    raw = conditional_modes(problem, point.L, point.sigma2, point.beta, np.eye(q)).modes
    modes, missing = reflated_modes(problem, point, raw)
    residuals, structure = model.residuals(raw), model.assembly.residual
    pools = residual_pools(residuals, model.members, structure.matrix(point.sigma2), joint=structure.correlated)
    return ResidualResampler(model, modes, missing, pools)


def reflated_modes(problem: Problem, point: WorkingPoint, modes: Array) -> tuple[Array, Array]:
    """Centred modes with covariance G (divisor J), and a factor of the part of G that they do not span.

    With G = L L' the modes are L v_j, v_j = L'Z'V^-1 (y - X beta), which needs no inverse of G. The v_j are
    made spherical by the symmetric root of their covariance S, so that L S^-1/2 v_j has covariance L L'. Directions
    in the null space of S cannot be spanned, unless L maps them to zero, too.

    Parameters
    ----------
    problem : Problem
        Cross-products in working units.
    point : WorkingPoint
        Parameters.
    modes : (q, J) array
        Conditional modes in working units.

    Returns
    -------
    reflated : (q, J) array
    missing : (q, k) array
    """
    contrast = np.append(-point.beta, 1.0)
    if problem.roots is None:
        A, B = weighted(problem, point.sigma2, slice(None))
        moved = B @ contrast - (A @ modes.T[:, :, None])[:, :, 0]  # eq. 22: Z'V^-1 = Z'R^-1 (1 - Z N Z'R^-1)
    else:
        moved = rooted(problem, point.L, point.sigma2, slice(None)).V @ contrast
    v = point.L.T @ moved.T
    v = v - v.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(v @ v.T / v.shape[1])
    spanned = values > SPANNED * max(float(values[-1]), np.finfo(float).tiny)
    kept = vectors[:, spanned]
    reflated = point.L @ (kept / np.sqrt(values[spanned])) @ (kept.T @ v)
    missing = point.L @ vectors[:, ~spanned]
    missing[np.abs(missing).max(axis=1, initial=0.0) <= SPANNED * np.abs(point.L).max(axis=1)] = 0.0
    root = normal_root(missing @ missing.T)
    return reflated, root[:, root.any(axis=0)]


@dataclass(frozen=True, slots=True)
class ResponseSampler:
    """Draws the responses of all equations in turn.

    Attributes
    ----------
    model : RowModel
        The rows and the fixed effects.
    effects : ModeLaw
        Law of the random effects of every cluster, in working units.
    residual_root : (R, R) array
        A factor of Sigma in working units.
    shift, scale : (R,) arrays
        Units of the responses.
    at : (N,) int array
        Positions of the rows in the user's table.
    """

    model: RowModel
    effects: ModeLaw
    residual_root: Array
    shift: Array
    scale: Array
    at: NDArray[np.intp]

    def draw(self, rng: np.random.Generator) -> Array:
        """Draw one set, (R, N) in the user's units and the order of the design; NaN on rows outside an equation.

        Raises
        ------
        FormulaError
            If a transformation is not defined at a simulated value (the logarithm of a negative mediator).
        """
        model = self.model
        u = self.effects.draw(np.zeros((1, self.effects.slide.shape[2])), rng)[0].T
        noise = row_noise(self.residual_root, model.members, len(model.rows.codes), rng)
        return self._shown(model.columns(u, noise))

    @property
    def observed(self) -> Array:
        """The observed responses, in the form of ``draw``."""
        return self._shown(self.model.rows.values)

    @property
    def codes(self) -> NDArray[np.intp]:
        """Cluster of every row, (N,), in the order of the design."""
        rows = self.model.rows
        out = np.empty(len(rows.codes), dtype=np.intp)
        out[rows.order] = rows.codes
        return out

    def _shown(self, values: list[Array] | tuple[Array, ...]) -> Array:
        rows, steps = self.model.rows, self.model.steps
        out = np.full((len(steps), len(rows.codes)), np.nan)
        for r, (step, own) in enumerate(zip(steps, self.model.members, strict=True)):
            out[r, rows.order[own]] = self.shift[r] + self.scale[r] * values[step.response_at][own]
        return out


def residual_root(Sigma: Array, y_scale: Array) -> Array:
    """Factor, in working units, of the residual covariance of a row, (R, R), given in the user's units."""
    return psd_cholesky(Sigma / np.outer(y_scale, y_scale), tol=ROUNDING)


def population_law(working: Working, optimum: Optimum) -> ModeLaw:
    """N(0, G) for every cluster, in working units."""
    problem = working.problem
    J, q, p = problem.n_clusters, problem.n_random, problem.n_fixed
    root = np.broadcast_to(optimum.L.T, (J, q, q))
    return ModeLaw(np.zeros((J, q)), root, np.broadcast_to(0.0, (J, q, p)))


def cluster_law(working: Working, optimum: Optimum) -> ModeLaw:
    """The law of every cluster's effects given its data and the estimates, in working units (eq. 22)."""
    problem, beta = working.problem, optimum.evaluation.beta
    units = replace(working.units, X_map=np.eye(problem.n_fixed), Z_map=np.eye(problem.n_random))
    return mode_law(problem, optimum.L, optimum.sigma2, beta, units)
