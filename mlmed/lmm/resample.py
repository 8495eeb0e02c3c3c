"""Case bootstrap of clusters, and of rows within them, as Problems in the units of a fit; fits of replicates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from mlmed.data.grams import Grams
from mlmed.data.layout import Design, Layout
from mlmed.data.rows import unit_rows
from mlmed.errors import DataError, FormulaError, NotIdentifiedError
from mlmed.lmm.best import best_from
from mlmed.lmm.checks import COLLINEAR, refuse_collinear
from mlmed.lmm.covariance import Block
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.percluster import ClusterProducts, products_by_cluster
from mlmed.lmm.problem import Problem, Roots
from mlmed.lmm.roots import simulated_roots
from mlmed.lmm.start import warm_theta
from mlmed.lmm.working import Assembly, Units, Working, assemble, assembly_for
from mlmed.replication import Failure, Replicate
from mlmed.system.system import System

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: Fewest clusters for a mixed model.
FEWEST = 2
FEW = Failure("few-clusters", f"fewer than {FEWEST} clusters are left")
DEFICIENT = Failure("deficient", "the fixed effects cannot be told apart in the replicate")


@dataclass(frozen=True, slots=True)
class CaseResampler:
    """Draws whole clusters with replacement; a cluster drawn k times counts as k clusters.

    Attributes
    ----------
    A : (q, q, J) array
        Z'Z of every cluster.
    B : (q, p + 1, J) array
        Z'[X y] of every cluster.
    products : ClusterProducts
        Cross-products of the fixed part, and across equations, by cluster.
    stratum : (q,) int array
        The equation that each random effect belongs to.
    roots : Roots or None
        Roots of the rows of every cluster, if products have lost digits.
    """

    A: Array
    B: Array
    products: ClusterProducts
    stratum: NDArray[np.int64]
    roots: Roots | None = None

    def draw(self, rng: np.random.Generator) -> Problem:
        """One replicate."""
        return self.at(self.draw_index(rng))

    def draw_index(self, rng: np.random.Generator) -> Indices:
        """Draw the clusters of one replicate, (J,)."""
        J = self.A.shape[2]
        return rng.integers(J, size=(J,))

    def at(self, index: Indices) -> Problem:
        """Build the problem of the listed clusters, in this order; any number, with or without repetitions."""
        counts = np.bincount(index, minlength=self.A.shape[2])
        own, cross = self.products, self.products.cross
        C = own.C.reshape(-1, len(counts)) @ counts.astype(np.float64)
        return Problem(
            self.A.take(index, axis=2),
            self.B.take(index, axis=2),
            C.reshape(own.C.shape[:3]),
            own.nobs @ counts,
            self.stratum,
            None if cross is None else cross.take(index).summed(),
            None if self.roots is None else self.roots.take(index),
        )

    def reordered(self, index: Indices) -> CaseResampler:
        """Select the listed clusters, in this order."""
        A, B = self.A.take(index, axis=2), self.B.take(index, axis=2)
        roots = None if self.roots is None else self.roots.take(index)
        return CaseResampler(A, B, self.products.take(index), self.stratum, roots)

    def without(self, cluster: int) -> Problem:
        """Leave out one cluster (jackknife)."""
        return self.at(np.delete(np.arange(self.A.shape[2]), cluster))


def case_resampler(spec: System, grams: Grams) -> CaseResampler:
    """Build a resampler of the clusters of Grams."""
    assembly = assembly_for(spec, grams)
    problem, products = (
        assemble(assembly, grams.sums, assembly.roots),
        products_by_cluster(assembly, grams.products),
    )
    return CaseResampler(problem.A, problem.B, products, problem.stratum, problem.roots)


@dataclass(frozen=True, slots=True)
class WithinCaseResampler:
    """Draws clusters with replacement, then as many rows as each drawn cluster has, with replacement.

    A row keeps its equations, so missing values are resampled with the rest. A cluster drawn twice gets new rows each
    time.

    Attributes
    ----------
    assembly : Assembly
        Maps to the working units of the fit.
    table : (N, P * K * (K + 1) / 2) array
        Products of every row, rows ordered by cluster; 0 at other patterns than its own.
    first, size : (J,) int arrays
        First row and number of rows of every cluster.
    order : (N,) int array
        Position of each row of ``table`` in the Design.
    values : (K, N) array
        Gram columns of every row, 0 if no equation of the row uses them; empty if the model needs no roots.
    member : (R, N) bool array
        Equations of every row.
    layout : Layout
        Layout of the Grams.
    """

    assembly: Assembly
    table: Array
    first: Indices
    size: Indices
    order: Indices
    values: Array
    member: NDArray[np.bool_]
    layout: Layout

    def draw(self, rng: np.random.Generator) -> Problem:
        """One replicate."""
        return self.at(*self.draw_rows(rng))

    def draw_rows(self, rng: np.random.Generator) -> tuple[Indices, Indices]:
        """Drawn clusters, (J,), and the concatenated rows of ``table`` of each of them, (M,)."""
        J = len(self.size)
        index = rng.integers(J, size=(J,))
        size = self.size[index]
        within = (rng.random(int(size.sum())) * np.repeat(size, size)).astype(np.intp)  # u < 1 keeps it below size
        return index, np.repeat(self.first[index], size) + within

    def at(self, index: Indices, rows: Indices) -> Problem:
        """Build the problem of the listed clusters from the listed rows, ``size[index]`` rows each."""
        ends = np.append(0, np.cumsum(self.size[index]))
        pick = csr_array((np.ones(len(rows)), rows, ends), shape=(len(index), len(self.table)))
        sums = pick @ self.table
        P = self.assembly.member.shape[1]
        roots = None if self.assembly.roots is None else self._roots(self.size[index], rows)
        return assemble(self.assembly, np.ascontiguousarray(sums.T).reshape(P, -1, len(index)), roots)

    def _roots(self, size: Indices, rows: Indices) -> Roots:
        """Roots of clusters that consist of the listed rows, ``size`` each."""
        codes, member = np.repeat(np.arange(len(size)), size), self.member[:, rows]
        columns = [list(self.values[:, rows[own]]) for own in member]
        return simulated_roots(self.assembly.equations, self.layout, columns, [codes[own] for own in member], len(size))


def within_case_resampler(spec: System, grams: Grams, design: Design) -> WithinCaseResampler:
    """Build a resampler of clusters and rows.

    Raises
    ------
    DataError
        If the Grams were made from another design.
    """
    rows = unit_rows(design, grams)
    by_cluster = np.argsort(rows.codes, kind="stable")
    K = len(rows.values)
    pairs = [(i, j) for i in range(K) for j in range(i + 1)]
    P, J = rows.shape
    table = np.zeros((len(by_cluster), P, len(pairs)))
    at = np.arange(len(by_cluster)), rows.pattern[by_cluster]
    for k, (i, j) in enumerate(pairs):
        table[*at, k] = (rows.values[i] * rows.values[j])[by_cluster]
    size = np.bincount(rows.codes, minlength=J)
    assembly = assembly_for(spec, grams)
    values = np.empty((K, 0)) if assembly.roots is None else np.stack(rows.values)[:, by_cluster]
    return WithinCaseResampler(
        assembly,
        table.reshape(len(by_cluster), -1),
        np.cumsum(size) - size,
        size,
        rows.order[by_cluster],
        values,
        np.array(grams.patterns)[rows.pattern[by_cluster]].T,
        grams.layout,
    )


def not_certified(optimum: Optimum) -> Failure:
    """The failure of a search without a certified optimum."""
    return Failure("not-certified", "not certified", optimum.certificate.complaint)


class Resampler(Protocol):
    """Draws problems in the working units of a fit."""

    def draw(self, rng: np.random.Generator) -> Problem:
        """One replicate."""
        ...


@dataclass(frozen=True, slots=True)
class Refit:
    """The model of a fit, to fit to other problems.

    Attributes
    ----------
    units : Units
        Units of the original fit.
    blocks : tuple of Block
        Covariance structures.
    starts : tuple of ((q, q), (S,) arrays)
        Start values (L, sigma2), in working units: the optimum of the original fit and the second best.
    reml : bool
        Criterion.
    squares : (R, p) array
        Sum of squares of every column of the fixed part in the original fit; 0 if an equation does not use it.
    """

    units: Units
    blocks: tuple[Block, ...]
    starts: tuple[tuple[Array, Array], ...]
    reml: bool
    squares: Array

    @classmethod
    def of(cls, working: Working, optimum: Optimum, *, reml: bool) -> Refit:
        """The model of one fit."""
        other = optimum.searched.other
        starts = ((optimum.L, optimum.sigma2), *([] if other is None else [other]))
        squares = np.einsum("rii->ri", working.problem.C)[:, :-1]
        return cls(working.units, working.blocks, starts, reml, squares)

    def fit(self, problem: Problem) -> Replicate | Failure:
        """Fit; estimates (beta, tau, sigma2) in the user's units."""
        if problem.n_clusters < FEWEST:
            return FEW
        if not has_full_rank(problem, self.squares):
            return DEFICIENT
        try:
            thetas = [warm_theta(problem, self.blocks, *start, reml=self.reml) for start in self.starts]
            optimum = best_from(problem, self.blocks, thetas, reml=self.reml)
        except NotIdentifiedError as error:
            return Failure.of(error)
        except np.linalg.LinAlgError:
            return DEFICIENT
        if not optimum.certificate.converged:
            return not_certified(optimum)
        made = to_estimates(Working(problem, self.blocks, self.units), optimum, reml=self.reml)
        return Replicate(np.concatenate([made.beta, made.tau, made.sigma2]), optimum.is_singular)


