"""Bad input: a clear error with the column, the value and the remedy, nothing computed, nothing modified."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import mlmed
from mlmed.cli import main
from mlmed.errors import (
    DataError,
    DroppedRowsWarning,
    EffectError,
    FormulaError,
    MlmedError,
    NotIdentifiedError,
)
from tests.models import MEDIATOR, OUTCOME
from tests.tolerances import INVARIANT

Change = Callable[[pd.DataFrame], pd.DataFrame]

#: A message that helps says what to do; one of these words is in every remedy.
REMEDY = (
    r"(?is)\b(remove|check|(?<!cannot )use|choose|replace|drop|leave out|write|recode|convert|correct|add|give|pass|"
    r"say|rename|save|collect|merge|refit|needs?|did you mean|the columns are|must have the same)\b"
)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """40 clusters of 8; regular."""
    return mlmed.simulate.bpg(40, 8, seed=3).data


@contextmanager
def unchanged(data: pd.DataFrame) -> Iterator[None]:
    """Fail if the block modifies the frame: values, types, columns, index or attributes."""
    before = data.copy(deep=True)
    attributes = dict(data.attrs)
    yield
    pd.testing.assert_frame_equal(data, before, check_exact=True)
    assert data.attrs == attributes


def says(*parts: str) -> str:
    """Pattern of a message that contains every part, in any order."""
    return "(?s)" + "".join(f"(?=.*{re.escape(part)})" for part in parts)


def label(value: object) -> str:
    """Name of a case in the list of tests."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else getattr(value, "__name__", str(value))


@dataclass(frozen=True)
class Bad:
    """One mistake: what is done to the data, the formula, and what the message has to name."""

    formula: str
    change: Change
    error: type[MlmedError]
    parts: tuple[str, ...]
    csv: bool = True


def same(data: pd.DataFrame) -> pd.DataFrame:
    """No change; the mistake is in the formula."""
    return data


def put(**columns: Any) -> Change:
    """Add or replace columns; a function gets the frame."""
    return lambda data: data.assign(**columns)


def at_row(column: str, row: int, value: float) -> Change:
    """One odd value."""
    return lambda data: data.assign(**{column: data[column].where(data.index != row, value)})


def alternate(data: pd.DataFrame) -> pd.DataFrame:
    """Either m or x is missing in every row."""
    even = data.index % 2 == 0
    return data.assign(m=data["m"].where(even), x=data["x"].where(~even))


def dates(data: pd.DataFrame) -> pd.Series:
    """A column of dates."""
    return pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(len(data)), unit="D"))


