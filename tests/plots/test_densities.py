"""Densities of observed over simulated data, and of residuals."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import mlmed
from mlmed.errors import EffectError
from mlmed.report.plots.distributions import MANY, _density
from tests.predictive.fits import frame, quietly
from tests.tolerances import SAME

pytest.importorskip("matplotlib").use("Agg")
#: A density of values counted in 2,000 bins against that of the values, as a share of its height.
BINNED = 2e-3


@pytest.mark.parametrize("density", ["value", "cluster-mean", "cluster-sd"])
def test_panels_show_the_data_over_the_sets(density: str) -> None:
    """A panel per response; n thin lines and a thick one, which is the kernel density of the data."""
    data = frame().reset_index(drop=True)
    fit = quietly(mlmed.mediate, "m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data)
    axes = fit.plot.predictive(7, seed=1, density=density)
    assert len(axes) == 2
    groups = data.groupby("id")
    for ax, name in zip(axes, ("m", "y"), strict=True):
        values = {"value": data[name], "cluster-mean": groups[name].mean(), "cluster-sd": np.log(groups[name].std())}
        assert name in ax.get_xlabel()
        drawn = [line for line in ax.lines if len(line.get_xdata())]  # the legend has one of its own
        assert len(drawn) == 8
        observed = drawn[-1]
        assert observed.get_color() == "k"
        at, height = observed.get_data()
        grid = np.log(at) if density == "cluster-sd" else at
        np.testing.assert_allclose(height, stats.gaussian_kde(values[density])(grid), rtol=1e-6, atol=SAME)
        for line in drawn:
            area = np.trapezoid(line.get_ydata(), grid)
            assert area == pytest.approx(1.0, abs=0.06)  # tails beyond the range of the data are cut
        assert (ax.get_xscale() == "log") == (density == "cluster-sd")
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["simulated", "observed"]
    assert axes[0].figure.get_suptitle() == "7 simulated sets, new clusters"


def test_sets_of_the_picture_are_those_of_simulate() -> None:
    """The first thin line is the density of the first set with that seed."""
    data = frame().reset_index(drop=True)
    fit = quietly(mlmed.mixed, "y ~ x + (1 | id)", data)
    first = fit.plot.predictive(3, seed=2, of="cluster")[0].lines[0]
    values = fit.simulate(seed=2, of="cluster")["y"]
    np.testing.assert_allclose(first.get_ydata(), stats.gaussian_kde(values)(first.get_xdata()), rtol=1e-9)


def test_many_values_are_counted_before_they_are_smoothed() -> None:
    """The same density up to the width of a bin."""
    values = np.random.default_rng(1).gamma(3.0, size=MANY + 1)
    grid = np.linspace(-0.5, 12.0, 100)
    exact = stats.gaussian_kde(values)(grid)
    np.testing.assert_allclose(_density(values, grid), exact, rtol=0.0, atol=BINNED * exact.max())


def test_what_has_no_picture_is_refused() -> None:
    """An unknown density; sds of clusters of which hardly any varies."""
    data = frame().reset_index(drop=True)
    fit = quietly(mlmed.mixed, "y ~ x + (1 | id)", data)
    with pytest.raises(EffectError, match="density must be one of value, cluster-mean, cluster-sd; found 'hist'"):
        fit.plot.predictive(5, seed=1, density="hist")
    few = quietly(mlmed.mixed, "y ~ x + (1 | id)", data[(data["id"] <= 2) | ~data["id"].duplicated()])
    with pytest.raises(EffectError, match="2 values of the sd of y in a cluster"):
        few.plot.predictive(5, seed=1, density="cluster-sd")


def test_six_responses_stand_in_two_rows() -> None:
    """Three panels to a row, as in every other picture, in a list."""
    rng = np.random.default_rng(1)
    data = frame().reset_index(drop=True)
    data = data.assign(**{f"r{k}": data["y"] + rng.normal(size=len(data)) for k in range(6)})
    fit = quietly(mlmed.mixed, [f"r{k} ~ x + (1 | id)" for k in range(6)], data)
    axes = fit.plot.predictive(3, seed=1)
    assert isinstance(axes, list)
    assert [ax.get_xlabel() for ax in axes] == [f"r{k}" for k in range(6)]
    assert axes[0].figure.get_figwidth() < 14.0
    assert [ax.get_subplotspec().rowspan.start for ax in axes] == [0, 0, 0, 1, 1, 1]


def test_residuals_over_the_normal_density_of_their_sd() -> None:
    data = frame().reset_index(drop=True)
    fit = quietly(mlmed.mixed, "y ~ x + (1 | id)", data)
    (ax,) = fit.plot.residuals()
    normal, drawn = ax.lines
    values = fit.resid()
    sd = np.sqrt(np.mean(values**2))
    np.testing.assert_allclose(normal.get_ydata(), stats.norm.pdf(normal.get_xdata(), scale=sd), rtol=1e-9)
    np.testing.assert_allclose(drawn.get_ydata(), stats.gaussian_kde(values)(drawn.get_xdata()), rtol=1e-6, atol=SAME)
    assert ax.figure.get_suptitle() == "residuals within clusters"
    assert fit.plot.residuals(of="population")[0].figure.get_suptitle() == "differences from the population's mean"
