"""Predictions: against other routes to the same numbers, and what is refused."""

from __future__ import annotations

import numdifftools as nd
import numpy as np
import pandas as pd
import pytest
from scipy import integrate
from scipy.stats import norm

import mlmed
from mlmed.errors import BoundaryWarning, DataError, DroppedRowsWarning, EffectError
from tests.locscale_models import simulated
from tests.tolerances import SAME

#: Derivatives of posterior means by central differences, against numdifftools on dense formulas, relative.
SLOPES = 1e-5
#: Quantiles of a mixture over 41 nodes against scipy's quadrature of the same density, as probability.
PROBABILITY = 1e-6
COLUMNS = ["estimate", "std_error", "conf_low", "conf_high", "sd", "sd_conf_low", "sd_conf_high"]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return simulated(40, 8, seed=21).assign(kind=np.tile(["a", "b"], 160))


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> mlmed.Results:
    return mlmed.location_scale("y ~ x + kind + (1 |c| g)", "~ w + (1 |c| g)", data)


def test_population_is_the_fixed_part(fit: mlmed.Results) -> None:
    """The sd where scale predictors are 0 is the first row of effects(), its limits too."""
    found = fit.predict({"x": [0.0, 2.0], "w": [0.0, 0.0], "kind": ["a", "b"]})
    assert list(found) == COLUMNS
    x = np.array([1.0, 2.0, 1.0])  # Intercept, x, kind[T.b]
    names = fit.params.index[:3]
    assert found["estimate"].iloc[1] == pytest.approx(x @ fit.params[names], rel=SAME)
    expected = np.sqrt(x @ fit.vcov().loc[names, names] @ x)
    assert found["std_error"].iloc[1] == pytest.approx(expected, rel=1e-8)
    sd = fit.effects().iloc[0]
    np.testing.assert_allclose(
        found[["sd", "sd_conf_low", "sd_conf_high"]].iloc[0], sd[["estimate", "conf_low", "conf_high"]].astype(float)
    )
    half = norm.ppf(0.9) * found["std_error"]
    narrow = fit.predict({"x": [0.0, 2.0], "w": [0.0, 0.0], "kind": ["a", "b"]}, level=0.8)
    np.testing.assert_allclose(narrow["conf_high"], found["estimate"] + half)


def test_errors_of_clusters_follow_kass_and_steffey() -> None:
    """One residual sd: posterior mean and variance are closed formulas, their slopes by numdifftools."""
    data = simulated(25, 6, seed=22, sd_scale=0.0)
    fit = mlmed.location_scale("y ~ x + (1 | g)", "~ 1", data)
    j, x_new = 3, np.array([1.0, 0.7])
    own = data[data["g"] == j]
    X, y, one = np.column_stack([np.ones(6), own["x"]]), own["y"].to_numpy(), np.ones(6)

    def law(psi: np.ndarray) -> tuple[float, float]:
        V = psi[3] * np.ones((6, 6)) + np.exp(2.0 * psi[2]) * np.eye(6)
        gain = psi[3] * np.linalg.solve(V, one)
        return gain @ (y - X @ psi[:2]), psi[3] - psi[3] * gain.sum()

    psi = fit.fit.estimates.psi
    slope = nd.Gradient(lambda p: x_new @ p[:2] + law(p)[0])(psi)
    found = fit.predict({"x": [0.7], "g": [j]}, of="cluster").iloc[0]
    assert found["estimate"] == pytest.approx(x_new @ psi[:2] + law(psi)[0], rel=1e-8)
    assert found["std_error"] ** 2 == pytest.approx(law(psi)[1] + slope @ fit.vcov().to_numpy() @ slope, rel=SLOPES)
    assert found["sd"] == pytest.approx(np.exp(psi[2]), rel=SAME)


def test_cluster_effects_are_those_of_ranef(fit: mlmed.Results) -> None:
    modes = fit.ranef().set_index(["effect", "group"])
    found = fit.predict({"x": [0.0], "w": [0.0], "kind": ["a"], "g": [7]}, of="cluster").iloc[0]
    assert found["estimate"] == pytest.approx(
        fit.params["Intercept"] + modes.loc[("Intercept", 7), "estimate"], rel=SAME
    )
    log_sd = fit.params["sigma~Intercept"] + modes.loc[("sigma~Intercept", 7), "estimate"]
    assert np.log(found["sd"]) == pytest.approx(log_sd, abs=1e-10)
    assert found["std_error"] > modes.loc[("Intercept", 7), "std_error"]  # the estimates err too