BAD: dict[str, Bad] = {
    # unknown columns
    "unknown predictor": Bad("m ~ xx + (1 | id)", same, DataError, ("'xx'", "did you mean x")),
    "unknown response": Bad("mm ~ x + (1 | id)", same, DataError, ("'mm'", "did you mean m")),
    "unknown cluster": Bad("m ~ x + (1 | idd)", same, DataError, ("'idd'", "did you mean id")),
    "unknown random slope": Bad("m ~ x + (1 + zzzz | id)", same, DataError, ("'zzzz'", "the columns are id, x, m, y")),
    "unknown inside a function": Bad("m ~ np.exp(qqqq) + (1 | id)", same, DataError, ("'qqqq'", "the columns are")),
    "unknown function": Bad("m ~ nope(x) + (1 | id)", same, MlmedError, ("nope", "function")),
    "function of R": Bad("m ~ factor(x) + (1 | id)", same, FormulaError, ("write C(g)",)),
    "numpy without np": Bad("m ~ np.abs(x) + sqrt(x) + (1 | id)", same, FormulaError, ("np.sqrt(x)",)),
    "truth value of R": Bad("m ~ poly(x, 2, raw=TRUE) + (1 | id)", same, FormulaError, ("write True",)),
    "comment": Bad("m ~ I(x # 2\n) + (1 | id)", same, FormulaError, ("what follows #",)),
    "unknown numpy function": Bad("m ~ np.nope(x) + (1 | id)", same, FormulaError, ("np.nope",)),
    # responses
    "text response": Bad("w ~ x + (1 | id)", put(w="high"), DataError, ("'w'", "'high'", "not numeric")),
    "text response of digits": Bad(
        "w ~ x + (1 | id)",
        put(w=lambda d: d.m.round(1).map("{:.1f} cm".format)),
        DataError,
        ("'w'", " cm'", "not numeric"),
    ),
    "categorical response": Bad(
        "w ~ x + (1 | id)",
        put(w=lambda d: pd.Categorical(np.where(d.m > 0, 1, 2))),
        DataError,
        ("'w'", "category"),
        False,
    ),
    "date response": Bad("w ~ x + (1 | id)", put(w=dates), DataError, ("'w'", "2020-01-01")),
    "complex response": Bad("w ~ x + (1 | id)", put(w=lambda d: d.m + 1j), DataError, ("'w'", "complex"), False),
    "constant response": Bad("w ~ x + (1 | id)", put(w=3.0), DataError, ("'w'", "constant (3)")),
    "response without variation within clusters": Bad(
        "w ~ x + (1 | id)",
        put(w=lambda d: d.groupby("id")["m"].transform("first")),
        MlmedError,
        ("w", "within", "cluster"),
    ),
    "cluster id as response": Bad("id ~ x + (1 | id)", same, MlmedError, ("id", "cluster")),
    "response repeated by a predictor": Bad(
        "m ~ x + w + (1 | id)", put(w=lambda d: 2.0 * d.m - d.x), NotIdentifiedError, ("m", "exactly")
    ),
    # predictors
    "constant predictor": Bad("m ~ x + w + (1 | id)", put(w=3.0), DataError, ("'w'", "constant (3)", "remove it")),
    "constant text predictor": Bad("m ~ x + w + (1 | id)", put(w="same"), DataError, ("'w'", "constant", "same")),
    "constant boolean predictor": Bad("m ~ x + w + (1 | id)", put(w=True), DataError, ("'w'", "constant", "remove it")),
    "constant in a random slope": Bad("m ~ x + (1 + w | id)", put(w=3.0), MlmedError, ("w", "random effect")),
    "complex predictor": Bad("m ~ w + (1 | id)", put(w=lambda d: d.x + 1j), DataError, ("'w'", "complex"), False),
    "date predictor": Bad("m ~ x + w + (1 | id)", put(w=dates), MlmedError, ("'w'", "datetime"), False),
    "numbers and text": Bad(
        "m ~ w + (1 | id)", put(w=lambda d: [1.0, "two", *d.x[2:]]), DataError, ("'w'", "two", "mixes numbers"), False
    ),
    "text and numbers": Bad(
        "m ~ w + (1 | id)", put(w=lambda d: ["two", 1.0, *d.x[2:]]), DataError, ("'w'", "two", "mixes numbers"), False
    ),
    "logarithm of a negative number": Bad(
        "m ~ np.log(x) + (1 | id)", same, FormulaError, ("np.log(x)", "not a finite number in 158 row(s)", "row 1")
    ),
    "division by zero": Bad(
        "m ~ I(1 / w) + (1 | id)", put(w=lambda d: d.index * 1.0), FormulaError, ("I(1 / w)", "row 0")
    ),
    # infinite and missing values
    "infinite predictor": Bad(
        "m ~ x + (1 | id)", at_row("x", 5, np.inf), DataError, ("'x'", "row 5", "(inf)", "remove")
    ),
    "infinite response": Bad("m ~ x + (1 | id)", at_row("m", 0, -np.inf), DataError, ("'m'", "row 0", "(-inf)")),
    "all missing predictor": Bad(
        "m ~ x + (1 | id)", put(x=np.nan), DataError, ("'x'", "only missing values", "equation m")
    ),
    "all missing, untyped": Bad("m ~ x + (1 | id)", put(x=None), DataError, ("'x'", "only missing values")),
    "all missing response": Bad("m ~ x + (1 | id)", put(m=np.nan), DataError, ("'m'", "only missing values")),
    "all missing cluster": Bad("m ~ x + (1 | id)", put(id=np.nan), DataError, ("id", "missing")),
    "no complete row": Bad(
        "m ~ x + (1 | id)", alternate, DataError, ("equation m", "no complete row", "m: 160", "x: 160")
    ),
    # clusters and identification
    "one cluster": Bad("m ~ x + (1 | id)", put(id=7), DataError, ("1 cluster", "at least two", "id")),
    "one cluster after missing ids": Bad(
        "m ~ x + (1 | id)", put(id=lambda d: d.id.where(d.id == 1)), DataError, ("1 cluster", "at least two", "id")
    ),
    "every row a cluster": Bad(
        "m ~ x + (1 | id)",
        put(id=lambda d: d.index),
        NotIdentifiedError,
        ("equation m", "320 rows in 320 clusters", "ordinary regression"),
    ),
    "clusters that are fixed effects": Bad(
        "m ~ x + C(id) + (1 + x | id)", same, NotIdentifiedError, ("fixed effects hold Intercept", "REML", "remove")
    ),
    "random effects that repeat each other": Bad(
        "m ~ x + (1 + x + w | id)", put(w=lambda d: 2.0 * d.x + 3.0), NotIdentifiedError, ("m~w", "m~x", "use fewer")
    ),
    "collinear": Bad(
        "m ~ x + w + (1 | id)",
        put(w=lambda d: 2.0 * d.x + 1.0),
        NotIdentifiedError,
        ("'w'", "linear combination of x", "remove"),
    ),
    "collinear in three": Bad(
        "m ~ x + w + v + (1 | id)",
        put(w=lambda d: d.y, v=lambda d: d.x - d.y),
        NotIdentifiedError,
        ("'v'", "linear combination of x, w", "remove"),
    ),
    "collinear at an offset": Bad(
        "m ~ x + w + (1 | id)",
        put(x=lambda d: d.x + 1e6, w=lambda d: 2.0 * (d.x + 1e6) + 5.0),
        NotIdentifiedError,
        ("'w'", "linear combination of x"),
    ),
    "collinear factors": Bad(
        "m ~ g + h + (1 | id)",
        put(g=lambda d: np.where(d.x > 0, "a", "b"), h=lambda d: np.where(d.x > 0, "u", "v")),
        NotIdentifiedError,
        ("h[T.v]", "linear combination of g[T.b]"),
    ),
    "more coefficients than rows": Bad(
        "m ~ x + y + (1 | id)", lambda d: d.iloc[[0, 1, 8]], NotIdentifiedError, ("equation m", "3 rows")
    ),
    # formulas
    "duplicate terms": Bad("m ~ x + x + (1 | id)", same, FormulaError, ("term x twice", "write it once")),
    "duplicate random effects": Bad("m ~ x + (1 + x + x | id)", same, FormulaError, ("term x twice", "write it once")),
    "response on its right": Bad("m ~ x + m + (1 | id)", same, FormulaError, ("response m", "remove it there")),
    "response on its right, transformed": Bad(
        "m ~ x + I(m**2) + (1 | id)", same, FormulaError, ("response m", "remove it there")
    ),
    "response on its right, centred": Bad(
        "m ~ x + center(m) + (1 | id)", same, FormulaError, ("response m", "remove it there")
    ),
    "response as a random slope": Bad("m ~ x + (1 + m | id)", same, FormulaError, ("response m", "remove it there")),
    "square": Bad("m ~ x + x**2 + (1 | id)", same, FormulaError, ("multiplies x by itself", "write I(x**2)")),
    "product with itself": Bad("m ~ x*x + (1 | id)", same, FormulaError, ("multiplies x by itself", "write I(x**2)")),
    "random square": Bad("m ~ x + (1 + x^2 | id)", same, FormulaError, ("multiplies x by itself", "write I(x**2)")),
    "all other columns": Bad("m ~ x + . + (1 | id)", same, FormulaError, ("'.'", "write the names")),
    "lag": Bad("m ~ x + lag(x) + (1 | id)", same, FormulaError, ("lag(x)", "one cluster into the next", "groupby")),
    "float": Bad("m ~ x + float(x) + (1 | id)", same, FormulaError, ("float(x)", "write the column")),
    "factor with one level": Bad(
        "m ~ x + C(x < 99) + (1 | id)", same, DataError, ("C(x < 99)", "constant", "remove it")
    ),
    "coding that is none": Bad("m ~ x + C(x > 0, sum) + (1 | id)", same, FormulaError, ("sum", "contr.sum", "write")),
    "dollar without backticks": Bad(
        "m ~ x + $w + (1 | id)", lambda d: d.assign(**{"$w": d.x}), FormulaError, ("'$w'", "`$w`", "backticks")
    ),
    "no random term": Bad("m ~ x", same, FormulaError, ("no random term", "add one such as (1 + x | id)")),
    "two cluster variables": Bad(
        "m ~ x + (1 | id) + (0 + x | g)",
        put(g=lambda d: d.id % 5),
        FormulaError,
        ("different cluster variables", "(id)", "(g)"),
    ),
    "nested clusters": Bad("m ~ x + (1 | g/id)", put(g=1), FormulaError, ("g/id", "one cluster variable", "g:h")),
}
NO_REMEDY_NEEDED = {"unknown numpy function"}

