"""Clusters without residuals: refused where the likelihood has no maximum, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import ConvergenceWarning, NotIdentifiedError
from mlmed.quadrature.likelihood import conditional_loglik
from mlmed.quadrature.problem import build_chunks
from mlmed.quadrature.rows import exact_fits, read_equations, read_rows
from tests.locscale_models import simulated, small_problem, some_theta

#: exp(-16) of what is left of the prior of u.
LEADING = 1e-5
PLAIN = ("y ~ 1 + (1 | g)", "~ 1 + (1 | g)")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return simulated(30, 8, seed=1)


def constant_in(frame: pd.DataFrame, clusters: list[int], value: float = 0.1) -> pd.DataFrame:
    return frame.assign(y=frame["y"].where(~frame["g"].isin(clusters), value))


def test_why_it_is_refused() -> None:
    """log f(y | t) of a constant cluster of n rows grows by n - 1 per unit of -t, and so has no bound."""
    problem, arrays = small_problem(1)
    flat = arrays["X"] * [1.0, 0.0]
    chunks = build_chunks(flat[:, 0], flat, flat, arrays["W"], arrays["V"], arrays["codes"])
    problem = replace(problem, chunks=chunks)
    theta, structure = some_theta(problem), problem.structure
    theta[problem.p + problem.k :][(structure.rows > 0) & (structure.columns == 0)] = 0.0  # u does not depend on t
    t = np.array([-8.0, -9.0]) / problem.parameters(theta).L_tt[0, 0]
    step = conditional_loglik(problem, theta, np.broadcast_to(t[None, :, None], (problem.J, 2, 1)))
    np.testing.assert_allclose(step[:, 1] - step[:, 0], np.bincount(arrays["codes"]) - 1.0, atol=LEADING)


def test_one_constant_cluster_is_named(frame: pd.DataFrame) -> None:
    said = r"in 2 of 30 clusters \(g: 3, 7\).*without end.*Remove these clusters and report them apart"
    with pytest.raises(NotIdentifiedError, match=said):
        mlmed.location_scale(*PLAIN, constant_in(frame, [3, 7]))


def test_a_cluster_on_the_line_of_its_slopes(frame: pd.DataFrame) -> None:
    line = frame.assign(y=np.where(frame["g"] == 5, 2.0 - 0.7 * frame["x"], frame["y"]))
    with pytest.raises(NotIdentifiedError, match=r"1 of 30 clusters \(g: 5\)"):
        mlmed.location_scale("y ~ x + (1 + x | g)", "~ 1 + (1 | g)", line)


def test_fixed_slopes_leave_residuals(frame: pd.DataFrame) -> None:
    with pytest.warns(ConvergenceWarning, match=r"constant within 1 of 30 clusters \(g: 3\).*without these clusters"):
        fit = mlmed.location_scale("y ~ x + (1 | g)", "~ 1 + (1 | g)", constant_in(frame, [3]))
    assert fit.converged


def test_constant_within_most_clusters(frame: pd.DataFrame) -> None:
    """Their log residual sd has no lower end, whatever the predictors."""
    data = frame.assign(y=np.where(frame["g"] < 20, 1.0 * frame["g"], frame["y"]))
    with pytest.raises(NotIdentifiedError, match="constant within 20 of 30 clusters"):
        mlmed.location_scale("y ~ x + (1 | g)", "~ 1 + (1 | g)", data)


def test_constant_clusters_without_scale_random_effects(frame: pd.DataFrame) -> None:
    assert mlmed.location_scale("y ~ 1 + (1 | g)", "~ w", constant_in(frame, [3])).converged


def test_one_row_is_not_a_constant_cluster(frame: pd.DataFrame) -> None:
    data = frame.loc[(frame["g"] > 2) | ~frame["g"].duplicated()]
    assert (data.groupby("g").size() == 1).sum() == 3
    assert mlmed.location_scale(*PLAIN, data).converged


def test_each_cluster_is_judged_by_its_own_size(frame: pd.DataFrame) -> None:
    """Half the clusters in units 1e6 times as large: the others are small and not constant."""
    data = frame.assign(y=frame["y"] * np.where(frame["g"] % 2, 1e6, 1.0))
    found = exact_fits(read_rows(read_equations(*PLAIN, data), data))
    assert len(found.unbounded) == len(found.bounded) == 0
    shifted = constant_in(frame.assign(y=1e9 + frame["y"]), [3], 1e9 + 0.1)
    with pytest.raises(NotIdentifiedError, match=r"1 of 30 clusters \(g: 3\)"):
        mlmed.location_scale(*PLAIN, shifted)
