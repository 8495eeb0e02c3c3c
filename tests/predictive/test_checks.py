"""Predictive checks: their statistics by hand, and what they find."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import mlmed
from mlmed.effects.predictive import cluster_moments, comparison, response_clusters, response_statistics
from mlmed.errors import EffectError
from tests.predictive.fits import TWO, frame, quietly, with_gaps
from tests.tolerances import SAME

#: The smallest tail share of 99 sets, and values further out than all of them.
LEAST = 0.02


def by_hand(table: pd.DataFrame, data: pd.DataFrame) -> dict[tuple[str, str], float]:
    """All statistics with pandas and scipy."""
    found = {}
    for name in ("m", "y"):
        values = table[name].dropna()
        groups = values.groupby(data["id"].loc[values.index])
        sds = groups.std()
        found |= {
            (name, "mean"): values.mean(),
            (name, "sd"): values.std(),
            (name, "skewness"): stats.skew(values),
            (name, "min"): values.min(),
            (name, "max"): values.max(),
            (name, "sd of cluster means"): groups.mean().std(),
            (name, "sd of log cluster sds"): np.log(sds[sds > 0]).std(),
        }
    both = table[["m", "y"]].dropna()
    within = both - both.groupby(data["id"].loc[both.index]).transform("mean")
    found["m, y", "correlation"] = both.corr().iloc[0, 1]
    found["m, y", "correlation within clusters"] = within.corr().iloc[0, 1]
    return found


@pytest.fixture(scope="module")
def gappy() -> pd.DataFrame:
    """Missing values, and one cluster of a single row."""
    data = with_gaps(frame()).reset_index(drop=True)
    return data[(data["id"] != 3) | (data["id"] == 3).cumsum().eq(1)].reset_index(drop=True)


def test_statistics_are_those_of_pandas(gappy: pd.DataFrame) -> None:
    """Observed and simulated, on rows with gaps; the mean, the interval and the share over the sets."""
    fit = quietly(mlmed.mixed, TWO, gappy)
    table = fit.predictive_check(99, seed=1, level=0.9).set_index(["response", "statistic"])
    rows = gappy[gappy["id"].notna()]
    observed = by_hand(pd.DataFrame({"m": rows["m"].where(rows["w"].notna()), "y": rows["y"]}), gappy)
    sets = fit.simulate(99, seed=1)
    simulated = pd.DataFrame([by_hand(sets[k], gappy) for k in range(99)])
    assert list(table.index) == list(observed)
    for key, value in observed.items():
        row, draws = table.loc[key], simulated[key].to_numpy()
        assert row["observed"] == pytest.approx(value, rel=SAME)
        assert row["simulated"] == pytest.approx(draws.mean(), rel=SAME)
        ends = np.sort(draws)[[4, 94]]  # 5th and 95th of 99
        assert [row["conf_low"], row["conf_high"]] == pytest.approx(ends, rel=1e-9)
        beyond = min((draws >= value).sum(), (draws <= value).sum())
        assert row["tail_share"] == pytest.approx(2 * beyond / 100, abs=1.001 * LEAST)  # interpolated between two sets
    assert "1 of 40 clusters that have one row" in table.loc[("y", "sd of log cluster sds"), "note"]


def test_clusters_that_do_not_vary_have_no_log_sd() -> None:
    """They are left out of the observed and of all simulated sets, and counted."""
    data = frame().reset_index(drop=True)
    data.loc[data["id"] <= 3, "y"] = 0.1
    table = quietly(mlmed.mixed, "y ~ x + (1 | id)", data).predictive_check(40, seed=1).set_index("statistic")
    row = table.loc["sd of log cluster sds"]
    assert row["note"] == "without 3 of 40 clusters that have one row or do not vary"
    assert row["observed"] == pytest.approx(np.log(data[data["id"] > 3].groupby("id")["y"].std()).std(), rel=SAME)


def test_single_rows_leave_statistics_out() -> None:
    """With clusters of one row there is no sd of log sds, and no correlation within clusters."""
    values = np.random.default_rng(1).normal(size=(2, 5))
    found = response_statistics(values, response_clusters(["a", "b"], values, np.arange(5)))
    assert ("a", "sd of log cluster sds") not in found
    assert np.isnan(found["a, b", "correlation within clusters"])
    assert found["a, b", "correlation"] == pytest.approx(np.corrcoef(values)[0, 1], rel=SAME)
    assert np.isnan(cluster_moments(values[0], np.arange(5))[1]).all()
    row = comparison(found, [found] * 40, {}, level=0.95).set_index("statistic").loc["correlation within clusters"]
    assert row.drop(["response", "note"]).isna().all()
    assert row["note"] == "not defined: no cluster has two rows with both responses"


# -- what the checks find --------------------------------------------------------------------------------------------


def spread_out(log_sd: float) -> pd.DataFrame:
    """60 clusters of 10 with random intercepts; ``log_sd`` is the sd of the clusters' log residual sds."""
    rng = np.random.default_rng(11)
    codes = np.repeat(np.arange(60), 10)
    sds = np.exp(log_sd * rng.normal(size=60))
    y = rng.normal(size=60)[codes] + sds[codes] * rng.normal(size=600)
    return pd.DataFrame({"id": codes, "y": y})


def test_clusters_that_differ_in_their_sds_are_found() -> None:
    """Only where they do."""
    share = {}
    for log_sd in (0.0, 0.5):
        table = quietly(mlmed.mixed, "y ~ 1 + (1 | id)", spread_out(log_sd)).predictive_check(99, seed=1)
        share[log_sd] = table.set_index("statistic").loc["sd of log cluster sds", "tail_share"]
    assert share[0.5] == pytest.approx(LEAST, rel=SAME)
    assert share[0.0] > 0.1


def test_a_residual_correlation_that_the_model_leaves_out_is_found() -> None:
    """Residuals correlated by .5, fitted as independent."""
    rng = np.random.default_rng(5)
    data = spread_out(0.0)
    e = rng.normal(size=(2, 600))
    u = rng.normal(size=(2, 60))[:, data["id"]]
    data = data.assign(a=u[0] + e[0], b=u[1] + 0.5 * e[0] + np.sqrt(0.75) * e[1])
    fit = quietly(mlmed.mixed, ["a ~ 1 + (1 |c| id)", "b ~ 1 + (1 |c| id)"], data)
    row = fit.predictive_check(99, seed=1).set_index("statistic").loc["correlation within clusters"]
    assert row["observed"] == pytest.approx(0.5, abs=0.1)
    assert abs(row["simulated"]) < 0.05
    assert row["tail_share"] == pytest.approx(LEAST, rel=SAME)


def test_people_differ_in_their_spread(dataset) -> None:
    """Daily affect: one residual sd for all misses how much the sds of people differ, whoever the clusters are."""
    williams = dataset("williams")
    fit = quietly(mlmed.mixed, "PA.std ~ PA_lag + NA_lag + (1 | id)", williams)
    row = fit.predictive_check(99, seed=1, of="cluster").set_index("statistic").loc["sd of log cluster sds"]
    assert row["observed"] > 3.0 * row["conf_high"]
    assert row["tail_share"] == pytest.approx(LEAST, rel=SAME)


def test_level_is_a_coverage() -> None:
    fit = quietly(mlmed.mixed, "y ~ x + (1 | id)", frame())
    with pytest.raises(EffectError, match="level must be a proportion between 0 and 1"):
        fit.predictive_check(10, seed=1, level=90)