def test_new_clusters_have_the_populations_value_and_variance(fit: mlmed.Results) -> None:
    new = {"x": [0.3, 0.3], "w": [1.0, 1.0], "kind": ["a", "a"], "g": [999.0, np.nan]}
    found, population = fit.predict(new, of="cluster"), fit.predict(new)
    np.testing.assert_allclose(found[["estimate", "sd"]], population[["estimate", "sd"]], rtol=1e-12)
    np.testing.assert_allclose(found["std_error"] ** 2, population["std_error"] ** 2 + fit.G.iloc[0, 0], rtol=1e-10)


@pytest.mark.parametrize("coverage", [0.5, 0.95])
def test_prediction_limits_of_the_population_are_quantiles(fit: mlmed.Results, coverage: float) -> None:
    """The distribution function of a new response by quad: u given t is normal, t is normal."""
    new = {"x": [0.5], "w": [-1.0], "kind": ["b"]}
    row = fit.predict(new, interval="prediction", level=coverage).iloc[0]
    plain = fit.predict(new).iloc[0]
    (g_uu, g_ut), (_, g_tt) = fit.G.to_numpy()

    def below(limit: float) -> float:
        def part(z: float) -> float:
            t = np.sqrt(g_tt) * z
            variance = g_uu - g_ut**2 / g_tt + plain["sd"] ** 2 * np.exp(2.0 * t) + plain["std_error"] ** 2
            return norm.cdf((limit - plain["estimate"] - g_ut / g_tt * t) / np.sqrt(variance)) * norm.pdf(z)

        return integrate.quad(part, -9, 9, epsabs=1e-12)[0]

    assert below(row["conf_low"]) == pytest.approx(0.5 - coverage / 2.0, abs=PROBABILITY)
    assert below(row["conf_high"]) == pytest.approx(0.5 + coverage / 2.0, abs=PROBABILITY)


def test_prediction_limits_of_a_cluster_settle_with_more_nodes(data: pd.DataFrame) -> None:
    asked = ("y ~ x + (1 |c| g)", "~ w + (1 |c| g)")
    new = {"x": [0.5], "w": [-1.0], "g": [4]}
    few, many = (
        mlmed.location_scale(*asked, data, nodes=nodes).predict(new, of="cluster", interval="prediction").iloc[0]
        for nodes in (None, 51)
    )
    np.testing.assert_allclose(few[["conf_low", "conf_high"]], many[["conf_low", "conf_high"]], atol=1e-4 * many["sd"])
    width = 2.0 * norm.ppf(0.975) * many["sd"]
    assert many["conf_high"] - many["conf_low"] > width  # effects and sd are not known exactly


def test_prediction_limits_hold_what_they_promise() -> None:
    """New rows of the same clusters: 95% of 4,000, Monte Carlo error 0.35%."""
    truth = simulated(200, 40, seed=23)
    known, new = truth[truth.index % 40 < 20], truth[truth.index % 40 >= 20]
    fit = mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + (1 |c| g)", known)
    found = fit.predict(new, of="cluster", interval="prediction")
    inside = new["y"].between(found["conf_low"], found["conf_high"]).mean()
    assert inside == pytest.approx(0.95, abs=0.01)


def test_no_random_effects_of_the_scale_predict_as_the_mixed_model(data: pd.DataFrame) -> None:
    """Prediction limits are normal where the sd is one for all."""
    fit = mlmed.location_scale("y ~ x + (1 + x | g)", "~ 1", data)
    expected = mlmed.mixed("y ~ x + (1 + x | g)", data, method="ml")
    new = pd.DataFrame({"x": [0.0, 2.0], "g": [1, 2]}, index=["r", "s"])
    found = fit.predict(new, of="cluster", interval="prediction")
    np.testing.assert_allclose(found["estimate"], expected.predict(new, of="cluster"), atol=1e-5)
    assert list(found.index) == ["r", "s"]
    np.testing.assert_allclose(found["conf_high"] - found["estimate"], found["estimate"] - found["conf_low"], rtol=1e-6)
    assert (found["conf_high"] - found["conf_low"] > 2 * 1.96 * found["sd"]).all()


