"""Intervals of separate equations."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from mlmed.api.piecewise import piecewise
from mlmed.effects.separate import EFFECTS
from mlmed.errors import (
    BoundaryWarning,
    DroppedRowsWarning,
)
from mlmed.fit.resampling import Plan, source_of
from mlmed.fit.separate import UNKNOWN_COVARIANCE
from mlmed.fit.system import equation_of
from tests.piecewise_models import LOWER, MEDIATOR, OUTCOME, SAME_REPLICATE, UPPER, estimates, make
from tests.tolerances import SAME


def test_monte_carlo_and_product_agree(yuan):
    """The ends within four standard errors of a quantile of n draws, by its density in the product's distribution."""
    from mlmed.intervals.product_normal import product_normal

    n = 200_000
    drawn = yuan.effects(interval="monte-carlo", n=n, seed=2).set_index("term")
    exact = yuan.effects(interval="product").set_index("term")
    Va, Vb = yuan.mediator.bse["X"] ** 2, yuan.outcome.bse["Med"] ** 2
    ab = product_normal(exact.loc[["a", "b"], "estimate"], np.diag([Va, Vb]))
    for end, share in (("conf_low", 0.025), ("conf_high", 0.975)):
        assert exact.loc["indirect", end] == pytest.approx(ab.quantile(share), rel=1e-9)
    for term in ("a", "b", "cprime", "c", "indirect", "direct", "total"):
        for end in ("conf_low", "conf_high"):
            bound = (
                4.0 * 3.0 * exact.loc[term, "std_error"] / np.sqrt(n)
            )  # sqrt(p(1-p))/density is below 3 sd at both ends
            assert drawn.loc[term, end] == pytest.approx(exact.loc[term, end], abs=bound), (term, end)
        assert drawn.loc[term, "std_error"] == pytest.approx(
            exact.loc[term, "std_error"], rel=4 * np.sqrt(14 / (4 * n))
        )
        assert drawn.loc[term, "p_value"] == pytest.approx(exact.loc[term, "p_value"], abs=4 / np.sqrt(n))
    assert exact.loc["indirect", "conf_low"] < yuan.effects().set_index("term").loc["indirect", "conf_low"]
    for table in (drawn, exact):
        assert UNKNOWN_COVARIANCE in table.loc["c_minus_cprime", "note"]
        assert np.isnan(table.loc["c_minus_cprime", "conf_low"])
    assert "no product interval" in exact.loc["ratio", "note"]
    assert np.isnan(exact.loc["ratio", "conf_low"])
    assert np.isnan(drawn.loc["ratio", "std_error"])
    assert np.isfinite(drawn.loc["ratio", "conf_low"])


