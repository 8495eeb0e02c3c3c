"""Effects as averages over rows, for many parameter vectors, with derivatives for one (docs/math.md, eq. 67, 72)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.potential import WEIGHTS, Counterfactual, expected_outcome, expected_slopes

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Numbers per array in one piece of work, so that temporaries stay in cache.
ENTRIES = 65_536


@dataclass(frozen=True)
class Setting:
    """Rows over which effects are averaged, ordered by cluster.

    Attributes
    ----------
    mediator, outcome : str
        Families.
    fixed : Counterfactual
        Columns of the fixed effects.
    random : Counterfactual
        Columns of the random effects that enter; none without random effects.
    noise : (2, n) or (2, 1) array
        Standard deviation of a linear mediator around its linear predictor, at control and at treated.
    starts : (J,) int array
        First row of every cluster; all rows are one cluster if none are named.
    weights : (n,) array
        Frequency weight of each row.
    """

    mediator: str
    outcome: str
    fixed: Counterfactual
    random: Counterfactual
    noise: Array
    starts: Indices
    weights: Array

    @property
    def is_closed(self) -> bool:
        """Whether effects are bilinear in the coefficients of the two equations."""
        return self.mediator == self.outcome == "linear"

    @cached_property
    def products(self) -> tuple[Array, Array]:
        """Sums over the rows of each cluster: (J, 5, k_y) of X_y, (J, 5, k_y, k_m) of slope times X_m (eq. 72)."""
        return _contrast_products(self)

    @cached_property
    def used(self) -> tuple[Indices, Indices]:
        """Coefficients (n_1,) and pairs of them (n_2, 2) whose sums are not 0."""
        base, cross = self.products
        return np.flatnonzero(base.any(axis=(0, 1))), np.argwhere(cross.any(axis=(0, 1)))

    @cached_property
    def compact(self) -> Counterfactual:
        """Columns of the fixed effects; a single row if all rows are equal and there are no random effects."""
        parts = (self.fixed.mediator, self.fixed.outcome, self.fixed.slope)
        extra = (self.random.mediator, self.random.outcome, self.random.slope)
        return Counterfactual(*(_compact(*pair) for pair in zip(parts, extra, strict=True)))

    @cached_property
    def codes(self) -> Indices:
        """Cluster of every row, (n,)."""
        ends = np.append(self.starts[1:], len(self.weights))
        return np.repeat(np.arange(len(self.starts)), ends - self.starts)

    @cached_property
    def sizes(self) -> Array:
        """Sum of the weights of every cluster, (J,)."""
        return np.asarray(np.add.reduceat(self.weights, self.starts))


@dataclass(frozen=True, slots=True)
class Parameters:
    """d vectors of parameters.

    Attributes
    ----------
    mediator, outcome : (d, p_m), (d, p_y) arrays
        Fixed effects.
    mediator_u, outcome_u : (d, J, q_m), (d, J, q_y) arrays
        Random effects of every cluster.
    """

    mediator: Array
    outcome: Array
    mediator_u: Array
    outcome_u: Array


@dataclass(frozen=True, slots=True)
class ClusterSlopes:
    """The five contrasts of every cluster at one parameter vector, and their derivatives.

    Attributes
    ----------
    values : (5, J) array
        Averages over the rows of a cluster.
    mediator : (5, J, p_m + q_m) array
        Derivatives in the fixed effects of the mediator equation and in the cluster's own random effects.
    outcome : (5, J, p_y + q_y) array
        The same for the outcome equation.
    share : (J,) array
        Share of the rows.
    """

    values: Array
    mediator: Array
    outcome: Array
    share: Array

    def average(self) -> Array:
        """The five contrasts over all rows."""
        return np.asarray(self.values @ self.share)


def pieces(setting: Setting, n: int) -> Iterator[slice]:
    """Slice n parameter vectors so that arrays stay small."""
    width = len(setting.starts) if setting.is_closed else len(setting.weights)
    size = max(ENTRIES // width, 1)
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def average_effects(setting: Setting, parameters: Parameters) -> Array:
    """The five contrasts of every parameter vector over all rows, (d, 5)."""
    if setting.is_closed:
        sums = sum(_summed(*term) for term in _terms(setting, parameters))
        return np.asarray(sums / setting.weights.sum())
    share = setting.weights / setting.weights.sum()
    with np.errstate(over="ignore", invalid="ignore"):  # the caller reports overflow
        means = _row_means(setting, parameters) @ share
        return means.reshape(-1, 4) @ WEIGHTS.reshape(5, 4).T


def cluster_effects(setting: Setting, parameters: Parameters) -> Array:
    """The five contrasts of every parameter vector and cluster, (d, J, 5)."""
    sizes = setting.sizes[:, None]
    if setting.is_closed:
        found = sum(factor[:, :, None] * weight for factor, weight in _terms(setting, parameters))
        return np.asarray(found / sizes)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.add.reduceat(_row_means(setting, parameters) * setting.weights, setting.starts, axis=3)
        return np.einsum("dtsj,ets->dje", sums, WEIGHTS) / sizes


# -- bilinear effects -----------------------------------------------------------------------------------------


def _joined(fixed: Array, random: Array) -> Array:
    return np.concatenate([fixed, random], axis=2) if random.shape[2] else fixed


def _contrast_products(setting: Setting) -> tuple[Array, Array]:
    """Take contrasts of sums, so that unchanged columns cancel exactly."""
    outcome = _joined(setting.fixed.outcome, setting.random.outcome)
    slope = _joined(setting.fixed.slope, setting.random.slope) * setting.weights[:, None]
    mediator = _joined(setting.fixed.mediator, setting.random.mediator)
    base = np.add.reduceat(outcome * setting.weights[:, None], setting.starts, axis=1)
    J, k_y, k_m = len(setting.starts), outcome.shape[2], mediator.shape[2]
    cross = np.empty((2, 2, J, k_y, k_m))
    for t in range(2):
        for s in range(2):
            for k in range(k_y):
                column = slope[t, :, k, None]
                if column.any():
                    cross[t, s, :, k] = np.add.reduceat(column * mediator[s], setting.starts, axis=0)
                else:
                    cross[t, s, :, k] = 0.0
    return np.einsum("ets,tjk->jek", WEIGHTS, base), np.einsum("ets,tsjkl->jekl", WEIGHTS, cross)


def _terms(setting: Setting, parameters: Parameters) -> Iterator[tuple[Array, Array]]:
    """Yield products of coefficients, (d, J), or (d, 1) if equal in all clusters, and weights (J, 5) (eq. 72)."""
    (base, cross), (single, pairs) = setting.products, setting.used
    for k in single:
        yield _coefficient(parameters.outcome, parameters.outcome_u, k), base[:, :, k]
    for k, m in pairs:
        outcome = _coefficient(parameters.outcome, parameters.outcome_u, k)
        yield outcome * _coefficient(parameters.mediator, parameters.mediator_u, m), cross[:, :, k, m]


def _coefficient(beta: Array, u: Array, k: int) -> Array:
    """Coefficient k, counting fixed effects first, then random ones."""
    p = beta.shape[1]
    return beta[:, k, None] if k < p else u[:, :, k - p]


def _summed(factor: Array, weight: Array) -> Array:
    """Sum over clusters, (d, 5)."""
    return factor * weight.sum(axis=0) if factor.shape[1] == 1 else factor @ weight


def _broadcast(beta: Array, u: Array, J: int) -> Array:
    """Coefficients of every cluster, (J, d, p + q)."""
    fixed = np.broadcast_to(beta, (J, *beta.shape))
    return np.concatenate([fixed, u.transpose(1, 0, 2)], axis=2) if u.shape[2] else fixed


# -- effects that need every row ------------------------------------------------------------------------------


def _compact(columns: Array, random: Array) -> Array:
    alike = not random.shape[2] and np.array_equal(columns, np.broadcast_to(columns[:, :1], columns.shape))
    return columns[:, :1] if alike else columns


def _linear(columns: Array, beta: Array, random: Array, u: Array, codes: Indices) -> Array:
    """Linear predictor at control and treated, (2, d, n); (2, d, 1) for compact columns."""
    out = np.stack([beta @ columns[t].T for t in range(2)])
    if random.shape[2]:
        mine = u[:, codes]
        for k in range(random.shape[2]):
            out += mine[:, :, k] * random[:, None, :, k]
    return out


def _predictors(setting: Setting, parameters: Parameters) -> tuple[Array, Array, Array]:
    """Linear predictor of the mediator, of the outcome at M = 0, and the slope, (2, d, n) each."""
    codes = setting.codes
    fixed, random, outcome_u = setting.compact, setting.random, parameters.outcome_u
    return (
        _linear(fixed.mediator, parameters.mediator, random.mediator, parameters.mediator_u, codes),
        _linear(fixed.outcome, parameters.outcome, random.outcome, outcome_u, codes),
        _linear(fixed.slope, parameters.outcome, random.slope, outcome_u, codes),
    )


def _row_means(setting: Setting, parameters: Parameters) -> Array:
    """E[Y(t, M(t'))] of every row, (d, 2, 2, n)."""
    eta, A, B = _predictors(setting, parameters)
    n = len(setting.weights)
    out = np.empty((len(parameters.mediator), 2, 2, n))
    for t in range(2):
        for s in range(2):
            out[:, t, s] = expected_outcome(setting.mediator, setting.outcome, eta[s], A[t], B[t], setting.noise[s])
    return out


# -- derivatives ----------------------------------------------------------------------------------------------


def cluster_slopes(setting: Setting, parameters: Parameters) -> ClusterSlopes:
    """Contrasts of every cluster with their derivatives, at one parameter vector (d = 1)."""
    share = setting.sizes / setting.weights.sum()
    found = _bilinear_slopes(setting, parameters) if setting.is_closed else _row_slopes(setting, parameters)
    sizes = setting.sizes
    values, mediator, outcome = (part / sizes.reshape(-1, *[1] * (part.ndim - 2)) for part in found)
    return ClusterSlopes(values, mediator, outcome, share)


def _bilinear_slopes(setting: Setting, parameters: Parameters) -> tuple[Array, Array, Array]:
    base, cross = setting.products
    outcome = _broadcast(parameters.outcome, parameters.outcome_u, len(base))[:, 0]
    mediator = _broadcast(parameters.mediator, parameters.mediator_u, len(base))[:, 0]
    by_outcome = base + np.einsum("jekl,jl->jek", cross, mediator)
    by_mediator = np.einsum("jk,jekl->jel", outcome, cross)
    values = np.einsum("jek,jk->ej", by_outcome, outcome)
    return values, by_mediator.transpose(1, 0, 2), by_outcome.transpose(1, 0, 2)


def _row_slopes(setting: Setting, parameters: Parameters) -> tuple[Array, Array, Array]:
    eta, A, B = (part[:, 0] for part in _predictors(setting, parameters))
    fixed, random = setting.fixed, setting.random
    mediator = _joined(fixed.mediator, random.mediator)
    outcome, slope = _joined(fixed.outcome, random.outcome), _joined(fixed.slope, random.slope)
    n, J = len(setting.weights), len(setting.starts)
    value = np.empty((2, 2, J))
    by_mediator, by_outcome = np.empty((2, 2, J, mediator.shape[2])), np.empty((2, 2, J, outcome.shape[2]))
    for t in range(2):
        for s in range(2):
            found = expected_slopes(setting.mediator, setting.outcome, eta[s], A[t], B[t], setting.noise[s])
            mean, by_eta, by_A, by_B = (np.broadcast_to(part, (n,)) * setting.weights for part in found)
            value[t, s] = np.add.reduceat(mean, setting.starts)
            by_mediator[t, s] = np.add.reduceat(by_eta[:, None] * mediator[s], setting.starts, axis=0)
            rows = by_A[:, None] * outcome[t] + by_B[:, None] * slope[t]
            by_outcome[t, s] = np.add.reduceat(rows, setting.starts, axis=0)
    turn = "ets,tsj...->ej..."
    value, by_mediator, by_outcome = (np.einsum(turn, WEIGHTS, part) for part in (value, by_mediator, by_outcome))
    return value, by_mediator, by_outcome
