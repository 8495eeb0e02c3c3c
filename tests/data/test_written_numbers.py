"""Numbers that were read as text: refused with the values that do not convert; factors stay factors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlmed
from mlmed.cli import main
from mlmed.data.values import written_numbers
from mlmed.errors import DataError, DroppedRowsWarning, MissingMarkWarning
from tests.tolerances import SAME


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """40 clusters of 8, with a number ``w`` and its text ``t`` that has two marks of missing values."""
    data = mlmed.simulate.bpg(40, 8, seed=3).data
    data["w"] = np.random.default_rng(1).integers(18, 60, len(data)).astype(float)
    data.loc[data.index % 16 == 3, "w"] = np.nan
    text = data["w"].map("{:.0f}".format)
    return data.assign(t=text.where(data["w"].notna(), ".").where(data.index != 3, "#NULL!"))


# -- what is a number ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "others"),
    [
        (["1", "2", "."], ["."]),
        (["1", "."], ["."]),
        (["12", "7.5", "#NULL!", "-"], ["#NULL!", "-"]),
        (["5%", "10%", "7.5 %"], ["5%", "10%", "7.5 %"]),
        (["1,5", "2,25", "3"], ["1,5", "2,25"]),
        (["1,234", "56"], ["1,234"]),
        (["$5", "€ 7.50", "3 €"], ["$5", "€ 7.50", "3 €"]),
        (["1", "2", "3", "unknown"], ["unknown"]),
        (["0.5", "1.5"], []),
        (["1e3", "2e3", "."], ["."]),
        (["05", "5", "7"], []),
        ([" 1", "2 ", "x", "3"], ["x"]),
        (["1", "2", ".a", ".z"], [".a", ".z"]),
        (["1", "2", "inf"], ["inf"]),
    ],
)
def test_numbers(values: list[str], others: list[str]) -> None:
    found = written_numbers(values)
    assert found is not None
    assert list(found.others) == others


@pytest.mark.parametrize(
    "values",
    [
        ["1", "2", "3"],
        ["001", "002"],
        ["a", "b", "."],
        ["1", "low"],
        ["18-25", "26-40", "41+"],
        ["<5", ">=5"],
        ["2020-01-05", "2020-01-06"],
        ["05.01.2020", "06.01.2020"],
        ["1st", "2nd", "3rd"],
        ["s1", "s2"],
        ["", "nan"],
        ["-", "."],
        [1.0, 2.0],
        [],
    ],
)
def test_levels(values: list[Any]) -> None:
    assert written_numbers(values) is None


# -- predictors ----------------------------------------------------------------------------------------------

FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda d: d,
    "objects": lambda d: d.astype({"t": object}),
    "categories": lambda d: d.astype({"t": "category"}),
    "polars": pl.from_pandas,
    "polars categories": lambda d: pl.from_pandas(d).with_columns(pl.col("t").cast(pl.Categorical)),
    "polars, lazy": lambda d: pl.from_pandas(d).lazy(),
    "arrow": pa.Table.from_pandas,
    "arrow dictionary": lambda d: pa.Table.from_pandas(d.astype({"t": "category"})),
    "duckdb": lambda d: duckdb.from_arrow(pa.Table.from_pandas(d)),
}
CULPRITS = r"do not convert to numbers: ('\.' \(19 rows\), '#NULL!' \(1 row\)|'#NULL!', '\.')\. Make"


@pytest.mark.parametrize("kind", FRAMES)
def test_a_predictor_is_refused_with_its_culprits(frame: pd.DataFrame, kind: str) -> None:
    with pytest.raises(DataError, match=rf"the predictor 't' is text .*{CULPRITS}.*C\(t\)"):
        mlmed.mixed("m ~ t + (1 | id)", FRAMES[kind](frame))


def test_the_advice_gives_the_fit_of_the_numbers(frame: pd.DataFrame) -> None:
    """Marks made missing."""
    with pytest.warns(DroppedRowsWarning):
        expected = mlmed.mixed("m ~ w + (1 | id)", frame)
    with pytest.warns(DroppedRowsWarning):
        found = mlmed.mixed("m ~ t + (1 | id)", frame.assign(t=pd.to_numeric(frame["t"], errors="coerce")))
    assert found.llf == pytest.approx(expected.llf, rel=SAME)


def test_on_the_command_line(frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused, and fitted with --missing."""
    file = tmp_path / "marks.csv"
    frame.drop(columns="w").to_csv(file, index=False)
    command = ["mixed", str(file), "--formula", "m ~ t + (1 | id)", "--format", "csv"]
    assert main(command) == 2
    assert "'.' (19 rows), '#NULL!' (1 row)" in capsys.readouterr().err
    assert main([*command, "--missing", ".", "#NULL!"]) == 0
    rows = capsys.readouterr().out.splitlines()
    with pytest.warns(DroppedRowsWarning):
        expected = mlmed.mixed("m ~ w + (1 | id)", frame).params["w"]
    found = next(row for row in rows if ",t," in row or row.startswith("fixef,t"))
    assert float(found.split(",")[rows[0].split(",").index("estimate")]) == pytest.approx(expected, rel=SAME)