#: test_no_warning_of_another_package_beside_an_error is where these warnings are looked at.
quiet_numpy = pytest.mark.filterwarnings("ignore:(invalid value|divide by zero):RuntimeWarning")


def check_message(error: MlmedError, name: str) -> None:
    """One paragraph without terminal colours or numpy's types, that says what to do."""
    text = str(error)
    assert len(text) < 1000, f"{len(text)} characters"
    assert "\x1b" not in text
    assert "np." not in text or "np." in BAD[name].formula, text
    if name not in NO_REMEDY_NEEDED:
        assert re.search(REMEDY, text), f"no remedy in: {text}"


@quiet_numpy
@pytest.mark.parametrize("name", BAD)
def test_mixed_refuses(frame: pd.DataFrame, name: str) -> None:
    """One equation."""
    bad = BAD[name]
    data = bad.change(frame)
    with unchanged(data), pytest.raises(bad.error, match=says(*bad.parts)):
        mlmed.mixed(bad.formula, data)


@quiet_numpy
@pytest.mark.parametrize("name", BAD)
def test_the_message_has_a_remedy(frame: pd.DataFrame, name: str) -> None:
    """What to do is part of every message."""
    bad = BAD[name]
    with pytest.raises(bad.error) as caught:
        mlmed.mixed(bad.formula, bad.change(frame))
    check_message(caught.value, name)


