"""The rule of all pictures: ax= takes what is returned, nothing else is touched, captions say what is held."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlmed
from mlmed.errors import EffectError
from mlmed.results.plots import Plots
from tests.models import MEDIATOR
from tests.multivariate.models import TWO, two_responses

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::mlmed.errors.MlmedWarning")
OUTCOME = "y ~ m*w + x + arm + (1 + m + x | id)"


@pytest.fixture(scope="module")
def fits() -> dict[str, Any]:
    data = two_responses(11, holes=False)
    data["arm"] = np.where(data["id"] % 2 == 0, "control", "treated")
    paths = mlmed.mediate(MEDIATOR, OUTCOME, data)
    return {
        "paths": paths,
        "two": mlmed.mixed(TWO, data),
        "scale": mlmed.location_scale("y ~ x + (1 |c| id)", "~ w + (1 |c| id)", data, nodes=7),
        "causal": mlmed.causal("m ~ x", "y ~ m + x", data),
        "separate": mlmed.piecewise(MEDIATOR, OUTCOME, data, method="ml"),
        "comparison": mlmed.compare(paths, mlmed.mixed(TWO, data)),
        "power": mlmed.simulate.power(15, 5, n=2, seed=1),
        "study": mlmed.simulate.study([0.0], n_clusters=15, n=2, seed=1),
    }


Draw = Callable[..., Any]
#: Every picture: whose it is, what draws it, and its panels; 0 where it returns Axes and not a list of them.
PICTURES: dict[str, tuple[str, Draw, int]] = {
    "conditional": ("two", lambda fit, **to: fit.plot.conditional("x", points=5, data=True, **to), 2),
    "conditional, one panel": ("two", lambda fit, **to: fit.plot.conditional("w", points=5, **to), 1),
    "spaghetti": ("two", lambda fit, **to: fit.plot.spaghetti("x", clusters=3, seed=1, points=3, **to), 2),
    "ranef": ("paths", lambda fit, **to: fit.plot.ranef(**to), 5),
    "correlations": ("two", lambda fit, **to: fit.plot.correlations(**to), 0),
    "predictive": ("two", lambda fit, **to: fit.plot.predictive(3, seed=1, **to), 2),
    "residuals": ("two", lambda fit, **to: fit.plot.residuals(**to), 2),
    "optimization": ("two", lambda fit, **to: fit.plot.optimization(**to), 0),
    "influence": ("paths", lambda fit, **to: fit.plot.influence(**to), 0),
    "profile": ("two", lambda fit, **to: fit.plot.profile("m~x", points=4, **to), 0),
    "bootstrap": ("two", lambda fit, **to: fit.plot.bootstrap("m~x", 5, seed=1, **to), 0),
    "effects": ("paths", lambda fit, **to: fit.plot.effects(**to), 0),
    "page": ("paths", lambda fit, **to: fit.plot(**to), 5),
    "ranef of scales": ("scale", lambda fit, **to: fit.plot.ranef(**to), 2),
    "location_scale": ("scale", lambda fit, **to: fit.plot.location_scale(**to), 0),
    "prediction": ("scale", lambda fit, **to: fit.plot.prediction("x", points=5, **to), 2),
    "effects of potential outcomes": ("causal", lambda fit, **to: fit.plot.effects(**to), 0),
    "sensitivity": ("causal", lambda fit, **to: fit.sensitivity([0.0, 0.3]).plot(**to), 0),
    "sensitivity in R2": ("causal", lambda fit, **to: fit.sensitivity([0.0, 0.3]).plot("r2", **to), 0),
    "effects of separate fits": ("separate", lambda fit, **to: fit.plot.effects(**to), 0),
    "page of separate fits": ("separate", lambda fit, **to: fit.plot(**to), 5),
    "page of potential outcomes": ("causal", lambda fit, **to: fit.plot(**to), 1),
    "bootstrap of separate fits": ("separate", lambda fit, **to: fit.plot.bootstrap("a", 5, seed=1, **to), 0),
    "comparison": ("comparison", lambda found, **to: found.plot(["a", "indirect"], **to), 2),
    "power": ("power", lambda found, **to: found.plot(**to), 0),
    "study": ("study", lambda found, **to: found.plot(**to), 0),
}


def content(axes: list[Any]) -> list[int]:
    """How much is drawn on each."""
    return [len(ax.lines) + len(ax.collections) + len(ax.patches) for ax in axes]


def test_every_picture_of_a_fit_is_here() -> None:
    drawn = {name for name in vars(Plots) if not name.startswith("_") and inspect.isfunction(vars(Plots)[name])}
    assert drawn <= PICTURES.keys()
    for name in drawn | {"__call__"}:
        assert "ax" in inspect.signature(vars(Plots)[name]).parameters


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_on_the_axes_it_is_given(fits: dict[str, Any], name: str) -> None:
    """Its return value is what ax= takes; the figure keeps its size, title and layout, and no other one is opened."""
    which, draw, n = PICTURES[name]
    before = dict(matplotlib.rcParams)
    new = draw(fits[which])
    assert len(plt.get_fignums()) == 1
    assert isinstance(new, list) == bool(n)
    assert len(new) == n if n else isinstance(new, plt.Axes)
    shown = content(new if n else [new])
    assert all(shown)
    plt.close("all")

    figure, made = plt.subplots(1, n + 1, figsize=(4.0 * (n + 1), 4.0))
    figure.suptitle("mine")
    *given, free = np.ravel(made)
    given = given or [free]
    returned = draw(fits[which], ax=given if n else given[0])
    assert (returned if n else [returned]) == given
    assert content(given) == shown
    assert n == 0 or content([free]) == [0]
    assert plt.get_fignums() == [figure.number]
    assert (figure.get_suptitle(), list(figure.get_size_inches())) == ("mine", [4.0 * (n + 1), 4.0])
    assert figure.get_layout_engine() is None
    assert given[0].get_title()  # the caption
    figure.canvas.draw()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", PICTURES)
def test_axes_that_are_none_or_too_few_are_refused(fits: dict[str, Any], name: str) -> None:
    which, draw, n = PICTURES[name]
    with pytest.raises(EffectError, match=r"ax= takes .*; found a str"):
        draw(fits[which], ax="left")
    assert not plt.get_fignums()
    figure, made = plt.subplots(1, n + 1)
    with pytest.raises(EffectError, match=rf"ax= takes .*; found {n + 1 if n else 2}"):
        draw(fits[which], ax=made if n else [made, made])
    assert plt.get_fignums() == [figure.number]


def test_an_array_of_axes_is_a_list(fits: dict[str, Any]) -> None:
    """As plt.subplots makes it; a part of a figure has axes, too."""
    made = plt.subplots(2, 1)[1]
    assert fits["two"].plot.conditional("x", ax=made) == list(made)
    part = plt.figure(layout="constrained").subfigures(1, 2)[0]
    ax = part.subplots()
    assert fits["two"].plot.conditional("w", ax=ax) == [ax]
    assert fits["paths"].plot.effects(ax=part.add_subplot()).figure is part


def test_captions_say_what_is_held(fits: dict[str, Any]) -> None:
    paths, scale = fits["paths"], fits["scale"]
    w = paths.fit.layout.equations[1].typical["w"]
    mean = paths.fit.layout.equations[1].typical["m"]
    drawn = paths.plot.conditional("x")[0].figure.get_suptitle()
    assert drawn == f"expected response, 95% intervals\nat arm = control, w = {w:.3g}; y given m = {mean:.3g}"
    held = paths.plot.conditional("x", at={"w": 2.0, "arm": "treated", "m": 1.0}, level=0.8)[0].figure.get_suptitle()
    assert held == "expected response, 80% intervals\nat arm = treated, w = 2; y given m = 1"
    assert paths.plot.effects().get_title() == f"95% intervals\nat w = {w:.6g} (mean)"
    at = {"w": 1.5}
    assert paths.plot.effects("monte-carlo", n=200, seed=1, at=at, level=0.9).get_title() == (
        "90% intervals, monte-carlo, 200 draws\nat w = 1.5"
    )
    usual = paths.plot.effects("monte-carlo", seed=1).get_title().split("\n")[0]
    assert usual == "95% intervals, monte-carlo, 20,000 draws"
    assert paths.plot.effects(terms="a").get_title() == "95% intervals"  # x -> m has no moderator
    assert "at w = 1.5" in paths.plot.profile("indirect", points=4, at=at).get_title()
    assert "at w" not in paths.plot.profile("a", points=4, at=at).get_title()
    assert "at w = 1.5" in paths.plot.influence(at=at).get_title()
    title = paths.plot.bootstrap("indirect", 5, seed=1, at=at, level=0.8).get_title()
    assert title.startswith("indirect: 5 case draws, 80% percentile interval\nat w = 1.5")
    w = scale.fit.rows.scale.layout.typical["w"]
    assert scale.plot.prediction("x")[0].figure.get_suptitle() == f"at w = {w:.3g}"
    assert "100 draws" in fits["causal"].plot.effects("monte-carlo", n=100, seed=1).get_title()
    assert fits["causal"].plot.effects().get_title().startswith("x: 0 to 1, 95% intervals")


def test_effects_are_those_of_the_table(fits: dict[str, Any]) -> None:
    """The direct effect once; without an interval there is a grey mark."""
    paths = fits["paths"]
    table = paths.effects(level=0.9).set_index("term")
    ax = paths.plot.effects(level=0.9)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["total", "direct", "indirect", "cov_ab", "b", "a"]
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([mark.get_xdata()[0] for mark in marks], table.loc[names, "estimate"])
    bars = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_lw() == 1.5]
    np.testing.assert_allclose(bars, table.loc[names, ["conf_low", "conf_high"]])
    data = mlmed.simulate.bpg(20, 6, seed=3).data
    fixed = mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data).plot.effects(terms=["cov_ab", "indirect"])
    assert [line.get_color() for line in fixed.lines if line.get_marker() == "o"][1] == "0.6"
    with pytest.raises(EffectError, match="no effect 'acme'; there are a, b, cprime"):
        paths.plot.effects(terms="acme")
    with pytest.raises(EffectError, match="no effect was named"):
        paths.plot.effects(terms=[])


def test_what_a_fit_has_no_picture_of(fits: dict[str, Any]) -> None:
    """It is not listed, and refused in words."""
    assert "effects" not in dir(fits["two"].plot)
    assert {"conditional", "effects", "profile"} <= set(dir(fits["paths"].plot))
    assert "location_scale" not in dir(fits["paths"].plot)
    assert {"location_scale", "prediction", "ranef"} <= set(dir(fits["scale"].plot))
    assert "conditional" not in dir(fits["scale"].plot)
    with pytest.raises(EffectError, match=r"location_scale belongs to .*; this is a linear mixed model"):
        fits["two"].plot.location_scale()
    with pytest.raises(EffectError, match="no effects"):
        fits["two"].plot.effects()
    assert not plt.get_fignums()


def test_a_page_has_what_the_fit_has(fits: dict[str, Any]) -> None:
    """Effects, two caterpillars (slopes first), residuals; without rows no residuals; with two parts both."""
    data = two_responses(11, holes=False)
    labels = [ax.get_title().split("\n")[-1] for ax in fits["paths"].plot()]
    assert labels[1:3] == ["m~x", "y~m"]
    assert [ax.get_title().split("\n")[-1] for ax in fits["separate"].plot()[1:4:2]] == ["m~x", "y~m"]
    assert labels[3:] == ["residuals within clusters"] * 2
    summed = mlmed.mixed(TWO, mlmed.grams(TWO, data))
    assert [ax.get_title().split("\n")[-1] for ax in summed.plot()] == ["m~x", "y~w"]
    scale = fits["scale"].plot(level=0.8)
    assert [ax.get_title().split("\n")[-1] for ax in scale[1:3]] == ["Intercept", "sigma~Intercept"]
    assert len(scale) == 4
    assert "80% intervals" in scale[0].get_title()
    assert scale[0].get_xlabel() == "residual sd, or factor of it per unit (line: 1)"


def test_captions_hold_places_and_values_once() -> None:
    """No prose from the notes of the table, and the values that are compared once."""
    data = mlmed.simulate.bpg(30, 6, seed=3).data
    data["w"], data["g"] = np.arange(len(data)) % 4 - 1.5, np.array(list("abc"))[np.arange(len(data)) % 3]
    a_factor = {"treatment": "g", "contrast": ("b", "c")}
    factor = "m ~ g + (1 | id)", "y ~ m + g + (1 | id)"
    apart = mlmed.piecewise("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data)
    assert "need not equal" in apart.effects().set_index("term").loc["c_minus_cprime", "note"]
    for terms in (None, "c_minus_cprime", "indirect", "ratio"):
        assert apart.plot.effects(terms=terms).get_title() == "95% intervals"
    for one in (mlmed.piecewise(*factor, data, **a_factor), mlmed.mediate(*factor, data, **a_factor)):
        assert one.plot.effects().get_title() == "g: b to c, 95% intervals"
    moderated = "m ~ g * w + (1 | id)", factor[1]
    for one in (mlmed.piecewise(*moderated, data, **a_factor), mlmed.mediate(*moderated, data, **a_factor)):
        assert one.plot.effects(at={"w": 1.5}).get_title() == "g: b to c, 95% intervals\nat w = 1.5"
        assert one.plot.effects(terms="b").get_title() == "g: b to c, 95% intervals"
