"""A seed gives the same draws whatever the last digits of sums and covariances are."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.effects.confounding import Jointly
from mlmed.effects.draws import normal_draws
from mlmed.lmm.covariance import normal_root
from mlmed.lmm.simulation import _row_factor
from tests.kernels import ROOT, environment, runs_here
from tests.sensitivity_models import pair_from
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


#: Covariances by name: regular, with equal variances and correlations (equal eigenvalues), of rank 2 and of rank 1.
EQUAL = np.array([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 2.0]])
TWO, ONE = np.array([[1.0, 2.0], [2.0, 4.0], [-1.0, 3.0]]), np.array([1.0, -2.0, 0.5])
COVARIANCES = {
    "regular": np.array([[4.0, 1.0, 0.5], [1.0, 2.0, -0.3], [0.5, -0.3, 1.0]]),
    "independent": np.diag([1.0, 4.0, 9e-8]),
    "equal": EQUAL,
    "rank 2": TWO @ TWO.T,
    "rank 1": np.outer(ONE, ONE),
    "one is known": np.diag([1.0, 0.0, 4.0]),
}


@pytest.mark.parametrize("name", COVARIANCES)
def test_last_digits_do_not_turn_normal_draws(name: str) -> None:
    """Eigenvectors have signs, and with equal eigenvalues directions, that the last digits decide."""
    covariance, rng = COVARIANCES[name], np.random.default_rng(3)
    first = normal_draws(np.zeros(3), covariance, 50, np.random.default_rng(1))
    for _ in range(20):
        noise = 1e-15 * rng.normal(size=(3, 3))
        other = normal_draws(np.zeros(3), covariance * (1.0 + noise + noise.T), 50, np.random.default_rng(1))
        assert other / first.std() == pytest.approx(first / first.std(), abs=SAME)


@pytest.mark.parametrize("name", COVARIANCES)
def test_normal_draws_have_the_covariance(name: str) -> None:
    """Means and second moments of 200,000 draws are within five of their standard errors."""
    covariance, mean, n = COVARIANCES[name], np.array([1.0, 0.0, -2.0]), 200_000
    draws = normal_draws(mean, covariance, n, np.random.default_rng(2)) - mean
    variances = np.diag(covariance)
    assert (np.abs(draws.mean(axis=0)) <= 5.0 * np.sqrt(variances / n)).all()
    errors = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    assert (np.abs(draws.T @ draws / n - covariance) <= 5.0 * errors).all()


@pytest.mark.parametrize("name", COVARIANCES)
def test_the_root_is_triangular_without_columns_for_what_others_make_up(name: str) -> None:
    covariance = COVARIANCES[name]
    root = normal_root(covariance)
    assert root @ root.T == pytest.approx(covariance, rel=1e-14, abs=1e-14)
    assert not np.triu(root, 1).any()
    assert (np.diag(root) >= 0.0).all()
    assert root.any(axis=0).sum() == np.linalg.matrix_rank(covariance)


def test_directions_of_predictors_far_from_zero_are_drawn() -> None:
    """A mean of a million sds: the prediction there varies, though slope and intercept are almost one number."""
    far = 1e6
    X = np.array([[1.0, far - 1.0], [1.0, far], [1.0, far + 1.0]])
    V = np.array([[(1.0 + 1.5 * far**2) / 3.0, -0.5 * far], [-0.5 * far, 0.5]])
    draws = normal_draws(np.zeros(2), V, 20_000, np.random.default_rng(1)) @ X[1]
    assert draws.std() == pytest.approx(np.sqrt(1.0 / 3.0), rel=0.05)


def _decoupled() -> pd.DataFrame:
    """x and m vary between clusters only, so the estimates of a and b are independent (2-2-1)."""
    rng, J, n = np.random.default_rng(4), 40, 8
    x = rng.normal(size=J)
    m = 0.5 * x + rng.normal(size=J)
    table = pd.DataFrame({"id": np.repeat(np.arange(J), n), "x": np.repeat(x, n), "m": np.repeat(m, n)})
    table["y"] = 0.4 * table["m"] + 0.2 * table["x"] + np.repeat(rng.normal(size=J), n) + rng.normal(size=J * n)
    return table


def _rows_mixed(table: pd.DataFrame, key: int) -> pd.DataFrame:
    return table.sample(frac=1.0, random_state=key)


def _ends(rows: pd.DataFrame) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = mlmed.piecewise("m ~ x", "y ~ m + x + (1 | id)", rows)
        table = fit.effects(interval="monte-carlo", n=500, seed=1).set_index("term")
    return table.loc[["a", "b", "cprime", "indirect"], ["conf_low", "conf_high"]].to_numpy(dtype=float)


def test_rows_in_another_order_have_the_same_monte_carlo_intervals() -> None:
    """Where a and b are independent the last digits decided the eigenvectors."""
    data = _decoupled()
    first = _ends(data)
    for key in range(3):
        assert _ends(data.sample(frac=1.0, random_state=key)) == pytest.approx(first, rel=1e-6)


SCRIPT = """
from tests.lmm.test_same_seed_same_draws import _decoupled, _ends
print(*_ends(_decoupled()).ravel())
"""


def test_kernels_give_the_same_monte_carlo_intervals() -> None:
    """Other processors round differently: their kernels, as far as this one has them."""
    found = []
    for kernel in filter(runs_here, ("Prescott", "Haswell", "ARMV8", "NEOVERSEN1")):
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env=environment(kernel), cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(np.array(done.stdout.split(), dtype=float))
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-6)


def test_a_joint_fit_with_dependent_scores_has_one_root() -> None:
    """Six clusters with dummies of their own: robust errors of the coefficients of one equation are of low rank."""
    rng, J, n = np.random.default_rng(6), 6, 50
    codes = np.repeat(np.arange(J), n)
    table = pd.DataFrame({"id": codes, "x": rng.integers(0, 2, J * n), "w": rng.normal(size=J * n)})
    table["m"] = (0.5 * table["x"] + 0.2 * rng.normal(size=J)[codes] + rng.normal(size=J * n) > 0.0).astype(int)
    table["y"] = 0.4 * table["m"] + 0.2 * table["x"] + rng.normal(size=J * n)

    def root(rows: pd.DataFrame) -> np.ndarray:
        fit = mlmed.causal("m ~ x + C(id)", "y ~ m + x + C(id)", rows, treatment="x", family_m="probit", cluster="id")
        curve = Jointly(pair_from(fit), rows["id"].to_numpy())
        curve.fit(0.3)
        return curve.roots[0.3]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first = root(table)
        size = np.sqrt((first**2).sum(axis=0))
        for key in range(3):
            assert root(table.sample(frac=1.0, random_state=key)) / size == pytest.approx(first / size, abs=1e-6)