@quiet_numpy
@pytest.mark.parametrize("name", BAD)
def test_mediate_refuses(frame: pd.DataFrame, name: str) -> None:
    """The same mistake in the mediator equation."""
    bad = BAD[name]
    data = bad.change(frame).assign(outcome=frame["y"] + np.sin(np.arange(len(frame))))
    response, group = bad.formula.split("~")[0].strip(), "idd" if "idd" in bad.formula else "id"
    with unchanged(data), pytest.raises(bad.error, match=says(*bad.parts)):
        mlmed.mediate(
            bad.formula, f"outcome ~ {response} + (1 | {group})", data, treatment=_first_predictor(bad.formula)
        )


def _first_predictor(formula: str) -> str:
    """The treatment of a formula of the table."""
    fixed = formula.split("~")[1].rsplit(" + (", 1)[0]
    found = re.findall(r"\b(?!np\b|exp\b|log\b|I\b|center\b|nope\b)[a-z]\w*", fixed)
    return found[0]


@quiet_numpy
@pytest.mark.parametrize("name", [name for name, bad in BAD.items() if bad.csv])
def test_the_command_line_refuses(
    frame: pd.DataFrame, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, the same message on standard error, nothing on standard output and no file written."""
    bad = BAD[name]
    source, target = tmp_path / "data.csv", tmp_path / "result.txt"
    bad.change(frame).to_csv(source, index=False)
    status = main(["mixed", str(source), "--formula", bad.formula, "--out", str(target)])
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    assert output.err.startswith("mlmed: ")
    assert re.search(says(*(part for part in bad.parts if part not in ("2020-01-01",))), output.err)
    assert not target.exists()


# -- mistakes that need two equations ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mediator", "outcome", "parts"),
    [
        (MEDIATOR, "y ~ x + (1 + x | id)", ("mediator m is not in the fixed part", "add it, as in 'y ~ m + ...'")),
        (MEDIATOR, "y ~ x + (1 + m + x | id)", ("mediator m is not in the fixed part", "add it")),
        (MEDIATOR, "y ~ m + x + (1 | g)", ("different cluster variables", "(id) in 'm ~ x", "(g) in 'y ~ m")),
        ("m ~ x + y + (1 | id)", OUTCOME, ("outcome y is a predictor of the mediator m", "feed back")),
        ("m ~ x + I(y**2) + (1 | id)", OUTCOME, ("outcome y is a predictor of the mediator m",)),
        ("m ~ x + (1 + y | id)", OUTCOME, ("outcome y", "mediator m")),
        (MEDIATOR, "m ~ x + (1 | id)", ("m",)),
        (MEDIATOR, "y ~ m + y + (1 | id)", ("response y on its own right-hand side",)),
        ("m ~ 1 + (1 | id)", OUTCOME, ("which variable is the treatment", "no predictor")),
        ("m ~ x", OUTCOME, ("no random term", "'m ~ x'")),
        (MEDIATOR, "y ~ m + x", ("no random term", "'y ~ m + x'")),
    ],
    ids=label,
)
def test_equations_that_do_not_fit_together(
    frame: pd.DataFrame, mediator: str, outcome: str, parts: tuple[str, ...]
) -> None:
    """Refused by the formulas alone."""
    data = frame.assign(g=frame["id"] % 5)
    with unchanged(data), pytest.raises(FormulaError, match=says(*parts)):
        mlmed.mediate(mediator, outcome, data)


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        (put(y=np.nan), DataError, ("'y'", "only missing values", "equation y")),
        (put(y=2.0), DataError, ("'y'", "constant (2)")),
        (put(y=lambda d: d.m), NotIdentifiedError, ("y", "exactly")),
        (put(m=lambda d: 2.0 * d.x), NotIdentifiedError, ("'x'", "linear combination of m")),
        (put(y=lambda d: d.y.where(d.id == 1)), DataError, ("y", "1 cluster", "at least two")),
        (put(y=lambda d: d.y.where(d.index % 8 < 1)), NotIdentifiedError, ("equation y", "40 rows in 40 clusters")),
        (put(y=lambda d: d.y.where(d.x > 0), x=lambda d: 1.0 * (d.x > 0)), DataError, ("'x'", "equation y")),
        (put(y=lambda d: np.where(d.id < 9, 1.0, np.nan)), DataError, ("'y'", "constant (1)")),
        (at_row("y", 3, np.inf), DataError, ("'y'", "row 3", "(inf)")),
    ],
    ids=label,
)  # fmt: skip
def test_the_outcome_equation_is_checked_on_its_own_rows(
    frame: pd.DataFrame, change: Change, error: type[MlmedError], parts: tuple[str, ...]
) -> None:
    """An equation that only has some of the rows can fail where the table as a whole does not."""
    data = change(frame)
    with pytest.raises(error, match=says(*parts)):
        mlmed.mediate(MEDIATOR, OUTCOME, data)


# -- what the table itself can have wrong --------------------------------------------------------------------


@pytest.mark.parametrize("empty", ["pandas", "polars", "lazy", "dict", "no columns"])
def test_an_empty_table(frame: pd.DataFrame, empty: str) -> None:
    """No rows is said before anything else is looked for."""
    data = {
        "pandas": frame.iloc[:0],
        "polars": pl.from_pandas(frame).head(0),
        "lazy": pl.from_pandas(frame).lazy().head(0),
        "dict": {},
        "no columns": pd.DataFrame(),
    }[empty]
    with pytest.raises(DataError, match=r"no rows|empty|no columns"):
        mlmed.mixed(MEDIATOR, data)


@pytest.mark.parametrize("content", ["", "id,x,m,y\n", "\n"])
def test_an_empty_file(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Zero bytes, or a header alone."""
    source = tmp_path / "empty.csv"
    source.write_text(content)
    assert main(["mediate", str(source), "--mediator", MEDIATOR, "--outcome", OUTCOME]) == 2
    error = capsys.readouterr().err
    assert str(source) in error
    assert re.search("empty|no rows", error)


@pytest.mark.parametrize("data", [None, 3, "data.csv", [{"x": 1.0}], np.zeros((3, 4)), pd.Series([1.0])])
def test_what_is_no_table(data: object) -> None:
    """Named by its type, with what would do."""
    with pytest.raises(DataError, match=f"must be a dataframe.*dict of columns.*found {type(data).__name__}"):
        mlmed.mixed(MEDIATOR, data)


def test_a_column_name_that_occurs_twice(frame: pd.DataFrame) -> None:
    """Which of the two is meant cannot be known."""
    twice = pd.concat([frame, frame[["x"]]], axis=1)
    with unchanged(twice), pytest.raises(DataError, match=says("x", "name")):
        mlmed.mixed(MEDIATOR, twice)
    with pytest.raises(DataError, match=says("x", "name")):
        mlmed.mediate(MEDIATOR, OUTCOME, twice)


def test_columns_of_different_lengths(frame: pd.DataFrame) -> None:
    """A dict whose columns do not fit together."""
    with pytest.raises(DataError, match="length"):
        mlmed.mixed(MEDIATOR, {"id": [1, 1, 2], "x": [1.0, 2.0], "m": [1.0, 2.0, 3.0]})


def test_several_levels_of_column_names(frame: pd.DataFrame) -> None:
    """A MultiIndex is not searched for parts of its names; the columns are listed."""
    wide = frame.set_axis(pd.MultiIndex.from_product([["wave"], frame.columns]), axis=1)
    with unchanged(wide), pytest.raises(DataError, match=says("'id'", "('wave', 'id')")):
        mlmed.mixed(MEDIATOR, wide)


def test_column_names_that_are_numbers(frame: pd.DataFrame) -> None:
    """``did you mean 0?`` is no help when 0 was asked for: say that the name is no text."""
    numbered = frame.set_axis([10, 20, 30, 40], axis=1)
    with pytest.raises(DataError, match=r"(?i)text|string|rename"):
        mlmed.mixed("`30` ~ `20` + (1 | `10`)", numbered)


def test_cluster_ids_that_cannot_be_compared(frame: pd.DataFrame) -> None:
    """Lists are no ids."""
    data = pl.from_pandas(frame).with_columns(id=pl.concat_list("id"))
    with pytest.raises(DataError, match="id"):
        mlmed.mixed(MEDIATOR, data)


def test_numbers_read_as_text_do_not_fill_the_screen(frame: pd.DataFrame) -> None:
    """Decimal commas make a factor of 300 levels: say that the column is text, not all its levels."""
    comma = frame.assign(x=frame["x"].map(lambda v: f"{v:.3f}".replace(".", ",")))
    with pytest.raises(MlmedError, match=says("x", "text")) as caught:
        mlmed.mixed(MEDIATOR, comma)
    assert len(str(caught.value)) < 1000


def test_numbers_whose_squares_overflow(frame: pd.DataFrame) -> None:
    """Either the fit is right, or the column is named; no traceback of a linear algebra routine."""
    scale = 1e200
    try:
        fit = mlmed.mixed(MEDIATOR, frame.assign(x=frame["x"] * scale))
    except MlmedError as error:
        assert "'x'" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert fit.params["x"] * scale == pytest.approx(mlmed.mixed(MEDIATOR, frame).params["x"], rel=1e-6)


@pytest.mark.filterwarnings("default")
def test_no_warning_of_another_package_beside_an_error(frame: pd.DataFrame, recwarn: pytest.WarningsRecorder) -> None:
    """numpy's "invalid value encountered in log" is said again, better, by the error."""
    with pytest.raises(FormulaError, match="not a finite number"):
        mlmed.mixed("m ~ np.log(x) + (1 | id)", frame)
    assert [str(warning.message) for warning in recwarn] == []


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"method": "REML"}, ("method", "reml, ml", "'REML'")),
        ({"method": None}, ("method", "None")),
        ({"covariance": "compound"}, ("'compound'", "unstructured, diagonal")),
        ({"covariance": {"k": "diagonal"}}, ("block k", "labels all")),
        ({"covariance": {"all": "odd"}}, ("'odd'", "unstructured, diagonal")),
        ({"covariance": None}, ("covariance", "None")),
        ({"covariance": ["diagonal"]}, ("covariance", "list")),
    ],
    ids=label,
)
def test_options_of_a_fit(frame: pd.DataFrame, options: dict[str, Any], parts: tuple[str, ...]) -> None:
    """What was asked and what there is."""
    with pytest.raises(FormulaError, match=says(*parts)):
        mlmed.mixed(MEDIATOR, frame, **options)


