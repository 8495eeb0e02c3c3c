"""Factors that are computed in a formula, ``C(age >= 65)``: the fits, values and effects of a column made by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.errors import DataError, FormulaError
from tests.tolerances import SAME

#: The same numbers reach the same engine; only the names of columns differ.
FIT = 1e-10
#: Numbers at the optimum of the same criterion, columns in another unit.
VALUE = 1e-6
#: Optima of replicates, each found to the tolerance of the optimizer.
REFIT = 1e-5


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """40 clusters of 8; ``old``, ``decade`` and ``up`` are what the formulas compute."""
    made = mlmed.simulate.bpg(40, 8, seed=3).data
    rng = np.random.default_rng(0)
    age = rng.integers(40, 90, len(made)) + 0.5
    up = np.where(made["x"] > 0, 0.0, 1.0)  # the reference is True
    return made.assign(
        age=age, g=rng.choice(list("abc"), len(made)), old=1.0 * (age >= 65), decade=np.floor(age / 10), up=up
    )


SPELLINGS = [
    ("C(age >= 65)", "old"),
    ("C(np.floor(age / 10))", "C(decade)"),
    ("C(x > 0, Treatment(True))", "up"),
    ("C(g == 'b')", "isb"),
    ("C((age >= 65) & (x > 0))", "both"),
    ("I(C(decade))", "C(decade)"),
    ("C(C(decade))", "C(decade)"),
    ("C(data=decade)", "C(decade)"),
]


def by_hand(data: pd.DataFrame) -> pd.DataFrame:
    """All columns that the second spellings name."""
    return data.assign(isb=1.0 * (data["g"] == "b"), both=1.0 * ((data["age"] >= 65) & (data["x"] > 0)))


@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")  # the factors have no effects that vary
@pytest.mark.parametrize(("computed", "column"), SPELLINGS)
@pytest.mark.parametrize("formula", ["m ~ {} + y + (1 | id)", "m ~ y + {}:y + (1 | id)", "m ~ y + (1 + {} | id)"])
def test_fits_and_predictions(data: pd.DataFrame, formula: str, computed: str, column: str) -> None:
    """Fixed, in an interaction, random; on the rows of the fit, on one row, and by cluster."""
    data = by_hand(data)
    left, right = mlmed.mixed(formula.format(computed), data), mlmed.mixed(formula.format(column), data)
    assert left.llf == pytest.approx(right.llf, rel=FIT)
    for of in ("population", "cluster"):
        expected = right.predict(data, of=of)
        np.testing.assert_allclose(left.predict(data, of=of), expected, rtol=VALUE, atol=1e-8)
        np.testing.assert_allclose(left.predict(data.tail(1), of=of), expected.tail(1), rtol=VALUE, atol=1e-8)


def test_rows_with_more_values_than_levels_are_remembered() -> None:
    """1,500 different values of x are no levels of C(x > 0)."""
    made = mlmed.simulate.bpg(50, 30, seed=3).data
    fit = mlmed.mixed("m ~ C(x > 0) + (1 | id)", made)
    by_hand = mlmed.mixed("m ~ up + (1 | id)", made.assign(up=1.0 * (made["x"] > 0)))
    expected = by_hand.predict(made.assign(up=1.0 * (made["x"] > 0)))
    np.testing.assert_allclose(fit.predict(made), expected, rtol=VALUE, atol=1e-8)


def test_conditional_effects(data: pd.DataFrame) -> None:
    """The age is a number with a range, not a factor of 50 levels held at its minimum."""
    fit, hand = mlmed.mixed("m ~ y + C(age >= 65) + (1 | id)", data), mlmed.mixed("m ~ y + old + (1 | id)", data)
    ages = [40.0, 64.9, 65.0, 80.0]
    table = fit.conditional_effects("age", points=ages)
    expected = hand.conditional_effects("old", points=[float(age >= 65) for age in ages])
    np.testing.assert_allclose(table["estimate"], expected["estimate"], rtol=VALUE)
    np.testing.assert_allclose(table["std_error"], expected["std_error"], rtol=VALUE)
    held = fit.conditional_effects("y", at={"age": 70.0}, points=[0.0, 1.0])
    expected = hand.conditional_effects("y", at={"old": 1.0}, points=[0.0, 1.0])
    np.testing.assert_allclose(held["estimate"], expected["estimate"], rtol=VALUE)
    default = fit.conditional_effects("y", points=[0.0, 1.0])  # at the mean age, 65 and a little
    assert data["age"].mean() > 65.1
    np.testing.assert_allclose(default["estimate"], expected["estimate"], rtol=VALUE)


def test_effects_of_mediate_and_their_bootstraps(data: pd.DataFrame) -> None:
    """Moderated by a computed factor: at given and typical values, and from draws."""
    left = mlmed.mediate("m ~ x*C(age >= 65) + (1 + x | id)", "y ~ m + x + (1 + m | id)", data, treatment="x")
    right = mlmed.mediate("m ~ x*old + (1 + x | id)", "y ~ m + x + (1 + m | id)", data, treatment="x")
    for age in (50.0, 70.0):
        one, two = left.effects(at={"age": age}), right.effects(at={"old": float(age >= 65)})
        np.testing.assert_allclose(one["estimate"], two["estimate"], rtol=VALUE, atol=1e-8)
        np.testing.assert_allclose(one["std_error"], two["std_error"], rtol=VALUE, atol=1e-8)
    assert "age = 65" in left.effects().set_index("term").loc["a", "note"]
    np.testing.assert_allclose(left.effects()["estimate"], right.effects(at={"old": 1.0})["estimate"], rtol=VALUE)
    for kind in ("case", "parametric", "residual"):
        one = left.bootstrap(4, kind=kind, seed=1, at={"age": 50.0}).draws
        two = right.bootstrap(4, kind=kind, seed=1, at={"old": 0.0}).draws
        assert one["indirect"].notna().all()
        np.testing.assert_allclose(one["indirect"], two["indirect"], rtol=REFIT)


def test_a_mediator_that_is_cut_in_the_outcome_is_simulated_again(data: pd.DataFrame) -> None:
    """``C(m > 0)`` follows the simulated m in a parametric bootstrap, as ``I(m > 0)`` does."""
    fits = [mlmed.mixed(["m ~ x + (1 | id)", f"y ~ x + {cut} + (1 | id)"], data) for cut in ("C(m > 0)", "I(m > 0)")]
    left, right = (fit.bootstrap(4, kind="parametric", seed=1).draws for fit in fits)
    assert left["y~x"].notna().all()
    np.testing.assert_allclose(left["y~x"], right["y~x"], rtol=REFIT)


def test_piecewise_causal_and_location_scale(data: pd.DataFrame) -> None:
    """The same in the modes that encode for themselves."""
    for fitted in (_piecewise, _causal, _causal_mixed, _location_scale):
        one, two = fitted("C(age >= 65)", data), fitted("old", data)
        np.testing.assert_allclose(one, two, rtol=VALUE, atol=1e-8)


def _piecewise(term: str, data: pd.DataFrame) -> Any:
    fit = mlmed.piecewise(f"m ~ x + {term} + (1 | id)", f"y ~ m + x + {term} + (1 | id)", data, treatment="x")
    return fit.effects()["estimate"]


def _causal(term: str, data: pd.DataFrame) -> Any:
    fit = mlmed.causal(f"m ~ x + {term}", f"y ~ m*x + {term}", data, treatment="x")
    at = {"age": 80.0} if term != "old" else {"old": 1.0}
    return [*fit.effects(interval="delta")["estimate"], *fit.effects(interval="delta", at=at)["estimate"]]


def _causal_mixed(term: str, data: pd.DataFrame) -> Any:
    fit = mlmed.causal(f"m ~ x*{term} + (1 | id)", f"y ~ m + x*{term} + (1 | id)", data, treatment="x")
    return fit.effects(interval="delta")["estimate"]


def _location_scale(term: str, data: pd.DataFrame) -> Any:
    fit = mlmed.location_scale(f"y ~ {term} + (1 | id)", f"~ {term}", data)
    return [fit.llf, *fit.predict(data.head(5))["estimate"], *fit.predict(data.head(5))["sd"]]


def test_a_computed_treatment_is_compared_at_its_values(data: pd.DataFrame) -> None:
    """From 50 to 70 is from 0 to 1 of the column."""
    left = mlmed.mediate("m ~ C(age >= 65) + (1 | id)", "y ~ m + C(age >= 65) + (1 | id)", data, contrast=(50, 70))
    right = mlmed.mediate("m ~ old + (1 | id)", "y ~ m + old + (1 | id)", data)
    np.testing.assert_allclose(left.effects()["estimate"], right.effects()["estimate"], rtol=VALUE, atol=1e-8)


def test_levels_that_were_not_in_the_fit(data: pd.DataFrame) -> None:
    """Named with the levels there are, wherever the values come from."""
    fit = mlmed.mixed("m ~ y + C(np.floor(age / 10)) + (1 | id)", data)
    asked: list[Callable[[], Any]] = [
        lambda: fit.predict(data.assign(age=200.0)),
        lambda: fit.conditional_effects("y", at={"age": 200.0}),
        lambda: fit.conditional_effects("age", points=[50.0, 200.0]),
    ]
    for ask in asked:
        with pytest.raises(
            FormulaError, match=r"level that it did not have.*C\(np.floor\(age / 10\)\): 4, 5, 6, 7, 8.*choose"
        ):
            ask()


@pytest.mark.parametrize("term", ["C(age > 0)", "C(one)", "C(one > 0):y", "y + C(age > 0)"])
@pytest.mark.parametrize("formula", ["m ~ y + {} + (1 | id)", "m ~ y + (1 + {} | id)"])
def test_a_factor_with_one_level_is_refused(data: pd.DataFrame, term: str, formula: str) -> None:
    """It would have no column, and would be left out without a word."""
    with pytest.raises(DataError, match=r"C\(.*is constant.*its only level is (1|True)\); remove it"):
        mlmed.mixed(formula.format(term).replace("y + y", "y"), data.assign(one=1.0))


def test_a_factor_with_one_level_is_refused_in_other_modes(data: pd.DataFrame) -> None:
    """Ordinary regressions and scale formulas, too."""
    with pytest.raises(DataError, match="is constant"):
        mlmed.causal("m ~ x + C(age > 0)", "y ~ m + x", data, treatment="x")
    with pytest.raises(DataError, match="is constant"):
        mlmed.location_scale("y ~ x + (1 | id)", "~ C(age > 0)", data)


@pytest.mark.parametrize("engine", ["polars", "duckdb"])
def test_engines_refuse_it_by_name(data: pd.DataFrame, engine: str) -> None:
    """The levels of an expression are not looked up there."""
    lazy = pl.from_pandas(data).lazy() if engine == "polars" else duckdb.from_df(data)
    with pytest.raises(FormulaError, match=r"C\(age >= 65\) cannot be computed by the engine.*make it a column"):
        mlmed.mixed("m ~ x + C(age >= 65) + (1 | id)", lazy)


def test_cross_products_of_shards(data: pd.DataFrame, tmp_path: Path) -> None:
    """They add up where the levels are the same, and are not stored without them."""
    formula = "m ~ y + C(np.floor(age / 10)) + (1 | id)"
    whole = mlmed.mixed(formula, data)
    total = mlmed.grams(formula, data[::2]) + mlmed.grams(formula, data[1::2])
    assert mlmed.mixed(formula, total).llf == pytest.approx(whole.llf, rel=SAME)
    shifted = data[1::2].assign(age=lambda d: d["age"].where(d["age"] >= 50, 33.0))  # 3 for 4: other levels, same names
    with pytest.raises(DataError, match="levels"):
        _ = mlmed.grams(formula, data[::2]) + mlmed.grams(formula, shifted)
    with pytest.raises(DataError, match=r"levels of C\(np.floor\(age / 10\)\).*cannot be stored.*make it a column"):
        total.save(tmp_path / "grams.parquet")
