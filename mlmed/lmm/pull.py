"""The criterion with beta free and a penalty on one function of the parameters (docs/math.md, eq. 39).

For any rho and c the minimum of ``F + rho (g - c)^2 / 2`` also minimizes F given its value of g: one unconstrained
search gives one exact point of the profile of g.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.lmm.covariance import Block
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.objective import Objective, objective_for
from mlmed.lmm.optimum import Optimum, coordinates, minimize
from mlmed.lmm.problem import Evaluation, plus
from mlmed.lmm.sigma import ResidualStructure
from mlmed.lmm.working import Units, Working

Array = NDArray[np.float64]

#: Value, gradient (n,) and Hessian (n, n) or None of a function of psi = (beta, tau, sigma2), user's units.
Target = Callable[[Array], tuple[float, Array, Array | None]]


@dataclass(frozen=True, slots=True)
class PsiMap:
    """psi = constant + matrix @ (vec G_w, sigma2_w, beta_w), from working units (eq. 18 to 20).

    Attributes
    ----------
    constant : (n,) array
        Shift of the responses, at the intercepts.
    matrix : (n, q*q + S + p) array
        Constant derivatives.
    """

    constant: Array
    matrix: Array

    def __call__(self, G: Array, sigma2: Array, beta: Array) -> Array:
        """Psi at working values, (n,)."""
        return self.constant + self.matrix @ np.concatenate([G.ravel(), sigma2, beta])


def psi_map(units: Units, tau_at: NDArray[np.intp], sigma_at: NDArray[np.intp]) -> PsiMap:
    """The linear map from working (vec G, sigma2, beta) to psi; ``tau_at`` (n_tau, 2), ``sigma_at`` (S, 2)."""
    scale = units.sigma_scale(sigma_at)
    p, q, S, T = len(units.offset), len(units.Z_map), len(scale), len(tau_at)
    matrix = np.zeros((p + T + S, q * q + S + p))
    matrix[:p, q * q + S :] = units.X_map
    for k, (i, j) in enumerate(tau_at):
        entry = np.outer(units.Z_map[i], units.Z_map[j])
        matrix[p + k, : q * q] = (0.5 * (entry + entry.T)).ravel()
    matrix[p + T :, q * q : q * q + S] = np.diag(scale)
    return PsiMap(np.concatenate([units.offset, np.zeros(T + S)]), matrix)


@dataclass(frozen=True, slots=True)
class Pull:
    """The term rho (g(psi) - c)^2 / 2.

    Attributes
    ----------
    target : callable
        g, with derivatives in psi.
    psi : PsiMap
        Map from working coordinates to psi.
    towards : float
        c.
    strength : float
        rho.
    """

    target: Target
    psi: PsiMap
    towards: float
    strength: float

    def added_to(self, at: Evaluation, structure: ResidualStructure, G: Array, sigma2: Array) -> Evaluation:
        """Add this term and its derivatives to an evaluation in (vec G, sigma2, beta)."""
        value, gradient, hessian = self.target(self.psi(G, sigma2, at.beta))
        slope = self.psi.matrix.T @ gradient
        gap = value - self.towards
        bend = np.outer(slope, slope)
        if hessian is not None:
            bend += gap * (self.psi.matrix.T @ hessian @ self.psi.matrix)
        own = replace(
            at,
            value=0.5 * self.strength * gap**2,
            gradient=self.strength * gap * slope,
            hessian=self.strength * bend,
            information=np.zeros_like(bend),
        )
        return plus(at, own, structure)


@dataclass(frozen=True, slots=True)
class PulledObjective(Objective):
    """The pulled criterion as a function of theta = (l, log sd, b), ``beta = centre + spread @ b`` in working units.

    Attributes
    ----------
    pull : Pull
        Term added to the criterion.
    centre, spread : (p,), (p, p) arrays
        Units of b.
    """

    pull: Pull
    centre: Array
    spread: Array

    def evaluation(self, theta: Array, L: Array, *, order: int = 2) -> Evaluation:
        """Pulled criterion and natural derivatives at theta; always of second order."""
        root, sigma2 = self.residual_root(theta), self.sigma2(theta)
        at = evaluate(
            self.problem,
            L,
            sigma2,
            reml=self.reml,
            order=2,
            beta=self.centre + self.spread @ self.free_part(theta),
            root=root,
            base=self.chart.base,
        )
        return self._in_units(self.pull.added_to(at, self.problem.residual, L @ L.T, sigma2))

    def _in_units(self, at: Evaluation) -> Evaluation:
        """Take derivatives in b instead of beta."""
        if self.problem.roots is None:
            return at
        p, n = len(self.centre), len(at.gradient)
        turn = np.eye(n)
        turn[n - p :, n - p :] = self.spread
        inward = turn.T
        return replace(
            at,
            gradient=inward @ at.gradient,
            hessian=inward @ at.hessian @ turn,
            information=inward @ at.information @ turn,
        )


@dataclass(frozen=True, slots=True)
class PulledPoint:
    """One point of a profile.

    Attributes
    ----------
    value : float
        g there.
    criterion : float
        -2l there (REML: with log|P|), in the user's units.
    slope : float
        Derivative of the criterion's profile in g.
    psi : (n,) array
        All parameters, user's units.
    optimum : Optimum
        The point in working units, with its certificate.
    """

    value: float
    criterion: float
    slope: float
    psi: Array
    optimum: Optimum


def _beta_units(working: Working, start: Optimum) -> tuple[Array, Array, Array]:
    """Centre and spread of beta's coordinates, and their start values.

    With roots the units are standard errors along uncorrelated directions: huge slopes determine the intercept nearly
    exactly, and in beta itself the criterion would look flat.
    """
    beta, p = start.evaluation.beta, working.problem.n_fixed
    if working.problem.roots is None:
        return np.zeros(p), np.eye(p), beta
    size = np.sqrt(start.evaluation.P_inv.diagonal())
    values, vectors = np.linalg.eigh(start.evaluation.P_inv / np.outer(size, size))
    rounding = p * np.finfo(float).eps * values[-1]
    return beta, size[:, None] * vectors * np.sqrt(np.maximum(values, rounding)), np.zeros(p)


def pulled_optimum(
    working: Working, blocks: tuple[Block, ...], pull: Pull, start: Optimum, *, reml: bool
) -> PulledPoint:
    """Minimize the pulled criterion from ``start``, with the search used for fits."""
    base = objective_for(working.problem, blocks, reml=reml)
    centre, spread, b = _beta_units(working, start)
    objective = PulledObjective(base.problem, base.basis, reml, base.chart, pull, centre, spread)
    theta = np.append(coordinates(working.problem, blocks, start.G, start.sigma2), b)
    found = minimize(objective, blocks, theta)
    psi = pull.psi(found.G, found.sigma2, found.evaluation.beta)
    value = pull.target(psi)[0]
    gap = value - pull.towards
    bare = found.evaluation.value - 0.5 * pull.strength * gap**2
    criterion = bare + working.units.criterion_shift(working.problem.nobs, reml=reml)
    return PulledPoint(value, criterion, -pull.strength * gap, psi, found)
