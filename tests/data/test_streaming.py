"""Many columns from an engine: rows in batches give the numbers of the same rows in memory, and the same refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.data import pushdown as streaming
from mlmed.errors import DataError, DroppedRowsWarning, FormulaError, MlmedError, MlmedWarning

duckdb = pytest.importorskip("duckdb")
pl = pytest.importorskip("polars")
dd = pytest.importorskip("dask.dataframe")

#: Sums of the same rows in other units and another order: relative to the size of a number, or of .001.
SAME = 1e-10
ENGINES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "polars": pl.from_pandas,
    "lazy": lambda table: pl.from_pandas(table).lazy(),
    "duckdb": duckdb.from_df,
    "dask": lambda table: dd.from_pandas(table, npartitions=3),
}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches that hold a part of the rows."""
    monkeypatch.setattr(streaming, "BATCH", 700)
    monkeypatch.setattr(streaming, "SAMPLE", 500)


def table(levels: int, rows: int = 2400, *, seed: int = 2) -> pd.DataFrame:
    """Rows in no order of the clusters, with factors, numbers and responses."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 60, rows)
    g = rng.permutation(np.arange(rows) % levels)
    x, w = rng.normal(20.0, 2.0, rows), rng.normal(size=rows)
    slope = rng.normal(0.5, 0.5, 60)[ids]
    m = slope * (x - 20.0) + rng.normal(size=60)[ids] + 0.3 * rng.normal(size=levels)[g] + rng.normal(size=rows)
    other = rng.normal(0.4, 0.4, 60)[ids]
    y = other * m + 0.2 * w + rng.normal(size=60)[ids] + rng.normal(size=rows)
    names = np.array([f"level {k:03d}" for k in range(levels)])
    return pd.DataFrame(
        {"id": ids, "g": names[g], "k": g, "h": rng.choice(list("abc"), rows), "x": x, "w": w, "m": m, "y": y}
    )


@pytest.fixture(scope="module")
def forty() -> pd.DataFrame:
    return table(40)


def numbers(fit: Any) -> pd.DataFrame:
    return fit.to_table()[["estimate", "std_error"]]


def same(one: Any, two: Any) -> None:
    """Equal estimates, standard errors, likelihood, names and counts."""
    assert one.llf == pytest.approx(two.llf, rel=SAME)
    assert list(one.to_table()["term"]) == list(two.to_table()["term"])
    a, b = numbers(one).to_numpy(), numbers(two).to_numpy()
    assert np.nanmax(np.abs(a - b) / np.maximum(np.abs(b), 1e-3)) < 100 * SAME
    assert np.array_equal(np.isnan(a), np.isnan(b))
    assert one.nobs == two.nobs


def compare(engine: str, data: pd.DataFrame, *texts: str) -> None:
    fit = mlmed.mediate if len(texts) == 2 else mlmed.mixed
    options = {"treatment": "x"} if len(texts) == 2 else {}
    same(fit(*texts, ENGINES[engine](data), **options), fit(*texts, data, **options))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("levels", [2, 14, 31, 60, 200])
def test_a_factor_of_any_number_of_levels(engine: str, levels: int) -> None:
    compare(engine, table(levels), "y ~ m + w + g + (1 | id)")


@pytest.mark.parametrize("engine", ["lazy", "duckdb"])
@pytest.mark.parametrize("levels", [14, 100])
def test_a_factor_is_its_indicators(engine: str, levels: int) -> None:
    data = table(levels)
    known = sorted(data["g"].unique())[1:]
    dummies = pd.DataFrame({f"d{k}": (data["g"] == level).astype(float) for k, level in enumerate(known)})
    wide = pd.concat([data, dummies], axis=1)
    text = " + ".join(f"d{k}" for k in range(len(known)))
    one = mlmed.mixed("y ~ m + g + (1 | id)", ENGINES[engine](data))
    two = mlmed.mixed(f"y ~ m + {text} + (1 | id)", wide)
    three = mlmed.mixed(f"y ~ m + {text} + (1 | id)", ENGINES[engine](wide))
    for other in (two, three):
        assert one.llf == pytest.approx(other.llf, rel=SAME)
        a, b = numbers(one).to_numpy(), numbers(other).to_numpy()
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


FORMULAS = {
    "interaction of factors": ("y ~ g * h + x + (1 | id)",),
    "two factors": ("y ~ g + h + x + (1 | id)",),
    "numbers by levels": ("y ~ g * x + (1 | id)",),
    "no intercept": ("y ~ 0 + g + x + (1 | id)",),
    "numbers as a factor": ("y ~ C(k) + x + (1 | id)",),
    "text in C()": ("y ~ C(g) + np.log(x) + I(x ** 2) + (1 | id)",),
    "random slopes of a factor": ("y ~ g + x + (1 + h | id)",),
    "remembered means": ("y ~ g + center(x) + scale(w) + (1 | id)",),
    "two equations": ("m ~ x + g + (1 + x | id)", "y ~ m + x + g + (1 + m | id)"),
    "a transformed response": ("I(y + 2 * m) ~ g + x + (1 | id)",),
    "two cluster variables": ("y ~ g + x + (1 | h:id)",),
    "an id that is a predictor": ("y ~ g + x + id + (1 | id)",),
}


@pytest.mark.parametrize("engine", ["lazy", "duckdb", "dask"])
@pytest.mark.parametrize("kind", FORMULAS)
def test_formulas(engine: str, kind: str, forty: pd.DataFrame) -> None:
    data = forty[forty["k"] < 12].reset_index(drop=True) if kind == "interaction of factors" else forty
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)  # a singular fit, ids that look alike
        compare(engine, data, *FORMULAS[kind])


def odd(data: pd.DataFrame) -> pd.DataFrame:
    """Levels with quotes, brackets, blanks, colons, other alphabets, and one that is empty."""
    marks = ["it's", 'a "b"', "[T.x]", " blank ", "a:b", "ß é 中", "100%", "", "x{y}", "`q`"]
    return data.assign(g=[f"{marks[k % 10]}{k // 10 or ''}" for k in data["k"]])


CHANGES: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "missing levels": lambda d: d.assign(g=d["g"].where(np.arange(len(d)) % 7 > 0, None)),
    "missing responses": lambda d: d.assign(y=d["y"].where(np.arange(len(d)) % 5 > 0)),
    "missing ids": lambda d: d.assign(id=d["id"].where(np.arange(len(d)) % 9 > 0)),
    "unused levels": lambda d: d.assign(
        g=pd.Categorical(d["g"]).add_categories(["never"]), y=d["y"].where(d["k"] != 3)
    ),
    "odd characters": odd,
    "categories": lambda d: d.assign(g=d["g"].astype("category")),
    "true and false": lambda d: d.assign(w=d["w"] > 0),
    "whole numbers": lambda d: d.assign(w=(10 * d["w"]).round().astype("int64")),
    "single precision": lambda d: d.assign(w=d["w"].astype("float32")),
    "text ids": lambda d: d.assign(id="p" + d["id"].astype(str)),
    "sorted rows": lambda d: d.sort_values("g", ignore_index=True),
    "far from zero": lambda d: d.assign(x=d["x"] + 1e3),
    "names with blanks": lambda d: d,
}


@pytest.mark.filterwarnings("ignore::mlmed.errors.CategoryWarning")  # a Categorical of Polars has no order
@pytest.mark.parametrize("engine", ["lazy", "duckdb", "dask"])
@pytest.mark.parametrize("change", CHANGES)
def test_columns(engine: str, change: str, forty: pd.DataFrame) -> None:
    data = CHANGES[change](forty)
    texts = ("m ~ x + w + g + (1 + x | id)", "y ~ m + x + w + g + (1 + m | id)")
    if change == "names with blanks":
        data = data.rename(columns={"g": "my group", "x": "x.1"})
        texts = tuple(text.replace("g +", "`my group` +").replace("x", "`x.1`") for text in texts)
    treatment = "x.1" if change == "names with blanks" else "x"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DroppedRowsWarning)
        one, two = (mlmed.mediate(*texts, source, treatment=treatment) for source in (ENGINES[engine](data), data))
    if change == "far from zero":  # both lose digits of x, which has mean 1,000 and sd 2
        np.testing.assert_allclose(numbers(one), numbers(two), rtol=1e-6, atol=1e-6)
        return
    same(one, two)


@pytest.mark.parametrize("engine", ["lazy", "duckdb", "dask"])
def test_rows_left_out_are_reported_alike(engine: str, forty: pd.DataFrame) -> None:
    data = CHANGES["missing levels"](CHANGES["missing responses"](forty))
    said = []
    for source in (ENGINES[engine](data), data):
        with pytest.warns(DroppedRowsWarning) as caught:
            mlmed.mixed("y ~ x + g + (1 | id)", source)
        said.append([str(one.message) for one in caught])
    assert said[0] == said[1]


def refusal(text: str, data: Any) -> str:
    with pytest.raises(MlmedError) as caught:
        mlmed.mixed(text, data)
    return str(caught.value)


TEXTS: dict[str, Callable[[np.random.Generator, int], list[str | None]]] = {
    "decimals": lambda rng, n: [f"{v:.6f}" for v in rng.normal(size=n)],
    "decimal commas": lambda rng, n: [f"{v:.6f}".replace(".", ",") for v in rng.normal(size=n)],
    "a mark among them": lambda rng, n: [f"{v:.6f}" if v > -1 else "." for v in rng.normal(size=n)],
    "missing among them": lambda rng, n: [f"{v:.6f}" if v > -1 else None for v in rng.normal(size=n)],
    "words": lambda rng, n: [f"word {k}" for k in rng.permutation(n)],
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("text", ["y ~ x + t + (1 | id)", "y ~ x + C(t) + (1 | id)"])
def test_text_of_thousands_of_numbers_is_refused_in_the_same_words(
    engine: str, kind: str, text: str, forty: pd.DataFrame
) -> None:
    data = forty.assign(t=TEXTS[kind](np.random.default_rng(1), len(forty)))
    expected = refusal(text, data)
    assert "'t' is text with 2" in expected or "'t' is text with 1" in expected
    assert refusal(text, ENGINES[engine](data)) == expected


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["decimals", "decimal commas", "a mark among them"])
def test_a_response_that_is_text_is_refused_in_the_same_words(engine: str, kind: str, forty: pd.DataFrame) -> None:
    data = forty.assign(t=TEXTS[kind](np.random.default_rng(1), len(forty)))
    assert refusal("t ~ x + (1 | id)", ENGINES[engine](data)) == refusal("t ~ x + (1 | id)", data)


class Watched(str):
    """Text that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Watched.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_the_time_for_texts_of_numbers_grows_with_their_number() -> None:
    from mlmed.data.values import written_numbers

    counts = []
    for n in (1000, 4000):
        Watched.compared = 0
        found = written_numbers([Watched(f"{k}.5") for k in range(n)] + [Watched(f"{k},5") for k in range(n)])
        assert found is not None
        assert len(found.others) == n
        counts.append(Watched.compared)
    assert counts[1] <= 5 * max(counts[0], 1000)


