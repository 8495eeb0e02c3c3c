"""New rows that a fit cannot predict, and what it says of them."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DataError, EffectError
from tests.multivariate.models import two_responses
from tests.tolerances import SAME


@pytest.fixture(scope="module")
def one():
    return mlmed.mixed("y ~ x + (1 + x | id)", two_responses(5, holes=False))


def test_ids_of_another_type_are_no_new_clusters(one):
    rows = pd.DataFrame({"x": [1.0, 2.0], "id": ["1", "2"]})
    message = (
        r"no cluster of the new rows .* 'id' are numbers in the fit \(1, 2, 3\) and text here \('1', '2'\); convert"
    )
    with pytest.raises(DataError, match=message):
        one.predict(rows, of="cluster")
    assert one.predict(rows).notna().all()  # of the population, no id is read
    known = one.predict(rows.assign(id=[1, 2]), of="cluster")
    for ids in (pd.Series([1.0, 2.0]), pd.Series([1, 2], dtype=object), pd.Categorical([1, 2])):
        np.testing.assert_allclose(one.predict(rows.assign(id=ids), of="cluster"), known, rtol=SAME)
    some = one.predict(rows.assign(id=[1, 500]), of="cluster")
    assert some.tolist() == pytest.approx([known[0], one.predict(rows)[1]], rel=SAME)
    data = two_responses(5, holes=False)
    both = mlmed.mixed("y ~ x + (1 | id:h)", data.assign(h=np.tile(["a", "b"], len(data) // 2)))
    with pytest.raises(DataError, match=r"'h' are text in the fit \('a', 'b'\) and numbers here \(0\)"):
        both.predict({"x": [1.0], "id": [1], "h": [0]}, of="cluster")


def test_location_scale_models_refuse_the_same():
    data = mlmed.simulate.bpg(20, 8, seed=2).data
    fit = mlmed.location_scale("y ~ x + (1 | id)", "~ 1", data)
    with pytest.raises(DataError, match=r"numbers in the fit .* text here"):
        fit.predict({"x": [1.0], "id": ["1"]}, of="cluster")
    with pytest.raises(EffectError, match="level must be a proportion"):
        fit.predict({"x": [1.0]}, level=95)
    with pytest.raises(EffectError, match=r"found \{'x'\}"):
        fit.plot.prediction("x", at={"x"})


def test_a_mediator_is_asked_for_with_the_reason():
    data = mlmed.simulate.bpg(30, 6, seed=8).data
    fit = mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data)
    with pytest.raises(
        DataError, match=r"column 'm' is not in the data; .* predictor of y, which is predicted given m"
    ):
        fit.predict({"x": [1.0]})
    moved = fit.predict({"x": [0.0, 1.0], "m": [0.5, 0.5]})["y"].diff().iloc[1]
    assert moved == pytest.approx(fit.params["y~x"], rel=1e-9)
    with pytest.raises(DataError, match=r"column 'x' is not in the data; (?!it is a response)"):
        fit.predict({"m": [1.0]})


@pytest.mark.parametrize("spline", ["bs(x, df=4)", "bs(np.exp(x), df=3)"])
def test_values_beyond_a_spline_are_named(spline):
    data = two_responses(5, holes=False)
    fit = mlmed.mixed(f"y ~ {spline} + (1 | id)", data)
    inside = fit.predict({"x": [data["x"].min(), data["x"].max()]})
    assert inside.notna().all()
    ends = np.exp(data["x"]) if "exp" in spline else data["x"]
    message = f"outside the range of the data that were fitted, {ends.min():.6g} to {ends.max():.6g}, where"
    with pytest.raises(DataError, match=re.escape(message)):
        fit.predict({"x": [data["x"].max() + 1.0]})
    wider = mlmed.mixed("y ~ bs(x, df=4, extrapolation='extend') + (1 | id)", data)
    assert wider.predict({"x": [data["x"].max() + 1.0]}).notna().all()


def test_a_level_without_an_interval_is_refused(one):
    with pytest.raises(EffectError, match=r"level=0.8 is the coverage of an interval, and none was asked for"):
        one.predict({"x": [1.0]}, level=0.8)
    default = one.predict({"x": [1.0]}, interval="confidence")
    pd.testing.assert_frame_equal(default, one.predict({"x": [1.0]}, interval="confidence", level=0.95))
