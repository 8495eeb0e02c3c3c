"""Fits of replicated problems: the model of one fit, other cross-products in the same working units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import DataError, FormulaError, NotIdentifiedError
from mlmed.lmm.best import best_from
from mlmed.lmm.checks import COLLINEAR, refuse_collinear
from mlmed.lmm.covariance import Block
from mlmed.lmm.estimates import to_estimates
from mlmed.lmm.fit import Optimum
from mlmed.lmm.problem import Problem
from mlmed.lmm.resample import CaseResampler
from mlmed.lmm.start import warm_theta
from mlmed.lmm.working import Units, Working
from mlmed.replication import Failure, Replicate

__all__ = ["DEFICIENT", "CaseRefit", "Refit", "Resampler", "not_certified", "redrawn"]

Array = NDArray[np.float64]

#: Clusters that a mixed model needs.
FEWEST = 2
FEW = Failure("few-clusters", f"fewer than {FEWEST} clusters are left")
DEFICIENT = Failure("deficient", "the fixed effects cannot be told apart in the replicate")


def not_certified(optimum: Optimum) -> Failure:
    """The failure of a search whose end is no optimum."""
    return Failure("not-certified", "not certified", optimum.certificate.complaint)


class Resampler(Protocol):
    """Anything that makes problems in the working units of a fit."""

    def draw(self, rng: np.random.Generator) -> Problem:
        """One replicate."""
        ...


@dataclass(frozen=True, slots=True)
class Refit:
    """The model of a fit, to be fitted to other problems.

    Attributes
    ----------
    units : Units
        Those of the original fit.
    blocks : tuple of Block
        Covariance structures.
    starts : tuple of ((q, q), (S,) arrays)
        Where searches start: L and sigma2, in working units, at the optimum of the original fit and at its second best.
    reml : bool
        Criterion.
    squares : (R, p) array
        Sum of squares of every column of the fixed part in the original fit; 0 where an equation does not use it.
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
        """Estimates in the user's units, (beta, tau, sigma2)."""
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
    """An equation of several, to be fitted to listed clusters.

    Attributes
    ----------
    where : str
        What failures begin with.
    cases : CaseResampler
        Its cross-products by cluster.
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
    """Whether the fixed effects of every equation can be told apart, by the test that the fit itself passed.

    ``squares`` are those of ``Refit``: a column that vanishes in the replicate counts as made up by others.
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
