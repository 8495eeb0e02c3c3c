"""The same model written otherwise is the same problem."""

from __future__ import annotations

import numpy as np
import pytest

from mlmed.quadrature.problem import build_problem
from mlmed.quadrature.rows import read_equations, read_rows
from tests.locscale_models import simulated
from tests.tolerances import SAME


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (("y ~ x + (1 |c| g)", "~ w + (1 + w |c| g)"), ("y ~ x + (1 |c| g)", "~ w + (1 |c| g) + (0 + w |c| g)")),
        (("y ~ x + (1 + x |c| g)", "~ w + (1 |c| g)"), ("y ~ x + (1 |c| g) + (0 + x |c| g)", "~ w + (1 |c| g)")),
    ],
)
def test_one_label_in_two_terms(one: tuple[str, str], two: tuple[str, str]) -> None:
    """Slopes are centred against the intercept of their block, wherever it stands."""
    data = simulated(20, 6, seed=4)
    data[["x", "w"]] += 20.0
    first, second = (build_problem(read_rows(read_equations(*model, data), data)) for model in (one, two))
    np.testing.assert_allclose(second[1].random_map, first[1].random_map, rtol=SAME)
    assert np.count_nonzero(first[1].random_map - np.diag(np.diag(first[1].random_map))) == 1
    for chunk, other in zip(first[0].chunks, second[0].chunks, strict=True):
        np.testing.assert_allclose(other.Z, chunk.Z, rtol=SAME)
        np.testing.assert_allclose(other.V, chunk.V, rtol=SAME)


def test_independent_terms_are_not_centred() -> None:
    """Centring would make their effects correlate."""
    data = simulated(20, 6, seed=4)
    data["w"] += 20.0
    model = read_equations("y ~ x + (1 | g)", "~ w + (1 | g) + (0 + w | g)", data)
    found = build_problem(read_rows(model, data))[1].random_map
    np.testing.assert_array_equal(found, np.diag(np.diag(found)))
