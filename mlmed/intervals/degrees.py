"""Degrees of freedom for t tests: residual, Satterthwaite, Kenward-Roger (docs/math.md, "Small samples").

Satterthwaite matches the variance v of an estimate, itself estimated, to a multiple of chi-squared: with g the gradient
of v in the natural parameters (tau, sigma2) and V their covariance, df = 2 v^2 / (g'V g). For contrasts of the fixed
effects g is exact; for any other quantity, say the indirect effect, the standard error is computed anew at moved
parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.delta import Quantity, std_error
from mlmed.errors import EffectError
from mlmed.lmm.clusters import residual_units
from mlmed.lmm.covariance import ROUNDING, natural_turn, psd_cholesky
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.estimates import Estimates, to_estimates
from mlmed.lmm.kenward_roger import contrast_df, kenward_roger, moved_crossproducts
from mlmed.lmm.optimum import Optimum
from mlmed.lmm.problem import Problem
from mlmed.lmm.sigma import ResidualStructure
from mlmed.lmm.start import natural_jacobian
from mlmed.lmm.vcov import information_inverse, information_of, parameter_vcov
from mlmed.lmm.working import Working

Array = NDArray[np.float64]

#: Numerical differences: first step, as a share of the distance over which V changes; relative accuracy at which
#: halving stops; most halvings.
LONGEST, EXACT_ENOUGH, LEVELS = 0.2, 1e-9, 14
#: Share of a covariance matrix that a step may remove.
MARGIN = 0.7
#: Relative error of the degrees of freedom above which differences count as failed.
LARGEST_ERROR = 1e-3

FIXED = "fixed by the model: there is nothing to test"
NO_FIXED_EFFECT = "no fixed effect enters it"
NO_VARIANCE = "the standard error does not exist"
ABRUPT = "the standard error changes too abruptly with the variance parameters; use bootstrap or profile intervals"


@dataclass(frozen=True, slots=True)
class DegreesOfFreedom:
    """Denominator degrees of freedom of several estimates.

    Attributes
    ----------
    values : (n,) array
        NaN if they do not exist.
    reasons : tuple of str, (n,)
        Why a value is NaN; otherwise empty.
    """

    values: Array
    reasons: tuple[str, ...]


def _explained(values: Array, *causes: tuple[NDArray[np.bool_], str], otherwise: str) -> DegreesOfFreedom:
    """Give every NaN the reason of the first cause, (n,) flags, that applies."""
    reasons = np.full(len(values), otherwise, dtype=object)
    for applies, reason in reversed(causes):
        reasons[applies] = reason
    reasons[np.isfinite(values)] = ""
    return DegreesOfFreedom(values, tuple(reasons))


def infinite_df(n: int) -> DegreesOfFreedom:
    """Normal tests: no small-sample correction."""
    return DegreesOfFreedom(np.full(n, np.inf), ("",) * n)


def residual_df(contrasts: Array, problem: Problem) -> DegreesOfFreedom:
    """Rows minus fixed effects, of the one equation of a contrast, or of all together.

    Parameters
    ----------
    contrasts : (n, p) array
        Rows l of l'beta; zero for a quantity without fixed effects.
    problem : Problem
        Cross-products of the model.
    """
    p = problem.n_fixed
    own = np.einsum("rii->ri", problem.C)[:, :p] > 0.0  # (R, p)
    touched = (contrasts != 0.0) @ own.T  # (n, R)
    free = problem.nobs - own.sum(axis=1)
    alone = touched.sum(axis=1) == 1
    return DegreesOfFreedom(np.where(alone, touched @ free, free.sum()).astype(np.float64), ("",) * len(contrasts))


def satterthwaite_linear(contrasts: Array, working: Working, optimum: Optimum) -> DegreesOfFreedom:
    """Satterthwaite's df of l'beta with variance l'(X'V^-1 X)^-1 l (``vcov="block"``).

    The covariance of (tau, sigma2) is the inverse observed information in natural parameters, which may exist for a
    singular G.

    Parameters
    ----------
    contrasts : (n, p) array
        Rows l, for fixed effects in the user's units.
    working : Working
        The problem, its structures and its units.
    optimum : Optimum
        Where to take it.
    """
    at, (J, base) = optimum.evaluation, _units(working, optimum)
    estimates = to_estimates(working, optimum, reml=True)  # the value of -2l is not used
    V, reason = information_inverse(estimates.hessian if estimates.local is None else estimates.local)
    moved = moved_crossproducts(working.problem, optimum.L, optimum.sigma2, J, base)
    turned = contrasts @ working.units.X_map
    df = contrast_df(turned, at.P_inv, at.P_inv @ moved @ at.P_inv, V)
    return _explained(df, (np.all(turned == 0.0, axis=1), NO_FIXED_EFFECT), otherwise=reason)


def _units(working: Working, optimum: Optimum) -> tuple[Array, Array | None]:
    """d(vec G, sigma2)/d of the coordinates of ``Estimates.local``, and the units of sigma2, (R, R) or None.

    Degrees of freedom do not depend on coordinates; natural ones of nearly equal residuals lose digits.
    """
    J, at = natural_jacobian(working.problem, working.blocks), optimum.evaluation
    if at.base is not None:
        turn = natural_turn(working.blocks, at.spread / working.problem.n_clusters)
        J[:, : len(turn)] = J[:, : len(turn)] @ turn.T
    return J, at.base


def kenward_roger_linear(
    contrasts: Array, working: Working, optimum: Optimum, *, reml: bool
) -> tuple[Array, DegreesOfFreedom]:
    """Standard errors (n,) from Kenward and Roger's adjusted covariance, and their df; see ``satterthwaite_linear``."""
    J, base = _units(working, optimum)
    found = kenward_roger(working.problem, optimum.L, optimum.sigma2, J, reml=reml, base=base)
    turned = contrasts @ working.units.X_map
    df = contrast_df(turned, found.plain, found.slopes, found.W)
    errors = np.sqrt(np.einsum("ni,ij,nj->n", turned, found.adjusted, turned))
    return errors, _explained(df, (np.all(turned == 0.0, axis=1), NO_FIXED_EFFECT), otherwise=found.reason)


