"""What stands in the pictures; how they look was seen by people."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import EffectError
from mlmed.report.plots.axes import wrapped
from tests.models import MEDIATOR, OUTCOME
from tests.multivariate.models import TWO, two_responses, with_residual_covariance
from tests.tolerances import SAME

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def fit():
    return mlmed.mixed(TWO, two_responses(11, holes=False))


def lines_of(ax) -> list[np.ndarray]:
    """Heights of everything that was drawn as a line."""
    return [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines]


def titles(axes) -> list[str]:
    return [ax.get_title() for ax in axes]


def test_conditional_effects(fit):
    axes = fit.plot.conditional("x", points=7)
    table = fit.conditional_effects("x", points=7)
    assert titles(axes) == ["m", "y"]
    for ax, (_, part) in zip(axes, table.groupby("response", sort=False), strict=True):
        np.testing.assert_allclose(lines_of(ax)[0], part["estimate"], rtol=SAME)
        band = ax.collections[0].get_paths()[0].vertices
        assert band[:, 1].min() == pytest.approx(part["conf_low"].min(), rel=SAME)
        assert band[:, 1].max() == pytest.approx(part["conf_high"].max(), rel=SAME)
        assert ax.get_xlabel() == "x"
    assert titles(fit.plot.conditional("w")) == ["y"]


def test_points_of_the_data():
    data = two_responses(11)
    with pytest.warns(mlmed.errors.DroppedRowsWarning):
        fit = mlmed.mixed(TWO, data)
    for name, ax in zip(("m", "y"), fit.plot.conditional("x", data=True), strict=True):
        used = data[data[name].notna()]
        drawn = next(line for line in ax.lines if line.get_marker() == ".")
        np.testing.assert_allclose(drawn.get_xdata(), used["x"], rtol=SAME)
        np.testing.assert_allclose(drawn.get_ydata(), used[name], rtol=SAME, atol=SAME)


def test_factors_have_marks_at_their_levels():
    data = two_responses(5, holes=False)
    data = data.assign(g=pd.cut(data["w"], [-9, -0.5, 0.5, 9], labels=["low", "middle", "high"]).astype(object))
    fit = mlmed.mixed("y ~ g + (1 | id)", data)
    (ax,) = fit.plot.conditional("g", data=True)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["high", "low", "middle"]
    marks = next(line for line in ax.lines if line.get_marker() == "o")
    assert list(marks.get_xdata()) == [0.0, 1.0, 2.0]
    np.testing.assert_allclose(marks.get_ydata(), fit.conditional_effects("g")["estimate"], rtol=SAME)
    points = next(line for line in ax.lines if line.get_marker() == ".")
    assert list(points.get_xdata()) == [["high", "low", "middle"].index(value) for value in data["g"]]
    (spaghetti,) = fit.plot.spaghetti("g", clusters=[1])
    assert [len(heights) for heights in lines_of(spaghetti)] == [3, 3]


def test_spaghetti(fit):
    """A line is what predict says of that cluster; the last one is the population's."""
    (ax,) = fit.plot.spaghetti("w", clusters=[4, 17], points=[-1.0, 0.5])
    x = fit.fit.layout.equations[1].typical["x"]
    new = pd.DataFrame({"w": [-1.0, 0.5] * 2, "x": x, "id": [4, 4, 17, 17]})
    expected = fit.predict(new, of="cluster")["y"].to_numpy().reshape(2, 2)
    np.testing.assert_allclose(lines_of(ax)[:2], expected, rtol=SAME)
    np.testing.assert_allclose(lines_of(ax)[2], fit.predict(new[:2])["y"], rtol=SAME)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["4", "17", "population"]
    every = fit.plot.spaghetti("x")
    assert titles(every) == ["m", "y"]
    assert [len(ax.lines) for ax in every] == [31, 31]
    assert every[0].get_legend() is None


@pytest.fixture(scope="module")
def trial() -> pd.DataFrame:
    """Clusters in two arms, with a number and a truth value of their own."""
    data = two_responses(3, holes=False)
    number = data["id"].to_numpy()
    arm = np.where(number % 2 == 0, "control", "treated")
    return data.assign(arm=arm, size=np.sqrt(number), big=number > 15, y=data["y"] + 3.0 * (arm == "treated"))


