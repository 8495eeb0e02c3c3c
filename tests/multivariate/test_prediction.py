"""Fitted values, predictions with errors, conditional effects."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DataError, EffectError
from tests.models import MEDIATOR, OUTCOME
from tests.multivariate.models import TWO, Dense, two_responses
from tests.tolerances import SAME

#: Block-wise formulas against inverses of a 340 x 340 matrix, values of size 1.
DENSE_INVERSE = 1e-8
#: 0.975 quantile of the normal distribution.
Z95 = 1.959963984540054


@pytest.fixture(scope="module")
def data():
    return two_responses(11)


@pytest.fixture(scope="module", params=["diagonal", "unstructured"])
def fit(request, data):
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        return mlmed.mixed(TWO, data, residual=request.param)


@pytest.fixture(scope="module")
def one():
    return mlmed.mixed("y ~ x + (1 + x | id)", two_responses(5, holes=False))


@pytest.mark.parametrize("interval", ["confidence", "prediction"])
@pytest.mark.parametrize("of", ["population", "cluster"])
def test_errors_are_those_of_the_joint_normal(fit, data, of, interval):
    """Henderson's C22 and P^-1 without inverting anything large, against V of all rows; one cluster is new."""
    new = two_responses(99, clusters=8, holes=False)
    new = new.assign(id=new["id"].where(new["id"] != 8, 1000))
    dense = Dense(fit, data)
    np.testing.assert_allclose(fit.params, dense.beta, rtol=DENSE_INVERSE, atol=DENSE_INVERSE)
    value, error = dense.predicted(new, of=of, new_row=interval == "prediction")
    table = fit.predict(new, of=of, interval=interval)
    assert list(table.columns) == ["row", "response", "estimate", "std_error", "conf_low", "conf_high"]
    assert list(table["response"]) == ["m"] * len(new) + ["y"] * len(new)
    assert list(table["row"]) == [*new.index, *new.index]
    np.testing.assert_allclose(table["estimate"], value, rtol=DENSE_INVERSE, atol=DENSE_INVERSE)
    np.testing.assert_allclose(table["std_error"], error, rtol=DENSE_INVERSE)
    np.testing.assert_allclose(table["conf_high"] - table["estimate"], Z95 * error, rtol=DENSE_INVERSE)
    np.testing.assert_allclose(table["estimate"] - table["conf_low"], Z95 * error, rtol=DENSE_INVERSE)
    plain = fit.predict(new, of=of)
    np.testing.assert_allclose(table["estimate"], plain.to_numpy().T.ravel(), rtol=SAME, atol=SAME)


def test_one_equation_of_a_known_cluster(one):
    """Random intercept and slope: the error of x'beta + z'u against the posterior of the cluster's own line."""
    estimates, law = one.fit.estimates, one.fit.law()
    x = np.array([1.0, 0.7])
    at = int(one.fit.clusters.get_loc(3))
    lever = x - law.slide[at].T @ x
    variance = lever @ estimates.P_inv @ lever + x @ law.covariances[at] @ x
    row = one.predict({"x": [0.7], "id": [3]}, of="cluster", interval="confidence").iloc[0]
    assert row["std_error"] == pytest.approx(np.sqrt(variance), rel=SAME)
    wider = one.predict({"x": [0.7], "id": [3]}, of="cluster", interval="prediction", level=0.5).iloc[0]
    assert wider["std_error"] == pytest.approx(np.sqrt(variance + one.sigma2.iloc[0]), rel=SAME)
    assert wider["conf_high"] - wider["estimate"] == pytest.approx(0.6744897501960817 * wider["std_error"], rel=SAME)


def test_prediction_intervals_cover_new_rows():
    """90% intervals cover 90% of 4,000 rows that were not fitted; the standard error of that share is about .005."""
    made = mlmed.simulate.bpg(200, 40, seed=4).data
    half = made.groupby("id").cumcount() < 20
    fit = mlmed.mixed("y ~ m + x + (1 + m + x | id)", made[half])
    for of in ("population", "cluster"):
        table = fit.predict(made[~half], of=of, interval="prediction", level=0.9)
        truth = made.loc[~half, "y"].to_numpy()
        covered = np.mean((table["conf_low"] <= truth) & (truth <= table["conf_high"]))
        assert covered == pytest.approx(0.9, abs=0.02), of


def test_gaps_and_refusals(one):
    holes = pd.DataFrame({"x": [np.nan, 1.0], "id": [1.0, np.nan]}, index=["a", "b"])
    table = one.predict(holes, of="cluster", interval="confidence")
    assert table["row"].tolist() == ["a", "b"]
    assert table[["estimate", "std_error", "conf_low", "conf_high"]].isna().all(axis=1).tolist() == [True, False]
    stranger = one.predict({"x": [1.0], "id": [-1]}, of="cluster", interval="confidence")
    np.testing.assert_allclose(table["std_error"].iloc[1], stranger["std_error"], rtol=SAME)
    with pytest.raises(EffectError, match="confidence, prediction; found 'tolerance'"):
        one.predict(holes, interval="tolerance")
    with pytest.raises(EffectError, match="level must be a proportion"):
        one.predict(holes, interval="confidence", level=95)
    with pytest.raises(EffectError, match="population, cluster"):
        one.predict(holes, of="group", interval="confidence")


