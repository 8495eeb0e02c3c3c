"""Comparisons that no row can pass, and arithmetic with levels, are refused; those that are meant stay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest

import mlmed
from mlmed.data.readers import read_table
from mlmed.errors import FormulaError
from tests.tolerances import SAME


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """40 clusters of 8 with a factor, text codes, categories that are numbers, an order, numbers."""
    made = mlmed.simulate.bpg(40, 8, seed=3).data
    rng = np.random.default_rng(0)
    n = len(made)
    return made.assign(
        arm=pd.Categorical(rng.choice(["control", "a", "b"], n), ["control", "a", "b"]),
        sx=rng.choice(["1", "2"], n),
        age=pd.Categorical(rng.choice(["l", "m", "h"], n), ["l", "m", "h"], ordered=True),
        k=rng.choice([1, 2, 3], n),
        **{"my g": rng.choice(["A", "B"], n)},
    )


NEVER = {
    "I(arm == 1)": "'arm'.*'control', 'a', 'b'.*with 1",
    "I(1 != arm)": "'arm'.*with 1",
    "I((sx == 2) | (x > 0))": "'sx'.*'1', '2'.*with 2",
    "x*I((arm == 'A') | (x > 0))": "'arm'.*with 'A'",
    "I((`my g` != 'a') & (x > 0))": "'my g'.*with 'a'",
    "arm.isin(['a', 'c'])": "'arm'.*with 'c'",
    "np.isin(arm, [0, 1])": "'arm'.*with 0, 1",
    "arm.ne('c')": "'arm'.*with 'c'",
    "np.where(arm == 1, 0, x)": "'arm'.*with 1",
    "C((arm == 1) | (x > 0))": "'arm'.*with 1",
    "I((C_k == 4) | (x > 0))": "'C_k'.*1, 2, 3.*with 4",
    "I((k == sx) | (x > 0))": "'sx'.*with the numbers of the column 'k'",
    "I(arm >= 1)": "'arm'.*with 1",
    "I(arm >= 'a')": "order of the column 'arm'",
    "I(age > 'q')": "'age'.*with 'q'",
    "poly(arm, 2)": "computes with the column 'arm'",
    "center(arm)": "computes with the column 'arm'",
    "np.log(arm)": "computes with the column 'arm'",
    "I(-arm)": "computes with the column 'arm'",
    "x:I(age + 1)": "computes with the column 'age'",
}


@pytest.mark.parametrize("term", NEVER)
def test_levels_that_are_none(data: pd.DataFrame, term: str) -> None:
    """The column, its levels, what they were compared with, and how numbers are kept."""
    table = data.assign(C_k=pd.Categorical(data["k"]))
    with pytest.raises(FormulaError, match=NEVER[term] + r".*codes=\['.*--codes"):
        mlmed.mixed(f"m ~ {term} + (1 | id)", table)


@pytest.mark.parametrize("term", ["I((k == '1') | (x > 0))", "k.isin(['1'])", "I(k > 'a')"])
def test_numbers_compared_with_text(data: pd.DataFrame, term: str) -> None:
    with pytest.raises(FormulaError, match=r"'k', which holds numbers.*quotation marks"):
        mlmed.mixed(f"m ~ {term} + (1 | id)", data)


MEANT: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "I(arm == 'a')": lambda d: d["arm"].astype(object) == "a",
    "I((sx == '2') | (x > 0))": lambda d: (d["sx"] == "2") | (d["x"] > 0),
    "arm.isin(['a', 'b'])": lambda d: d["arm"].astype(object) != "control",
    "np.where(arm == 'a', x, 0)": lambda d: d["x"].where(d["arm"].astype(object) == "a", 0.0),
    "I(age >= 'm')": lambda d: d["age"].astype(object) != "l",
    "I(k == 2)": lambda d: d["k"] == 2,
    "I(k > x)": lambda d: d["k"] > d["x"],
    "k.between(1, 3, inclusive='left')": lambda d: (d["k"] >= 1) & (d["k"] < 3),
}


@pytest.mark.parametrize("term", MEANT)
def test_levels_that_are_some(data: pd.DataFrame, term: str) -> None:
    """The fit of a column of numbers made by hand."""
    fit = mlmed.mixed(f"m ~ {term} + (1 | id)", data)
    expected = mlmed.mixed("m ~ z + (1 | id)", data.assign(z=MEANT[term](data).astype(float)))
    np.testing.assert_allclose(fit.params, expected.params, rtol=SAME)


@pytest.mark.parametrize("mode", ["mediate", "piecewise", "causal", "scale", "response", "random", "engine"])
def test_every_mode(data: pd.DataFrame, mode: str) -> None:
    """One check behind all designs."""
    bad, tail = "I((arm == 1) | (x > 0))", "+ (1 | id)"
    asked = {
        "mediate": lambda: mlmed.mediate(f"m ~ x + {bad} {tail}", f"y ~ m + x {tail}", data, treatment="x"),
        "piecewise": lambda: mlmed.piecewise(f"m ~ x + {bad} {tail}", f"y ~ m + x {tail}", data, treatment="x"),
        "causal": lambda: mlmed.causal("m ~ k", f"y ~ m + k + {bad}", data, treatment="k", contrast=(1, 2)),
        "scale": lambda: mlmed.location_scale("m ~ x + (1 | id)", f"~ {bad}", data),
        "response": lambda: mlmed.mixed(f"np.where(arm == 1, 0, m) ~ x {tail}", data),
        "random": lambda: mlmed.mixed(f"m ~ x + (1 + {bad} | id)", data),
        "engine": lambda: mlmed.mixed(f"m ~ {bad} {tail}", _relation(data)),
    }
    with pytest.raises(FormulaError, match="compares the column 'arm'"):
        asked[mode]()


def _relation(data: pd.DataFrame) -> object:
    duckdb = pytest.importorskip("duckdb")
    frame = data.drop(columns="age").astype({"arm": str})
    return duckdb.from_df(frame)


def test_labels_that_became_levels(data: pd.DataFrame, tmp_path: Path) -> None:
    """``arm == 1`` is refused with the labels of SPSS, and is what was meant with ``codes=``."""
    path = tmp_path / "trial.sav"
    codes = data["k"].to_numpy(dtype=float) - 1.0
    pyreadstat.write_sav(
        data[["id", "m"]].assign(arm=codes), str(path), variable_value_labels={"arm": {0: "none", 1: "one", 2: "both"}}
    )
    with pytest.warns(mlmed.errors.LabelWarning), pytest.raises(FormulaError, match=r"codes=\['arm'\]"):
        mlmed.mixed("m ~ I(arm == 1) + (1 | id)", read_table(path))
    fit = mlmed.mixed("m ~ I(arm == 1) + (1 | id)", read_table(path, codes=["arm"]))
    expected = mlmed.mixed("m ~ z + (1 | id)", data.assign(z=1.0 * (data["k"] == 2)))
    np.testing.assert_allclose(fit.params, expected.params, rtol=SAME)
