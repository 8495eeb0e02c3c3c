"""Power and coverage of a planned design."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import ndtr, ndtri
from scipy.stats import nct

import mlmed
from mlmed.api.piecewise import piecewise
from mlmed.errors import DataError, EffectError, FormulaError
from mlmed.simulate import BPGTruth, bpg, power
from mlmed.simulate.population import Source
from mlmed.simulate.power import FORMULAS, analysis_for, interval_options
from tests.simulate_models import ERRORS
from tests.tolerances import SAME


@pytest.fixture(scope="module")
def planned() -> mlmed.simulate.PowerResults:
    """A design whose path a has middling power, and whose path b does not exist."""
    G = np.diag([0.6, 0.16, 0.4, 0.16, 0.04])
    return power(100, 8, a=0.15, b=0.0, G=G, n=300, seed=1)


def rows_of(found, term: str) -> pd.Series:
    """The only row of a term."""
    (row,) = (row for _, row in found.table[found.table["term"] == term].iterrows())
    return row


def exact_power(a: float, J: int, n: int, *, seed: int) -> float:
    """Power of the z test of a when the variances are known, over draws of x: V_j = [1 x] diag(G) [1 x]' + sigma2 I."""
    powers = []
    for k in range(40):
        x = bpg(J, n, seed=seed + k).data["x"].to_numpy().reshape(J, n)
        X = np.stack([np.ones_like(x), x], axis=2)
        V = X @ np.diag([0.6, 0.16]) @ X.transpose(0, 2, 1) + 0.65 * np.eye(n)
        information = np.einsum("jna,jnb->ab", X, np.linalg.solve(V, X))
        z, edge = a / np.sqrt(np.linalg.inv(information)[1, 1]), ndtri(0.975)
        powers.append(ndtr(z - edge) + ndtr(-z - edge))
    return float(np.mean(powers))


def test_power_of_a_is_that_of_the_exact_test(planned):
    row = rows_of(planned, "a")
    expected = exact_power(0.15, 100, 8, seed=1000)
    assert 0.7 < expected < 0.95
    error = np.sqrt(expected * (1 - expected) / row["n"])
    assert row["power"] == pytest.approx(expected, abs=ERRORS * error)


def test_standard_errors_are_the_spread_and_intervals_cover(planned):
    for term in ("a", "b", "cprime", "cov_ab", "direct", "total"):
        row = rows_of(planned, term)
        assert abs(row["bias"]) < ERRORS * row["bias_mcse"]
        assert row["mean_se"] == pytest.approx(row["sd"], abs=ERRORS * row["sd_mcse"])
        assert row["coverage"] == pytest.approx(0.95, abs=ERRORS * np.sqrt(0.95 * 0.05 / 300))
        assert row["n_failed"] == row["n_no_interval"] == 0


def test_the_power_of_nothing_is_the_level(planned):
    for term in ("b", "cov_ab"):
        row = rows_of(planned, term)
        assert row["truth"] == 0.0
        assert row["power"] == pytest.approx(0.05, abs=ERRORS * np.sqrt(0.95 * 0.05 / 300))
        assert row["power"] == pytest.approx(1.0 - row["coverage"])


def test_a_size_has_the_same_numbers_alone_in_a_grid_and_for_any_number_of_workers():
    grid = power([12, 20], [4, 6], n=4, seed=3)
    assert grid.table[["n_clusters", "cluster_size"]].drop_duplicates().values.tolist() == [
        [12, 4], [20, 4], [12, 6], [20, 6]
    ]  # fmt: skip
    alone = power(20, 6, n=4, seed=3).table
    pd.testing.assert_frame_equal(grid.table.tail(7).reset_index(drop=True), alone)
    pd.testing.assert_frame_equal(power([12, 20], [4, 6], n=4, seed=3, n_jobs=2).table, grid.table)
    assert not power(20, 6, n=4, seed=4).table["mean"].equals(alone["mean"])


def test_fits_without_an_interval_are_counted_and_said():
    found = power(25, 5, n=15, seed=1)
    row = rows_of(found, "indirect")
    assert row["n"] == 15
    assert 0 < row["n_no_interval"] < 15
    assert row["n_singular"] >= row["n_no_interval"]
    share = f"{100 * row['n_no_interval'] / 15:.3g}%"
    assert row["share_missing"] == pytest.approx(row["n_no_interval"] / 15)
    assert row["note"].startswith(f"{row['n_no_interval']} of 15 ({share}) without an interval; ")
    known = 15 - row["n_no_interval"]
    assert row["power"] * known == pytest.approx(round(row["power"] * known))  # of the intervals that exist
    assert row["power_of_all"] * 15 == pytest.approx(row["power"] * known)
    assert f"{row['n_no_interval']} ({share})" in str(found)
    assert "positive definite" in str(found)
    assert "missing" in str(found)


