"""Sensitivity of potential-outcome effects to correlated errors: the parts of every curve (docs/math.md, eq. 77 to 88).

E(t, t') is the mean over rows of the expected outcome under treatment t with the mediator as under t'. Arrays of four
cells are ordered (0, 0), (0, 1), (1, 0), (1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mlmed.effects.potential import Counterfactual
from mlmed.glm.family import normal_density
from mlmed.lmm.vcov import Directions
from mlmed.text import Compact

Array = NDArray[np.float64]

#: Effects from the four cells: at control, at treated, their mean (eq. 80).
CONTRASTS: dict[str, Array] = {
    "indirect": np.array([[-1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 1.0], [-0.5, 0.5, -0.5, 0.5]]),
    "direct": np.array([[-1.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 1.0], [-0.5, -0.5, 0.5, 0.5]]),
}
#: Numbers in an array that fits the cache, and the rounding error below which columns are equal.
CACHED, SAME_COLUMNS = 40_000, 1e-7


@dataclass(frozen=True, slots=True, repr=False)
class Equation(Compact):
    """One fitted equation.

    Attributes
    ----------
    family : {"linear", "probit"}
        Family of the response.
    y, X : (n,), (n, p) arrays
        Response and columns.
    beta, vcov : (p,), (p, p) arrays
        Estimates without correlated errors, and their covariance.
    scale : float
        Residual standard deviation; 1 for ``probit``.
    df : float
        Its degrees of freedom, n - p.
    lost : tuple of Directions
        Directions of the coefficients without a variance in ``vcov``.
    """

    family: str
    y: Array
    X: Array
    beta: Array
    vcov: Array
    scale: float
    df: float
    lost: tuple[Directions, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Pair(Compact):
    """The two fits of a sensitivity analysis.

    Attributes
    ----------
    mediator, outcome : Equation
        The two fits.
    columns : Counterfactual
        Columns of both under both treatment values.
    """

    mediator: Equation
    outcome: Equation
    columns: Counterfactual

    @property
    def families(self) -> tuple[str, str]:
        """Families of mediator and outcome."""
        return self.mediator.family, self.outcome.family

    def lost(self, n: int) -> tuple[Directions, ...]:
        """Directions of n parameters (alpha, beta, scales) without a variance, at any rho.

        The clusters that identify a direction do not depend on the weights of rows, hence not on rho.
        """
        p = len(self.mediator.beta)
        parts = ((self.mediator, 0), (self.outcome, p))
        return tuple(one.below(n, before) for equation, before in parts for one in equation.lost)


@dataclass(frozen=True, slots=True, repr=False)
class Parameters(Compact):
    """S parameter sets for the cells.

    Attributes
    ----------
    alpha, beta : (S, p_m), (S, p_y) arrays
        Coefficients of mediator and outcome.
    sigma : (S,) array
        Residual standard deviation of the mediator; enters with a probit outcome.
    rho : float
        Correlation of the errors that ``alpha`` and ``beta`` belong to; 0 for the estimates without one.
    lift : (R, S) array
        Shift of the cells t != t' by a higher correlation (eq. 81), one row for each of R correlations.
    """

    alpha: Array
    beta: Array
    sigma: Array
    rho: float
    lift: Array


def explained(equation: Equation) -> float:
    """R^2 of a linear response, or of the latent one, var(eta) / (1 + var(eta)), of a probit response (eq. 88)."""
    eta = equation.X @ equation.beta
    if equation.family == "probit":
        spread = float(eta.var(ddof=1))
        return spread / (1.0 + spread)
    return 1.0 - float(((equation.y - eta) ** 2).sum() / ((equation.y - equation.y.mean()) ** 2).sum())


def embedding(pair: Pair) -> Array | None:
    """C, (p_y, 1 + p_m): the mediator and the columns of its equation as combinations of the outcome's columns.

    None unless they are, in the data and under both treatments. Only then is the likelihood at any rho that of the two
    separate fits (eq. 78, 79).
    """
    X, columns = pair.outcome.X, pair.columns
    wanted = np.column_stack([pair.mediator.y, pair.mediator.X])
    size, unit = np.abs(wanted).max(axis=0), np.sqrt((X**2).mean(axis=0))
    C = np.linalg.lstsq(X / unit, wanted)[0] / unit[:, None]
    gaps = [(X @ C - wanted) / size]
    for t in (0, 1):
        without = np.column_stack([np.zeros(len(X)), columns.mediator[t]])  # at m = 0
        gaps.append((columns.outcome[t] @ C - without) / size)
        gaps.append((columns.slope[t] @ C - np.eye(len(size))[0]) * size[0] / size)
    return C if max(np.abs(gap).max() for gap in gaps) < SAME_COLUMNS else None


def _compact(rows: Array) -> Array:
    """One row if all are the same, as with treatment effects that do not vary over rows: (n, p) or (1, p)."""
    return rows[:1] if np.all(rows == rows[:1]) else rows


def cell_means(columns: Counterfactual, families: tuple[str, str], parameters: Parameters) -> Array:
    """The four cells (eq. 80) for R correlations and S sets of parameters, (R, S, 4).

    Parameters
    ----------
    columns : Counterfactual
        Columns under both treatment values.
    families : (str, str)
        Of mediator and outcome.
    parameters : Parameters
        The parameter sets.
    """
    (R, S), n = parameters.lift.shape, columns.mediator.shape[1]
    found = np.empty((R, S, 4))
    slopes = [_compact(columns.slope[t]) for t in (0, 1)]
    change = _compact(columns.mediator[1] - columns.mediator[0])
    width = max(1, CACHED // n)
    for first in range(0, S, width):
        part = slice(first, first + width)
        alpha, beta, lift = parameters.alpha[part], parameters.beta[part], parameters.lift[:, part]
        eta = [alpha @ columns.mediator[t].T for t in (0, 1)]
        mean = [np.asarray(ndtr(e)) for e in eta] if families[0] == "probit" else eta
        step = alpha @ change.T
        for t in (0, 1):
            b, sigma = beta @ slopes[t].T, parameters.sigma[part, None]
            spread = np.sqrt(1.0 + b * sigma * (b * sigma + 2.0 * parameters.rho)) if families[1] == "probit" else 1.0
            A = beta @ columns.outcome[t].T
            own, other = (A + b * mean[t]) / spread, (A + b * mean[1 - t]) / spread
            away = (step if t == 1 else -step) / spread  # (mu_t - mu_t') / D_t
            found[:, part, 3 * t] = own.mean(axis=1) if families[1] == "linear" else ndtr(own).mean(axis=1)
            found[:, part, 1 + t] = _lifted(other, away, lift, linear=families[1] == "linear")
    return found


def _lifted(argument: Array, away: Array, lift: Array, *, linear: bool) -> Array:
    """Means over rows of g(argument + lift away), (R, S)."""
    if linear:
        return np.asarray(argument.mean(axis=1) + lift * away.mean(axis=1))
    found, work = np.empty(lift.shape), np.empty_like(argument)
    for r, height in enumerate(lift):
        np.add(argument, height[:, None] * away, out=work)
        found[r] = ndtr(work, out=work).mean(axis=1)
    return found


def cell_gradients(columns: Counterfactual, families: tuple[str, str], parameters: Parameters) -> Array:
    """Derivatives of the four cells in (alpha, beta, log sigma_m, log sigma_y), (4, p_m + p_y + 2) (eq. 85).

    ``parameters`` holds one set and one correlation; sigma_y is that of a linear outcome, in ``lift`` only.
    """
    alpha, beta, sigma = parameters.alpha[0], parameters.beta[0], float(parameters.sigma[0])
    rho, lift = parameters.rho, float(parameters.lift[0, 0])
    eta = [columns.mediator[t] @ alpha for t in (0, 1)]
    rows = []
    for t, s in ((0, 0), (0, 1), (1, 0), (1, 1)):
        X, Z = columns.outcome[t], columns.slope[t]
        b, W, away = Z @ beta, columns.mediator[s], eta[t] - eta[s]
        mean, density = (ndtr(eta[s]), normal_density(eta[s])) if families[0] == "probit" else (eta[s], np.ones(len(b)))
        squared, bend = np.ones(len(b)), np.zeros(len(b))  # D^2, and half its derivative in b
        if families[1] == "probit":
            squared, bend = 1.0 + b * sigma * (b * sigma + 2.0 * rho), sigma * (b * sigma + rho)
        D = np.sqrt(squared)
        argument = (X @ beta + b * mean + lift * away) / D
        weight = (normal_density(argument) if families[1] == "probit" else np.ones(len(b))) / len(b)
        by_alpha = (weight * b * density / D) @ W + (weight * lift / D) @ (columns.mediator[t] - W)
        by_beta = (weight / D) @ X + (weight * (mean / D - argument * bend / squared)) @ Z
        lifted = float(weight @ (lift * away / D))
        by_sigma = -float(weight @ (argument * bend * b / squared)) - lifted
        rows.append(np.concatenate([by_alpha, by_beta, [by_sigma, lifted]]))
    return np.array(rows)