@pytest.mark.parametrize("seed", [1, 2])
def test_monte_carlo_is_reproducible(fit, seed):
    one, two = (fit.effects(interval="monte-carlo", n=500, seed=seed) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_a_quotient_of_almost_nothing_is_not_clamped(data):
    """c' near 0: the ratio is what it is, and the note says what to make of it."""
    direct = piecewise(MEDIATOR, OUTCOME, data).outcome.params["x"]
    shifted = data.assign(y=data["y"] - (direct - 1e-3) * data["x"])
    table = piecewise(MEDIATOR, OUTCOME, shifted).effects().set_index("term")
    row = table.loc["ratio"]
    assert row["estimate"] == pytest.approx(
        table.loc["indirect", "estimate"] / table.loc["direct", "estimate"], rel=SAME
    )
    assert abs(row["estimate"]) > 50
    assert "direct is within two standard errors of 0" in row["note"]


def rows_of(data, index):
    groups = [rows for _, rows in data.groupby("id", sort=True)]
    return pd.concat([groups[j].assign(id=new) for new, j in enumerate(index)], ignore_index=True)


@pytest.mark.parametrize("formulas", [(MEDIATOR, OUTCOME), (UPPER, LOWER)], ids=["1-1-1", "2-2-1"])
def test_a_replicate_is_the_fit_of_those_clusters(data, formulas):
    """The same drawn clusters in every equation, also where one lacks rows of some; refitted from rows."""
    gaps = data.copy()
    gaps.loc[gaps["id"] == 3, ["m", "q"]] = np.nan
    gaps.loc[gaps.index[30:34], "y"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        boot = piecewise(*formulas, gaps).bootstrap(4, seed=3)
        for k, child in enumerate(np.random.SeedSequence(3).spawn(3)):
            used = np.delete(np.arange(40), 3)  # cluster 3 is in no equation
            index = used[np.random.default_rng(child).integers(39, size=39)]
            again = piecewise(*formulas, rows_of(gaps, index))
            expected = pd.concat([estimates(again), again.params])
            np.testing.assert_allclose(
                boot.draws.loc[k, expected.index], expected, rtol=SAME_REPLICATE, atol=SAME_REPLICATE
            )


def test_replicates_are_those_of_each_equation(fit):
    """With the same seed the same clusters as the bootstrap of one equation alone."""
    boot = fit.bootstrap(5, seed=8).draws
    alone = fit.outcome.bootstrap(5, seed=8).draws
    np.testing.assert_allclose(boot[["y~m", "y~x", "var(y~Intercept)"]], alone[["m", "x", "var(Intercept)"]], rtol=1e-9)
    np.testing.assert_allclose(boot["indirect"], boot["a"] * boot["b"], rtol=SAME)
    np.testing.assert_allclose(boot["c_minus_cprime"], boot["c"] - boot["cprime"], rtol=SAME)
    assert list(boot.columns) == [*EFFECTS, *fit.names]


def test_any_number_of_workers(upper):
    results = upper
    one, two = (results.bootstrap(8, seed=5, strata="arm", n_jobs=n).draws for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    pd.testing.assert_frame_equal(one[:3], results.bootstrap(3, seed=5, strata="arm").draws, check_exact=True)
    assert not one.equals(results.bootstrap(8, seed=5).draws)
    alone, several = (results.bootstrap(2, seed=5, n_jobs=n).jackknife for n in (1, 2))
    pd.testing.assert_frame_equal(alone, several, check_exact=True)


def test_strata_keep_their_clusters(upper, data):
    """As many clusters of each arm in every replicate as in the data."""
    source = source_of(upper.fit, Plan(1, strata="g", seed=1)).left_out
    arm = data.groupby("id")["g"].first().to_numpy()
    whole = pd.Series(arm).value_counts()
    for seed in range(5):
        index = source.draw_index(np.random.default_rng(seed))
        pd.testing.assert_series_equal(pd.Series(arm[index]).value_counts().sort_index(), whole.sort_index())
    boot = upper.bootstrap(40, seed=1, strata="g")
    assert "case within g" in repr(boot)


def test_bootstrap_intervals(fit):
    boot = fit.bootstrap(60, seed=3)
    asked = fit.effects(interval="bootstrap", n=60, seed=3, ends="basic")
    pd.testing.assert_frame_equal(asked, boot.tidy(ends="basic", terms=list(EFFECTS)))
    for method in ("percentile", "bc", "bca", "basic", "normal"):
        table = boot.tidy(ends=method, terms=list(EFFECTS))
        row = table.set_index("term").loc["c_minus_cprime"]
        assert row["conf_low"] < row["conf_high"]
        assert UNKNOWN_COVARIANCE not in row["note"]


def test_bootstrap_spreads_as_the_errors_say():
    """Normal data from the model: the standard deviation of the draws is the standard error, within four of its own."""
    data = make(120, 6, seed=9)
    fit = piecewise("m ~ z + (1 | id)", "y ~ m + z + (1 | id)", data)
    n = 200
    drawn = fit.effects(interval="bootstrap", n=n, seed=1).set_index("term")["std_error"]
    robust = fit.effects(vcov="CR0").set_index("term")["std_error"]
    for term in ("a", "b", "c", "indirect"):
        # beside the error of a spread of n draws: the sandwich and the bootstrap differ by terms of order 1/J
        assert drawn[term] == pytest.approx(robust[term], rel=4 / np.sqrt(2 * n) + 4 / 120)


@pytest.mark.parametrize("which", ["fit", "upper"])
def test_the_jackknife_is_leaving_out_clusters(which, request, data):
    results = request.getfixturevalue(which)
    left = results.bootstrap(20, seed=1).jackknife
    assert len(left) == 40
    formulas = [equation_of(one).text for one in results.fit.once]
    again = piecewise(*formulas, data[data["id"] != 7])
    np.testing.assert_allclose(left.loc[7, list(EFFECTS)], estimates(again), rtol=SAME_REPLICATE)


def test_failed_replicates_are_counted():
    """A treatment of two clusters out of twelve is often not drawn."""
    data = make(12, 5)
    data["z"] = (data["id"] < 2).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = piecewise(UPPER, LOWER, data)
    boot = fit.bootstrap(60, seed=1)
    assert boot.n_failed > 0
    assert boot.draws["a"].isna().sum() == boot.n_failed
    assert boot.draws.isna().any(axis=1).equals(boot.draws.isna().all(axis=1))
    reasons = [failure.text for failure in boot.failures]
    assert reasons == ["equation q, the coefficients cannot be told apart in the replicate"]
    assert f"{boot.n_failed} failed" in boot.tidy(terms="a").loc[0, "note"]


def test_a_mediator_that_does_not_vary_among_the_drawn_clusters_is_counted():
    """Two of eight clusters have other values than the rest: often neither is drawn."""
    data = make(8, 6)
    data["q"] = 1.0 * (data["id"] == 2) + 2.5 * (data["id"] == 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = piecewise("q ~ z", "y ~ q + z + (1 | id)", data, treatment="z")
    boot = fit.bootstrap(60, seed=1)
    constant = "equation q, the response is constant, or made up by the predictors, in the replicate"
    drawn = [np.random.default_rng(seed).integers(8, size=8) for seed in np.random.SeedSequence(1).spawn(60)]
    q = data.groupby("id")["q"].first().to_numpy()
    expected = sum(len(set(q[index])) == 1 for index in drawn)
    assert expected > 3
    assert next(count for failure, count in boot.failures.items() if failure.text == constant) >= expected
    assert sum(boot.failures.values()) == boot.draws["a"].isna().sum()