@pytest.mark.parametrize("engine", ["lazy", "duckdb", "dask"])
def test_values_that_are_not_finite(engine: str, forty: pd.DataFrame) -> None:
    data = forty.copy()
    data.loc[2000, "x"] = np.inf
    with pytest.raises(DataError, match=r"column 'x' has 1 infinite value"):
        mlmed.mixed("y ~ x + g + (1 | id)", ENGINES[engine](data))
    data.loc[2000, "x"] = -1.0
    with pytest.raises(FormulaError, match=r"np\.log\(x\) in equation y is not a finite number"):
        mlmed.mixed("y ~ np.log(x) + g + (1 | id)", ENGINES[engine](data))


@pytest.mark.parametrize("text", ["hashed(x, levels=3)", "bs(x, df=4)", "center(np.exp(x))", "C(x > 20)"])
def test_what_engines_refuse_is_refused_with_many_columns_too(text: str, forty: pd.DataFrame) -> None:
    with pytest.raises(FormulaError, match="cannot be computed by the engine"):
        mlmed.mixed(f"y ~ {text} + g + (1 | id)", duckdb.from_df(forty))


def test_stored_and_added_grams(forty: pd.DataFrame, tmp_path: Any) -> None:
    text = "y ~ x + g + (1 | id)"
    parts = [mlmed.grams(text, duckdb.from_df(part)) for part in (forty[:1200], forty[1200:])]
    whole = mlmed.mixed(text, forty)
    total = parts[0] + parts[1]
    same(mlmed.mixed(text, total), whole)
    same(mlmed.mixed(text, mlmed.grams(text, forty[:1200]) + parts[1]), whole)
    total.save(tmp_path / "g.parquet")
    same(mlmed.mixed(text, mlmed.Grams.load(tmp_path / "g.parquet")), whole)


