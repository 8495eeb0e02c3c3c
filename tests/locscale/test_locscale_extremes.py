"""Searches that come by points where doubles end: no error of a linear algebra routine, no warning of numpy."""

from __future__ import annotations

import numpy as np
import pytest

from mlmed.errors import NotIdentifiedError
from mlmed.locscale.climb import hessian_at
from mlmed.locscale.conditional import _inverse
from mlmed.locscale.nodes import Centres, adapt, make_nodes
from tests.locscale_models import small_problem, some_theta

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def test_an_inverse_that_has_lost_its_digits_is_told() -> None:
    """I + B with B of rank 1 and size 1e13 keeps an eigenvalue of 1 that rounding turns into anything."""
    v = 3e6 * np.array([1.0, 1.0 / 3.0, 0.7])
    i, j = np.tril_indices(3)
    lower = np.stack([(v[i] * v[j]) * scale for scale in (1e-13, 1.0, 7.3)], axis=1)[None]
    inverse, logdet, regular = _inverse(lower, 3)
    assert np.isfinite(inverse).all()
    assert np.isfinite(logdet).all()
    assert regular[0, 0]
    assert logdet[0, 0] == pytest.approx(np.log1p(1e-13 * v @ v), rel=1e-12)
    for k in np.flatnonzero(regular[0]):
        expected = np.linalg.inv(np.eye(3) + lower[0, 0, k] / v[0] ** 2 * np.outer(v, v))
        assert inverse[0, :, :, k] == pytest.approx(expected, abs=0.5)


def test_curvatures_of_any_sizes_have_a_factor() -> None:
    """Of 1e20 and 1 in directions that are no axes: the product of such a root with itself has no Cholesky factor."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    curved = turn @ np.diag([1e20, 1.0]) @ turn.T

    def density(points: np.ndarray) -> np.ndarray:
        return -0.5 * np.einsum("jka,ab,jkb->jk", points, curved, points)

    start = Centres(np.full((1, 2), 1e-9), 1e-9 * np.eye(2)[None], np.full(1, np.inf))
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
