"""Adaptive Gauss-Hermite nodes: every cluster's own, centred at its mode with its curvature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mlmed.text import Compact

Array = NDArray[np.float64]

#: Step of differences, in current posterior sds.
STENCIL = 0.05
#: Longest move of a centre in one step, in posterior or prior sds, whichever is more. Posterior sds are tiny if a
#: cluster's residuals are large for the current sd and log f falls like -exp(-2t).
LONGEST = 3.0
#: Relative decrease that counts as rounding: sums of squares up to 1e6 cancel in log f, which leaves errors above 1e-9.
ROUNDING = 1e-8
#: Most steps towards the modes; few are needed because log f(y | s) is close to concave.
MOST_STEPS = 200


@dataclass(frozen=True, slots=True, repr=False)
class Centres(Compact):
    """Centre and scale of the nodes of every cluster.

    Attributes
    ----------
    mode : (J, d) array
        Mode of s given y.
    factor : (J, d, d) array
        Lower-triangular C with C C' = inverse curvature there.
    left : (J,) array
        Length of the remaining Newton step, in posterior sds; infinite if no mode was sought or found.
    """

    mode: Array
    factor: Array
    left: Array


@dataclass(frozen=True, slots=True, repr=False)
class Nodes(Compact):
    """Quadrature points and weights.

    Attributes
    ----------
    points : (J, Q, d) array
        s at every node.
    log_weights : (J, Q) array
        The integral of f(s) over the standard normal is the sum of ``exp(log_weights) f(points)``.
    """

    points: Array
    log_weights: Array


def centres_at_zero(J: int, d: int) -> Centres:
    """Centres before adaptation: the prior."""
    left = np.full(J, np.inf if d else 0.0)
    return Centres(np.zeros((J, d)), np.broadcast_to(np.eye(d), (J, d, d)).copy(), left)


def make_nodes(centres: Centres, m: int) -> Nodes:
    """Nodes with m points per dimension."""
    d = centres.mode.shape[1]
    z, w = np.polynomial.hermite_e.hermegauss(m)
    log_w = np.log(w / w.sum())
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*[z] * d, indexing="ij")], axis=1) if d else np.zeros((1, 0))
    weights = sum((axis.ravel() for axis in np.meshgrid(*[log_w] * d, indexing="ij")), np.zeros(len(grid)))
    points = centres.mode[:, None, :] + grid @ centres.factor.transpose(0, 2, 1)
    log_scale = np.log(np.abs(np.einsum("jaa->ja", centres.factor))).sum(axis=1)
    log_weights = weights + 0.5 * (grid**2).sum(axis=1) - 0.5 * (points**2).sum(axis=-1) + log_scale[:, None]
    return Nodes(points, log_weights)


def adapt(conditional: Callable[[Array], Array], start: Centres, *, tolerance: float) -> Centres:
    """Newton's method for the modes of all clusters at once, derivatives by differences of the values.

    Parameters
    ----------
    conditional : callable
        (J, Q, d) points -> (J, Q) values of log f(y | s).
    start : Centres
        For example centres at similar parameters.
    tolerance : float
        Largest remaining Newton step, in posterior sds. With enough nodes the integral does not depend on the centres,
        so this needs to be small only for reproducible digits.

    Returns
    -------
    Centres
        ``left`` shows which clusters did not converge.
    """
    J, d = start.mode.shape
    if d == 0:
        return start
    offsets = _stencil(d)
    mode, C = start.mode, start.factor
    last, move, left = np.full(J, -np.inf), np.zeros((J, d)), np.full(J, np.inf)
    for _ in range(MOST_STEPS):
        points = mode[:, None, :] + offsets @ C.transpose(0, 2, 1)
        values = conditional(points) - 0.5 * (points**2).sum(axis=-1)
        worse = ~(values[:, 0] >= last - ROUNDING * np.maximum(np.abs(last), 1.0)) & np.isfinite(last)
        usable = np.isfinite(values).all(axis=1) & ~worse
        step, length, root = _newton(values, C, usable)
        # halve a step that made it worse or cannot be evaluated
        half = 0.5 * move
        mode = np.where(usable[:, None], mode, mode - half)
        moved = np.where(usable[:, None], step, 0.0)
        last = np.where(usable, values[:, 0], last)
        C = np.where(usable[:, None, None], C @ root, C)
        mode = mode + moved
        move = np.where(usable[:, None], moved, half)
        left = np.where(usable, length, np.inf)
        if left.max() < tolerance:
            break
    return Centres(mode, C, left)


def _newton(values: Array, C: Array, usable: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Newton steps from the values on the stencil.

    Returns
    -------
    step, length, root
        The steps, (J, d), no longer than ``LONGEST``; their full lengths, (J,), in posterior sds; and lower-triangular
        factors of the inverse curvatures, (J, d, d), in units of C.
    """
    gradient, curvature = _derivatives(np.where(usable[:, None], values, 0.0), C.shape[1])
    bend, axes = np.linalg.eigh(-curvature)
    bend = np.where(bend > 0.05, bend, np.where(usable[:, None], 0.25, 1.0))
    step = np.einsum("jab,jb,jcb,jc->ja", axes, 1.0 / bend, axes, gradient)
    length, moved = np.sqrt((step**2).sum(axis=1)), (C @ step[..., None])[..., 0]
    far = np.minimum(length, np.sqrt((moved**2).sum(axis=1)))
    # the factor by QR of a root: the entries of the squared matrix may span more digits than a double has
    upper = np.asarray(np.linalg.qr((axes / np.sqrt(bend)[:, None, :]).transpose(0, 2, 1), mode="r"))
    root = (upper * np.copysign(1.0, np.einsum("jaa->ja", upper))[:, :, None]).transpose(0, 2, 1)
    return moved * np.minimum(1.0, LONGEST / np.maximum(far, LONGEST))[:, None], length, root


