"""Start values: one scoring step in natural parameters from a neutral guess, moved inside the cone."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import NotIdentifiedError
from mlmed.lmm.clusters import residual_units
from mlmed.lmm.covariance import Block, factor_coordinates, inside_cone, natural_basis
from mlmed.lmm.criterion import evaluate
from mlmed.lmm.problem import Evaluation, Problem, along
from mlmed.lmm.roots import spread_guess
from mlmed.lmm.sigma import ResidualChart, ResidualStructure

Array = NDArray[np.float64]

#: Eigenvalue of the scaled information matrix below which a direction is not identified.
UNIDENTIFIED = 1e-9
#: Residual variance (of a response scaled to variance 1) below which a regression fits exactly.
EXACT_FIT = 1e-13
#: Smallest eigenvalue of G at the start, where 1 is the neutral guess; closer to zero after an optimum.
FLOOR, WARM_FLOOR = 0.05, 0.01


def natural_jacobian(problem: Problem, blocks: tuple[Block, ...]) -> Array:
    """d(vec G, sigma2)/d(tau, sigma2), (q*q + S, n_tau + S): the constant matrices E_k of eq. 14."""
    return _natural_jacobian(blocks, problem.n_random, problem.residual.size).copy()


@lru_cache
def _natural_jacobian(blocks: tuple[Block, ...], q: int, S: int) -> Array:
    basis = np.concatenate([natural_basis(block, q) for block in blocks])
    J = np.zeros((q * q + S, len(basis) + S))
    J[: q * q, : len(basis)] = basis.reshape(len(basis), q * q).T
    J[q * q :, len(basis) :] = np.eye(S)
    return J


def regression_variances(problem: Problem) -> Array:
    """Residual variance of each equation without random effects, (R,)."""
    p = problem.n_fixed
    out = np.empty(problem.n_strata)
    for r, cross in enumerate(problem.C):
        used = [i for i in range(p) if cross[i, i] > 0.0]
        beta = np.linalg.solve(cross[np.ix_(used, used)], cross[used, p])
        out[r] = (cross[p, p] - cross[used, p] @ beta) / max(int(problem.nobs[r]) - len(used), 1)
    return out


def positive_variances(problem: Problem) -> Array:
    """``regression_variances``; refuse zeros."""
    variance = regression_variances(problem)
    if np.any(variance <= EXACT_FIT):
        raise NotIdentifiedError(
            "an equation fits its response exactly, so it has no residual variance to estimate; remove the predictor "
            "that repeats the response",
            code="exact-fit",
        )
    return variance


def start_theta(
    problem: Problem,
    blocks: tuple[Block, ...],
    *,
    reml: bool,
    names: tuple[str, ...] | None = None,
) -> Array:
    """Start values theta, (n,), in the coordinates of ``Objective``.

    The neutral guess gives half of each equation's regression variance to the residual and the rest in
    equal parts to its random effects; one Fisher-scoring step follows (a MIVQUE estimate, exact for
    balanced designs), with G moved inside the cone.

    Parameters
    ----------
    names : tuple of str, optional
        Name of every random effect, for the error message.

    Raises
    ------
    NotIdentifiedError
        If some combination of variances leaves the distribution of the data unchanged.
    """
    level, variance = neutral_guess(problem, blocks)
    independent = np.append(0.5 * variance, np.zeros(problem.residual.size - len(variance)))
    return scored_theta(problem, blocks, np.diag(np.sqrt(level)), independent, level, FLOOR, reml=reml, names=names)


def warm_theta(problem: Problem, blocks: tuple[Block, ...], L: Array, sigma2: Array, *, reml: bool) -> Array:
    """Start values (n,) from the optimum of a similar problem in the same units, such as resampled clusters.

    One Fisher-scoring step from there instead of from the neutral guess saves one of nine evaluations. Starting at
    that optimum itself saves none.

    Parameters
    ----------
    L, sigma2 : (q, q), (S,) arrays
        Factor of G, which may be singular, and residual parameters.

    Raises
    ------
    NotIdentifiedError
        An equation fits its response exactly, or variances cannot be told apart.
    """
    level, _ = neutral_guess(problem, blocks)
    return scored_theta(problem, blocks, L, sigma2, level, WARM_FLOOR, reml=reml)


def wide_theta(problem: Problem, blocks: tuple[Block, ...], rng: np.random.Generator, *, low_rank: bool) -> Array:
    """Random start values (n,): sds of effects over three decades, residual variances over three, any correlations.

    Parameters
    ----------
    low_rank : bool
        Whether G has low rank, up to a thousandth of the variances.
    """
    level, variance = neutral_guess(problem, blocks)
    level, structure, q = 2.0 * level, problem.residual, problem.n_random
    root = rng.normal(size=(q, int(rng.integers(1, q)) if low_rank and q > 1 else q))
    root /= np.sqrt((root**2).sum(axis=1))[:, None]
    sds = 10.0 ** (rng.uniform(-1.5, 0.5) + rng.uniform(-1.0, 1.0, size=q))
    own = sds[:, None] * root
    whole = own @ own.T + np.diag(1e-3 * sds**2)
    G = sum((inside_cone(block, whole, floor=0.0) for block in blocks), np.zeros((q, q))) * np.sqrt(
        np.outer(level, level)
    )
    variances = variance * 10.0 ** rng.uniform(-3.0, 0.3, size=len(variance))
    rows, columns = structure.at[structure.R :].T
    covariances = rng.uniform(-0.8, 0.8, len(rows)) * np.sqrt(variances[rows] * variances[columns])
    sigma2 = structure.inside(np.append(variances, covariances), variances)
    return theta_of(structure, blocks, G, structure.root(sigma2))


def theta_of(structure: ResidualStructure, blocks: tuple[Block, ...], G: Array, root: Array) -> Array:
    """Coordinates (n,) in ``Objective`` of a covariance matrix and of a regular factor of Sigma."""
    factor = np.concatenate([factor_coordinates(block, G) for block in blocks])
    return np.append(factor, ResidualChart(structure).coordinates(root))


def moved_inside(blocks: tuple[Block, ...], G: Array, level: Array, floor: float) -> Array:
    """The nearest G in the cone with eigenvalues of at least ``floor``, effects in units of ``level`` (q,)."""
    unit = np.sqrt(np.outer(level, level))
    return unit * sum((inside_cone(block, G / unit, floor=floor) for block in blocks), np.zeros_like(G))


def scored_theta(
    problem: Problem,
    blocks: tuple[Block, ...],
    L: Array,
    sigma2: Array,
    level: Array,
    floor: float,
    *,
    reml: bool,
    names: tuple[str, ...] | None = None,
) -> Array:
    """Theta after one Fisher-scoring step; eigenvalues of G, effects in units of ``level``, at least ``floor``.

    Start inside the cone: on its boundary columns of the factor are zero, and so are their slopes.
    """
    q, structure = problem.n_random, problem.residual
    at, units = _in_units(problem, L, sigma2, reml)
    J = natural_jacobian(problem, blocks)
    information = J.T @ at.information @ J
    _refuse_unidentified(information, J, names or tuple(f"u{k}" for k in range(q)))
    move: Array = np.asarray(np.linalg.solve(information, J.T @ at.gradient), dtype=np.float64)
    n_tau = J.shape[1] - structure.size
    free = L @ L.T - (J[: q * q, :n_tau] @ move[:n_tau]).reshape(q, q)
    root = _moved_root(structure, sigma2, units, move[n_tau:])
    return theta_of(structure, blocks, moved_inside(blocks, free, level, floor), root)


def _in_units(problem: Problem, L: Array, sigma2: Array, reml: bool) -> tuple[Evaluation, Array | None]:
    """The criterion, with derivatives in the units of the data if residuals are correlated, and these units (R, R)."""
    if problem.cross is None:
        return evaluate(problem, L, sigma2, reml=reml, order=2), None
    root = problem.residual.root(sigma2)
    base = residual_units(problem.cross, root)
    at = evaluate(problem, L, sigma2, reml=reml, order=2, root=root, base=base)
    return along(at, problem.residual, base), base


def _moved_root(structure: ResidualStructure, sigma2: Array, units: Array | None, move: Array) -> Array:
    """Factor of Sigma after a step, (R, R); keeps a tenth of the variances and well-conditioned correlations."""
    if units is None:
        return structure.root(structure.inside(sigma2 - move, 0.1 * sigma2))
    own = structure.squared(np.asarray(np.linalg.solve(units, structure.root(sigma2)), dtype=np.float64))
    return units @ structure.root(structure.inside(own - move, 0.1 * own[: structure.R]))


def neutral_guess(problem: Problem, blocks: tuple[Block, ...]) -> tuple[Array, Array]:
    """Guess of the variances of the random effects (q,), and twice those of the residuals (R,).

    With roots they come from regressions of single clusters: random effects then explain nearly all of a response, and
    half of the regression variance would be far too large.

    Raises
    ------
    NotIdentifiedError
        An equation fits its response exactly.
    """
    level, variance = regression_guess(problem, blocks)
    if problem.roots is None:
        return level, variance
    level, residual = spread_guess(problem, problem.roots, level, 0.5 * variance)
    return level, 2.0 * residual


def regression_guess(problem: Problem, blocks: tuple[Block, ...]) -> tuple[Array, Array]:
    """Split half of the regression variance over the random effects, (q,); with the regression variances, (R,)."""
    variance = positive_variances(problem)
    return _neutral_level(problem, blocks, variance), variance


def _neutral_level(problem: Problem, blocks: tuple[Block, ...], variance: Array) -> Array:
    """Variances of the random effects, (q,), that explain half of the regression variance in equal parts."""
    spread = np.einsum("aaj->a", problem.A) / problem.nobs[problem.stratum]  # mean square of each Z column
    share = np.bincount(problem.stratum, minlength=problem.n_strata)[problem.stratum]
    level = 0.5 * variance[problem.stratum] / (share * spread)
    for block in blocks:
        if block.structure in ("identity", "exchangeable"):  # one variance for all, so one scale
            index = list(block.index)
            level[index] = np.exp(np.log(level[index]).mean())
    return level


def _refuse_unidentified(information: Array, J: Array, names: tuple[str, ...]) -> None:
    q = len(names)
    size = np.sqrt(np.diag(information))
    values, vectors = np.linalg.eigh(information / np.outer(size, size))
    if values[0] > UNIDENTIFIED:
        return
    weights = np.abs(J @ (vectors[:, 0] / size))
    weights /= weights.max()
    involved = np.flatnonzero(weights > 0.05)
    effects = sorted({name for k in involved if k < q * q for name in (names[k // q], names[k % q])})
    residual = " and the residual variance" if np.any(involved >= q * q) else ""
    raise NotIdentifiedError(
        f"the data cannot tell apart the variances of the random effects {', '.join(effects)}{residual}: too few rows "
        "per cluster, or columns that repeat each other within clusters; use fewer random effects",
        code="variances",
    )
