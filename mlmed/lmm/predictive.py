"""New responses for the rows of a fit: random effects from a law of every cluster, residuals jointly by row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.covariance import ROUNDING, psd_cholesky
from mlmed.lmm.fit import Optimum
from mlmed.lmm.noise import row_noise
from mlmed.lmm.posterior import ModeLaw, mode_law
from mlmed.lmm.residual import RowModel
from mlmed.lmm.working import Working

__all__ = ["ResponseSampler", "cluster_law", "population_law", "residual_root"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ResponseSampler:
    """Draws the responses of all equations, one after the other.

    Attributes
    ----------
    model : RowModel
        The rows and the fixed effects.
    effects : ModeLaw
        Where the random effects of every cluster come from, in working units.
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
        """One set, (R, N) in the user's units and the order of the design; NaN on rows outside an equation.

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
        """The data themselves, as ``draw`` gives simulated ones."""
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
    """Factor in working units of the residual covariance of a row, (R, R), given in the user's units."""
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