def better_of(conditional: Callable[[Array], Array], first: Centres, second: Centres) -> Centres:
    """Choose, for each cluster, the centre with the larger f(s | y); the first if equal."""
    if first.mode.shape[1] == 0:
        return first

    def height(centres: Centres) -> Array:
        found: Array = conditional(centres.mode[:, None, :])[:, 0] - 0.5 * (centres.mode**2).sum(axis=1)
        return found

    one, other = height(first), height(second)
    better = other > one + ROUNDING * np.maximum(np.abs(np.where(np.isfinite(one), one, 0.0)), 1.0)
    return Centres(
        np.where(better[:, None], second.mode, first.mode),
        np.where(better[:, None, None], second.factor, first.factor),
        np.where(better, second.left, first.left),
    )


def _stencil(d: int) -> Array:
    unit = STENCIL * np.eye(d)
    points = [np.zeros(d)]
    for a in range(d):
        points += [unit[a], -unit[a]]
    for a, b in combinations(range(d), 2):
        points += [unit[a] + unit[b], -unit[a] - unit[b]]
    return np.array(points)


def _derivatives(values: Array, d: int) -> tuple[Array, Array]:
    """Gradient (J, d) and Hessian (J, d, d) in units of the current posterior sds."""
    h, J = STENCIL, len(values)
    plus, minus = values[:, 1 : 1 + 2 * d : 2], values[:, 2 : 2 + 2 * d : 2]
    centre = values[:, 0]
    gradient = (plus - minus) / (2.0 * h)
    hessian = np.zeros((J, d, d))
    for a in range(d):
        hessian[:, a, a] = (plus[:, a] + minus[:, a] - 2.0 * centre) / h**2
    for k, (a, b) in enumerate(combinations(range(d), 2)):
        both = values[:, 1 + 2 * d + 2 * k] + values[:, 2 + 2 * d + 2 * k]
        mixed = (both - plus[:, a] - minus[:, a] - plus[:, b] - minus[:, b] + 2.0 * centre) / (2.0 * h**2)
        hessian[:, a, b] = hessian[:, b, a] = mixed
    return gradient, hessian
