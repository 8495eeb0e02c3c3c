"""Fits of separate equations that several test files use."""

from __future__ import annotations

import pytest

import mlmed
from mlmed.api.piecewise import piecewise
from tests.piecewise_models import LOWER, MEDIATOR, OUTCOME, UPPER, make


@pytest.fixture(scope="module")
def data():
    return make()


@pytest.fixture(scope="module")
def fit(data):
    return piecewise(MEDIATOR, OUTCOME, data)


@pytest.fixture(scope="module")
def upper(data):
    return piecewise(UPPER, LOWER, data)


@pytest.fixture(scope="module")
def yuan():
    data = mlmed.datasets.load("yuan_mackinnon_sim")
    return piecewise("Med ~ X + (1 + X | group)", "y ~ X + Med + (1 + X + Med | group)", data)
