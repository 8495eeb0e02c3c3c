"""Special case = general case, and what must not change the answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import DroppedRowsWarning
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import INVARIANT, OPTIMUM


@pytest.fixture(scope="module")
def data():
    return mlmed.simulate.bpg(60, 8, seed=5).data


@pytest.fixture(scope="module")
def fit(data):
    return mlmed.mediate(MEDIATOR, OUTCOME, data)


def _effects(fit):
    return fit.effects().set_index("term")[["estimate", "std_error"]]


def _same_effects(left, right, *, rel=INVARIANT):
    np.testing.assert_allclose(_effects(left), _effects(right), rtol=rel, atol=0)


def test_different_labels_are_two_separate_fits(data):
    """No covariance across equations: the joint fit factors."""
    joint = mlmed.mediate("m ~ x + (1 + x |p| id)", "y ~ m + x + (1 + m + x |q| id)", data)
    one, two = mlmed.mixed(MEDIATOR, data), mlmed.mixed(OUTCOME, data)
    assert joint.llf == pytest.approx(one.llf + two.llf, rel=OPTIMUM)
    np.testing.assert_allclose(joint.params, [*one.params, *two.params], rtol=OPTIMUM)
    np.testing.assert_allclose(joint.bse, [*one.bse, *two.bse], rtol=OPTIMUM)
    row = joint.effects().set_index("term").loc["cov_ab"]
    assert row["estimate"] == 0.0
    assert np.isnan(row["std_error"])
    assert "not allowed to covary" in row["note"]


def test_the_same_label_is_the_default(data, fit):
    labelled = mlmed.mediate("m ~ x + (1 + x |i| id)", "y ~ m + x + (1 + m + x |i| id)", data)
    assert labelled.llf == fit.llf
    assert labelled.names == fit.names


def test_shuffled_rows_and_relabelled_clusters(data, fit):
    shuffled = data.sample(frac=1.0, random_state=1)
    shuffled["id"] = shuffled["id"].map(lambda k: f"person {97 * k % 61}")
    again = mlmed.mediate(MEDIATOR, OUTCOME, shuffled)
    assert again.llf == pytest.approx(fit.llf, rel=1e-12)
    _same_effects(fit, again)


@pytest.mark.parametrize("shift", [1e3, 1e6])
def test_shifted_x(data, fit, shift):
    """x + 1e6 and (x + 1e6) - 1e6 are the same information; x itself has lost digits by then."""
    moved = data.assign(x=data["x"] + shift)
    back = mlmed.mediate(MEDIATOR, OUTCOME, moved.assign(x=moved["x"] - shift))
    _same_effects(back, mlmed.mediate(MEDIATOR, OUTCOME, moved))


@pytest.mark.parametrize(("column", "scale"), [("x", 1e-6), ("m", 1e6), ("y", 1e-6), ("y", 1e6)])
def test_scaled_columns(data, fit, column, scale):
    scaled = mlmed.mediate(MEDIATOR, OUTCOME, data.assign(**{column: data[column] * scale}))
    expected = _effects(fit).copy()
    powers = {
        "x": {"a": -1, "b": 0, "cprime": -1, "cov_ab": -1, "indirect": -1, "direct": -1, "total": -1},
        "m": {"a": 1, "b": -1, "cprime": 0, "cov_ab": 0, "indirect": 0, "direct": 0, "total": 0},
        "y": {"a": 0, "b": 1, "cprime": 1, "cov_ab": 1, "indirect": 1, "direct": 1, "total": 1},
    }[column]
    factors = np.array([scale ** powers[term] for term in expected.index])
    np.testing.assert_allclose(_effects(scaled), expected.to_numpy() * factors[:, None], rtol=INVARIANT)


def test_shift_changes_the_reml_likelihood_by_the_known_constant(data, fit):
    """Scaling x by k changes log|X'V^-1 X| by 2 log k in each equation that has x."""
    scaled = mlmed.mediate(MEDIATOR, OUTCOME, data.assign(x=data["x"] * 10.0))
    assert scaled.llf == pytest.approx(fit.llf - 2 * np.log(10.0), rel=1e-12)