def test_lines_of_clusters_have_the_clusters_own_predictors(trial):
    """Written out: fixed effects at the arm, size and truth value of the cluster, plus its conditional modes."""
    fit = mlmed.mixed("y ~ x * arm + w + size + big + (1 + x | id)", trial)
    grid = [-1.0, 2.0]
    (ax,) = fit.plot.spaghetti("x", clusters=[4, 17, 20], points=grid)
    b, u = fit.params, fit.ranef().pivot(index="group", columns="effect", values="estimate")
    w = trial["w"].mean()
    for line, cluster in zip(lines_of(ax), (4, 17, 20), strict=False):
        treated, x = float(cluster % 2), np.array(grid)
        expected = b["Intercept"] + b["arm[T.treated]"] * treated + b["w"] * w + b["size"] * np.sqrt(cluster)
        expected += b["big"] * (cluster > 15) + (b["x"] + b["x:arm[T.treated]"] * treated) * x
        expected = expected + u.loc[cluster, "Intercept"] + u.loc[cluster, "x"] * x
        np.testing.assert_allclose(line, expected, rtol=SAME)
    typical = {"arm": "control", "w": w, "size": trial["size"].mean()}
    typical["big"] = fit.fit.layout.equations[0].typical["big"]
    np.testing.assert_allclose(lines_of(ax)[3], fit.predict(pd.DataFrame({"x": grid, **typical})), rtol=SAME)
    caption = " ".join(ax.figure.get_suptitle().split())
    assert "clusters at their own arm, big, size, population at arm = control, big = " in caption


def test_what_is_held_is_held_for_every_cluster(trial):
    fit = mlmed.mixed("y ~ x + arm + size + (1 + x | id)", trial)
    (ax,) = fit.plot.spaghetti("x", clusters=[4, 17], at={"arm": "treated", "size": 2.0}, points=[0.0, 1.0])
    new = pd.DataFrame({"x": [0.0, 1.0] * 2, "arm": "treated", "size": 2.0, "id": [4, 4, 17, 17]})
    expected = fit.predict(new, of="cluster").to_numpy().reshape(2, 2)
    np.testing.assert_allclose(lines_of(ax)[:2], expected, rtol=SAME)
    assert "their own" not in ax.figure.get_suptitle()
    summed = mlmed.mixed("y ~ x + arm + size + (1 + x | id)", mlmed.grams("y ~ x + arm + size + (1 + x | id)", trial))
    (ax,) = summed.plot.spaghetti("x", clusters=[4, 17], points=[0.0, 1.0])  # no rows to read the arms from
    held = new.assign(arm="control", size=trial["size"].mean())
    np.testing.assert_allclose(np.concatenate(lines_of(ax)[:2]), fit.predict(held, of="cluster"), rtol=SAME)


def test_a_frame_that_was_changed_has_no_own_values_to_show(trial):
    data = trial.copy()
    fit = mlmed.mixed("y ~ x + arm + (1 | id)", data)
    data["x"] = data["x"] * 2.0
    with pytest.raises(EffectError, match="changed after the fit"):
        fit.plot.spaghetti("x", clusters=[4], points=[0.0, 1.0])


def test_a_predictor_called_value_keeps_its_place():
    """Points stand at their predictor, whatever its name."""
    data = two_responses(3, holes=False).rename(columns={"x": "value"})
    (ax,) = mlmed.mixed("y ~ value + (1 | id)", data).plot.conditional("value", data=True)
    points = next(line for line in ax.lines if line.get_marker() == ".")
    np.testing.assert_allclose(points.get_xdata(), data["value"], rtol=SAME)
    np.testing.assert_allclose(points.get_ydata(), data["y"], rtol=SAME, atol=SAME)


