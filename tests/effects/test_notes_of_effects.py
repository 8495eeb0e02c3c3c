"""What stands beside effects: where they were taken, on every row that depends on it; what at= may name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import CovarianceWarning, EffectError

PLAIN = "y ~ m + x + (1 + m | id)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """80 clusters of 8 with moderators of the rows, and x and m split into their parts within and between clusters."""
    made = mlmed.simulate.bpg(80, 8, seed=21).data
    rng = np.random.default_rng(0)
    means = made.groupby("id")[["x", "m"]].transform("mean")
    return made.assign(
        w=rng.normal(size=len(made)),
        v=rng.normal(size=len(made)),
        x_w=made["x"] - means["x"],
        x_b=means["x"],
        m_w=made["m"] - means["m"],
        m_b=means["m"],
    )


def moved(fit: mlmed.Results, name: str) -> set[str]:
    """Effects whose estimate changes with the value of a moderator: which rows depend on it, by definition."""
    low, high = (fit.effects(at={name: value}).set_index("term")["estimate"] for value in (0.5, 2.0))
    return set(low.index[(low - high).abs() > 1e-9])


CASES = {
    "a": ("m ~ x*w + (1 + x | id)", PLAIN, {"a", "indirect", "total"}),
    "b": ("m ~ x + (1 + x | id)", "y ~ m*w + x + (1 + m | id)", {"b", "indirect", "total"}),
    "cprime": ("m ~ x + (1 + x | id)", "y ~ m + x*w + (1 + m | id)", {"cprime", "direct", "total"}),
    "random": ("m ~ x + (1 + x + x:w | id)", PLAIN, {"cov_ab", "indirect", "total"}),
    "all": (
        "m ~ x*w + (1 + x + x:w | id)",
        "y ~ m*w + x*w + (1 + m | id)",
        {"a", "b", "cprime", "cov_ab", "indirect", "direct", "total"},
    ),
}


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
@pytest.mark.parametrize("where", CASES)
def test_notes_stand_on_the_rows_that_depend_on_the_moderator(data: pd.DataFrame, where: str) -> None:
    """On each of them and on no other, at given values and at the mean."""
    mediator, outcome, expected = CASES[where]
    fit = mlmed.mediate(mediator, outcome, data, treatment="x")
    assert moved(fit, "w") == expected
    for options, text in (({"at": {"w": 2.0}}, "at w = 2.0"), ({}, f"at w = {data['w'].mean():.6g} (mean)")):
        table = fit.effects(**options).set_index("term")
        assert {term for term, note in table["note"].items() if text in note} == expected
        assert all(note.count("at w = ") <= 1 for note in table["note"])


def test_notes_of_separate_fits(data: pd.DataFrame) -> None:
    """The same rule for three fits."""
    fit = mlmed.piecewise("m ~ x*w + (1 | id)", "y ~ m + x*v + (1 | id)", data, treatment="x")
    table = fit.effects(at={"w": 2.0, "v": 1.0}).set_index("term")
    for name, text in (("w", "w = 2.0"), ("v", "v = 1.0")):
        assert {term for term, note in table["note"].items() if text in note} == moved(fit, name)


def test_notes_of_a_contrast(data: pd.DataFrame) -> None:
    """The values of the treatment stand beside everything but b."""
    fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data, contrast=(0, 2))
    unit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data).effects().set_index("term")
    table = fit.effects().set_index("term")
    noted = {term for term, note in table["note"].items() if "x from 0 to 2" in note}
    assert noted == set(table.index) - {"b"}
    doubled = table.loc[sorted(noted), "estimate"] / unit.loc[sorted(noted), "estimate"]
    np.testing.assert_allclose(doubled, 2.0, rtol=1e-9)


def test_every_kind_of_interval_carries_them(data: pd.DataFrame) -> None:
    """Delta method, draws and replicates; functions of effects, too."""
    fit = mlmed.mediate("m ~ x*w + (1 | id)", "y ~ m + x + (1 | id)", data, treatment="x")
    asked = {"delta": {}, "monte-carlo": {"n": 50, "seed": 1}, "bootstrap": {"n": 4, "seed": 1}}
    for interval, options in asked.items():
        table = fit.effects(interval=interval, at={"w": 2.0}, **options).set_index("term")
        assert "at w = 2.0" in table.loc["total", "note"]
        assert "at w = 2.0" not in table.loc["b", "note"]
    assert "at w = 2.0" in fit.nlcom("indirect / total", at={"w": 2.0}).loc[0, "note"]


WITHIN = (
    "m ~ x_w + x_b + (1 |i| id) + (0 + x_w |s| id)",
    "y ~ m + m_b + x_w + x_b + (1 |j| id) + (0 + m_w + x_w |s| id)",
)


def test_slopes_under_other_columns(data: pd.DataFrame) -> None:
    """m_w varies over clusters beside m: cov_ab is not said to be 0 because nothing varies."""
    fit = mlmed.mediate(*WITHIN, data, treatment="x_w")
    table = fit.effects().set_index("term")
    note = table.loc["cov_ab", "note"]
    assert "no random slope has the column of b" in note
    assert "y~m_w" in note
    assert "do not both vary" not in note
    assert "m~x_w" not in note  # it is a's
    assert all("y~m_w" in table.loc[term, "note"] for term in ("indirect", "total"))
    assert fit.G.loc["m~x_w", "y~m_w"] != 0.0  # the covariance that is left out exists


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
@pytest.mark.parametrize(
    ("mediator", "outcome"),
    [
        ("m ~ x + (1 | id)", PLAIN),
        ("m ~ x + (1 + x | id)", "y ~ m + x + (1 + x | id)"),
        ("m ~ x + w + (1 + w | id)", "y ~ m + x + (1 | id)"),
    ],
)
def test_slopes_that_do_not_vary(data: pd.DataFrame, mediator: str, outcome: str) -> None:
    """Slopes of x in the equation of y are those of c'; a slope of w does not matter where b has none at all."""
    note = mlmed.mediate(mediator, outcome, data, treatment="x").effects().set_index("term").loc["cov_ab", "note"]
    assert note == "fixed at 0: a and b do not both vary over clusters"