@pytest.mark.parametrize("of", ["population", "cluster"])
def test_fitted_values_stand_where_rows_were_used(fit, data, of):
    found, left = fit.fitted(of=of), fit.resid(of=of)
    assert found.index.equals(data.index)
    assert left.index.equals(data.index)
    used = data[["m", "y"]].notna()
    assert (found.notna() == used).all(axis=None)
    pd.testing.assert_frame_equal(found, fit.predict(data, of=of).where(used), rtol=SAME)
    pd.testing.assert_frame_equal(found + left, data[["m", "y"]], rtol=SAME, atol=SAME)
    if of == "cluster":
        pd.testing.assert_frame_equal(fit.fittedvalues, found, rtol=SAME)


def test_fitted_values_of_one_equation(data):
    """A row without a cluster id is not used; a mediator is a predictor as it was observed."""
    lost = data.assign(id=data["id"].astype(float).where(data["id"] != 2))
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        fit = mlmed.mixed("y ~ m + np.exp(x / 9) + (1 | id)", lost)
    found = fit.fitted()
    assert isinstance(found, pd.Series)
    assert found.name == "y"
    assert (found.notna() == lost[["m", "y", "id"]].notna().all(axis=1)).all()
    np.testing.assert_allclose(found.dropna(), fit.predict(lost, of="cluster")[found.notna()], rtol=SAME)


def test_fitted_values_need_the_rows_that_were_fitted(one):
    with pytest.raises(EffectError, match=r"resid\(\) needs the rows.*pickle"):
        pickle.loads(pickle.dumps(one)).resid()
    with pytest.raises(EffectError, match="population, cluster"):
        one.fitted(of="rows")
    data = two_responses(5, holes=False)
    for call in (one.fitted, one.resid, partial(one.predict, data)):
        with pytest.raises(EffectError, match="write of='cluster'"):
            call(level="cluster")
    changed = mlmed.mixed("y ~ x + (1 | id)", data)
    data.loc["row 3", "y"] += 1.0
    with pytest.raises(EffectError, match="changed after the fit"):
        changed.fitted()


def test_fitted_values_of_other_tables(one):
    polars = pytest.importorskip("polars")
    data = two_responses(5, holes=False).reset_index(drop=True)
    again = mlmed.mixed("y ~ x + (1 + x | id)", polars.from_pandas(data)).fitted()
    assert isinstance(again.index, pd.RangeIndex)
    np.testing.assert_allclose(again, one.fitted(), rtol=1e-7)  # two searches of the same optimum


def test_conditional_effects_are_predictions_on_a_grid(fit, data):
    table = fit.conditional_effects("x", points=5)
    assert list(table.columns) == ["response", "x", "estimate", "std_error", "conf_low", "conf_high"]
    grid = np.linspace(data["x"].min(), data["x"].max(), 5)
    held = fit.fit.layout.equations[1].typical["w"]
    assert held == pytest.approx(data.loc[data["y"].notna(), "w"].mean(), rel=SAME)
    expected = fit.predict(pd.DataFrame({"x": grid, "w": held}), interval="confidence")
    for name in ("response", "estimate", "std_error", "conf_low", "conf_high"):
        assert table[name].tolist() == expected[name].tolist(), name
    moved = fit.conditional_effects("x", at={"w": held + 1.0}, points=5)
    gap = (moved["estimate"] - table["estimate"]).to_numpy().reshape(2, 5)
    np.testing.assert_allclose(gap, [[0.0] * 5, [fit.params["y~w"]] * 5], rtol=1e-9, atol=1e-12)
    only = fit.conditional_effects("w", points=[-1.0, 0.0, 2.0], level=0.5)
    assert only["response"].tolist() == ["y"] * 3
    assert only["w"].tolist() == [-1.0, 0.0, 2.0]
    np.testing.assert_allclose(only["conf_high"] - only["estimate"], 0.6744897501960817 * only["std_error"], rtol=SAME)


def test_conditional_effects_of_factors_truth_values_and_numbers_as_levels():
    data = two_responses(5, holes=False)
    data = data.assign(
        g=np.where(data["w"] > 0.3, "high", "low"), k=(data["w"] * 2).round().clip(-1, 1), up=data["x"] > 0
    )
    fit = mlmed.mixed("y ~ g + C(k) + up + x + (1 | id)", data)
    assert fit.conditional_effects("g")["g"].tolist() == ["high", "low"]
    difference = fit.conditional_effects("g")["estimate"].diff().iloc[1]
    assert difference == pytest.approx(fit.params["g[T.low]"], rel=1e-9)
    assert fit.conditional_effects("k")["k"].tolist() == [-1.0, 0.0, 1.0]
    assert fit.conditional_effects("up", points=2)["up"].tolist() == [0.0, 1.0]
    with pytest.raises(DataError, match="'g' has the level 'middle'"):
        fit.conditional_effects("x", at={"g": "middle"})


