"""Refusals at the edge of what identifies a model."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DroppedRowsWarning, NotIdentifiedError
from tests.multivariate.dense import simulated

PAIR = ["y0 ~ x + (1 |c| id)", "y1 ~ x + (1 |c| id)"]


@pytest.mark.parametrize("common", [0, 1])
def test_fewer_than_two_rows_with_both_responses(common):
    """One row has two residuals and no correlation; the message says how many there are."""
    data = simulated(30, 8, seed=2, R=2)
    first = np.arange(len(data)) % 2 == 0
    alone = np.arange(len(data)) >= common
    data.loc[first & alone, "y0"] = np.nan
    data.loc[~first & alone, "y1"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        with pytest.raises(NotIdentifiedError, match=rf"y0 and y1 are complete together in {common} row"):
            mlmed.mixed(PAIR, data, residual="unstructured")


def test_a_response_of_the_clusters_with_rounding():
    """The same number in all rows of a cluster, but for the eighth digit: not a response of the rows."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"id": np.repeat(np.arange(30), 8), "x": rng.normal(size=240)})
    data["y"] = rng.normal(10.0, 1.0, 30)[data["id"]] * (1.0 + 1e-7 * rng.normal(size=240))
    assert data.groupby("id")["y"].nunique().min() > 1
    with pytest.raises(NotIdentifiedError, match="the response y does not vary within clusters"):
        mlmed.mixed("y ~ x + (1 | id)", data)