def test_parquet_on_the_command_line(forty: pd.DataFrame, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from mlmed.cli import main

    forty.to_parquet(tmp_path / "rows.parquet")
    forty.to_csv(tmp_path / "rows.csv", index=False)
    answers = []
    for name in ("rows.parquet", "rows.csv"):
        code = main(["mixed", str(tmp_path / name), "--formula", "y ~ x + g + (1 | id)", "--format", "csv"])
        assert code == 0
        answers.append(capsys.readouterr().out)
    a, b = ([line.split(",") for line in answer.splitlines()] for answer in answers)
    assert [row[:2] for row in a] == [row[:2] for row in b]


@pytest.fixture
def columns() -> pd.DataFrame:
    data = table(3, rows=600)
    more = np.random.default_rng(1).normal(size=(600, 20_000))
    names = [f"v {k}" if k % 3 == 0 else f"v.{k}" if k % 3 == 1 else f"v{k}" for k in range(20_000)]
    return pd.concat([data, pd.DataFrame(more, columns=names)], axis=1)


@pytest.mark.parametrize("engine", ["pandas", "polars", "lazy"])
def test_a_table_with_20_000_columns(engine: str, columns: pd.DataFrame) -> None:
    source = columns if engine == "pandas" else ENGINES[engine](columns)
    assert mlmed.mixed("y ~ x + v2 + `v 3` + (1 | id)", source).nobs == 600


def test_names_of_columns_are_compared_a_few_times_each() -> None:
    from mlmed.data.frames import column_names

    counts = []
    for n in (1000, 4000):
        data = pd.DataFrame(np.zeros((2, n)))
        data.columns = pd.Index([Watched(f"v{k}") for k in range(n)], dtype=object)
        Watched.compared = 0
        assert len(column_names(data)) == n
        counts.append(Watched.compared)
    assert counts[1] <= 5 * max(counts[0], 1000)


def test_a_query_of_thousands_of_sums_is_not_written(forty: pd.DataFrame) -> None:
    assert "mlmed_p5" in mlmed.grams_sql("y ~ x + h + (1 | id)", duckdb.from_df(forty))
    data = table(100)
    with pytest.raises(DataError, match=r"the formulas have 101 columns, so that the query would have 5151 sums"):
        mlmed.grams_sql("y ~ x + g + (1 | id)", duckdb.from_df(data))
