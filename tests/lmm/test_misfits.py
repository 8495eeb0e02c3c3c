"""Designs that mediate() is not made for: fitted, and said once with the way out; with and without rows."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.data.grams import two_values
from mlmed.errors import CovarianceWarning, FamilyWarning, LevelWarning, MlmedWarning

OUTCOME = "y ~ m + x + (1 + m | id)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """60 clusters of 8; a treatment of the clusters, m and y cut in two and in three."""
    made = mlmed.simulate.bpg(60, 8, seed=3).data
    school = np.random.default_rng(0).normal(size=61)[made["id"]]
    return made.assign(
        school=school,
        m=made["m"],
        m01=1.0 * (made["m"] > 0),
        y25=np.where(made["y"] > 0, 5, 2),
        m3=np.digitize(made["m"], [-0.5, 0.5]),
    )


def said(mediator: str, outcome: str, source: object, mode: str = "mediate") -> list[tuple[type[Warning], str]]:
    """Warnings of a fit, with the file they point at checked."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(mlmed, mode)(mediator, outcome, source)
    assert all(one.filename == __file__ for one in caught if issubclass(one.category, FamilyWarning | LevelWarning))
    return [(one.category, str(one.message)) for one in caught if issubclass(one.category, MlmedWarning)]


def sources(data: pd.DataFrame, *formulas: str) -> list[object]:
    """The same rows in memory, in an engine, and as cross-products."""
    return [data, pl.from_pandas(data).lazy(), mlmed.grams(formulas, data)]


def test_terms_that_were_split(data: pd.DataFrame) -> None:
    """(1 | id) + (0 + x | id) loses cov_ab, and says so once, from any source."""
    formulas = "m ~ x + (1 | id) + (0 + x | id)", OUTCOME
    for source in sources(data, *formulas):
        ((category, message),) = said(*formulas, source)
        assert category is CovarianceWarning
        assert "(1 | id) + (0 + x | id)" in message
        assert "(0 + x |s| id)" in message


@pytest.mark.parametrize(
    "formulas",
    [
        ("m ~ x + (1 + x | id)", OUTCOME),
        ("m ~ x + (1 |i| id) + (0 + x |s| id)", "y ~ m + x + (1 |j| id) + (0 + m |t| id)"),
        ("m ~ x + (1 + x || id)", OUTCOME),
        ("m ~ x + (1 | id)", "y ~ m + x + (1 | id) + (0 + m | id)"),
    ],
)
def test_what_was_asked_for_is_not_warned_of(data: pd.DataFrame, formulas: tuple[str, str]) -> None:
    """Labels and double bars say that slopes stay apart; a slope that does not vary has nothing to lose."""
    assert said(*formulas, data) == []


def test_the_way_out_of_split_terms(data: pd.DataFrame) -> None:
    """Labels give the covariance back: that of slopes, with intercepts apart."""
    fit = mlmed.mediate("m ~ x + (1 |i| id) + (0 + x |s| id)", "y ~ m + x + (1 |i| id) + (0 + m |s| id)", data)
    found = fit.effects().set_index("term").loc["cov_ab", "estimate"]
    assert found == pytest.approx(fit.G.loc["m~x", "y~m"], rel=1e-10)
    assert found != 0.0


def test_a_treatment_of_the_clusters(data: pd.DataFrame) -> None:
    """2-1-1, without a random slope of it: the level is named, and piecewise."""
    formulas = "m ~ school + (1 | id)", "y ~ m + school + (1 | id)"
    for source in sources(data, *formulas):
        ((category, message),) = said(*formulas, source)
        assert category is LevelWarning
        assert "school does not vary within id (a 2-1-1 design)" in message
        assert "mlmed.piecewise" in message


def test_a_treatment_whose_effect_differs_between_rows_is_still_one_of_clusters(data: pd.DataFrame) -> None:
    """An interaction with a variable of the rows does not make it vary."""
    with pytest.warns(LevelWarning, match="school does not vary within id"):
        mlmed.mediate("m ~ school*x + (1 | id)", "y ~ m + school + (1 | id)", data, treatment="school")


def test_responses_of_two_values(data: pd.DataFrame) -> None:
    """Both named with their values, each once, jointly and separately."""
    formulas = "m01 ~ x + (1 | id)", "y25 ~ m01 + x + (1 | id)"
    for source in sources(data, *formulas):
        found = said(*formulas, source)
        assert [category for category, _ in found] == [FamilyWarning, FamilyWarning]
        assert "the mediator m01 has two values (0 and 1)" in found[0][1]
        assert "the outcome y25 has two values (2 and 5)" in found[1][1]
    assert said(*formulas, data, "piecewise") == found
    assert said("m3 ~ x + (1 | id)", "y ~ m3 + x + (1 | id)", data) == []


def test_a_mediator_of_the_clusters_with_two_values(data: pd.DataFrame) -> None:
    """Least squares on one row per cluster, too."""
    made = data.assign(big=1.0 * (data.groupby("id")["m"].transform("mean") > 0))
    ((category, message),) = said("big ~ school", "y ~ big + school + (1 | id)", made, "piecewise")
    assert category is FamilyWarning
    assert "the mediator big has two values (0 and 1)" in message


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.0, 1.0), (0.0, 1.0)), ((-3.0, 1e6), (-3.0, 1e6)), ((0.1, 0.3), (0.1, 0.3)), ((0.0, 1.0, 2.0), None)],
)
def test_two_values_from_sums(values: tuple[float, ...], expected: tuple[float, float] | None) -> None:
    """Found from cross-products of clusters; three values are not two."""
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"id": np.repeat(np.arange(30), 6), "x": rng.normal(size=180), "z": rng.choice(values, 180)})
    arrays = mlmed.grams("z ~ x + (1 | id)", frame).arrays
    found = two_values(arrays, 0, arrays.layout.equations[0].response_at)
    assert found is None or "-0.0" not in map(str, found)
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-8, abs=1e-8 * max(values)))