def test_slopes_that_may_not_covary(data: pd.DataFrame) -> None:
    """Both vary, apart."""
    with pytest.warns(CovarianceWarning):
        fit = mlmed.mediate("m ~ x + (1 | id) + (0 + x | id)", PLAIN, data)
    note = fit.effects().set_index("term").loc["cov_ab", "note"]
    assert note == "fixed at 0: the random slopes of a and b are not allowed to covary"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("m", "the mediator"),
        ("y", "the outcome"),
        ("x", "the treatment"),
        ("v", "a predictor on which no path depends"),
        ("zz", "which no equation uses"),
        ("id", "which no equation uses"),
    ],
)
@pytest.mark.parametrize("mode", ["mediate", "piecewise"])
def test_at_names_moderators_only(data: pd.DataFrame, mode: str, name: str, role: str) -> None:
    """Everything else is refused with what may be given, wherever at= is taken."""
    fit = getattr(mlmed, mode)("m ~ x*w + (1 | id)", "y ~ m + x + v + (1 | id)", data, treatment="x")
    calls = [fit.effects, lambda at: fit.nlcom("a", at=at), lambda at: fit.bootstrap(3, seed=1, at=at)]
    if mode == "mediate":
        calls += [
            lambda at: fit.profile("a", at=at),
            lambda at: fit.test("a = 0", at=at),
            lambda at: fit.influence(at=at),
        ]
    for call in calls:
        with pytest.raises(EffectError, match=rf"at names {name}, {role}.*choose among w"):
            call(at={name: 99})
    plain = getattr(mlmed, mode)("m ~ x + (1 | id)", "y ~ m + x + v + (1 | id)", data)
    with pytest.raises(EffectError, match=r"no path has one, so leave it out"):
        plain.effects(at={name: 99})


def test_moderators_of_the_equation_without_the_mediator(data: pd.DataFrame) -> None:
    """Only total= has w: at= takes it."""
    fit = mlmed.piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data, total="y ~ x*w + (1 | id)")
    low, high = (fit.effects(at={"w": w}).set_index("term").loc["c", "estimate"] for w in (0.0, 1.0))
    assert high - low == pytest.approx(fit.reduced.params["x:w"], rel=1e-9)
