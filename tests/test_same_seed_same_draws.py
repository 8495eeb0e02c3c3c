"""A seed gives the same parametric replicates whatever the last digits of the sums are."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.reml.simulation import _row_factor
from tests.slopes_models import MEDIATOR, OUTCOME, gappy, steep

#: Share of a draw, where optima are known to 1e-8 of a standard error.
SAME = 1e-7


@pytest.mark.filterwarnings("ignore::mlmed.errors.MlmedWarning")
@pytest.mark.parametrize("gaps", [False, True])
def test_rows_and_units_do_not_turn_parametric_draws(gaps: bool) -> None:
    """Rows in another order and columns in other units differ in last digits: draws moved by half their sd."""
    data = steep(1, 1.0, clusters=25, rows=7)
    if gaps:
        data = gappy(data)
        data["y"] = data["y"].where(np.random.default_rng(0).random(len(data)) > 0.2)

    def drawn(table: pd.DataFrame) -> np.ndarray:
        fit = mlmed.mediate(MEDIATOR, OUTCOME, table)
        return fit.bootstrap(5, seed=1, kind="parametric").draws["b"].to_numpy()

    first = drawn(data)
    mixed = data.sample(frac=1.0, random_state=1).sort_values("id", kind="stable")
    for other in (mixed, data.assign(x=3.0 * data["x"])):
        assert drawn(other) == pytest.approx(first, rel=SAME)


def test_row_factors_are_unique_and_have_the_products() -> None:
    """Rows beyond the rank are zero, those before have positive leading entries, and there are no more than rows."""
    rng = np.random.default_rng(2)
    rows = [rng.normal(size=(n, 3)) for n in (1, 2, 5)]
    rows.append(np.column_stack([np.ones(4), np.full(4, 2.0), rng.normal(size=4)]))  # the second repeats the first
    cross = np.stack([one.T @ one for one in rows])
    found, rank = _row_factor(cross, np.array([1.0, 2.0, 5.0, 4.0]))
    assert rank.tolist() == [1, 2, 3, 2]
    assert found.transpose(0, 2, 1) @ found == pytest.approx(cross, abs=1e-12)
    for own, r in zip(found, rank, strict=True):
        assert not own[r:].any()
        assert all(row[np.flatnonzero(row)[0]] > 0.0 for row in own[:r])