@pytest.mark.parametrize("covariance", ["unstructured", "diagonal", "identity", "exchangeable"])
def test_structures_of_one_effect_agree(data, covariance):
    one = mlmed.mixed("y ~ m + x + (1 | id)", data, covariance=covariance)
    assert one.llf == pytest.approx(mlmed.mixed("y ~ m + x + (1 | id)", data).llf, rel=1e-12)


def test_structures_are_nested(data):
    llf = {
        c: mlmed.mediate(MEDIATOR, OUTCOME, data, method="ml", covariance=c).llf
        for c in ("identity", "exchangeable", "diagonal", "unstructured")
    }
    assert llf["identity"] <= llf["exchangeable"] <= llf["unstructured"]
    assert llf["identity"] <= llf["diagonal"] <= llf["unstructured"]


def test_double_bar_is_diagonal(data):
    bars = mlmed.mixed("y ~ m + x + (1 + m + x || id)", data)
    named = mlmed.mixed(OUTCOME, data, covariance="diagonal")
    separate = mlmed.mixed("y ~ m + x + (1 | id) + (0 + m | id) + (0 + x | id)", data)
    assert bars.llf == named.llf
    assert separate.llf == pytest.approx(bars.llf, rel=1e-12)


def test_rows_with_only_y_missing_stay_in_the_mediator_equation(data):
    holes = data.copy()
    holes.loc[::7, "y"] = np.nan
    with pytest.warns(DroppedRowsWarning, match=r"equation y: 69 of 480 rows left out \(missing y: 69\)"):
        joint = mlmed.mediate("m ~ x + (1 + x |p| id)", "y ~ m + x + (1 + m + x |q| id)", holes)
    one = mlmed.mixed(MEDIATOR, data)
    two = mlmed.mixed(OUTCOME, holes.dropna())
    assert joint.llf == pytest.approx(one.llf + two.llf, rel=OPTIMUM)
    assert joint.fit.working.problem.nobs.tolist() == [480, 411]


def test_an_empty_second_pattern_changes_nothing(data, fit):
    """A cluster seen only in one equation is kept; removing it again gives the fit without it."""
    extra = pd.DataFrame({"id": [999] * 3, "x": [0.1, 0.2, 0.4], "m": [1.0, 2.0, 0.5], "y": [np.nan] * 3})
    with pytest.warns(DroppedRowsWarning):
        more = mlmed.mediate(MEDIATOR, OUTCOME, pd.concat([data, extra], ignore_index=True))
    assert more.n_clusters == fit.n_clusters + 1
    assert more.params["m~x"] != fit.params["m~x"]


def test_factor_coding_spans_the_same_space(data):
    codes = data["id"] % 3
    labelled = data.assign(g=codes.map({0: "a", 1: "b", 2: "c"}), d1=(codes == 1) * 1.0, d2=(codes == 2) * 1.0)
    factor = mlmed.mixed("y ~ x + g + (1 | id)", labelled)
    dummies = mlmed.mixed("y ~ x + d1 + d2 + (1 | id)", labelled)
    assert factor.llf == pytest.approx(dummies.llf, rel=1e-12)
    assert list(factor.params.index) == ["Intercept", "x", "g[T.b]", "g[T.c]"]


def test_transformations_in_both_parts(data):
    positive = data.assign(w=np.exp(data["x"]), w2=data["x"] ** 2)
    inside = mlmed.mixed("y ~ np.log(w) + I(x**2) + (1 + np.log(w) | id)", positive)
    outside = mlmed.mixed("y ~ x + w2 + (1 + x | id)", positive)
    assert inside.llf == pytest.approx(outside.llf, rel=1e-10)
