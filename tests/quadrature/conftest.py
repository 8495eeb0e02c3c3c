"""Fits that several tests share."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

import mlmed
from tests.locscale_models import M4


@pytest.fixture(scope="session")
def m4(dataset: Callable[[str], pd.DataFrame]) -> mlmed.Results:
    """The published location-scale model of positive affect."""
    return mlmed.location_scale(*M4, dataset("williams"))