@pytest.mark.parametrize("level", [1, 95, float("nan")])
@pytest.mark.parametrize(
    "call", ["summary", "stata", "fixef", "varcorr", "effects", "ranef", "tidy", "to_json", "nlcom"]
)
def test_levels_are_proportions(fit: mlmed.Results, call: str, level: Any) -> None:
    """A level of 95 or of text is refused everywhere with the same words."""
    asked: dict[str, Callable[[], Any]] = {
        "stata": lambda: fit.summary("stata", level=level),
        "nlcom": lambda: fit.nlcom("a", level=level),
    }
    with pytest.raises(EffectError, match="level must be a proportion between 0 and 1"):
        asked.get(call, lambda: getattr(fit, call)(level=level))()


@pytest.mark.parametrize("level", [0, -0.5, 1.0, float("inf"), "0.95", None, [0.9]])
def test_odd_levels(fit: mlmed.Results, level: Any) -> None:
    """Also what is no number at all."""
    with pytest.raises(EffectError, match="level must be a proportion between 0 and 1"):
        fit.summary(level=level)


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> mlmed.Results:
    """A regular fit."""
    return mlmed.mediate(MEDIATOR, OUTCOME, frame)


@pytest.mark.parametrize(
    "text",
    [
        "", "a +", "a b", "m:z", "a; b", "zz", "1", "'a'", "'x' * a", "a.real", "a[0]", "a if b else a",
        "lambda: a",
        "__import__('os')", "(a).__class__", "max(a, b)", "exp(a, b)", "sqrt()", "exp(x=a)", "a == b", "a // b",
        "a * 1j",
        "log(-a)", "a / (b - b)", "exp(a * 1e6)", "`a", "[a]", "f'{a}'", "(-a)**0.5", "a @ b", "sqrt",
    ],
)  # fmt: skip
def test_nlcom_refuses_text(fit: mlmed.Results, text: str) -> None:
    """Bad expressions are refused before and after their evaluation; nothing foreign is run."""
    with pytest.raises(EffectError, match=re.escape(text.strip()) if text else "cannot read"):
        fit.nlcom(text)