def test_designs_that_cannot_be_fitted_say_why():
    found = power(20, 1, n=3, seed=1)
    assert (found.table["n_failed"] == 3).all()
    assert found.table["power"].isna().all()
    assert "20 rows in 20 clusters, one each" in found.table["note"].iloc[0]
    assert found.table["power_of_all"].isna().all()
    assert (found.table["share_missing"] == 1.0).all()
    assert "3 (100%)" in str(found)
    assert "ordinary regression" in " ".join(str(found).split())


def test_data_sets_without_an_error_are_no_misses_of_a_and_b():
    """a is 0.6 with an error near 0.12: the exact test finds it in 99.9%, and so do the fits that have an error."""
    found = power(20, 8, a=0.6, b=0.6, cov_ab=0.113, n=25, seed=1)
    pytest.importorskip("matplotlib").use("Agg")
    expected = exact_power(0.6, 20, 8, seed=2000)
    assert expected > 0.99
    for term in ("a", "b"):
        row = rows_of(found, term)
        assert 0.2 < row["share_missing"] < 0.9
        assert row["power"] == 1.0
        assert row["power_of_all"] == pytest.approx(1.0 - row["share_missing"])
        title = " ".join(found.plot(term).get_title().split())
        assert f"intervals that exist: up to {100 * row['share_missing']:.3g}% of the data sets have none" in title
    assert rows_of(found, "a")["truth"] == 0.6


def test_a_plan_in_small_units_keeps_its_digits():
    """y in units of a millionth: what is printed is what the table has, to three digits (errors to one)."""
    scale = np.diag([1.0, 1.0, 1e-6, 1e-6, 1e-6])
    G = scale @ np.diag([0.6, 0.16, 0.4, 0.16, 0.04]) @ scale
    values = {"a": 0.3, "b": 3e-7, "cprime": 2e-7, "G": G, "sigma2": (0.65, 4.5e-13)}
    found = power(30, 8, **values, n=3, seed=1)
    names = ("truth", "bias", "bias_mcse", "sd", "sd_mcse", "mean_se")
    printed = [line.split() for line in str(found).splitlines() if line.startswith("30 ")]
    for cells, (_, row) in zip(printed, found.table.iterrows(), strict=True):
        assert cells[2] == row["term"]
        if row["term"] != "a":
            shown = [float(cell.strip("()")) for cell in cells[3:9]]
            np.testing.assert_allclose(shown, row[list(names)].astype(float), rtol=5e-3)
        assert cells[-1] == "0"


def test_paths_without_the_covariance_of_their_slopes_are_not_planned():
    """With the 0.113 of the default population, the truth of a b = -0.076 would be +0.037."""
    with pytest.raises(DataError, match="a and b are given, and cov"):
        power(20, 8, a=0.23, b=-0.33, n=1, seed=1)
    found = power(20, 8, a=0.23, b=-0.33, cov_ab=0.0, n=1, seed=1)
    assert rows_of(found, "indirect")["truth"] == pytest.approx(-0.0759, rel=SAME)


def test_other_intervals_and_simpler_models():
    block = power(30, 6, n=3, vcov="block", seed=1)
    assert "block errors" in str(block)
    assert (block.table["mean_se"] <= power(30, 6, n=3, seed=1).table["mean_se"] + SAME)[:2].all()
    drawn = power(30, 6, n=3, interval="monte-carlo", draws=50, seed=1)
    pd.testing.assert_frame_equal(drawn.table, power(30, 6, n=3, interval="monte-carlo", draws=50, seed=1).table)
    assert drawn.table["mean"].equals(block.table["mean"])
    simple = power(30, 6, n=3, mediator="m ~ x + (1 | id)", seed=1).table
    row = simple.set_index("term").loc["cov_ab"]
    assert (row["mean"], row["n_no_interval"]) == (0.0, 3)
    assert "do not both vary" in row["note"]
    assert np.isnan(row["power"])


