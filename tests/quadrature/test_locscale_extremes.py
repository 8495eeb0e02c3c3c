"""Searches that come by points where doubles end: no error of a linear algebra routine, no warning of numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mlmed.errors import NotIdentifiedError
from mlmed.quadrature.climb import hessian_at
from mlmed.quadrature.likelihood import _inverse
from mlmed.quadrature.nodes import Centres, adapt, make_nodes
from tests.locscale_models import small_problem, some_theta

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def test_an_inverse_that_has_lost_its_digits_is_told() -> None:
    """B of size 1e10 and rank 1 whose rounding errors have made an eigenvalue of I + B zero or negative."""
    lower = np.array([[[0.5, 1e10, 1e10], [0.2, 1e10, 1e10], [0.7, 1e10 - 2.0, 1e10 - 4.0]]])
    inverse, logdet, regular = _inverse(lower, 2)
    assert np.isfinite(inverse).all()
    assert np.isfinite(logdet).all()
    assert regular.tolist() == [[True, False, False]]
    whole = np.array([[1.5, 0.2], [0.2, 1.7]])
    assert inverse[0, :, :, 0] == pytest.approx(np.linalg.inv(whole), rel=1e-12)
    assert logdet[0, 0] == pytest.approx(np.linalg.slogdet(whole)[1], rel=1e-12)


def test_curvatures_of_any_sizes_have_a_factor() -> None:
    """Of 1e20 and 1 in directions that are no axes: the product of such a root with itself has no Cholesky factor."""
    angle = np.linspace(0.1, 1.4, 50)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    curved = turn @ np.diag([1e20, 1.0]) @ turn.transpose(0, 2, 1)

    def density(points: np.ndarray) -> np.ndarray:
        return -0.5 * np.einsum("jka,jab,jkb->jk", points, curved, points)

    start = Centres(np.full((50, 2), 1e-9), np.tile(np.eye(2), (50, 1, 1)), np.full(50, np.inf))
    found = adapt(density, start, tolerance=1e-4)
    assert np.isfinite(found.factor).all()
    assert np.isfinite(found.mode).all()


def test_a_hessian_that_cannot_be_computed_is_refused() -> None:
    """With the reason, not with "Eigenvalues did not converge"."""
    problem, _ = small_problem(1)
    theta = some_theta(problem)
    nodes = make_nodes(Centres(np.zeros((4, 1)), np.ones((4, 1, 1)), np.zeros(4)), 5)
    theta[problem.p : problem.p + problem.k] = -400.0  # residual sds of e^-400
    with pytest.raises(NotIdentifiedError, match="orders of magnitude apart"):
        hessian_at(problem, theta, nodes)
