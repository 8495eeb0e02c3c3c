"""Exact parametric bootstrap from cross-products alone, without rows (docs/math.md, Resampling).

Within a cluster the normal distribution is invariant under rotations of the rows. In a basis whose first r directions
span the exogenous columns, every further column of residuals needs one new direction, in which its entry is a chi
variable: a handful of pseudo-rows has the same cross-products as the n rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.data.layout import Layout
from mlmed.data.roots import cross_roots
from mlmed.data.rows import refuse_cluster_means, refuse_derived
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.problem import Problem, Roots
from mlmed.lmm.roots import simulated_roots
from mlmed.lmm.working import Assembly, assemble, assembly_for
from mlmed.system.system import System

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class WorkingPoint:
    """Parameters to simulate from, in working units.

    Attributes
    ----------
    beta : (p,) array
        Fixed effects.
    L : (q, q) array
        Any factor of the covariance of the random effects, G = L L'.
    sigma2 : (S,) array
        Residual parameters: R variances, then covariances if residuals are correlated.
    """

    beta: Array
    L: Array
    sigma2: Array


def at_optimum(optimum: Optimum) -> WorkingPoint:
    """The estimates themselves."""
    return WorkingPoint(optimum.evaluation.beta, optimum.L, optimum.sigma2)


@dataclass(frozen=True, slots=True)
class Step:
    """Equation of one response: ``W[:, columns] @ (fixed + random @ u)`` plus a residual.

    Attributes
    ----------
    response_at : int
        Gram column of the response.
    columns : (c,) int array
        Gram columns of its predictors.
    fixed : (c,) array
        Their coefficients at u = 0.
    random : (c, q) array
        Derivatives of these coefficients in u.
    """

    response_at: int
    columns: Indices
    fixed: Array
    random: Array

    def coefficients(self, u: Array) -> Array:
        """Coefficients by cluster, (c, J), given u, (q, J)."""
        return self.fixed[:, None] + self.random @ u


def chain(assembly: Assembly, grams: Grams, point: WorkingPoint) -> tuple[Step, ...]:
    """Write the equations as steps, all columns in the units of the Grams.

    Raises
    ------
    DataError
        If a predictor is the cluster mean of a response.
    """
    refuse_cluster_means(grams)
    steps = []
    for maps, equation in zip(assembly.equations, grams.layout.equations, strict=True):
        fixed = maps.X @ point.beta[maps.fixed] - maps.response
        fixed[equation.response_at] += 1.0  # leaves the shift of the response, at the constant
        random = np.zeros((len(fixed), len(assembly.stratum)))
        random[:, maps.random] = maps.Z
        columns = np.flatnonzero((maps.X != 0.0).any(axis=1) | (maps.Z != 0.0).any(axis=1) | (fixed != 0.0))
        steps.append(Step(equation.response_at, columns, fixed[columns], random[columns]))
    return tuple(steps)


@dataclass(frozen=True, slots=True)
class PseudoRows:
    """Rows of one pattern in rotated bases: D = K0 + E directions per cluster.

    Attributes
    ----------
    pattern : int
        Position among the patterns.
    equations : tuple of E ints
        Equations that these rows belong to, in the order of simulation.
    columns : (c,) int array
        Gram columns that these equations use.
    rows : (K, D, J) array
        The K0 exogenous columns in the first K0 directions; 0 elsewhere.
    exists : (D, J) array
        1 where the cluster has enough rows for the direction, else 0.
    half_df : (E, J) array
        Half the number of directions left for each equation.
    mix : (E, E) array
        Lower-triangular factor of the residual covariance of these equations.
    """

    pattern: int
    equations: tuple[int, ...]
    columns: Indices
    rows: Array
    exists: Array
    half_df: Array
    mix: Array

    def fill(self, steps: tuple[Step, ...], u: Array, rng: np.random.Generator) -> Array:
        """Simulate responses on the pseudo-rows, (K, D, J)."""
        T = self.rows.copy()
        E, K0 = len(self.equations), T.shape[1] - len(self.equations)
        noise = np.zeros((E, *T.shape[1:]))  # independent normal columns, rotated like the rows
        for e, r in enumerate(self.equations):
            step = steps[r]
            noise[e, : K0 + e] = rng.standard_normal((K0 + e, T.shape[2])) * self.exists[: K0 + e]
            noise[e, K0 + e] = np.sqrt(2.0 * rng.standard_gamma(self.half_df[e]))
            made = np.einsum("cdj,cj->dj", T[step.columns], step.coefficients(u))
            T[step.response_at] = made + np.tensordot(self.mix[e, : e + 1], noise[: e + 1], axes=1)
        return T


def _pseudo_rows(grams: Grams, pattern: int, Sigma: Array) -> PseudoRows:
    K, J = len(grams.columns), len(grams.clusters)
    own = np.flatnonzero(grams.patterns[pattern])
    columns = np.flatnonzero(grams.layout.used[own].any(axis=0))
    responses = [grams.layout.equations[r].response_at for r in own]
    exogenous = np.setdiff1d(columns, responses)
    K0, E = len(exogenous), len(own)
    factor, rank = _row_factor(_unpacked(grams.products[pattern], exogenous), grams.products[pattern, 0])
    rows = np.zeros((K, K0 + E, J))
    rows[exogenous, :K0] = factor.transpose(2, 1, 0)
    left = np.rint(grams.products[pattern, 0]) - rank - np.arange(E)[:, None]
    exists = np.concatenate([np.arange(K0)[:, None] < rank, left > 0.0]).astype(np.float64)
    mix = np.asarray(np.linalg.cholesky(Sigma[np.ix_(own, own)]), dtype=np.float64)
    return PseudoRows(pattern, tuple(map(int, own)), columns, rows, exists, 0.5 * np.maximum(left, 0.0), mix)


def _unpacked(packed: Array, columns: Indices) -> Array:
    """Unpack products of columns to matrices, (J, k, k)."""
    high, low = np.maximum(columns[:, None], columns), np.minimum(columns[:, None], columns)
    return packed[high * (high + 1) // 2 + low].transpose(2, 0, 1)


def _row_factor(cross: Array, nobs: Array) -> tuple[Array, NDArray[np.int64]]:
    """Factors F with F'F = cross, (J, k, k), zero rows beyond the rank, and the rank, (J,), at most ``nobs``.

    The triangular root is unique; signs of eigenvectors would depend on the last digits of the sums.
    """
    roots = cross_roots(cross.transpose(1, 2, 0))
    real = np.diagonal(roots, axis1=1, axis2=2) > 0.0
    rank = np.minimum(real.sum(axis=1), np.rint(nobs).astype(np.int64))
    first = np.take_along_axis(roots, np.argsort(~real, axis=1, kind="stable")[:, :, None], axis=1)
    return np.where((np.arange(cross.shape[1]) < rank[:, None])[:, :, None], first, 0.0), rank


@dataclass(frozen=True, slots=True)
class ParametricResampler:
    """Draws new responses from the model, as cross-products.

    The exogenous columns are kept. Rows outside the equation of a mediator keep it as observed: there it is
    exogenous. The patterns of a cluster share its random effects.

    Attributes
    ----------
    assembly : Assembly
        Maps to the working units of the fit.
    products : (P, K * (K + 1) / 2, J) array
        Cross-products of the data.
    steps : tuple of Step
        The equations, in the order of simulation.
    root : (q, g) array
        Nonzero columns of a factor of G.
    pseudo : tuple of PseudoRows
        One per pattern.
    layout : Layout
        Layout of the Grams.
    """

    assembly: Assembly
    products: Array
    steps: tuple[Step, ...]
    root: Array
    pseudo: tuple[PseudoRows, ...]
    layout: Layout

    def draw(self, rng: np.random.Generator) -> Problem:
        """Draw the Problem of one replicate, with roots if the model needs them."""
        filled = self.filled(rng)
        roots = None if self.assembly.roots is None else self._roots(filled)
        return assemble(self.assembly, self.squared(filled), roots)

    def filled(self, rng: np.random.Generator) -> list[Array]:
        """Simulated pseudo-rows of every pattern, (K, D, J)."""
        u = self.root @ rng.standard_normal((self.root.shape[1], self.products.shape[2]))
        return [pseudo.fill(self.steps, u, rng) for pseudo in self.pseudo]

    def _roots(self, filled: list[Array]) -> Roots:
        """Roots of the pseudo-rows, equal to those of the rows they replace."""
        R, J = len(self.steps), self.products.shape[2]
        columns, codes = [], []
        for r in range(R):
            own = [T for pseudo, T in zip(self.pseudo, filled, strict=True) if r in pseudo.equations]
            columns.append(list(np.concatenate([T.reshape(len(T), -1) for T in own], axis=1)))
            codes.append(np.concatenate([np.tile(np.arange(J), T.shape[1]) for T in own]))
        return simulated_roots(self.assembly.equations, self.layout, columns, codes, J)

    def squared(self, filled: list[Array]) -> Array:
        """Products (P, K * (K + 1) / 2, J) of simulated pseudo-rows."""
        out = self.products.copy()
        for pseudo, T in zip(self.pseudo, filled, strict=True):
            used = T[pseudo.columns]
            for r in pseudo.equations:
                k = self.steps[r].response_at
                high, low = np.maximum(pseudo.columns, k), np.minimum(pseudo.columns, k)
                out[pseudo.pattern, high * (high + 1) // 2 + low] = np.einsum("dj,cdj->cj", T[k], used)
        return out


def parametric_resampler(spec: System, grams: Grams, point: WorkingPoint) -> ParametricResampler:
    """Build a parametric resampler at given parameters.

    Parameters
    ----------
    spec : System
        The model.
    grams : Grams
        Its cross-products; their units define the working units of ``point``.
    point : WorkingPoint
        ``at_optimum(optimum)``.

    Raises
    ------
    DataError
        If a predictor is computed from a response (``m:w``, ``np.log(m)``): that needs rows.
    """
    refuse_derived(grams.layout)
    assembly = assembly_for(spec, grams)
    root = point.L[:, np.abs(point.L).max(axis=0) > 0.0]
    Sigma = assembly.residual.matrix(point.sigma2)
    pseudo = tuple(_pseudo_rows(grams, p, Sigma) for p, pattern in enumerate(grams.patterns) if any(pattern))
    return ParametricResampler(assembly, grams.products, chain(assembly, grams, point), root, pseudo, grams.layout)