@pytest.mark.parametrize("asked", [None, 5, ["a", "b"], {"q": None}])
def test_nlcom_refuses_what_is_no_expression(fit: mlmed.Results, asked: Any) -> None:
    """Neither text nor a function nor a mapping of them."""
    with pytest.raises(EffectError, match=r"(?i)expression|text|function"):
        fit.nlcom(asked)


@pytest.mark.parametrize("function", [lambda p: p["zz"], lambda p: "x", lambda p: None, lambda p: np.ones(2)])
def test_nlcom_refuses_functions_without_a_number(fit: mlmed.Results, function: Callable[..., Any]) -> None:
    """The user's function is named in the error."""
    with pytest.raises(EffectError, match="lambda"):
        fit.nlcom(function)


@pytest.mark.parametrize(
    ("text", "derivative"),
    [
        ("sqrt(`var(m~x)`)", lambda v: 0.5 / np.sqrt(v)),
        ("log(`var(m~x)`)", lambda v: 1.0 / v),
        ("sqrt(`var(y~x)`)", lambda v: 0.5 / np.sqrt(v)),
        ("log(a)", lambda v: 1.0 / v),
        ("sqrt(a)", lambda v: 0.5 / np.sqrt(v)),
        ("1 / cov_ab", lambda v: -1.0 / v**2),
        ("atanh(a)", lambda v: 1.0 / (1.0 - v**2)),
    ],
    ids=label,
)
def test_nlcom_near_the_edge_of_a_domain(fit: mlmed.Results, text: str, derivative: Callable[..., float]) -> None:
    """Steps of the derivative must not leave the domain: the sd of a random slope is a usual question."""
    name = re.search(r"`([^`]+)`|\b(a|cov_ab)\b", text)
    assert name is not None
    part = fit.nlcom(f"`{name[1]}`" if name[1] else name[2]).loc[0]
    found = fit.nlcom(text, order="first").loc[0]
    assert found["std_error"] == pytest.approx(abs(derivative(part["estimate"])) * part["std_error"], rel=1e-5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda f: f.summary("html"), "style must be one of text, stata; found 'html'"),
        (lambda f: f.summary("stata", vcov="joint"), "vcov='block'"),
        (
            lambda f: f.effects(vcov="robust"),
            "vcov must be one of block, joint, CR0, CR1, CR2, cluster; found 'robust'",
        ),
        (lambda f: f.effects(order="third"), "order must be one of first, second, unbiased; found 'third'"),
        (lambda f: f.vcov(which="some"), "which must be one of all, fixed; found 'some'"),
        (lambda f: f.conf_int(alpha=5), "proportion between 0 and 1"),
        (lambda f: f.deviance, "reml_criterion"),
        (lambda f: f.loglik_at(np.eye(2), [1.0, 1.0]), r"G must be \(5, 5\)"),
        (lambda f: f.loglik_at(-np.eye(5), [1.0, 1.0]), "negative eigenvalue"),
        (lambda f: f.loglik_at(np.full((5, 5), np.nan), [1.0, 1.0]), "(?i)finite|nan"),
        (lambda f: f.loglik_at(np.eye(5), [1.0, np.nan]), "(?i)finite|nan"),
        (lambda f: f.loglik_at(np.triu(np.ones((5, 5))), [1.0, 1.0]), "symmetric"),
    ],
    ids=label,
)
def test_questions_to_a_fit(fit: mlmed.Results, call: Callable[..., Any], match: str) -> None:
    """Every wrong option is an EffectError that lists the right ones."""
    with pytest.raises(EffectError, match=match):
        call(fit)


