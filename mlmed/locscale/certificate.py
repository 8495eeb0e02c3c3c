"""The evidence that a point is a maximum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlmed.locscale.climb import newton_step
from mlmed.locscale.nodes import Centres

__all__ = [
    "MAX_DECREMENT",
    "MAX_GRADIENT",
    "MIN_CURVATURE",
    "MIN_MULTIPLIER",
    "NODES_TOLERANCE",
    "Certificate",
    "certify",
    "scaled_curvature",
]

Array = NDArray[np.float64]

#: Doubling the nodes may move the log-likelihood by this much.
NODES_TOLERANCE = 1e-4
#: Bounds of the certificate, on the scale of -l in working units.
MAX_GRADIENT, MAX_DECREMENT, MIN_CURVATURE, MIN_MULTIPLIER = 1e-4, 1e-8, 1e-6, -1e-4
#: Largest Newton step, in posterior sds, that may be left from the centre of a cluster's nodes to its mode.
MAX_OFF_CENTRE = 0.1


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was recomputed at the returned point.

    Attributes
    ----------
    gradient_norm : float
        Largest entry of the gradient of the log-likelihood in theta.
    newton_decrement : float
        g'H^-1 g: twice the rise that a Newton step still promises.
    smallest_curvature : float
        Smallest eigenvalue of the Hessian of -l in theta, scaled to unit diagonal, without columns of L that are zero.
    multiplier : float
        At a singular optimum, the smallest slope of -2l into the interior of the cone; 0 otherwise.
    node_change : float
        Change of the log-likelihood when the nodes per dimension are doubled.
    off_centre, clusters : int
        Clusters whose nodes do not lie around the mode of their scale effects, and all.
    converged : bool
        All of these are within their bounds.
    """

    gradient_norm: float
    newton_decrement: float
    smallest_curvature: float
    multiplier: float
    node_change: float
    off_centre: int
    clusters: int
    converged: bool

    @property
    def is_saddle(self) -> bool:
        """Whether -l bends downwards in some direction, by more than the rounding of its Hessian."""
        return self.smallest_curvature < -MIN_CURVATURE or self.multiplier < MIN_MULTIPLIER

    @property
    def complaint(self) -> str:
        """What is wrong, in words; empty if the optimum is certified."""
        if self.converged:
            return ""
        if self.off_centre:
            return (
                f"the mode of the scale effects was not found in {self.off_centre} of {self.clusters} clusters, so the "
                "log-likelihood may be wrong; look for clusters whose responses are far from all others or all alike, "
                "or remove the scale random effects"
            )
        if abs(self.node_change) >= NODES_TOLERANCE:
            return (
                f"doubling the quadrature nodes moves the log-likelihood by {self.node_change:.1e}; give more nodes "
                "(nodes=), or remove a scale random effect"
            )
        if self.is_saddle:
            return (
                f"the likelihood is curved upwards in some direction (scaled curvature {self.smallest_curvature:.1e}, "
                f"multiplier {self.multiplier:.1e}), so this is no maximum, and on neither side of it was a higher "
                "point found; simplify the model, or look at check_starts()"
            )
        if self.smallest_curvature <= MIN_CURVATURE:
            return (
                f"the likelihood is flat in some direction (scaled curvature {self.smallest_curvature:.1e}), so some "
                "parameters cannot be told apart and their values are arbitrary; simplify the model"
            )
        return (
            f"gradient {self.gradient_norm:.1e}, Newton decrement {self.newton_decrement:.1e}, multiplier "
            f"{self.multiplier:.1e}; simplify the model, or look at check_starts()"
        )


def certify(
    gradient: Array, hessian: Array, gone: NDArray[np.bool_], *, centres: Centres, node_change: float
) -> Certificate:
    """Judge a point.

    Parameters
    ----------
    gradient, hessian : (n,), (n, n) arrays
        Gradient of the log-likelihood and Hessian of its negative.
    gone : (n,) bool array
        Coordinates that belong to zero columns of L.
    centres : Centres
        Of the nodes.
    node_change : float
        Change of the log-likelihood when the nodes per dimension are doubled.
    """
    inside = hessian[np.ix_(~gone, ~gone)]
    left = newton_step(gradient[~gone], inside)[1]
    curvature = scaled_curvature(inside)
    # where a column of L is zero, the curvature in it is twice the slope of -l into the interior of the cone
    multiplier = float(np.linalg.eigvalsh(hessian[np.ix_(gone, gone)])[0]) if gone.any() else 0.0
    norm = float(np.abs(gradient).max())
    off_centre = int((centres.left > MAX_OFF_CENTRE).sum())
    converged = (
        norm < MAX_GRADIENT
        and left < MAX_DECREMENT
        and curvature > MIN_CURVATURE
        and multiplier > MIN_MULTIPLIER
        and abs(node_change) < NODES_TOLERANCE
        and not off_centre
    )
    return Certificate(norm, left, curvature, multiplier, node_change, off_centre, len(centres.left), bool(converged))


def scaled_curvature(hessian: Array) -> float:
    """Smallest eigenvalue of a Hessian, (n, n), scaled to unit diagonal."""
    diagonal = np.abs(np.diag(hessian))
    size = np.sqrt(np.maximum(diagonal, 1e-9 * diagonal.max()))
    return float(np.linalg.eigvalsh(hessian / np.outer(size, size))[0])
