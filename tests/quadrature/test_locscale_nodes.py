"""The number of nodes: how far the ladder goes, and that the certificate has the last word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import mlmed
from mlmed.errors import ConvergenceWarning
from mlmed.quadrature import optimizer
from mlmed.quadrature.nodes import centres_at_zero
from mlmed.quadrature.optimizer import LADDER, Optimum, certify
from tests.locscale_models import simulated

MODEL = ("y ~ x + (1 |c| g)", "~ w + (1 |c| g)")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nodes that were certified; the first certificate says that they are too few."""
    found: list[int] = []
    certified = optimizer._certified

    def doubtful(problem: Any, climb: Any, gone: Any, m: int, count: int) -> Optimum:
        optimum = certified(problem, climb, gone, m, count)
        found.append(m)
        if len(found) > 1:
            return optimum
        size = len(optimum.theta)
        still, rest = centres_at_zero(problem.J, 0), (np.zeros(size), np.eye(size))
        judged = certify(*rest, np.zeros(size, dtype=bool), centres=still, node_change=1.2345e-3)
        return replace(optimum, certificate=judged)

    monkeypatch.setattr(optimizer, "_certified", doubtful)
    return found


def test_a_rung_up_when_the_certificate_asks_for_it(asked: list[int]) -> None:
    fit = mlmed.location_scale(*MODEL, simulated(40, 10, seed=3))
    assert fit.converged
    first = LADDER[1].index(asked[0])
    assert asked == list(LADDER[1][first : first + 2])
    assert fit.fit.nodes == asked[1]


def test_nodes_that_were_given_are_kept_and_the_change_has_two_digits(asked: list[int]) -> None:
    with pytest.warns(ConvergenceWarning, match="moves the log-likelihood by 1.2e-03; give more nodes"):
        fit = mlmed.location_scale(*MODEL, simulated(40, 10, seed=3), nodes=7)
    assert asked == [7]
    assert "doubling them moves the log-likelihood by 1.2e-03" in " ".join(str(fit).split())