# -- new data ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "level", "parts"),
    [
        (lambda d: d.drop(columns="x"), "population", ("'x'",)),
        (lambda d: d.drop(columns="id"), "cluster", ("'id'",)),
        (lambda d: d.iloc[:0], "population", ("no rows",)),
        (put(x=np.inf), "population", ("'x'", "inf")),
        (put(x="a"), "population", ("'x'", "'a'")),
        (put(g="zz"), "population", ("'g'", "'zz'", "levels: a, b")),
        (put(g=1), "population", ("'g'", "levels: a, b")),
        (put(k=7), "population", ("k", "7")),
        (lambda d: d[["x"]].to_numpy(), "population", ("must be a dataframe",)),
    ],
    ids=label,
)
def test_predict_refuses(frame: pd.DataFrame, change: Change, level: str, parts: tuple[str, ...]) -> None:
    """Missing columns, infinite values, other types and levels that were not in the data."""
    data = frame.assign(g=np.where(frame["y"] > 0, "a", "b"), k=frame.index % 3)
    fitted = mlmed.mixed("m ~ x + g + C(k) + (1 + x | id)", data)
    with pytest.raises(DataError, match=says(*parts)):
        fitted.predict(change(data), of=level)


# -- what is allowed -----------------------------------------------------------------------------------------


