"""Fits of replicated problems: the model of one fit, other cross-products in the same working units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import DataError, FormulaError, NotIdentifiedError
from mlmed.reml.best import best_from
from mlmed.reml.checks import COLLINEAR, refuse_collinear
from mlmed.reml.covariance import Block
from mlmed.reml.estimates import to_estimates
from mlmed.reml.fit import Optimum
from mlmed.reml.problem import Problem
from mlmed.reml.start import warm_theta
from mlmed.reml.working import Units, Working

__all__ = ["DEFICIENT", "Refit", "Refitted", "Resampler"]

Array = NDArray[np.float64]

DEFICIENT = "the fixed effects cannot be told apart in the replicate"


class Resampler(Protocol):
    """Anything that makes problems in the working units of a fit."""

    def draw(self, rng: np.random.Generator) -> Problem:
        """One replicate."""
        ...


@dataclass(frozen=True, slots=True)
class Refitted:
    """One replicate.

    Attributes
    ----------
    psi : (n,) array
        Estimates in the user's units; NaN if the fit failed.
    singular : bool
        Whether the optimum lies on the boundary.
    reason : str
        Why the fit failed; empty if it is certified.
    """

    psi: Array
    singular: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Refit:
    """Draw a problem and fit it; a task for ``replicate``.

    Attributes
    ----------
    resampler : Resampler
        Where problems come from.
    units : Units
        Those of the original fit.
    blocks : tuple of Block
        Covariance structures.
    L, sigma2 : (q, q), (S,) arrays
        The optimum of the original fit in working units, where searches start.
    other : (L, sigma2) or None
        Its second best optimum, where searches start too.
    reml : bool
        Criterion.
    n_psi : int
        Length of psi.
    squares : (R, p) array
        Sum of squares of every column of the fixed part in the original fit; 0 where an equation does not use it.
    """

    resampler: Resampler
    units: Units
    blocks: tuple[Block, ...]
    L: Array
    sigma2: Array
    reml: bool
    n_psi: int
    squares: Array
    other: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, resampler: Resampler, working: Working, optimum: Optimum, *, reml: bool, n_psi: int) -> Refit:
        """The task that refits one model."""
        squares = np.einsum("rii->ri", working.problem.C)[:, :-1]
        other = optimum.searched.other
        return cls(resampler, working.units, working.blocks, optimum.L, optimum.sigma2, reml, n_psi, squares, other)

    def __call__(self, rng: np.random.Generator) -> Refitted:
        """One replicate."""
        try:
            problem = self.resampler.draw(rng)
        except (DataError, FormulaError) as error:  # a simulated response outside the domain of a formula
            return self._failed(str(error))
        return self.fit(problem)

    def fit(self, problem: Problem) -> Refitted:
        """Fit one problem; failures come back as NaN with their reason."""
        if not has_full_rank(problem, self.squares):
            return self._failed(DEFICIENT)
        try:
            starts = [(self.L, self.sigma2), *([] if self.other is None else [self.other])]
            thetas = [warm_theta(problem, self.blocks, *start, reml=self.reml) for start in starts]
            optimum = best_from(problem, self.blocks, thetas, reml=self.reml)
        except NotIdentifiedError as error:
            return self._failed(str(error))
        except np.linalg.LinAlgError:
            return self._failed(DEFICIENT)
        if not optimum.certificate.converged:
            return self._failed(f"not certified: {optimum.certificate.complaint}")
        made = to_estimates(Working(problem, self.blocks, self.units), optimum, reml=self.reml)
        psi = np.concatenate([made.beta, made.tau, made.sigma2])
        return Refitted(psi, optimum.is_singular)

    def _failed(self, reason: str) -> Refitted:
        return Refitted(np.full(self.n_psi, np.nan), False, reason)


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
