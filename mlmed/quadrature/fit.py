"""Rows -> certified optimum -> estimates, and the same from other starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.quadrature.estimates import Estimates, to_estimates
from mlmed.quadrature.likelihood import Mixture
from mlmed.quadrature.optimizer import Optimum, not_below, optimize
from mlmed.quadrature.posterior import (
    ClusterEffects,
    EffectsLaw,
    cluster_effects,
    effects_law,
    prior_mixture,
    user_mixture,
)
from mlmed.quadrature.problem import Problem
from mlmed.quadrature.rows import Rows
from mlmed.quadrature.start import plain_theta, random_start, start_theta
from mlmed.quadrature.units import Units, build_problem
from mlmed.text import Compact

__all__ = ["Fit", "fit_rows"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, repr=False)
class Fit(Compact):
    """A fitted location-scale model before it is dressed as a result.

    Attributes
    ----------
    rows : Rows
        What was asked and the complete rows.
    problem, units : Problem, Units
        The likelihood's arrays and the way back to the user's units.
    start : (n,) array
        Start values in working units.
    optimum, estimates : Optimum, Estimates
        The optimum in working and in user's units.
    """

    rows: Rows
    problem: Problem
    units: Units
    start: Array
    optimum: Optimum
    estimates: Estimates

    def effects(self) -> ClusterEffects:
        """Posterior means and covariances of the clusters' random effects."""
        return cluster_effects(self.problem, self.units, self.optimum)

    def law(self) -> EffectsLaw:
        """Posterior of the clusters' random effects, and how it moves with the estimates."""
        return effects_law(self.problem, self.units, self.optimum)

    def mixtures(self) -> tuple[Mixture, Mixture]:
        """The posterior of the clusters node by node, and that of a cluster without rows."""
        own = self.problem, self.units, self.optimum
        return user_mixture(*own), prior_mixture(*own)

    def from_other_start(self, rng: np.random.Generator) -> tuple[Optimum, float]:
        """The optimum found from a random start with as many nodes, and the distance of its estimates in std errors."""
        start = random_start(self.problem, self.start, rng)
        found = optimize(self.problem, start, m=self.optimum.nodes_per_dimension)
        other = to_estimates(self.problem, self.units, found)
        with np.errstate(invalid="ignore"):
            apart = np.abs(other.psi - self.estimates.psi) / np.sqrt(np.diag(self.estimates.vcov))
        return found, float(np.nanmax(apart))


def fit_rows(rows: Rows, beta: Array, G: Array, sigma2: float, *, nodes: int | None = None) -> Fit:
    """Fit from a homoscedastic fit of the same rows.

    Parameters
    ----------
    rows : Rows
        Complete rows.
    beta, G, sigma2 : (p,), (q, q) arrays, float
        Its fixed effects, covariance of random effects and residual variance.
    nodes : int, optional
        Per scale random effect; chosen if it is not given.
    """
    problem, units = build_problem(rows)
    start = start_theta(problem, units, beta, G, sigma2)
    optimum = not_below(problem, optimize(problem, start, m=nodes), plain_theta(problem, units, beta, G, sigma2))
    return Fit(rows, problem, units, start, optimum, to_estimates(problem, units, optimum))