def satterthwaite_effects(
    quantities_at: Callable[[Estimates], Sequence[Quantity]],
    working: Working,
    optimum: Optimum,
    *,
    reml: bool,
    vcov: str = "block",
    order: str = "second",
) -> DegreesOfFreedom:
    """Satterthwaite's df of functions of the estimates, from their delta-method variance.

    The variance is a function of (tau, sigma2) alone: beta, (X'V^-1 X)^-1, the information matrix and the derivative of
    beta are recomputed at each point. Its gradient and the covariance of (tau, sigma2) are taken along directions that
    stay in the cone for any G, singular or not.

    Parameters
    ----------
    quantities_at : callable
        From estimates to the quantities, always in the same order; for instance
        ``lambda estimates: [*effect_quantities(paths, estimates).values()]``.
    working : Working
        The problem, its structures and its units.
    optimum : Optimum
        Where to take it.
    reml : bool
        Restricted or full likelihood.
    vcov : {"block", "joint"}
        Covariance of the estimates, see ``parameter_vcov``.
    order : {"second", "first", "unbiased"}
        Delta method.
    """
    estimates = to_estimates(working, optimum, reml=reml)
    fixed = np.array([quantity.is_fixed for quantity in quantities_at(estimates)], dtype=bool)

    def variances(L: Array, sigma2: Array) -> Array:
        at = evaluate(working.problem, L, sigma2, reml=reml, order=2, base=optimum.evaluation.base)
        # rank and certificate are stale here, but not used
        moved = to_estimates(working, replace(optimum, G=L @ L.T, L=L, sigma2=sigma2, evaluation=at), reml=reml)
        V = parameter_vcov(moved, vcov).matrix
        try:
            quantities = quantities_at(moved)
        except EffectError:  # outside the domain of a user's function
            return np.full(len(fixed), np.nan)
        return np.array([std_error(quantity, V, order=order) ** 2 for quantity in quantities])

    start = variances(optimum.L, optimum.sigma2)
    V, reason = information_of(estimates)
    df = np.full(len(start), np.nan)
    if not reason:
        along, slopes, errors = _slopes_along(variances, start, estimates, working.problem, optimum)
        back = np.linalg.inv(along)
        V = back.T @ V @ back
        spread, noise = (np.einsum("kn,kl,ln->n", part, V, part) for part in (slopes, errors))
        usable = (spread > 0.0) & (4.0 * noise <= LARGEST_ERROR**2 * spread)
        np.divide(2.0 * start**2, spread, out=df, where=usable)
    return _explained(df, (fixed, FIXED), (np.isnan(start), reason or NO_VARIANCE), otherwise=reason or ABRUPT)


