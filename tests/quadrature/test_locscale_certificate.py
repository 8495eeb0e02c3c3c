"""What the certificate of a location-scale model refuses, each reason alone."""

from __future__ import annotations

import numpy as np
import pytest

from mlmed.quadrature.nodes import Centres
from mlmed.quadrature.optimizer import certify


def judged(*, gradient=(0.0, 0.0, 0.0), hessian=None, gone=(False, False, False), left=0.0, node_change=0.0):
    centres = Centres(np.zeros((4, 1)), np.ones((4, 1, 1)), np.array([0.0, 0.0, 0.0, left]))
    H = np.eye(3) if hessian is None else np.asarray(hessian, dtype=float)
    return certify(np.array(gradient), H, np.array(gone), centres=centres, node_change=node_change)


def flat(correlation):
    """Two coordinates that can nearly be traded: the smallest scaled eigenvalue is 1 - correlation."""
    H = np.eye(3)
    H[0, 1] = H[1, 0] = correlation
    return H


def test_an_optimum_is_certified():
    found = judged()
    assert found.converged
    assert found.complaint == ""
    assert judged(hessian=np.diag([1.0, 1.0, 2.0]), gone=(False, False, True)).multiplier == 2.0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"gradient": (1.0, 0.0, 0.0)}, "gradient 1.0e+00"),
        ({"gradient": (9e-5, 0.0, 0.0), "hessian": np.diag([1e-2, 1.0, 1.0])}, "Newton decrement 8.1e-07"),
        ({"hessian": flat(1.0 - 1e-9)}, "flat in some direction"),
        ({"hessian": np.diag([1.0, 1.0, -0.5]), "gone": (False, False, True)}, "multiplier -5.0e-01"),
        ({"node_change": 0.01}, "doubling the quadrature nodes"),
        ({"left": 1.0}, "was not found in 1 of 4 clusters"),
    ],
    ids=["gradient", "decrement", "curvature", "multiplier", "nodes", "centres"],
)
def test_each_fault_alone_is_refused(fault, words):
    found = judged(**fault)
    assert not found.converged
    assert words in found.complaint
