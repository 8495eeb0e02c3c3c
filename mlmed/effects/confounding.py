"""Effects as functions of the correlation rho of the two errors (docs/math.md, eq. 77 to 87).

``Factored`` if the likelihood at every rho is that of the two separate fits in other coordinates, ``Jointly`` if it has
to be maximized at each rho. Both give the four cells of ``mlmed.effects.sensitivity``, their derivatives, and draws.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from mlmed.data.roots import triangular_roots
from mlmed.effects.draws import normal_draws
from mlmed.effects.sensitivity import Pair, Parameters, cell_gradients, cell_means
from mlmed.errors import EffectError
from mlmed.glm.endogenous import Margin, PairFit, fit_pair

Array = NDArray[np.float64]


class Curve(Protocol):
    """The four cells as functions of rho."""

    def cells(self, rho: float) -> Array:
        """Cells at the estimates, (4,)."""

    def slopes(self, rho: float) -> Array:
        """Derivatives (4, P) of the cells in the parameters."""

    def delta(self, rho: float) -> tuple[Array, Array]:
        """``slopes``, and the covariance of the parameters, (P, P)."""

    def draws(self, rhos: Array, n: int, rng: np.random.Generator) -> Array:
        """Cells (R, n, 4) of n draws, shared by all rho."""

    def coefficients(self, rho: float) -> Array:
        """Coefficients of the outcome, (p_y,)."""


@dataclass(frozen=True, slots=True)
class Factored:
    """A linear mediator whose equation has no columns that the outcome's lacks.

    Attributes
    ----------
    pair : Pair
        The fits.
    C : (p_y, 1 + p_m) array
        From ``embedding``.
    medsens : bool
        Whether to use R's formula instead of the exact one (eq. 87).
    """

    pair: Pair
    C: Array
    medsens: bool = False

    def _lift(self, rhos: Array, sigma_m: Array, sigma_y: Array) -> Array:
        """Shift of the cells t != t' by the correlations (eq. 81), (R, S); sigmas (S,).

        Sigmas are unbiased estimates; the likelihood has its maximum at mean squares with the divisor n (eq. 78, 79).
        R's formula uses sigma_m as it is.
        """
        mediator, outcome = self.pair.mediator, self.pair.outcome
        ratio = 1.0 / sigma_m
        if outcome.family == "linear":
            ratio = sigma_y / sigma_m * np.sqrt(outcome.df / mediator.df)
        elif not self.medsens:
            ratio = ratio * np.sqrt(len(mediator.y) / mediator.df)
        return np.asarray((rhos / np.sqrt(1.0 - rhos**2))[:, None] * ratio)

    def _estimates(self, rho: float) -> Parameters:
        mediator, outcome = self.pair.mediator, self.pair.outcome
        sigma = np.array([mediator.scale])
        lift = self._lift(np.array([rho]), sigma, np.array([outcome.scale]))
        beta = outcome.beta[None]
        return Parameters(mediator.beta[None], self._used(beta, sigma), sigma, 0.0, lift)

    def _used(self, beta: Array, sigma: Array) -> Array:
        return shrunk(beta, self.C[:, 0], self.pair.columns.slope[0, 0], sigma) if self.medsens else beta

    def cells(self, rho: float) -> Array:
        """At the estimates, (4,)."""
        return np.asarray(cell_means(self.pair.columns, self.pair.families, self._estimates(rho))[0, 0])

    def slopes(self, rho: float) -> Array:
        """Derivatives (4, P) in (alpha, beta, log sigma_m, log sigma_y)."""
        return cell_gradients(self.pair.columns, self.pair.families, self._estimates(rho))

    def delta(self, rho: float) -> tuple[Array, Array]:
        """Derivatives (4, P) in (alpha, beta, log sigma_m, log sigma_y), and the covariance of these."""
        if self.medsens:
            raise EffectError("the delta method belongs to the exact formula")
        mediator, outcome = self.pair.mediator, self.pair.outcome
        scales = [0.5 / mediator.df, 0.5 / outcome.df if outcome.family == "linear" else 0.0]
        return self.slopes(rho), block_diag(mediator.vcov, outcome.vcov, np.diag(scales))

    def draws(self, rhos: Array, n: int, rng: np.random.Generator) -> Array:
        """Cells (R, n, 4): coefficients normal, degrees of freedom over chi-square times the variances (eq. 86)."""
        mediator, outcome = self.pair.mediator, self.pair.outcome
        alpha = normal_draws(mediator.beta, mediator.vcov, n, rng)
        beta = normal_draws(outcome.beta, outcome.vcov, n, rng)
        sigma, sigma_y = mediator.scale * np.sqrt(mediator.df / rng.chisquare(mediator.df, n)), np.ones(n)
        if outcome.family == "linear":
            sigma_y = outcome.scale * np.sqrt(outcome.df / rng.chisquare(outcome.df, n))
        drawn = Parameters(alpha, self._used(beta, sigma), sigma, 0.0, self._lift(rhos, sigma, sigma_y))
        return cell_means(self.pair.columns, self.pair.families, drawn)

    def coefficients(self, rho: float) -> Array:
        """Coefficients of the outcome, (p_y,) (eq. 78, 79)."""
        estimates, root = self._estimates(rho), np.sqrt(1.0 - rho**2)
        residual = self.C[:, 0] - self.C[:, 1:] @ self.pair.mediator.beta  # the mediator's, in the outcome's columns
        moved = estimates.beta[0] - float(estimates.lift[0, 0]) * residual
        return np.asarray(moved * root if self.pair.outcome.family == "probit" else moved)


def shrunk(beta: Array, c_m: Array, slope: Array, sigma: Array) -> Array:
    """Coefficients (S, p_y) with that of the mediator divided by sqrt(1 + 2 sigma |b|): R's misplaced bracket (eq. 87).

    ``c_m`` (p_y,) picks the mediator, ``slope`` (p_y,) reads its coefficient, ``sigma`` (S,) is its residual standard
    deviation.
    """
    b = beta @ slope
    return np.asarray(beta + np.outer(b / np.sqrt(1.0 + 2.0 * sigma * np.abs(b)) - b, c_m))


@dataclass(frozen=True, slots=True)
class Jointly:
    """Both equations fitted together at each rho.

    Attributes
    ----------
    pair : Pair
        The fits.
    codes : (n,) int array or None
        Cluster of each row, for a cluster-robust covariance.
    robust : bool
        Whether the covariance is robust to wrong variances; implied by ``codes``.
    corrected : bool
        With ``codes``: CR1, times J/(J - 1) for J clusters; otherwise CR0.
    fits : dict
        Cached fits by rho, without the scores (n numbers per parameter).
    roots : dict
        K (k, P) by rho: the covariance of a fit's parameters, in its own order, is K'K (eq. 84). Continuous in rho.
    """

    pair: Pair
    codes: NDArray[np.intp] | None = None
    robust: bool = False
    corrected: bool = True
    fits: dict[float, PairFit] = field(default_factory=dict)
    roots: dict[float, Array] = field(default_factory=dict)

    @property
    def _mediator_first(self) -> bool:
        return self.pair.mediator.family == "linear"

    def fit(self, rho: float) -> PairFit:
        """Fit at one rho, starting from the nearest cached fit."""
        if rho not in self.fits:
            mediator, outcome = (Margin(e.family, e.y, e.X) for e in (self.pair.mediator, self.pair.outcome))
            nearest = min(self.fits, key=lambda known: abs(known - rho), default=None)
            start = None if nearest is None else self.fits[nearest]
            ordered = (mediator, outcome) if self._mediator_first else (outcome, mediator)
            fit = fit_pair(*ordered, rho, start=start)
            self.roots[rho] = self._root(fit)
            self.fits[rho] = replace(fit, scores=fit.scores[:0].copy())
        return self.fits[rho]

    def _order(self) -> NDArray[np.intp]:
        """Positions of (alpha, beta, log scales) in a fit's parameters, (P,)."""
        p_m, p_y = len(self.pair.mediator.beta), len(self.pair.outcome.beta)
        first, second = (p_m, p_y) if self._mediator_first else (p_y, p_m)
        blocks = [np.arange(first), first + np.arange(second)]
        if not self._mediator_first:
            blocks.reverse()
        n_scales = self.pair.families.count("linear")
        return np.concatenate([*blocks, first + second + np.arange(n_scales)])

    def _root(self, fit: PairFit) -> Array:
        """K of one fit, with its scores."""
        if not self.robust and self.codes is None:
            return np.asarray(np.linalg.cholesky(fit.vcov).T)
        scores = fit.scores
        if self.codes is not None:
            J = int(self.codes.max()) + 1
            sums = np.zeros((J, scores.shape[1]))
            np.add.at(sums, self.codes, scores)
            scores = sums * np.sqrt(J / (J - 1.0) if self.corrected else 1.0)
        R = np.asarray(
            np.linalg.qr(scores @ fit.vcov, mode="r"), dtype=np.float64
        )  # works with fewer clusters than parameters
        whole = np.zeros(len(R), dtype=np.intp)
        return triangular_roots(list(R.T), whole, 1)[0]  # unique even if columns are collinear, where R is not

    def _parameters(self, rho: float, alpha: Array, beta: Array, log_sigma: Array) -> Parameters:
        """Parameter sets (S, .) for the cells; the variance is unbiased as in least squares."""
        mediator = self.pair.mediator
        sigma = np.ones(len(alpha))
        if self._mediator_first:
            sigma = np.exp(log_sigma) * np.sqrt(len(mediator.y) / mediator.df)
        return Parameters(alpha, beta, sigma, rho, np.zeros((1, len(alpha))))

    def _estimates(self, rho: float) -> Parameters:
        fit = self.fit(rho)
        alpha, beta = (fit.first, fit.second) if self._mediator_first else (fit.second, fit.first)
        return self._parameters(rho, alpha[None], beta[None], np.log(fit.scales[:1]))

    def cells(self, rho: float) -> Array:
        """At the estimates, (4,)."""
        return np.asarray(cell_means(self.pair.columns, self.pair.families, self._estimates(rho))[0, 0])

    def slopes(self, rho: float) -> Array:
        """Derivatives (4, P) in (alpha, beta, log scales)."""
        k = len(self.pair.mediator.beta) + len(self.pair.outcome.beta)
        present = [*range(k), *(k + i for i, family in enumerate(self.pair.families) if family == "linear")]
        return cell_gradients(self.pair.columns, self.pair.families, self._estimates(rho))[:, present]

    def delta(self, rho: float) -> tuple[Array, Array]:
        """Derivatives (4, P) in (alpha, beta, log scales), and the covariance of these."""
        G = self.slopes(rho)
        K = self.roots[rho][:, self._order()]
        return G, K.T @ K

    def draws(self, rhos: Array, n: int, rng: np.random.Generator) -> Array:
        """Cells (R, n, 4) of normal draws of the parameters of each fit, from common standard normal numbers."""
        order, found = self._order(), np.empty((len(rhos), n, 4))
        p_m, p_y = len(self.pair.mediator.beta), len(self.pair.outcome.beta)
        z = rng.standard_normal((n, len(order)))
        for r in np.argsort(np.abs(rhos)):  # outwards, so that each starts from a neighbour
            rho = float(rhos[r])
            fit = self.fit(rho)
            mean = np.concatenate([fit.first, fit.second, np.log(fit.scales)])
            K = self.roots[rho]
            drawn = (mean + z[:, : len(K)] @ K)[:, order]
            alpha, beta, log_sigma = drawn[:, :p_m], drawn[:, p_m : p_m + p_y], drawn[:, p_m + p_y]
            parameters = self._parameters(rho, alpha, beta, log_sigma)
            found[r] = cell_means(self.pair.columns, self.pair.families, parameters)[0]
        return found

    def coefficients(self, rho: float) -> Array:
        """Coefficients of the outcome, (p_y,)."""
        return self._estimates(rho).beta[0]
