"""Fits of potential outcomes that several test files use."""

from __future__ import annotations

import pytest

import mlmed
from tests.causal_models import MIXED


@pytest.fixture(scope="session")
def mixed() -> mlmed.Results:
    """Potential outcomes of the shipped data, both equations mixed."""
    return mlmed.causal(*MIXED, mlmed.datasets.load("yuan_mackinnon_sim"))
