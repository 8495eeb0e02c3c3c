"""Pictures: what is drawn are the numbers of the tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import EffectError
from tests.locscale_models import simulated

pytest.importorskip("matplotlib").use("Agg")


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return simulated(40, 10, seed=31).assign(kind=np.tile(["a", "b"], 200))


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> mlmed.Results:
    return mlmed.location_scale("y ~ x + (1 |c| g)", "~ w + kind + (1 |c| g)", data)


def drawn(ax: object) -> np.ndarray:
    """The points of the first line of markers."""
    return next(line.get_xydata() for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata()))  # type: ignore[attr-defined]


def test_ranked_sds_are_those_of_the_clusters(fit: mlmed.Results) -> None:
    """exp(sigma~Intercept + t), from the steadiest cluster on; intervals as of predictions at scale predictors of 0."""
    ax = fit.plot.ranef()[1]
    new = pd.DataFrame({"x": 0.0, "w": 0.0, "kind": "a", "g": range(40)})
    expected = fit.predict(new, of="cluster").sort_values("sd")
    np.testing.assert_allclose(drawn(ax)[:, 0], expected["sd"], rtol=1e-10)
    bars = np.array([path.vertices[:, 0] for path in ax.collections[0].get_paths()])
    np.testing.assert_allclose(bars, expected[["sd_conf_low", "sd_conf_high"]], rtol=1e-10)
    said = " ".join(ax.get_xlabel().split())
    assert said == f"residual sd where scale predictors are 0 (population {np.exp(fit.params['sigma~Intercept']):.3g})"
    assert ax.figure.get_suptitle() == "40 clusters, line: population, 95% intervals"


def test_ranked_location_effects_are_those_of_ranef(fit: mlmed.Results) -> None:
    (ax,) = fit.plot.ranef("Intercept", level=0.8)
    ranef = fit.ranef().query("effect == 'Intercept'")
    np.testing.assert_allclose(drawn(ax)[:, 0], np.sort(ranef["estimate"]))
    assert "80%" in ax.figure.get_suptitle()
    with pytest.raises(EffectError, match=r"no random effect 'x'; there are Intercept, sigma~Intercept"):
        fit.plot.ranef("x")


def test_scatter_has_the_correlation_of_the_model(fit: mlmed.Results, data: pd.DataFrame) -> None:
    ax = fit.plot.location_scale()
    row = fit.sdcor().set_index("term").loc["cor(Intercept,sigma~Intercept)"]
    assert ax.get_title().startswith(f"cor(Intercept,sigma~Intercept) = {row['estimate']:.2f} ({row['conf_low']:.2f}")
    assert len(drawn(ax)) == 40
    x, y = ax.lines[1].get_xydata().T
    slope = fit.G.iloc[0, 1] / fit.G.iloc[0, 0]
    np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(x), slope, rtol=1e-8)
    np.testing.assert_allclose(np.log(y) - slope * x, fit.params["sigma~Intercept"], rtol=1e-8)  # not of the mean sd
    assert ax.lines[1].get_label() == "median by the model"
    apart = mlmed.location_scale("y ~ x + (1 | g)", "~ w + (1 | g)", data)
    ax = apart.plot.location_scale()
    assert "independent" in ax.get_title()
    assert len(ax.lines) == 1
    only = mlmed.location_scale("y ~ x + (1 | g)", "~ w", data)
    with pytest.raises(EffectError, match=r"the scale has no random effects"):
        only.plot.location_scale()
    sds = mlmed.location_scale("y ~ x", "~ w + (1 | g)", data)
    assert len(drawn(sds.plot.ranef()[0])) == 40
    with pytest.raises(EffectError, match=r"the location has no random effects"):
        sds.plot.location_scale()
    with pytest.raises(EffectError, match=r"scale= one of the scale; found"):
        fit.plot.location_scale("sigma~Intercept")


def test_predictions_along_a_predictor(fit: mlmed.Results, data: pd.DataFrame) -> None:
    """Others at their means and first levels, or at=."""
    left, right = fit.plot.prediction("w", at={"x": 1.0}, points=5)
    grid = np.linspace(data["w"].min(), data["w"].max(), 5)
    expected = fit.predict({"w": grid, "x": np.ones(5), "kind": ["a"] * 5})
    np.testing.assert_allclose(left.lines[0].get_xydata(), np.column_stack([grid, expected["estimate"]]))
    np.testing.assert_allclose(right.lines[0].get_ydata(), expected["sd"])
    assert left.figure.get_suptitle() == "at kind = a, x = 1"
    wide = fit.plot.prediction("x", interval="prediction")[0]
    assert "95% prediction interval" in wide.get_title()
    factor = fit.plot.prediction("kind")[1]
    assert [label.get_text() for label in factor.get_xticklabels()] == ["a", "b"]
    with pytest.raises(EffectError, match=r"neither formula has the predictor 'y'; there are kind, w, x"):
        fit.plot.prediction("y")
    with pytest.raises(EffectError, match=r"at= names 'z', which is not another predictor; there are kind, w"):
        fit.plot.prediction("x", at={"z": 1.0})
    with pytest.raises(EffectError, match=r"points is a number of points, at least 2"):
        fit.plot.prediction("x", points=1)
