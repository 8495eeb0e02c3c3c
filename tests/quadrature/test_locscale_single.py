"""Clusters of one row: what they cannot tell, and where it is said."""

from __future__ import annotations

import pytest

import mlmed
from mlmed.errors import NotIdentifiedError
from tests.locscale_models import simulated


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("y ~ x + (1 | row)", "within one row the residual sd of a cluster cannot be told from its location effect"),
        ("y ~ x", "one residual does not show how residuals of its cluster spread"),
    ],
)
def test_the_reason_fits_the_model(location: str, reason: str) -> None:
    data = simulated(10, 4, seed=1).assign(row=range(40))
    with pytest.raises(NotIdentifiedError, match=f"40 of 40 clusters .*row.* have 1 row: {reason}, so the variance"):
        mlmed.location_scale(location, "~ 1 + (1 | row)", data)


def test_the_summary_counts_them() -> None:
    data = simulated(30, 8, seed=1)
    data = data.loc[(data["g"] > 4) | ~data["g"].duplicated()]
    said = "1 to 8 rows, mean 6.8; 5 with 1 row, which says nothing of its own residual sd"
    assert said in " ".join(str(mlmed.location_scale("y ~ x + (1 | g)", "~ w + (1 | g)", data)).split())
    assert "with 1 row" not in str(mlmed.location_scale("y ~ x + (1 | g)", "~ w", data))
