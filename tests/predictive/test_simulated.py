"""Simulated responses have the mean and covariance of the model, on the rows that were fitted."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DataError, EffectError, FormulaError
from mlmed.results.results import Results
from tests.predictive.fits import TWO, frame, implied, quietly, with_gaps, with_values
from tests.tolerances import SAME

#: Standard errors that a Monte Carlo mean may be off, with fixed seeds; the largest of some 1,000 independent normal
#: errors is above 4.5 less than once in 100 runs.
SIGMAS = 4.5
#: Predictions of rows in the user's units against those in working units (values of size 100).
UNITS = 1e-9
DRAWS = 4000
MEDIATOR, OUTCOME = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)"


def correlated(fit: Results) -> Results:
    """Residuals of a row with a correlation of -.7."""
    sd = np.sqrt(fit.fit.estimates.sigma2)
    return with_values(fit, Sigma=np.outer(sd, sd) * np.array([[1.0, -0.7], [-0.7, 1.0]]))


def same_moments(values: np.ndarray, mean: np.ndarray, V: np.ndarray) -> None:
    """Means and covariances of draws (n, k) within their Monte Carlo errors under the normal model."""
    n = len(values)
    assert np.abs((values.mean(axis=0) - mean) / np.sqrt(np.diag(V) / n)).max() < SIGMAS
    error = np.sqrt((np.outer(np.diag(V), np.diag(V)) + V**2) / n)
    centred = values - mean
    assert np.abs((centred.T @ centred / n - V) / error).max() < SIGMAS


def by_cluster(fit: Results, data: pd.DataFrame, cluster: int, level: str) -> np.ndarray:
    """Draws of one cluster, (DRAWS, rows of the first response, then of the second, ...)."""
    sets = fit.simulate(DRAWS, seed=1, of=level)
    rows = np.flatnonzero((data["id"] == cluster).to_numpy())
    names = list(sets.columns.levels[1])
    parts = [sets.xs(name, axis=1, level="response").to_numpy()[rows].T for name in sorted(names)]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("sigma", ["diagonal", "unstructured"])
@pytest.mark.parametrize("gaps", [False, True], ids=["complete", "gaps"])
def test_new_clusters_have_the_moments_of_the_model(sigma: str, gaps: bool) -> None:
    """Mean X beta, covariance Z G Z' + Sigma, between the responses too."""
    data = with_gaps(frame()) if gaps else frame()
    fit = quietly(mlmed.mixed, TWO, data)
    fit = correlated(fit) if sigma == "unstructured" else fit
    rows = data[data["id"] == 7]
    x = rows["x"].to_numpy()
    V = implied(fit, rows, [np.column_stack([np.ones_like(x), x]), np.ones((len(x), 1))], fit.fit.estimates.G)
    mean = fit.predict(rows)[["m", "y"]].to_numpy().T.ravel()
    draws = by_cluster(fit, data, 7, "population")
    known = rows[["m", "y"]].notna().to_numpy() & np.column_stack([rows["w"].notna(), np.ones(len(rows), bool)])
    known = known.T.ravel()
    assert np.isnan(draws[:, ~known]).all()
    assert known.all() != gaps
    same_moments(draws[:, known], mean[known], V[np.ix_(known, known)])


def test_clusters_of_the_data_keep_their_law() -> None:
    """Mean X beta + Z E(u|y), covariance Z Var(u|y) Z' + Sigma, from dense matrices."""
    data = frame()
    fit = quietly(mlmed.mixed, "m ~ x + (1 + x | id)", data)
    rows, G = data[data["id"] == 7], fit.fit.estimates.G
    Z = np.column_stack([np.ones(len(rows)), rows["x"]])
    V = Z @ G @ Z.T + fit.fit.estimates.Sigma * np.eye(len(rows))
    gain = G @ Z.T @ np.linalg.inv(V)
    mean = fit.predict(rows).to_numpy() + Z @ gain @ (rows["m"] - fit.predict(rows)).to_numpy()
    np.testing.assert_allclose(mean, fit.predict(rows, of="cluster"), rtol=UNITS)
    spread = implied(fit, rows, [Z], G - gain @ Z @ G)
    same_moments(by_cluster(fit, data, 7, "cluster"), mean, spread)


# -- what follows a simulated response -----------------------------------------------------------------------------

FOLLOWS = {
    "plain": (MEDIATOR, OUTCOME),
    "computed": ("m ~ x + (1 | id)", "y ~ center(m)*w + np.exp(m / 40) + (1 + m:w | id)"),
}


