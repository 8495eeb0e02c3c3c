"""Uncertainty of effects: covariance by the delta method, and draws (docs/math.md, eq. 73 to 75)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mlmed.effects.average import (
    ClusterSlopes,
    Parameters,
    Setting,
    average_effects,
    cluster_effects,
    cluster_slopes,
    pieces,
)
from mlmed.effects.draws import normal_draws
from mlmed.lmm.ranef import ModeLaw
from mlmed.lmm.sandwich import without_rounding
from mlmed.lmm.vcov import Directions, Vcov

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Law:
    """Distribution of the coefficients of one equation.

    Attributes
    ----------
    beta : (p,) array
        Estimates.
    vcov : Vcov
        Their covariance.
    modes : ModeLaw or None
        Random effects given the data and beta; None if none enter.
    """

    beta: Array
    vcov: Vcov
    modes: ModeLaw | None = None

    def at(self, shift: Array, J: int, rng: np.random.Generator | None = None) -> tuple[Array, Array]:
        """Fixed effects (d, p) and random effects (d, J, q) after steps of beta; without a generator, modes."""
        beta = self.beta + shift
        if self.modes is None:
            return beta, np.empty((len(beta), J, 0))
        if rng is not None:
            return beta, self.modes.draw(shift, rng)
        return beta, self.modes.modes - np.einsum("jap,dp->dja", self.modes.slide, shift)


def parameters_of(mediator: Law, outcome: Law, J: int) -> Parameters:
    """The estimates as one parameter vector."""
    beta_m, u_m = mediator.at(np.zeros((1, len(mediator.beta))), J)
    beta_y, u_y = outcome.at(np.zeros((1, len(outcome.beta))), J)
    return Parameters(beta_m, beta_y, u_m, u_y)


def slopes_at(setting: Setting, mediator: Law, outcome: Law) -> ClusterSlopes:
    """Contrasts and their derivatives at the estimates."""
    return cluster_slopes(setting, parameters_of(mediator, outcome, len(setting.starts)))


@dataclass(frozen=True, slots=True)
class Contrasts:
    """The contrasts and the coefficients with their joint covariance.

    Attributes
    ----------
    values : (5 + p_m + p_y,) array
        Contrasts over all rows, fixed effects of the mediator and of the outcome equation.
    vcov : Vcov
        First-order covariance.
    random : (2, 5) bool array
        Whether random effects of the mediator, and of the outcome, enter each contrast.
    slopes : (5, p_m + p_y) array
        Derivatives of the contrasts in the coefficients, the modes following.
    """

    values: Array
    vcov: Vcov
    random: NDArray[np.bool_]
    slopes: Array


def contrast_covariance(slopes: ClusterSlopes, mediator: Law, outcome: Law) -> Contrasts:
    """Delta method: modes follow beta, with their own variance given it (eq. 74)."""
    p = len(mediator.beta)
    values = np.concatenate([slopes.average(), mediator.beta, outcome.beta])
    matrix, moved = np.zeros((len(values), len(values))), np.zeros((5, len(values) - 5))
    random = [
        np.any(slopes.mediator[:, :, p:], axis=(1, 2)),
        np.any(slopes.outcome[:, :, len(outcome.beta) :], axis=(1, 2)),
    ]
    for law, derivatives, first in ((mediator, slopes.mediator, 5), (outcome, slopes.outcome, 5 + p)):
        own, V = derivatives * slopes.share[:, None], law.vcov.entire
        fixed, around = _moved(own.sum(axis=1), own, law)
        stop = first + len(law.beta)
        matrix[:5, :5] += fixed @ V @ fixed.T + around.sum(axis=0)
        matrix[:5, first:stop] = fixed @ V
        matrix[first:stop, :5] = matrix[:5, first:stop].T
        matrix[first:stop, first:stop] = V
        moved[:, first - 5 : stop - 5] = fixed
    joint = Vcov.one(matrix, note=note_of(mediator, outcome)).losing(_lost_contrasts(matrix, moved, mediator, outcome))
    return Contrasts(values, joint, np.array(random), moved)


def compared(lost: Sequence[Directions], differences: Sequence[Array]) -> tuple[Directions, ...]:
    """Keep directions that change ``differences`` (n, p), the columns that effects compare.

    A direction that moves only the level of rows, such as a cluster's own dummy, does not affect contrasts of treatment
    or mediator: effects are conditional on that level.
    """
    found = []
    for one in lost:
        kept = np.any([one.changed(rows).any(axis=0) for rows in differences], axis=0)
        owners = tuple(owner for owner, keep in zip(one.owners, kept, strict=True) if keep)
        found.append(replace(one, matrix=one.matrix[:, kept], owners=owners))
    return tuple(found)


def note_of(mediator: Law, outcome: Law) -> str:
    """Note on covariances from the same clusters: that of the equation with more coefficients."""
    return max((mediator, outcome), key=lambda law: len(law.beta)).vcov.note


def _lost_contrasts(matrix: Array, slopes: Array, mediator: Law, outcome: Law) -> tuple[Directions, ...]:
    """Extend directions of the coefficients to contrasts and coefficients."""
    every = np.vstack([slopes, np.eye(slopes.shape[1])])
    errors = np.sqrt(np.diag(matrix))
    errors[5:] = 0.0  # exact for the coefficients
    moves = (one.through(every) for one in lost_coefficients(mediator, outcome))
    return tuple(replace(one, matrix=without_rounding(one.matrix, errors)) for one in moves)


def lost_coefficients(mediator: Law, outcome: Law) -> tuple[Directions, ...]:
    """Directions of the coefficients of both equations, the mediator's first."""
    p, n = len(mediator.beta), len(mediator.beta) + len(outcome.beta)
    return tuple(one.below(n, before) for law, before in ((mediator, 0), (outcome, p)) for one in law.vcov.lost)