def test_drawn_clusters_depend_on_the_seed_only(fit):
    first, again, other = (lines_of(fit.plot.spaghetti("w", clusters=5, seed=s)[0]) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_spaghetti_refuses(fit):
    with pytest.raises(EffectError, match="seed=1"):
        fit.plot.spaghetti("x", clusters=5)
    for wrong in (0, 31, True, 2.0, np.array(3)):
        with pytest.raises(EffectError, match="from 1 to 30"):
            fit.plot.spaghetti("x", clusters=wrong, seed=1)
    with pytest.raises(EffectError, match=r"no cluster 99 in the fit \(id: 1, 2"):
        fit.plot.spaghetti("x", clusters=[1, 99])
    with pytest.raises(EffectError, match=r"no cluster 'nine', \[1\] in the fit \(id: 1, 2"):
        fit.plot.spaghetti("x", clusters=["nine", [1]])
    with pytest.raises(EffectError, match="no cluster was named"):
        fit.plot.spaghetti("x", clusters=[])
    with pytest.raises(EffectError, match="a list of ids, such as"):
        fit.plot.spaghetti("x", clusters="4")
    with pytest.raises(EffectError, match="no equation has the predictor 'z'"):
        fit.plot.spaghetti("z")


def test_caterpillar(fit):
    axes = fit.plot.ranef()
    assert titles(axes) == list(fit.G.index)
    (ax,) = fit.plot.ranef("m~x", level=0.5)
    own = fit.ranef(level=0.5).query("effect == 'm~x'").sort_values("estimate")
    marks = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(marks.get_xdata(), own["estimate"], rtol=SAME)
    assert [label.get_text() for label in ax.get_yticklabels()] == list(map(str, own["group"]))
    bars = np.array([bar[:, 0] for bar in ax.collections[0].get_segments()])
    np.testing.assert_allclose(bars, own[["conf_low", "conf_high"]], rtol=SAME)
    assert titles(fit.plot.ranef(["y~w", "m~x"])) == ["y~w", "m~x"]
    with pytest.raises(EffectError, match="no random effect 'x'; there are m~Intercept, m~x"):
        fit.plot.ranef("x")
    with pytest.raises(EffectError, match="a list of names of random effects, or one name; found 3"):
        fit.plot.ranef(3)
    (once,) = fit.plot.ranef(["m~x", "m~x"])
    assert len(once.get_yticklabels()) == 30


def test_correlations(fit):
    ax = fit.plot.correlations()
    table = fit.correlations()
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "m~Intercept, m~x"
    assert len(labels) == 6
    marks = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(marks.get_xdata(), table["estimate"], rtol=SAME)
    assert ax.get_legend() is None
    both = with_residual_covariance(fit, value=0.2, error=0.03).plot.correlations()
    assert [label.get_text() for label in both.get_yticklabels()][-1] == "m, y"
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["between id", "within (residuals)"]
    alone = mlmed.mixed("y ~ x + (1 | id)", two_responses(11, holes=False))
    with pytest.raises(EffectError, match="the model has no correlation"):
        alone.plot.correlations()


def test_mediation_has_the_pictures_too():
    fit = mlmed.mediate(MEDIATOR, OUTCOME, mlmed.simulate.bpg(50, 6, seed=8).data)
    assert titles(fit.plot.spaghetti("m", clusters=10, seed=1)) == ["y"]
    assert titles(fit.plot.conditional("x")) == ["m", "y"]
    assert len(fit.plot.ranef()) == 5
    assert len(fit.plot.correlations().get_yticklabels()) == 10


def test_clusters_are_found_by_the_names_that_tables_show(fit):
    """As text, and combined ids joined; named twice, a cluster is drawn once."""
    (plain,) = fit.plot.spaghetti("w", clusters=[4, 17], points=2)
    for same in (["4", "17"], [4, "17", 4], pd.Series([4, 17]), np.array([4.0, 17.0])):
        (ax,) = fit.plot.spaghetti("w", clusters=same, points=2)
        np.testing.assert_array_equal(lines_of(ax), lines_of(plain))
    data = two_responses(11, holes=False)
    data = data.assign(h=np.tile([0, 1], len(data) // 2))
    both = mlmed.mixed("y ~ w + (1 | id:h)", data)
    (plain,) = both.plot.spaghetti("w", clusters=[(4, 0), (17, 1)], points=2)
    assert {"4:0", "17:1"} <= set(both.ranef()["group"])
    (ax,) = both.plot.spaghetti("w", clusters=["4:0", "17:1"], points=2)
    np.testing.assert_array_equal(lines_of(ax), lines_of(plain))
    with pytest.raises(EffectError, match=r"no cluster '1:2' in the fit \(id:h: \(1, 0\), \(1, 1\)"):
        both.plot.spaghetti("w", clusters=["1:2"])


def test_ids_that_look_alike_have_a_line_each():
    """("a:b", "c") and ("a", "b:c") are both shown as a:b:c, which names none of them."""
    data = two_responses(11, holes=False)
    first, second = data["id"] == 1, data["id"] == 2
    g = data["id"].astype(str).mask(first, "a:b").mask(second, "a")
    fit = mlmed.mixed(
        "y ~ w + (1 | g:h)", data.assign(g=g, h=data["id"].astype(str).mask(first, "c").mask(second, "b:c"))
    )
    (ax,) = fit.plot.spaghetti("w", clusters=[("a:b", "c"), ("a", "b:c")], points=2)
    assert len(ax.lines) == 3
    with pytest.raises(EffectError, match="no cluster 'a:b:c'"):
        fit.plot.spaghetti("w", clusters=["a:b:c"])


def test_truth_values_have_marks(fit):
    data = two_responses(5, holes=False)
    up = mlmed.mixed("y ~ up + (1 | id)", data.assign(up=data["w"] > 0))
    (ax,) = up.plot.conditional("up", data=True)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["False", "True"]
    points = next(line for line in ax.lines if line.get_marker() == ".")
    np.testing.assert_array_equal(points.get_xdata(), (data["w"] > 0).astype(float))


def test_captions_say_what_is_held():
    """A response that is a predictor: its mean, or what at= says; nothing where it is on the axis itself."""
    data = mlmed.simulate.bpg(50, 6, seed=8).data
    fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    mean = f"y given m = {data['m'].mean():.3g}"
    for axes in (fit.plot.conditional("x"), fit.plot.spaghetti("x", clusters=3, seed=1)):
        assert axes[0].figure.get_suptitle().split("\n")[1] == mean
    held = fit.plot.conditional("x", at={"m": 2.0})[0].figure.get_suptitle()
    assert held == "expected response, 95% intervals\ny given m = 2"
    assert "given" not in fit.plot.conditional("m")[0].figure.get_suptitle()


# -- long names ------------------------------------------------------------------------------------------------------

LONG = {
    "m": "negative_affect_averaged_over_the_day",
    "y": "positive_affect_averaged_over_the_day",
    "x": "stress_reported_on_the_evening_before",
    "id": "participant_identifier_in_the_study",
}


@pytest.fixture(scope="module")
def long_names():
    m, y, x, id_ = LONG.values()
    formulas = [f"{name} ~ {x} + (1 + {x} |c| {id_})" for name in (m, y)]
    return mlmed.mixed(formulas, two_responses(11, holes=False).rename(columns=LONG), residual="unstructured")


DRAWN = {
    "correlations": lambda fit: [fit.plot.correlations()],
    "ranef": lambda fit: fit.plot.ranef(),
    "one ranef": lambda fit: fit.plot.ranef(fit.G.index[3]),
    "conditional": lambda fit: fit.plot.conditional(LONG["x"]),
    "spaghetti": lambda fit: fit.plot.spaghetti(LONG["x"], clusters=4, seed=1),
    "densities": lambda fit: fit.plot.predictive(3, seed=1, density="cluster-sd"),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_long_names_leave_room_for_the_data(long_names, kind):
    """Axes stay wider than 2 inches; no text is cut off at the edge of the figure or runs into another panel's."""
    axes = DRAWN[kind](long_names)
    figure = axes[0].figure
    figure.canvas.draw()
    renderer, (width, height) = figure.canvas.get_renderer(), figure.canvas.get_width_height()
    texts = [[ax.title, ax.xaxis.label, ax.yaxis.label] for ax in axes]
    boxes = [[text.get_window_extent(renderer) for text in own if text.get_text()] for own in texts]
    labels = [text.get_window_extent(renderer) for ax in axes for text in ax.get_yticklabels()]
    legends = [ax.get_legend().get_window_extent(renderer) for ax in axes if ax.get_legend()]
    caption = figure._suptitle.get_window_extent(renderer)
    assert all(box.x0 >= 0.0 for box in labels)
    for box in [*(box for own in boxes for box in own), *legends, caption]:
        assert box.x0 >= 0.0
        assert box.x1 <= width
        assert box.y0 >= 0.0
        assert box.y1 <= height
    for k, own in enumerate(boxes):
        others = [box for other in boxes[k + 1 :] for box in other]
        assert not any(box.overlaps(other) for box in own for other in [*others, caption])
    assert min(ax.get_window_extent(renderer).width for ax in axes) > 2.0 * figure.dpi


def test_lines_of_text_are_no_longer_than_their_room():
    text = "negative_affect~stress_reported_on_the_evening_before, positive_affect~Intercept"
    for width in range(8, 90):
        lines = wrapped(text, width, most=99).split("\n")
        assert max(map(len, lines)) <= width
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert wrapped(text, 40).split("\n")[0] == "negative_affect~"
    assert wrapped("x" * 50, 10, most=2) == "xxxxxxxxxx\nxxxxxxx..."