def _slopes_along(
    variances: Callable[[Array, Array], Array],
    start: Array,
    estimates: Estimates,
    problem: Problem,
    optimum: Optimum,
) -> tuple[Array, Array, Array]:
    """Directions in working (tau, sigma2), (K, K), slopes of every variance along them and their errors, both (K, n).

    E_k of a covariance gets the two variances added: the sum is diagonally dominant, hence positive semidefinite, so G
    can move along it even from the boundary, within the structure of E_k. The step size is the distance at which
    tr(V^-1 V_k V^-1 V_k) equals the number of clusters. Sigma is moved likewise.
    """
    q, S, n_tau = problem.n_random, problem.residual.size, len(estimates.tau)
    off_diagonal = np.abs(estimates.tau_basis) * (1.0 - np.eye(q))
    directions = estimates.tau_basis + off_diagonal.sum(axis=1)[:, :, None] * np.eye(q)
    along = np.zeros((n_tau + S, n_tau + S))  # row m: direction m in natural parameters
    along[:n_tau, :n_tau] = directions[:, estimates.tau_at[:, 0], estimates.tau_at[:, 1]]
    root = problem.residual.root(optimum.sigma2)
    units = root if problem.cross is None else residual_units(problem.cross, root)
    along[n_tau:, n_tau:] = _residual_directions(problem.residual, units)
    information = optimum.evaluation.information[: q * q, : q * q]
    found = []
    for direction in directions:
        size = float(np.sqrt(problem.n_clusters / (direction.ravel() @ information @ direction.ravel())))
        both = _may_go_back(optimum.L, direction, size)
        found.append(slopes_at(_moving_G(variances, optimum, direction), start, size, both_ways=both))
    for direction in along[n_tau:, n_tau:]:
        both = _may_go_back(root, problem.residual.matrix(direction), 1.0)
        found.append(slopes_at(_moving_sigma2(variances, optimum, direction), start, 1.0, both_ways=both))
    slopes, errors = (np.array(part).reshape(n_tau + S, -1) for part in zip(*found, strict=True))
    slopes[:, np.isinf(errors).any(axis=0)] = np.nan  # without one direction there is no gradient
    errors[:, np.isinf(errors).any(axis=0)] = np.nan
    return along, slopes, errors


def _residual_directions(structure: ResidualStructure, units: Array) -> Array:
    """Row s: a move of the residual parameters (S,) that changes Sigma noticeably and leaves it positive definite.

    Moves are v v' with v a column of ``units`` or, for a covariance, the sum of two. In raw units the moves for nearly
    equal responses would be too small.

    Parameters
    ----------
    structure : ResidualStructure
        The residual parameters.
    units : (R, R) array
        Nonsingular B with B B' near Sigma.
    """
    rows, columns = structure.at.T
    moves = units.T[rows] + units.T[columns] * (rows != columns)[:, None]
    return np.asarray(moves[:, rows] * moves[:, columns])


def _may_go_back(root: Array, direction: Array, size: float) -> bool:
    """Whether ``root @ root.T`` minus the longest step along a direction, (n, n), is safely positive definite."""
    if np.abs(root.diagonal()).min() <= ROUNDING * np.abs(root).max():
        return False
    half = np.linalg.solve(root, direction)
    return bool(LONGEST * size * np.linalg.eigvalsh(np.linalg.solve(root, half.T))[-1] < MARGIN)


def _moving_G(
    variances: Callable[[Array, Array], Array], optimum: Optimum, direction: Array
) -> Callable[[float], Array]:
    return lambda t: variances(psd_cholesky(optimum.G + t * direction, tol=ROUNDING), optimum.sigma2)


def _moving_sigma2(
    variances: Callable[[Array, Array], Array], optimum: Optimum, direction: Array
) -> Callable[[float], Array]:
    return lambda t: variances(optimum.L, optimum.sigma2 + t * direction)


def slopes_at(
    function: Callable[[float], Array], start: Array, size: float, *, both_ways: bool = False
) -> tuple[Array, Array]:
    """Derivatives at 0 of a vector-valued function of t, and their errors, by Richardson extrapolation.

    Differences at halved steps have an error of all powers of the step (even ones if taken both ways); each column of
    the tableau removes one more. As in Ridders' method, the entry that agrees best with its two parents is taken, so
    steps that are too long (or give NaN) or too short drop out.

    Parameters
    ----------
    function : callable
        From t to (n,).
    start : (n,) array
        Its value at 0.
    size : float
        Distance over which the function changes.
    both_ways : bool
        Whether the function exists at t < 0, which makes differences more accurate.

    Returns
    -------
    slopes, errors : (n,) arrays
        NaN and infinity if no two steps agree.
    """
    slopes, errors = np.full(len(start), np.nan), np.full(len(start), np.inf)
    above: list[Array] = []
    order = 4.0 if both_ways else 2.0
    for level in range(LEVELS):
        step = LONGEST * size * 0.5**level
        ahead = function(step)
        row = [(ahead - function(-step)) / (2.0 * step) if both_ways else (ahead - start) / step]
        for k, earlier in enumerate(above):
            better = row[k] + (row[k] - earlier) / (order ** (k + 1) - 1.0)
            error = np.maximum(np.abs(better - row[k]), np.abs(better - earlier))
            taken = error < errors
            slopes, errors = np.where(taken, better, slopes), np.where(taken, error, errors)
            row.append(better)
        above = row
        if not np.any(errors * size > EXACT_ENOUGH * np.abs(start)):
            break
    return slopes, errors