def cluster_covariance(slopes: ClusterSlopes, mediator: Law, outcome: Law) -> tuple[Array, Array]:
    """Covariance of each cluster's contrasts, (J, 5, 5), and their slopes (J, 5, p_m + p_y)."""
    total, moved = np.zeros((slopes.values.shape[1], 5, 5)), []
    for law, derivatives in ((mediator, slopes.mediator), (outcome, slopes.outcome)):
        p = len(law.beta)
        fixed = derivatives[:, :, :p].transpose(1, 0, 2)
        if law.modes is not None:
            fixed = fixed - np.einsum("eja,jap->jep", derivatives[:, :, p:], law.modes.slide)
            total += _around(derivatives, law)
        total += np.einsum("jep,pq,jfq->jef", fixed, law.vcov.entire, fixed, optimize=True)
        moved.append(fixed)
    return total, np.concatenate(moved, axis=2)


def _moved(whole: Array, own: Array, law: Law) -> tuple[Array, Array]:
    """Derivatives (5, p) in beta with the modes following, and the variances (J, 5, 5) around them."""
    p = len(law.beta)
    if law.modes is None:
        return whole[:, :p], np.zeros((1, 5, 5))
    return whole[:, :p] - np.einsum("eja,jap->ep", own[:, :, p:], law.modes.slide), _around(own, law)


def _around(own: Array, law: Law) -> Array:
    assert law.modes is not None
    half = np.einsum("jab,ejb->jea", law.modes.root, own[:, :, len(law.beta) :])
    return half @ half.transpose(0, 2, 1)


def draw_contrasts(
    setting: Setting, mediator: Law, outcome: Law, *, n: int, seed: int, by_cluster: bool = False
) -> Array:
    """Contrasts of n draws of all coefficients, (n, 5), or (n, J, 5) by cluster (eq. 75).

    Fixed and random effects of the two equations have separate generators, so a seed gives the same coefficients
    whichever effects are computed, and however many are drawn at once.
    """
    streams = [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4)]
    J = len(setting.starts)
    shifts = [
        normal_draws(np.zeros(len(law.beta)), law.vcov.entire, n, stream)
        for law, stream in zip((mediator, outcome), streams[:2], strict=True)
    ]
    found = np.empty((n, J, 5) if by_cluster else (n, 5))
    average = cluster_effects if by_cluster else average_effects
    for part in pieces(setting, n):
        beta_m, u_m = mediator.at(shifts[0][part], J, streams[2])
        beta_y, u_y = outcome.at(shifts[1][part], J, streams[3])
        found[part] = average(setting, Parameters(beta_m, beta_y, u_m, u_y))
    return found