def redrawn(refit: Refit, resampler: Resampler, rng: np.random.Generator) -> Replicate | Failure:
    """Draw a problem and fit it."""
    try:
        problem = resampler.draw(rng)
    except (DataError, FormulaError) as error:  # a simulated response outside the domain of a formula
        return Failure.of(error)
    return refit.fit(problem)


@dataclass(frozen=True, slots=True)
class CaseRefit:
    """One of several equations, to fit to listed clusters.

    Attributes
    ----------
    where : str
        Prefix of failures.
    cases : CaseResampler
        Cross-products by cluster.
    refit : Refit
        The model.
    """

    where: str
    cases: CaseResampler
    refit: Refit

    def __call__(self, index: NDArray[np.intp]) -> Replicate | Failure:
        """Fit the listed clusters."""
        return self.fitted(self.cases.at(index))

    def fitted(self, problem: Problem) -> Replicate | Failure:
        """Fit the problem of some clusters."""
        found = self.refit.fit(problem)
        return found.within(self.where) if isinstance(found, Failure) else found


def has_full_rank(problem: Problem, squares: Array) -> bool:
    """Whether the fixed effects of every equation are identified, by the test of the original fit.

    ``squares`` as in ``Refit``: a column that vanishes in the replicate counts as collinear.
    """
    for own, whole in zip(problem.C, squares, strict=True):
        used = np.flatnonzero(whole > 0.0)
        if np.any(own[used, used] <= COLLINEAR * whole[used]):
            return False
        try:
            refuse_collinear(own[np.ix_(used, used)], "of a replicate", tuple(map(str, used)))
        except NotIdentifiedError:
            return False
    return True