@pytest.mark.parametrize("formulas", FOLLOWS.values(), ids=list(FOLLOWS))
@pytest.mark.parametrize("of", ["population", "cluster"])
def test_the_outcome_follows_the_simulated_mediator(formulas: Sequence[str], of: str) -> None:
    """Without random effects and outcome residuals, y is the prediction at the simulated m, whatever is made of m."""
    data = frame()
    fit = quietly(mlmed.mediate, *formulas, data, treatment="x")
    estimates = fit.fit.estimates
    exact = with_values(fit, G=np.zeros_like(estimates.G), Sigma=np.diag([estimates.sigma2[0], 0.0]))
    sets = exact.simulate(2, seed=1, of=of)
    for draw in (0, 1):
        mediator = sets[draw]["m"]
        assert np.std(mediator - fit.predict(data)["m"]) == pytest.approx(np.sqrt(estimates.sigma2[0]), rel=0.2)
        expected = fit.predict(data.assign(m=mediator))["y"]
        np.testing.assert_allclose(sets[draw]["y"], expected, rtol=UNITS, atol=UNITS * np.abs(expected).max())
        assert np.abs(expected - fit.predict(data)["y"]).max() > 0.1


def test_the_mean_outcome_has_the_covariance_of_the_slopes() -> None:
    """E(y) = c0 + b E(m) + c x + cov(b_j, m's random part): what a x b alone would miss."""
    data = frame()
    fit = quietly(mlmed.mediate, MEDIATOR, OUTCOME, data)
    sets = fit.simulate(DRAWS, seed=2).xs("y", axis=1, level="response").to_numpy()
    x, G, beta = data["x"].to_numpy(), fit.fit.estimates.G, fit.params
    slope = fit.G.columns.get_loc("y~m")
    mean = beta["y~Intercept"] + beta["y~x"] * x + beta["y~m"] * (beta["m~Intercept"] + beta["m~x"] * x)
    extra = G[slope, fit.G.columns.get_loc("m~Intercept")] + x * G[slope, fit.G.columns.get_loc("m~x")]
    error = sets.std(axis=1) / np.sqrt(DRAWS)
    assert np.abs((sets.mean(axis=1) - mean - extra) / error).max() < SIGMAS
    assert np.abs((sets.mean(axis=1) - mean) / error).max() > 1.5 * SIGMAS  # the draws are many enough to see it


def test_a_mediator_outside_its_equation_stays_as_observed() -> None:
    """Where w is missing, m is not simulated, and y follows the observed m."""
    data = with_gaps(frame())
    fit = quietly(mlmed.mediate, "m ~ x + w + (1 | id)", "y ~ m + x + (1 | id)", data, treatment="x")
    estimates = fit.fit.estimates
    exact = with_values(fit, G=np.zeros_like(estimates.G), Sigma=np.diag([estimates.sigma2[0], 0.0]))
    found = exact.simulate(seed=1)
    rows = (data["w"].isna() & data["y"].notna() & data["id"].notna()).to_numpy()
    assert rows.sum() > 10
    assert found["m"][rows].isna().all()
    np.testing.assert_allclose(found["y"][rows], fit.predict(data)["y"][rows], rtol=UNITS)


# -- shape, seeds, rows ----------------------------------------------------------------------------------------------


def test_sets_have_the_rows_of_the_data() -> None:
    """Index and order are the user's, duplicated labels too; NaN exactly where a row is not in an equation."""
    data = with_gaps(frame())
    before = data.copy(deep=True)
    fit = quietly(mlmed.mixed, TWO, data)
    one, three = fit.simulate(seed=1), fit.simulate(3, seed=1)
    known = data["id"].notna()
    expected = {"m": known & data["w"].notna(), "y": known & data["y"].notna()}
    for name, rows in expected.items():
        np.testing.assert_array_equal(one[name].notna(), rows)
    assert one.index.equals(data.index)
    assert list(three.columns) == [(k, name) for k in range(3) for name in ("m", "y")]
    assert three.columns.names == ["draw", "response"]
    pd.testing.assert_frame_equal(data, before)