@pytest.mark.parametrize("kind", ["pandas", "polars", "duckdb"])
def test_a_factor_on_purpose(frame: pd.DataFrame, kind: str) -> None:
    """C() keeps the levels; codes that are whole numbers need it not: the fit of hand-made columns."""
    data = frame.assign(g=np.array(["1", "2", "1.5"])[frame.index % 3], k=np.array(["1", "2", "3"])[frame.index % 3])
    data = data.assign(two=(data["k"] == "2").astype(float), three=(data["k"] == "3").astype(float))
    expected = mlmed.mixed("m ~ two + three + (1 | id)", data)
    for term in ("C(g)", "k"):
        fit = mlmed.mixed(f"m ~ {term} + (1 | id)", FRAMES[kind](data))
        assert fit.llf == pytest.approx(expected.llf, rel=1e-8)  # an engine sums in another order
    with pytest.raises(DataError, match=r"all of them numbers, such as .*C\(g\)"):
        mlmed.mixed("m ~ g + (1 | id)", FRAMES[kind](data))


def test_a_culprit_among_many_numbers_in_an_engine() -> None:
    """One mark among thousands of different numbers is found by the engine."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"id": np.repeat(np.arange(50), 40), "m": rng.normal(size=2000), "t": rng.normal(size=2000)})
    data["t"] = data["t"].map(repr).where(data.index != 1234, "n.a.")
    with pytest.raises(DataError, match=r"do not convert to numbers: 'n\.a\.'"):
        mlmed.mixed("m ~ t + (1 | id)", FRAMES["duckdb"](data))


# -- responses and other modes -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("response", ["t", "np.log(t)"])
def test_a_response_names_its_culprits(frame: pd.DataFrame, kind: str, response: str) -> None:
    """Not its first value, which is a number."""
    with pytest.raises(DataError, match=rf"the response 't' is text .*{CULPRITS}"):
        mlmed.mixed(f"{response} ~ x + (1 | id)", FRAMES[kind](frame))


CALLS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "mediate": lambda d: mlmed.mediate("m ~ x + t + (1 | id)", "y ~ m + x + (1 | id)", d, treatment="x"),
    "mediate, treatment": lambda d: mlmed.mediate("m ~ t + (1 | id)", "y ~ m + t + (1 | id)", d),
    "mediate, mediator": lambda d: mlmed.mediate("t ~ x + (1 | id)", "y ~ t + x + (1 | id)", d),
    "piecewise": lambda d: mlmed.piecewise("m ~ x + (1 | id)", "t ~ m + x + (1 | id)", d),
    "causal, response": lambda d: mlmed.causal("m ~ x", "t ~ m + x", d),
    "causal, treatment": lambda d: mlmed.causal("m ~ t", "y ~ m + t", d),
    "causal, logit": lambda d: mlmed.causal("m ~ x", "t ~ m + x", d, family_y="logit"),
    "location_scale": lambda d: mlmed.location_scale("m ~ x + (1 | id)", "~ t", d),
    "location_scale, response": lambda d: mlmed.location_scale("t ~ x + (1 | id)", "~ 1", d),
    "grams": lambda d: mlmed.grams("m ~ t + (1 | id)", d),
    "stack": lambda d: mlmed.stack(d, x="x", m="t", y="y", cluster="id"),
    "new rows": lambda d: mlmed.mixed("m ~ x + (1 | id)", d).predict(d.assign(x=d["t"])),
}


@pytest.mark.parametrize("mode", CALLS)
def test_in_every_mode(frame: pd.DataFrame, mode: str) -> None:
    with pytest.raises(DataError, match=CULPRITS):
        CALLS[mode](frame)


def test_a_binary_response_with_a_mark(frame: pd.DataFrame) -> None:
    """ "1" and "." are not the two categories of a logit model."""
    data = frame.assign(up=np.where(frame["y"] > 0, "1", "."))
    with pytest.raises(DataError, match=r"response 'up' is text .*do not convert to numbers: '\.'"):
        mlmed.causal("m ~ x", "up ~ m + x", data, family_y="logit")


def test_a_labelled_response_says_how_to_keep_its_codes(frame: pd.DataFrame) -> None:
    data = frame.assign(agree=pd.Categorical.from_codes(frame.index % 2, ["no", "yes"]))
    with pytest.raises(DataError, match=r"'agree' is not numeric .*keep the codes .*--codes"):
        mlmed.mixed("agree ~ x + (1 | id)", data)


# -- marks among words ---------------------------------------------------------------------------------------

MODES: dict[str, Callable[[Any], Any]] = {
    "mixed": lambda d: mlmed.mixed("m ~ g + (1 | id)", d),
    "mediate": lambda d: mlmed.mediate("m ~ x + g + (1 | id)", "y ~ m + x + g + (1 | id)", d, treatment="x"),
    "piecewise": lambda d: mlmed.piecewise("m ~ x + g + (1 | id)", "y ~ m + x + g + (1 | id)", d, treatment="x"),
    "causal": lambda d: mlmed.causal("m ~ x + g", "y ~ m + x + g", d, treatment="x"),
    "location_scale": lambda d: mlmed.location_scale("m ~ g + (1 | id)", "~ g", d),
    "grams": lambda d: mlmed.grams("m ~ g + (1 | id)", d),
    "duckdb": lambda d: mlmed.mixed("m ~ g + (1 | id)", FRAMES["duckdb"](d)),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_mark_among_words_is_told_once(frame: pd.DataFrame, mode: str) -> None:
    """A level as any other, here the reference; it may be missing."""
    data = frame.assign(g=np.array(["a", "b", "."])[frame.index % 3])
    with pytest.warns(MissingMarkWarning, match=r"'\.' is a level of the factor g \(its reference\)") as told:
        MODES[mode](data)
    assert len(told) == 1


def test_numbers_that_all_convert_are_only_to_be_converted() -> None:
    """Doses: nothing is missing and nothing to correct."""
    data = mlmed.simulate.bpg(10, 6, seed=1).data
    data["dose"] = np.resize(["0.5", "1.0", "2.0"], len(data))
    with pytest.raises(DataError, match=r"Convert the column to numbers, or write C\(dose\)") as caught:
        mlmed.mixed("y ~ dose + (1 | id)", data)
    assert "missing" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "advice"),
    [([0, 1], "astype(int)"), ([0.5, 1.5], "astype(float)"), (["0", "1"], "astype(int)"), (["no", "yes"], None)],
)
def test_categories_of_numbers_as_a_response(values: list[object], advice: str | None) -> None:
    """What is advised works; words have no such conversion."""
    data = mlmed.simulate.bpg(10, 6, seed=1).data
    numbers = np.resize([0, 1, 1, 0, 1], len(data))
    data["y"] = pd.Categorical([values[k] for k in numbers])
    with pytest.raises(DataError, match="not numeric") as caught:
        mlmed.mixed("y ~ x + (1 | id)", data)
    assert (f"data['y'].{advice}" in str(caught.value)) == (advice is not None)
    if advice is not None:
        assert data["y"].astype("int" if "int" in advice else "float").nunique() == 2


KINDS = {"pandas": lambda d: d, "polars": pl.from_pandas, "lazy": lambda d: pl.from_pandas(d).lazy()}


@pytest.mark.filterwarnings("ignore::mlmed.errors.FamilyWarning")  # two values in a linear model
@pytest.mark.parametrize("kind", KINDS)
def test_a_response_that_is_true_or_false_is_0_or_1(kind: str) -> None:
    """The numbers of the hand-made column, in every mode."""
    data = mlmed.simulate.bpg(20, 6, seed=1).data.assign(y=lambda d: d["y"] > 0)
    truth, hand = KINDS[kind](data), KINDS[kind](data.assign(y=data["y"].astype(float)))
    modes = {
        "mixed": lambda d: mlmed.mixed("y ~ x + (1 | id)", d).params,
        "mediate": lambda d: mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", d).effects()["estimate"],
        "piecewise": lambda d: mlmed.piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", d).effects()["estimate"],
        "causal": lambda d: mlmed.causal("m ~ x", "y ~ m + x", d).effects()["estimate"],
        "location_scale": lambda d: mlmed.location_scale("y ~ x + (1 | id)", "~ 1", d).params,
    }
    for mode, estimates in modes.items():
        np.testing.assert_allclose(estimates(truth), estimates(hand), rtol=SAME, err_msg=mode)