def test_fitted_values_are_predictions_of_the_rows(data: pd.DataFrame) -> None:
    """With the index of the data; a row that was left out is NaN; the data stay as they are."""
    rows = data.assign(w=data["w"].where(data.index != 5)).set_index(data.index + 1000)
    before = rows.copy(deep=True)
    with pytest.warns(DroppedRowsWarning):
        fit = mlmed.location_scale("y ~ x + kind + (1 |c| g)", "~ w + (1 |c| g)", rows)
    for of in ("cluster", "population"):
        found = fit.fitted(of=of)
        np.testing.assert_allclose(found, fit.predict(rows, of=of)[["estimate", "sd"]], rtol=1e-9)
        assert found.index.equals(rows.index)
        assert list(found.index[found["sd"].isna()]) == [1005]
    assert fit.predict(rows, of="cluster").loc[1005].isna().all()
    pd.testing.assert_frame_equal(rows, before)
    standardized = (rows["y"] - fit.fitted()["estimate"]) / fit.fitted()["sd"]
    assert standardized.std() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"of": "both"}, EffectError, r"of must be one of population, cluster; found 'both'"),
        ({"interval": "tolerance"}, EffectError, r"interval must be one of confidence, prediction; found"),
        ({"level": 95}, EffectError, r"proportion between 0 and 1.*found 95"),
        ({"level": "cluster"}, EffectError, r"write of='cluster'"),
        ({"of": "cluster"}, DataError, r"column 'g' is not in the data"),
    ],
)
def test_refused_options(fit: mlmed.Results, options: dict, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        fit.predict({"x": [0.0], "w": [0.0], "kind": ["a"]}, **options)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ({"x": [0.0], "kind": ["a"]}, r"column 'w' is not in the data"),
        ({"x": [0.0], "w": [0.0], "kind": ["c"]}, r"level 'c', which was not in the data.*levels: a, b"),
        ({"x": ["high"], "w": [0.0], "kind": ["a"]}, r"'x' held numbers.*'high'"),
        ({"x": [np.inf], "w": [0.0], "kind": ["a"]}, r"'x' has 1 infinite value"),
    ],
)
def test_refused_rows(fit: mlmed.Results, new: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        fit.predict(new)


def test_starts_do_not_depend_on_workers(fit: mlmed.Results) -> None:
    alone, together = (fit.check_starts(3, seed=4, n_jobs=n_jobs) for n_jobs in (1, 2))
    pd.testing.assert_frame_equal(alone, together, check_exact=True)
    assert alone["converged"].all()
    assert alone["difference"].abs().max() < 1e-6
    with pytest.raises(EffectError, match="n_jobs is a number of workers"):
        fit.check_starts(2, seed=1, n_jobs=0)


def test_only_scale_effects_and_singular_fits_predict_too(data: pd.DataFrame) -> None:
    new = {"x": [0.0], "g": [3]}
    only = mlmed.location_scale("y ~ x", "~ 1 + (1 | g)", data)
    row = only.predict(new, of="cluster", interval="prediction").iloc[0]
    assert row["estimate"] == pytest.approx(only.params["Intercept"], rel=SAME)
    assert np.log(row["sd"]) == pytest.approx(
        only.params["sigma~Intercept"] + only.ranef()["estimate"].iloc[3], abs=1e-10
    )
    rng = np.random.default_rng(0)
    e = rng.normal(size=(30, 8))
    e = (e - e.mean(axis=1, keepdims=True)) / e.std(axis=1, keepdims=True)
    alike = pd.DataFrame({"g": np.repeat(np.arange(30), 8), "y": (rng.normal(size=(30, 1)) + e).ravel()})
    with pytest.warns(BoundaryWarning):
        flat = mlmed.location_scale("y ~ 1 + (1 | g)", "~ 1 + (1 | g)", alike)
    found = flat.predict({"g": [0, 1, 99]}, of="cluster", interval="prediction")
    assert found.notna().to_numpy().all()
    np.testing.assert_allclose(found["sd"], np.exp(flat.params["sigma~Intercept"]))  # no scale effect, one sd for all