def test_values_stand_in_the_rows_that_they_belong_to() -> None:
    """Without any noise the sets are the predictions, row by row."""
    data = with_gaps(frame())
    fit = quietly(mlmed.mixed, TWO, data)
    exact = with_values(fit, G=np.zeros((3, 3)), Sigma=np.zeros((2, 2)))
    found, expected = exact.simulate(seed=1), fit.predict(data)
    for name in ("m", "y"):
        rows = found[name].notna().to_numpy()
        np.testing.assert_allclose(found[name][rows], expected[name][rows], rtol=UNITS, atol=UNITS)


def test_tables_without_an_index_get_positions() -> None:
    """A Polars table and a dict give the numbers of the pandas one."""
    polars = pytest.importorskip("polars")
    data = frame().reset_index(drop=True)
    expected = quietly(mlmed.mixed, TWO, data).simulate(2, seed=1)
    for table in (polars.from_pandas(data), data.to_dict("list")):
        found = quietly(mlmed.mixed, TWO, table).simulate(2, seed=1)
        pd.testing.assert_frame_equal(found, expected, rtol=SAME)


@pytest.mark.parametrize("of", ["population", "cluster"])
def test_a_seed_fixes_every_set_whatever_their_number(of: str) -> None:
    """The first sets of five are those of two, and the only one of one."""
    fit = quietly(mlmed.mixed, TWO, frame())
    two, five = fit.simulate(2, seed=4, of=of), fit.simulate(5, seed=4, of=of)
    pd.testing.assert_frame_equal(five[[0, 1]], two, check_exact=True)
    pd.testing.assert_frame_equal(five[0], fit.simulate(seed=4, of=of), check_exact=True, check_names=False)
    assert not np.isclose(five[0], five[1]).any()
    assert not np.isclose(five[0], fit.simulate(seed=5, of=of)).any()


def test_refits_of_simulated_sets_centre_on_the_estimates() -> None:
    """Fixed effects, variances and covariances of 60 refits, each within its Monte Carlo error."""
    data = frame(60, 8)
    fit = quietly(mlmed.mixed, TWO, data)
    sets = fit.simulate(60, seed=3)
    found = np.array([quietly(mlmed.mixed, TWO, data.assign(**sets[k])).tidy()["estimate"] for k in range(60)])
    error = found.std(axis=0, ddof=1) / np.sqrt(60)
    assert np.abs((found.mean(axis=0) - fit.tidy()["estimate"]) / error).max() < SIGMAS
    assert (found.std(axis=0) > 0).all()


# -- refusals --------------------------------------------------------------------------------------------------------


def test_what_is_refused() -> None:
    """No seed, nothing to draw of, no number, no rows."""
    fit = quietly(mlmed.mixed, TWO, frame())
    for call in (fit.simulate, fit.predictive_check, fit.plot.predictive):
        with pytest.raises(EffectError, match="draws random numbers: give a seed"):
            call(2)
        with pytest.raises(EffectError, match="of must be one of population, cluster; found 'row'"):
            call(2, seed=1, of="row")
        with pytest.raises(EffectError, match="level is the coverage of an interval; write of='cluster'"):
            call(2, seed=1, level="cluster")
        with pytest.raises(EffectError, match="whole number from 1; found 0"):
            call(0, seed=1)
    copied = pickle.loads(pickle.dumps(fit))
    with pytest.raises(EffectError, match=r"simulate\(\) needs the rows.*pickle"):
        copied.simulate(seed=1)


def test_a_table_that_was_changed_after_the_fit_is_refused() -> None:
    """New values in it would be simulated from a fit to the old ones."""
    data = frame()
    fit = quietly(mlmed.mixed, TWO, data)
    data["x"] = data["x"] + 1.0
    with pytest.raises(EffectError, match="was changed after the fit"):
        fit.simulate(seed=1)


def test_predictors_that_cannot_follow_are_refused() -> None:
    """Cluster means of the mediator, and the logarithm of one that the model lets be negative."""
    data = frame()
    means = data.assign(mean=data.groupby("id")["m"].transform("mean"))
    fit = quietly(mlmed.mediate, "m ~ x + (1 | id)", "y ~ m + mean + x + (1 | id)", means)
    with pytest.raises(DataError, match=r"'mean' .* holds the cluster means of m"):
        fit.simulate(seed=1)
    low = data.assign(m=data["m"] - data["m"].min() + 0.01)
    fit = quietly(mlmed.mediate, "m ~ x + (1 | id)", "y ~ m + np.log(m) + x + (1 | id)", low)
    with pytest.raises(FormulaError, match=r"np.log\(m\) in equation y with simulated m is not a finite number"):
        fit.simulate(20, seed=1)