def test_conditional_effects_of_mediation_and_without_rows():
    data = mlmed.simulate.bpg(50, 6, seed=8).data
    fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    assert fit.conditional_effects("m")["response"].unique().tolist() == ["y"]
    table = fit.conditional_effects("x", points=2)
    assert table["response"].tolist() == ["m", "m", "y", "y"]
    slopes = table.groupby("response")["estimate"].diff().dropna() / table["x"].diff().iloc[1]
    np.testing.assert_allclose(slopes, fit.params[["m~x", "y~x"]], rtol=1e-9)
    stored = pickle.loads(pickle.dumps(fit)).conditional_effects("x", points=3)["x"].tolist()[:3]
    mean, sd = data["x"].mean(), data["x"].std()
    np.testing.assert_allclose(stored, [mean - 2 * sd, mean, mean + 2 * sd], rtol=1e-9, atol=1e-12)


def test_conditional_effects_refuse(fit):
    with pytest.raises(EffectError, match="no equation has the predictor 'z'; there are w, x"):
        fit.conditional_effects("z")
    with pytest.raises(EffectError, match="at= names 'x'"):
        fit.conditional_effects("x", at={"x": 1.0})
    with pytest.raises(EffectError, match=r"at= names 'q'.*there are w"):
        fit.conditional_effects("x", at={"q": 1.0})
    for points in (1, 2.5, True, "many", []):
        with pytest.raises(EffectError, match="points is a number"):
            fit.conditional_effects("x", points=points)
    with pytest.raises(EffectError, match="level must be a proportion"):
        fit.conditional_effects("x", level=95)


@pytest.mark.parametrize("value", [np.nan, np.inf, None, pd.NA, [1, 2], np.array([1.0, 2.0]), "1"])
def test_numbers_are_held_and_asked_for_one_at_a_time(fit, value):
    with pytest.raises(EffectError, match=r"at= holds 'w' at one finite number; found"):
        fit.conditional_effects("x", at={"w": value}, points=2)
    with pytest.raises(EffectError, match=r"each of points is one finite number; found"):
        fit.conditional_effects("x", points=[1.0, value])


def test_sequences_of_points_and_mappings_of_values(fit):
    expected = fit.conditional_effects("x", points=[1.0, 2.0])
    for points in (pd.Series([1.0, 2.0], index=[5, 5]), np.array([1, 2]), (1, 2.0), pd.Index([1, 2])):
        pd.testing.assert_frame_equal(fit.conditional_effects("x", points=points), expected, check_dtype=False)
    for at in (3, [("w", 1.0)], "w"):
        with pytest.raises(EffectError, match=r"at is a mapping such as at=\{'w': 2.0\}; found"):
            fit.conditional_effects("x", at=at)
    with pytest.raises(EffectError, match=r"variable is the name of a predictor; found \['x'\]"):
        fit.conditional_effects(["x"])
    for points in ({1.0, 2.0}, {"x": 1.0}):
        with pytest.raises(EffectError, match="points is a number of points"):
            fit.conditional_effects("x", points=points)


def test_factors_are_held_at_one_level():
    data = two_responses(5, holes=False)
    fit = mlmed.mixed("y ~ g + x + (1 | id)", data.assign(g=np.where(data["w"] > 0.3, "high", "low")))
    for value in (None, ["high", "low"], np.nan):
        with pytest.raises(EffectError, match=r"at= holds 'g' at one level; found"):
            fit.conditional_effects("x", at={"g": value})
    with pytest.raises(EffectError, match="each of points is one level; found None"):
        fit.conditional_effects("g", points=["high", None])


def test_grids_cover_the_rows_that_were_fitted():
    """Rows without response, another predictor or id do not stretch them; of several equations, any row counts."""
    data = two_responses(5, holes=False).reset_index(drop=True)
    far = data["x"].where(data.index >= 3, [1e3, -1e3, 2e3] + [0.0] * (len(data) - 3))
    gaps = data.assign(
        x=far,
        y=data["y"].where(data.index != 0),
        w=data["w"].where(data.index != 1),
        id=data["id"].where(data.index != 2),
    )
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        one = mlmed.mixed("y ~ x + w + (1 | id)", gaps)
    kept = data["x"].iloc[3:]
    assert one.conditional_effects("x", points=2)["x"].tolist() == [kept.min(), kept.max()]
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        two = mlmed.mixed(["m ~ x + (1 |c| id)", "y ~ x + w + (1 |c| id)"], gaps)
    assert two.conditional_effects("x", points=2)["x"].tolist() == [-1e3, 1e3] * 2


def test_truth_values_are_a_grid_of_two():
    data = two_responses(5, holes=False)
    fit = mlmed.mixed("y ~ up + x + (1 | id)", data.assign(up=data["w"] > 0))
    table = fit.conditional_effects("up")
    assert table["up"].tolist() == [False, True]
    assert table["estimate"].diff().iloc[1] == pytest.approx(fit.params["up"], rel=1e-9)