def test_power_of_a_between_clusters_is_that_of_the_t_distribution():
    """2-2-1: a is a regression of 40 clusters, tested with z; sigma2 = 0.65, x normal with sd 0.9."""
    found = rows_of(power(40, 3, a=0.35, design="2-2-1", n=150, seed=2), "a")
    rng, powers = np.random.default_rng(1), []
    for _ in range(2000):
        x = 0.9 * rng.normal(size=40)
        center = 0.35 / np.sqrt(0.65 / np.sum((x - x.mean()) ** 2))
        powers.append(nct.sf(ndtri(0.975), 38, center) + nct.cdf(-ndtri(0.975), 38, center))
    expected = float(np.mean(powers))
    assert 0.5 < expected < 0.8
    assert found["power"] == pytest.approx(expected, abs=ERRORS * np.sqrt(expected * (1 - expected) / 150))


@pytest.mark.parametrize(("design", "size"), [("2-1-1", (60, 5)), ("2-2-1", (60, 5))])
def test_designs_with_variables_at_level_2_are_fitted_separately(design, size):
    found = power(*size, design=design, n=60, seed=5)
    assert list(found.table["term"]) == ["a", "b", "cprime", "indirect", "direct", "total"]
    assert rows_of(found, "indirect")["truth"] == 0.36
    for row in found.table.itertuples():
        assert abs(row.bias) < ERRORS * row.bias_mcse
        assert row.mean_se == pytest.approx(row.sd, abs=ERRORS * row.sd_mcse)
        assert row.coverage > 0.95 - ERRORS * np.sqrt(0.95 * 0.05 / 60)
    source = Source.of(design)
    own = np.random.default_rng(np.random.SeedSequence(7, spawn_key=size))
    data = source.draw(*size, own).data
    options = interval_options(design, "product", None, None, 0.9)
    outcome = analysis_for(source, FORMULAS[design], "reml", options)(data, own)
    expected = piecewise(*FORMULAS[design], data).effects(interval="product", vcov="joint", level=0.9)
    rows = expected.set_index("term").loc[["a", "b", "cprime", "indirect", "direct", "total"]]
    np.testing.assert_allclose(outcome.values, rows[["estimate", "std_error", "conf_low", "conf_high"]], rtol=SAME)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n": 0}, EffectError, "n is a number of data sets"),
        ({"seed": None}, EffectError, "give a seed"),
        ({"n_jobs": 0}, EffectError, "n_jobs is a number of workers"),
        ({"level": 95}, EffectError, "level must be a proportion"),
        ({"interval": "wald"}, EffectError, "interval must be one of"),
        ({"vcov": "robust"}, EffectError, "vcov must be one of"),
        ({"vcov": "joint", "interval": "bootstrap"}, EffectError, "does not use vcov"),
        ({"draws": 100}, EffectError, "draws nothing; leave out draws="),
        ({"draws": 0, "interval": "monte-carlo"}, EffectError, "number of draws"),
        ({"n_clusters": []}, EffectError, "n_clusters is empty"),
        ({"n_clusters": "10"}, DataError, "n_clusters must be a whole number"),
        ({"cluster_size": [4, 0]}, DataError, "cluster_size must be a whole number"),
        ({"method": "mle"}, FormulaError, "method must be one of"),
        ({"mediator": "m ~ z + (1 | id)"}, FormulaError, "treatment 'x' is not in the mediator equation"),
        ({"mediator": "m ~ x + I(x**2) + (1 | id)"}, EffectError, "not a single slope"),
        ({"outcome": "y ~ m + x + np.exp(x) + (1 | id)"}, EffectError, "not a single slope"),
        ({"outcome": "y ~ m + x + (1 + np.exp(m / 9) | id)"}, (EffectError, FormulaError), "m"),
        ({"interval": "product"}, EffectError, "interval must be one of delta, monte-carlo, profile"),
        (
            {"interval": "profile", "design": "2-1-1"},
            EffectError,
            "interval must be one of delta, monte-carlo, product",
        ),
        ({"design": "2-1-1", "truth": BPGTruth()}, DataError, "x is constant within clusters"),
        ({"design": "1-2-1"}, DataError, "design must be one of"),
        ({"effects": {}}, TypeError, "no value of a population is called 'effects'"),
    ],
)
def test_plans_that_cannot_be_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        power(**{"n_clusters": 10, "cluster_size": 4, "n": 2, "seed": 1, **options})