def test_a_cluster_with_one_row_is_allowed(frame: pd.DataFrame) -> None:
    """Its row counts, and it has predicted effects."""
    data = frame[(frame["id"] != 1) | (frame.index == 0)]
    fit = mlmed.mediate(MEDIATOR, OUTCOME, data)
    assert (fit.n_clusters, fit.nobs) == (40, 2 * 313)
    assert fit.ranef().query("group == 1")["estimate"].notna().all()
    assert fit.llf != pytest.approx(mlmed.mediate(MEDIATOR, OUTCOME, frame[frame["id"] != 1]).llf, rel=1e-4)


def test_missing_cluster_ids_are_dropped_and_counted(frame: pd.DataFrame) -> None:
    """The same fit as without those rows, and a warning that says how many."""
    data = frame.assign(id=frame["id"].where(frame.index >= 12))
    with (
        unchanged(data),
        pytest.warns(DroppedRowsWarning, match=r"equation m: 12 of 320 rows.*cluster id: 12") as caught,
    ):
        fit = mlmed.mixed(MEDIATOR, data)
    assert len(caught) == 1
    assert fit.llf == pytest.approx(mlmed.mixed(MEDIATOR, frame.iloc[12:]).llf, rel=INVARIANT)


def test_infinite_and_missing_values_elsewhere_do_not_matter(frame: pd.DataFrame) -> None:
    """Only the columns of the formula are looked at."""
    fit = mlmed.mixed(MEDIATOR, frame.assign(y=np.inf, other=None))
    assert fit.llf == mlmed.mixed(MEDIATOR, frame).llf


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("column", ["x", "m"])
def test_huge_offsets(frame: pd.DataFrame, offset: float, column: str) -> None:
    """Years, prices and timestamps are as good as centred columns."""
    fit = mlmed.mixed(MEDIATOR, frame.assign(**{column: frame[column] + offset}))
    reference = mlmed.mixed(MEDIATOR, frame)
    assert fit.converged
    assert fit.llf == pytest.approx(reference.llf, abs=1e-4)
    assert fit.params["x"] == pytest.approx(reference.params["x"], rel=1e-5)


def test_a_predictor_that_is_constant_in_some_clusters(frame: pd.DataFrame) -> None:
    """Their slopes are predicted from the others; nothing is refused."""
    fit = mlmed.mixed(MEDIATOR, frame.assign(x=frame["x"].where(frame["id"] > 10, 1.0)))
    assert fit.converged
    assert fit.n_clusters == 40


@pytest.mark.parametrize("call", ["mixed", "mediate", "stack", "predict"])
def test_the_data_frame_is_never_modified(frame: pd.DataFrame, call: str) -> None:
    """Values, types, index and attributes stay, for every type that is converted inside."""
    data = frame.assign(
        x=[Decimal(f"{v:.6f}") for v in frame["x"]],
        m=frame["m"].astype("Float64"),
        y=frame["y"].astype("float32"),
        g=pd.Categorical(np.where(frame["x"] > 0, "b", "a")),
    ).set_index(pd.Index(np.arange(len(frame))[::-1], name="row"))
    data.attrs["source"] = "test"
    with unchanged(data):
        if call == "mixed":
            mlmed.mixed("m ~ x + g + (1 | id)", data)
        elif call == "mediate":
            mlmed.mediate(MEDIATOR, "y ~ m + x + g + (1 + m + x | id)", data).summary()
        elif call == "stack":
            mlmed.stack(data, x="x", m="m", y="y", cluster="id")
        else:
            mlmed.mixed("m ~ x + g + (1 | id)", data).predict(data, of="cluster")
