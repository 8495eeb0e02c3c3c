"""The evidence that a point is a maximum of a likelihood that is integrated over nodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mlmed.numerics.certificate import (
    CURVATURE,
    DECREMENT,
    GRADIENT,
    MULTIPLIER,
    NODE_CHANGE,
    OFF_CENTRE,
    Certificate,
    above,
    below,
    first_reason,
    scaled_curvature,
    within,
)
from mlmed.quadrature.climb import newton_step
from mlmed.quadrature.nodes import Centres

__all__ = [
    "MAX_DECREMENT",
    "MAX_GRADIENT",
    "MIN_CURVATURE",
    "MIN_MULTIPLIER",
    "NODES_TOLERANCE",
    "certify",
    "is_saddle",
]

Array = NDArray[np.float64]

#: Doubling the nodes may move the log-likelihood by this much.
NODES_TOLERANCE = 1e-4
#: Bounds of the certificate, on the scale of -l in working units.
MAX_GRADIENT, MAX_DECREMENT, MIN_CURVATURE, MIN_MULTIPLIER = 1e-4, 1e-8, 1e-6, -1e-4
#: Largest Newton step, in posterior sds, that may be left from the centre of a cluster's nodes to its mode.
MAX_OFF_CENTRE = 0.1


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
    # where a column of L is zero, the curvature in it is twice the slope of -l into the interior of the cone
    multiplier = float(np.linalg.eigvalsh(hessian[np.ix_(gone, gone)])[0]) if gone.any() else 0.0
    off_centre = int((centres.left > MAX_OFF_CENTRE).sum())
    checks = (
        below(GRADIENT, np.abs(gradient).max(), MAX_GRADIENT),
        below(DECREMENT, newton_step(gradient[~gone], inside)[1], MAX_DECREMENT),
        above(CURVATURE, scaled_curvature(inside), MIN_CURVATURE),
        above(MULTIPLIER, multiplier, MIN_MULTIPLIER),
        within(NODE_CHANGE, node_change, NODES_TOLERANCE),
        below(OFF_CENTRE, off_centre, 0.5),
    )
    found = Certificate(checks, advice="simplify the model, or look at check_starts()")
    return replace(found, reason=_reason(found, len(centres.left)))


def is_saddle(found: Certificate) -> bool:
    """Whether -l bends downwards in some direction, by more than the rounding of its Hessian."""
    return found.smallest_curvature < -MIN_CURVATURE or found.failed(MULTIPLIER)


def _reason(found: Certificate, clusters: int) -> str:
    off_centre, curvature = found.value(OFF_CENTRE), f"scaled curvature {found.smallest_curvature:.1e}"
    return first_reason(
        [
            (
                found.failed(OFF_CENTRE),
                f"the mode of the scale effects was not found in {off_centre:.0f} of {clusters} clusters, so the "
                "log-likelihood may be wrong; look for clusters whose responses are far from all others or all alike, "
                "or remove the scale random effects",
            ),
            (
                found.failed(NODE_CHANGE),
                f"doubling the quadrature nodes moves the log-likelihood by {found.value(NODE_CHANGE):.1e}; give more "
                "nodes (nodes=), or remove a scale random effect",
            ),
            (
                is_saddle(found),
                f"the likelihood is curved upwards in some direction ({curvature}, multiplier {found.multiplier:.1e}), "
                "so this is no maximum, and on neither side of it was a higher point found; simplify the model, or "
                "look at check_starts()",
            ),
            (
                found.failed(CURVATURE),
                f"the likelihood is flat in some direction ({curvature}), so some parameters cannot be told apart and "
                "their values are arbitrary; simplify the model",
            ),
        ]
    )
