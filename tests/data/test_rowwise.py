"""Formulas whose value in a row depends on other rows are refused; those that remember the rows of the fit stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.errors import FormulaError
from tests.tolerances import SAME


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """40 clusters of 8 with a moderator and a code."""
    made = mlmed.simulate.bpg(40, 8, seed=3).data
    rng = np.random.default_rng(0)
    return made.assign(w=rng.normal(size=len(made)) + 1.0, k=rng.choice([1, 2], len(made)))


STATISTICS = [
    "I(w - w.mean())",
    "w.rank()",
    "I(w > w.median())",
    "I(k >= k.median())",
    "I(w - w.groupby(id).transform('mean'))",
    "I(w / w.groupby(id).transform('size'))",
    "I(w / np.std(w))",
    "I(w - np.quantile(w, .5))",
    "x:np.std(w)",
    "x:I(w - w.mean())",
    "center(w - w.min())",
    "w.clip(w.quantile(.05), w.quantile(.95))",
    "np.where(w > np.median(w), 1, 0)",
    "np.cumsum(w)",
    "np.add.accumulate(w)",
    "I(w * w.iloc[0])",
    "I(w.size * w)",
    "w.duplicated()",
    "w.shift(1)",
]


@pytest.mark.parametrize("term", STATISTICS)
def test_terms_that_read_other_rows(data: pd.DataFrame, term: str) -> None:
    """Means, ranks, quantiles, lags, groups, positions: refused with what remembers the rows of the fit."""
    with pytest.raises(FormulaError, match=r"takes its value in a row from other rows.*center\(\)"):
        mlmed.mixed(f"m ~ x + {term} + (1 | id)", data)


def test_the_random_part_too(data: pd.DataFrame) -> None:
    """A random slope is encoded for new rows as a fixed one."""
    with pytest.raises(FormulaError, match=r"I\(w - w\.mean\(\)\) in 'm ~ x .*other rows"):
        mlmed.mixed("m ~ x + (1 + I(w - w.mean()) | id)", data)


@pytest.mark.parametrize("mode", ["mediate", "piecewise", "causal", "mixed causal", "location_scale", "2-2-1"])
def test_every_mode(data: pd.DataFrame, mode: str) -> None:
    """One check behind all designs."""
    bad, clusters = "I(w - w.mean())", data.groupby("id").transform("first").assign(id=data["id"], y=data["y"])
    asked = {
        "mediate": lambda: mlmed.mediate(f"m ~ x*{bad} + (1 | id)", "y ~ m + x + (1 | id)", data, treatment="x"),
        "piecewise": lambda: mlmed.piecewise(f"m ~ x*{bad} + (1 | id)", "y ~ m + x + (1 | id)", data, treatment="x"),
        "causal": lambda: mlmed.causal("m ~ k", f"y ~ m + k*{bad}", data, treatment="k", contrast=(1, 2)),
        "mixed causal": lambda: mlmed.causal(
            "m ~ k + (1 | id)", f"y ~ m + k*{bad} + (1 | id)", data, treatment="k", contrast=(1, 2)
        ),
        "location_scale": lambda: mlmed.location_scale("m ~ x + (1 | id)", f"~ {bad}", data),
        "2-2-1": lambda: mlmed.piecewise(f"m ~ x*{bad}", "y ~ m + x + (1 | id)", clusters, treatment="x"),
    }
    with pytest.raises(FormulaError, match="other rows"):
        asked[mode]()


@pytest.mark.parametrize("bad", ["w.mean()", "np.mean(w)", "I(w.max())", "x*np.median(w)"])
def test_one_number_for_all_rows(data: pd.DataFrame, bad: str) -> None:
    """A bare statistic is no column at all; it is named, wherever it stands and whoever holds the rows."""
    for fixed, random in ((bad, "1"), ("x", f"1 + {bad}")):
        for source in (data, pl.from_pandas(data).lazy()):
            with pytest.raises(FormulaError, match=r"(w\.m|\(w).* other rows .*Use center\(\) or scale\(\)"):
                mlmed.mixed(f"y ~ {fixed} + ({random} | id)", source)
    with pytest.raises(FormulaError, match="other rows"):
        mlmed.causal("m ~ x", f"y ~ m + x + {bad}", data, treatment="x")


KEPT = {
    "I(w > 0)": lambda d: 1.0 * (d.w > 0),
    "np.where(w > 0, 1, 0)": lambda d: 1.0 * (d.w > 0),
    "np.clip(w, -1, 1)": lambda d: d.w.clip(-1, 1),
    "w.clip(-1, 1)": lambda d: d.w.clip(-1, 1),
    "I(w.abs())": lambda d: d.w.abs(),
    "np.minimum(w, .5)": lambda d: d.w.clip(upper=0.5),
    "k.isin([2])": lambda d: 1.0 * (d.k == 2),
    "w.between(0, 1)": lambda d: 1.0 * d.w.between(0, 1),
    "I(center(w)**2)": lambda d: (d.w - d.w.mean()) ** 2,
    "I(np.log(np.abs(w)))": lambda d: np.log(d.w.abs()),
}


@pytest.mark.parametrize("term", KEPT)
def test_terms_that_read_their_own_row(data: pd.DataFrame, term: str) -> None:
    """The fit and predictions for a few rows are those of the column made by hand."""
    left = mlmed.mixed(f"m ~ x + {term} + (1 | id)", data)
    made = data.assign(z=KEPT[term](data))
    right = mlmed.mixed("m ~ x + z + (1 | id)", made)
    assert left.llf == pytest.approx(right.llf, rel=SAME)
    np.testing.assert_allclose(left.predict(data[3:9]), right.predict(made[3:9]), rtol=1e-6)


@pytest.mark.parametrize("term", ["center(w)", "scale(w)", "poly(w, 2)", "bs(w, df=4)", "standardize(w)", "C(k)"])
def test_what_remembers_the_rows_of_the_fit_stays(data: pd.DataFrame, term: str) -> None:
    """Predictions of a subset are those of all rows."""
    fit = mlmed.mixed(f"m ~ x + {term} + (1 | id)", data)
    np.testing.assert_allclose(fit.predict(data[5:8]), fit.predict(data)[5:8], rtol=SAME)


def test_a_centred_moderator_keeps_its_mean(data: pd.DataFrame) -> None:
    """Effects at w = 2 and 4 differ as the coefficients say, the mean being that of the rows of the fit."""
    fit = mlmed.mediate("m ~ x*center(w) + (1 | id)", "y ~ m + x + (1 | id)", data, treatment="x")
    for w in (2.0, 4.0):
        slope = fit.params["m~x"] + fit.params["m~x:center(w)"] * (w - data["w"].mean())
        found = fit.effects(at={"w": w}).set_index("term").loc["indirect", "estimate"]
        assert found == pytest.approx(slope * fit.params["y~m"], rel=1e-9)  # literal formula; rounding only


def test_values_that_are_not_finite_are_still_named(data: pd.DataFrame) -> None:
    """A logarithm of a negative number is no statistic."""
    with pytest.raises(FormulaError, match="not a finite number"):
        mlmed.mixed("m ~ x + np.where(w > 0, np.log(w), np.log(w)) + (1 | id)", data)
