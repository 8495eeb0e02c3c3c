"""Tables that used to be read wrongly without a word: what they mean is found, or they are refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlmed
from mlmed.cli import main
from mlmed.data.encoding import encode
from mlmed.data.readers import read_table
from mlmed.errors import CategoryWarning, DataError
from tests.tolerances import SAME

ENGINES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda d: d,
    "arrow": lambda d: pa.Table.from_pandas(d),
    "polars": pl.from_pandas,
    "polars, lazy": lambda d: pl.from_pandas(d).lazy(),
    "duckdb": duckdb.from_df,
    "dask": lambda d: dd.from_pandas(d, npartitions=2),
}
engines = pytest.mark.parametrize("engine", ENGINES)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """30 clusters of 10; numbers that do not depend on each other."""
    rng = np.random.default_rng(7)
    n, ids = 300, np.repeat(np.arange(30), 10)
    effects = rng.normal(size=(30, 3))[ids]
    x, w, extra = rng.normal(size=(3, n))
    m = 0.6 * x + effects[:, 0] + rng.normal(size=n)
    y = 0.5 * m + (0.7 + effects[:, 2]) * extra + x + effects[:, 1] + rng.normal(size=n)
    f = rng.choice(["a", "b", "c"], n)
    return pd.DataFrame({"id": ids, "x": x, "w": w, "extra": extra, "f": f, "m": m, "y": y})


# -- labels and expressions ----------------------------------------------------------------------------------

#: Names of columns that look like something else in a formula.
ODD_NAMES = ["1", "0", "x:w", "x*w", "f[T.b]", "f", "I(x ** 2)", "np.log(x)", "m:x", "m~x", "var(x)", "-1"]
ODD_NAMES += ["x|id", "(1 | id)"]


@pytest.mark.parametrize("name", ODD_NAMES)
@engines
def test_a_column_is_itself_whatever_it_is_called(frame: pd.DataFrame, engine: str, name: str) -> None:
    """A column called 1 was the constant in DuckDB and Polars, .087 for .729; x:w was the interaction."""
    expected = mlmed.mixed("y ~ m + x + extra + (1 + extra | id)", frame)
    renamed = frame.drop(columns="f").rename(columns={"extra": name})
    fit = mlmed.mixed(f"y ~ m + x + `{name}` + (1 + `{name}` | id)", ENGINES[engine](renamed))
    label = f"fixed({name})" if name == "var(x)" else name
    assert list(fit.params.index) == ["Intercept", "m", "x", label]
    np.testing.assert_allclose(fit.params, expected.params, rtol=1e-6)
    assert fit.llf == pytest.approx(expected.llf, rel=SAME)


@pytest.mark.parametrize("name", ["*", "self", "^x$", "a.b", 'a"b', "1"])
@engines
def test_rows_in_memory_have_the_column_of_that_name(frame: pd.DataFrame, engine: str, name: str) -> None:
    """As piecewise, causal and location_scale read them from an engine."""
    data = frame.drop(columns="f").rename(columns={"extra": name})
    fit = mlmed.causal("m ~ x", f"y ~ m + x + `{name}`", ENGINES[engine](data), treatment="x")
    expected = mlmed.causal("m ~ x", "y ~ m + x + extra", frame, treatment="x")
    np.testing.assert_allclose(fit.outcome.params, expected.outcome.params, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "term"),
    [("x:w", "x:w"), ("f[T.b]", "f"), ("I(x ** 2)", "I(x**2)"), ("np.exp(x)", "np.exp(x)"), ("center(x)", "center(x)")],
)
@engines
def test_two_things_of_one_label_are_refused(frame: pd.DataFrame, engine: str, name: str, term: str) -> None:
    """In one equation, in two, in a random term."""
    data = ENGINES[engine](frame.rename(columns={"extra": name}))
    said = r"would both be called .* in the results.*rename a column"
    with pytest.raises(DataError, match=said):
        mlmed.mixed(f"y ~ x + w + {term} + `{name}` + (1 | id)", data)
    with pytest.raises(DataError, match=said):
        mlmed.mediate(f"m ~ x + {term} + (1 | id)", f"y ~ m + x + `{name}` + (1 | id)", data, treatment="x")
    with pytest.raises(DataError, match=said):
        mlmed.mixed(f"y ~ x + w + {term} + (1 | id) + (0 + `{name}` | id)", data)


@engines
def test_a_name_inside_a_term_is_not_the_label_of_another(frame: pd.DataFrame, engine: str) -> None:
    """The mean of the column x:w is not that of the interaction, at which effects are evaluated."""
    data = ENGINES[engine](frame.rename(columns={"extra": "x:w"}))
    with pytest.raises(DataError, match=r"the interaction x:w and the column `x:w`"):
        mlmed.mixed("y ~ x:w + np.exp(`x:w`) + (1 | id)", data)


def test_the_mediator_is_not_a_column_of_that_name(frame: pd.DataFrame) -> None:
    """np.exp(m) and a column called so, in every mode."""
    data = frame.rename(columns={"extra": "np.exp(m)"})
    texts = ("np.exp(m) ~ x + (1 | id)", "y ~ `np.exp(m)` + x + (1 | id)")
    for mode in (mlmed.mediate, mlmed.piecewise):
        with pytest.raises(ValueError, match=r"np\.exp\(m\)"):
            mode(*texts, data, treatment="x")
    with pytest.raises(DataError, match="would both be called"):
        mlmed.location_scale("y ~ x:w + (1 | id)", "~ `x:w` + (1 | id)", frame.rename(columns={"extra": "x:w"}))


def test_equations_whose_labels_run_together_are_refused(frame: pd.DataFrame) -> None:
    """The coefficient of a column m~w in the equation y, and that of w in the equation y~m."""
    data = frame.rename(columns={"extra": "y~m"}).assign(**{"m~w": frame["m"] * frame["w"]})
    with pytest.raises(DataError, match="y~m~w"):
        mlmed.mixed(["y ~ x + `m~w` + (1 | id)", "`y~m` ~ w + (1 | id)"], data)


@pytest.mark.parametrize("formula", ["y ~ {} + (1 | id)", "y ~ 0 + {} + (1 | id)", "y ~ C({}) + x + (1 | id)"])
@engines
def test_a_level_with_two_underscores_is_refused(frame: pd.DataFrame, engine: str, formula: str) -> None:
    """formulaic leaves its column out, so that its rows passed for those of the reference."""
    data = frame.assign(f=frame["f"].replace({"a": "A", "b": "__b"}))
    with pytest.raises(DataError, match="has the level '__b'"):
        mlmed.mixed(formula.format("f"), ENGINES[engine](data))


# -- complex values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["complex", "objects", "NumPy objects", "some", "nullable"])
@pytest.mark.parametrize("role", ["x", "y"])
def test_complex_columns_are_refused(frame: pd.DataFrame, kind: str, role: str) -> None:
    """Their imaginary part was lost."""
    values = frame[role].to_numpy() + 2j
    columns: dict[str, Any] = {
        "complex": values,
        "objects": pd.Series([complex(v) for v in values], dtype=object),
        "NumPy objects": pd.Series(list(values), dtype=object),
        "some": pd.Series([values[k] if k == 5 else values[k].real for k in range(len(values))], dtype=object),
        "nullable": pd.Series([np.complex128(v) if k else None for k, v in enumerate(values)], dtype=object),
    }
    with pytest.raises(DataError, match=f"column '{role}'.*complex"):
        mlmed.mixed("y ~ x + (1 | id)", frame.assign(**{role: columns[kind]}))
    with pytest.raises(DataError, match="not numbers"):
        mlmed.stack(frame.assign(**{role: columns[kind]}), x="x", m="m", y="y", cluster="id")


def test_terms_that_become_complex_are_refused(frame: pd.DataFrame) -> None:
    table = frame.assign(x=frame["x"] + 1j)
    with pytest.raises(DataError, match="x in the test has complex values"):
        encode("w + x", table, where="the test")


# -- cluster ids ---------------------------------------------------------------------------------------------

MIXED: dict[str, Callable[[int, int], Any]] = {
    "numbers and digits": lambda k, row: k if row % 2 else str(k),
    "numbers and text": lambda k, row: k if k % 2 else f"s{k}",
    "truth values and numbers": lambda k, row: bool(k) if k < 2 else k,
    "text and bytes": lambda k, row: str(k) if row % 2 else str(k).encode(),
    "days and times": lambda k, row: pd.Timestamp(2020, 1, 1 + k) if row % 2 else pd.Timestamp(2020, 1, 1 + k).date(),
}
CALLS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "mixed": lambda d: mlmed.mixed("y ~ x + (1 | id)", d),
    "combined": lambda d: mlmed.mixed("y ~ x + (1 | f:id)", d),
    "mediate": lambda d: mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", d),
    "piecewise": lambda d: mlmed.piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", d),
    "causal": lambda d: mlmed.causal("m ~ x", "y ~ m + x", d, cluster="id"),
    "location_scale": lambda d: mlmed.location_scale("y ~ x + (1 | id)", "~ 1 + (1 | id)", d),
    "stack": lambda d: mlmed.stack(d, x="x", m="m", y="y", cluster="id"),
    "grams": lambda d: mlmed.grams("y ~ x + (1 | id)", d),
    "new rows": lambda d: mlmed.mixed("y ~ x + (1 | id)", d.assign(id=range(300))[:60]).predict(d, of="cluster"),
}


@pytest.mark.parametrize("kind", [*MIXED, "categories"])
def test_ids_of_several_kinds_are_refused(frame: pd.DataFrame, kind: str) -> None:
    """1 and "1" were 60 clusters for 30."""
    make = MIXED.get(kind, MIXED["numbers and digits"])
    ids = pd.Series([make(int(k), row) for row, k in enumerate(frame["id"])], dtype=object)
    with pytest.raises(DataError, match=r"ids in column 'id' mix .*such as.*one\s+cluster may pass for two"):
        mlmed.mixed("y ~ x + (1 | id)", frame.assign(id=ids.astype("category") if kind == "categories" else ids))


@pytest.mark.parametrize("mode", [mode for mode in CALLS if mode != "new rows"])
def test_ids_of_several_kinds_are_refused_in_every_mode(frame: pd.DataFrame, mode: str) -> None:
    ids = pd.Series([int(k) if row % 2 else str(k) for row, k in enumerate(frame["id"])], dtype=object)
    with pytest.raises(DataError, match="ids in column 'id' mix"):
        CALLS[mode](frame.assign(id=ids))


@engines
def test_ids_of_text_that_are_one_number_are_refused(frame: pd.DataFrame, engine: str) -> None:
    """1 and 1.0, as when parts of a table went through floats."""
    ids = frame["id"].astype(str).where(frame.index % 2 == 0, frame["id"].astype(str) + ".0")
    with pytest.raises(DataError, match=r"30 of the 60 ids in column 'id' are written in two ways"):
        mlmed.mixed("y ~ x + (1 | id)", ENGINES[engine](frame.assign(id=ids)))


def test_numbers_of_several_types_are_one_kind(frame: pd.DataFrame) -> None:
    """Python and NumPy integers and floats are equal, so they are 30 clusters."""
    kinds = (int, float, np.int64, np.float32)
    ids = pd.Series([kinds[row % 4](k) for row, k in enumerate(frame["id"])], dtype=object)
    assert mlmed.mixed("y ~ x + (1 | id)", frame.assign(id=ids)).n_clusters == 30
    assert mlmed.mixed("y ~ x + (1 | id)", frame.assign(id=frame["id"].astype(str) + ".0")).n_clusters == 30


@pytest.mark.parametrize("last", ["A1", "40000"])
def test_a_long_file_is_typed_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str], last: str) -> None:
    """20,000 persons in two waves were 40,001 clusters when an id at the end was no number."""
    rng = np.random.default_rng(0)
    ids = np.tile(np.arange(20_000), 2)
    x, u = rng.normal(size=40_000), rng.normal(size=20_000)
    table = pd.DataFrame({"id": ids.astype(str), "x": x, "y": x + u[ids] + rng.normal(size=40_000)})
    table.loc[len(table)] = [last, 0.0, 0.0]
    table.to_csv(tmp_path / "long.csv", index=False)
    command = ["mixed", str(tmp_path / "long.csv"), "--formula", "y ~ x + (1 | id)"]
    assert main(command) == 0
    assert "Clusters      20001 (id" in capsys.readouterr().out
    floats = table.assign(id=table["id"].where(table.index < 20_000, table["id"] + ".0").replace("A1.0", "A1"))
    floats.to_csv(tmp_path / "long.csv", index=False)
    if last == "A1":
        assert main(command) == 2
        assert "20000 of the 40001 ids in column 'id' are written in two ways" in capsys.readouterr().err
    else:
        assert main(command) == 0
        assert "Clusters      20001 (id" in capsys.readouterr().out


# -- delimited text ------------------------------------------------------------------------------------------

HARMLESS: dict[str, tuple[str, dict[str, list[Any]]]] = {
    "separators at the ends of lines": ("id,x\n1,2,\n3,4,\n", {"id": [1, 3], "x": [2, 4]}),
    "at the ends of some": ("id,x\n1,2\n3,4,,,\n", {"id": [1, 3], "x": [2, 4]}),
    "at the end of the header": ("id,x,\n1,2\n3,4\n", {"id": [1, 3], "x": [2, 4]}),
    "everywhere": ("id,x,\n1,2,\n3,4,\n", {"id": [1, 3], "x": [2, 4]}),
    "semicolons at the ends of lines": ("id;x\n1;0,5;\n3;1,5;\n", {"id": [1, 3], "x": [0.5, 1.5]}),
    "row names with an empty name": (",id,x\n7,1,2\n8,3,4\n", {"id": [1, 3], "x": [2, 4]}),
    "an empty name inside": ("id,,x\n1,9,2\n3,9,4\n", {"id": [1, 3], "x": [2, 4]}),
    "a mark at the start": ("\ufeffid,x\n1,2\n3,4\n", {"id": [1, 3], "x": [2, 4]}),
    "a mark before quotes": ('\ufeff"id","x"\n1,2\n3,4\n', {"id": [1, 3], "x": [2, 4]}),
    "blank lines": ("\nid,x\n\n1,2\n   \n3,4\n\n", {"id": [1, 3], "x": [2, 4]}),
    "old line ends": ("id,x\r1,2\r3,4\r", {"id": [1, 3], "x": [2, 4]}),
    "lines inside quotes": ('id,x\n"a,\nb",2\n"c",4\n', {"id": ["a,\nb", "c"], "x": [2, 4]}),
    "names with numbers": ("id,x,x.1\n1,2,5\n3,4,6\n", {"id": [1, 3], "x": [2, 4], "x.1": [5, 6]}),
    "the last value missing": ("id,x\n1,\n3,4\n", {"id": [1, 3], "x": [np.nan, 4]}),
}
REFUSED: dict[str, tuple[str, str]] = {
    "a name twice": ("id,x,x\n1,2,3\n", r"the name 'x' more than once \(fields 2, 3\)"),
    "a quoted name twice": ('id,"x",x\n1,2,3\n', r"the name 'x' more than once"),
    "two names twice": ("id,x,x,id\n1,2,3,4\n", r"'id' more than once \(fields 1, 4; so are 'x'\)"),
    "row names without a name": (
        "id,x\n7,1,2\n8,3,4\n",
        r"line 2 \(and 1 more line\) .* 3 fields, .* 2 names.*row name",
    ),
    "one line longer": ("id,x\n1,2\n3,4,5\n", r"line 3 of .* has 3 fields, but the header has 2 names.*wrong columns"),
    "a decimal comma": ("id,x\n1,2\n3,4,5\n5,6\n", r"line 3 of"),
    "one line shorter": ("id,x,y\n1,2,3\n4,5\n", r"line 3 of .* has 2 fields, but the header has 3 names.*complete it"),
    "a footer": ("id,x,y\n1,2,3\n\nTotal\n", r"line 4 of .* has 1 field, but"),
    "after Excel's line": ("sep=;\nid;x\n1;2\n3;4;5\n", r"line 4 of .* has 3 fields"),
    "after lines in quotes": ('id,x\n"a\nb",2\n3,4,5\n', r"line 4 of .* has 3 fields"),
    "quotes not closed": ('id,x\n"1,2\n3,4\n', r"line 3 of .* has 1 field|cannot be read"),
    "a header only": ("id,x\n", "no rows of data"),
}


def _written(text: str, path: Path) -> Path:
    """A file of the extension's separator."""
    changed = text.replace(",", "\t") if path.suffix == ".tsv" and ";" not in text else text
    path.write_bytes(changed.encode())
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("kind", HARMLESS)
def test_harmless_lines(tmp_path: Path, kind: str, suffix: str) -> None:
    text, expected = HARMLESS[kind]
    table = read_table(_written(text, tmp_path / f"table{suffix}"))
    for name, values in expected.items():
        shown = [v.replace("\t", ",") if isinstance(v, str) else v for v in table[name].tolist()]
        assert [v for v in shown if v == v] == [v for v in values if v == v]
    assert list(table.index) == [0, 1]
    assert [name for name in table if not name.startswith("Unnamed")] == list(expected)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("kind", REFUSED)
def test_lines_that_shift_columns_are_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    text, said = REFUSED[kind]
    with pytest.raises(DataError, match=said):
        read_table(_written(text, tmp_path / f"table{suffix}"))


def test_a_field_without_end(tmp_path: Path) -> None:
    path = _written('id,x\n"' + "a" * 140_000 + "\n", tmp_path / "table.csv")
    with pytest.raises(DataError, match="quotation mark"):
        read_table(path)


DUPLICATES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda d: pd.concat([d, d[["x"]]], axis=1),
    "another column": lambda d: pd.concat([d, d[["w"]]], axis=1),
    "arrow": lambda d: pa.Table.from_arrays(
        [pa.array(d["x"]), pa.array(d["y"]), *[pa.array(d["id"])] * 2], list("xyii")
    ),
    "dask": lambda d: dd.from_pandas(pd.concat([d, d[["x"]]], axis=1), npartitions=2),
}


@pytest.mark.parametrize("kind", DUPLICATES)
def test_tables_with_a_name_twice_are_refused(frame: pd.DataFrame, kind: str) -> None:
    with pytest.raises(DataError, match=r"(?i)two columns have|several columns of one name|name"):
        mlmed.mixed("y ~ x + (1 | id)", DUPLICATES[kind](frame))


# -- the order of categories ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Categories that are not in the order of the alphabet, one of which does not occur."""
    return frame.assign(f=pd.Categorical(frame["f"], ["z", "c", "a", "b"]))


def _enum(data: pd.DataFrame) -> pl.DataFrame:
    text = pl.from_pandas(data.assign(f=data["f"].astype(str)))
    return text.with_columns(pl.col("f").cast(pl.Enum(["z", "c", "a", "b"])))


KEEPING: dict[str, Callable[[pd.DataFrame], Any]] = {
    "ordered": lambda d: d.assign(f=d["f"].cat.as_ordered()),
    "arrow": pa.Table.from_pandas,
    "arrow in two pieces": lambda d: pa.concat_tables([pa.Table.from_pandas(d[:100]), pa.Table.from_pandas(d[100:])]),
    "arrow of ordered ones": lambda d: pa.Table.from_pandas(d.assign(f=d["f"].cat.as_ordered())),
    "enum": _enum,
    "enum, lazy": lambda d: _enum(d).lazy(),
    "arrow of an enum": lambda d: _enum(d).to_arrow(),
    "duckdb": duckdb.from_df,
    "dask": lambda d: dd.from_pandas(d, npartitions=3),
}
MODES: dict[str, Callable[[Any], list[str]]] = {
    "mixed": lambda d: list(mlmed.mixed("y ~ f + x + (1 | id)", d).params.index)[1:3],
    "C()": lambda d: list(mlmed.mixed("y ~ C(f) + x + (1 | id)", d).params.index)[1:3],
    "location_scale": lambda d: list(mlmed.location_scale("y ~ f + x + (1 | id)", "~ 1", d).params.index)[1:3],
    "causal": lambda d: list(mlmed.causal("m ~ x + f", "y ~ m + x + f", d, treatment="x").mediator.params.index)[1:3],
}


@pytest.mark.parametrize("mode", ["mixed", "C()", "location_scale"])
@pytest.mark.parametrize("kind", KEEPING)
def test_the_first_category_is_the_reference(ordered: pd.DataFrame, kind: str, mode: str) -> None:
    """c, not a."""
    expected = MODES[mode](ordered)
    assert expected[0] in ("f[T.a]", "C(f)[T.a]")
    assert MODES[mode](KEEPING[kind](ordered)) == expected


@pytest.mark.parametrize("lazy", [False, True])
def test_polars_says_that_it_lost_the_order(ordered: pd.DataFrame, lazy: bool) -> None:
    data = pl.from_pandas(ordered)
    with pytest.warns(CategoryWarning, match=r"levels of f \(reference 'a'\) are sorted.*pl\.Enum"):
        fit = mlmed.mixed("y ~ f + x + (1 | id)", data.lazy() if lazy else data)
    assert list(fit.params.index)[1:3] == ["f[T.b]", "f[T.c]"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mlmed.mixed("y ~ x + (1 | id)", data)  # not used


@pytest.mark.parametrize("pieces", ["one", "row groups", "files", "polars"])
def test_parquet_files_keep_the_order(
    ordered: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str], pieces: str
) -> None:
    """Through DuckDB, which reads text."""
    path = tmp_path / "a.parquet"
    if pieces == "polars":
        _enum(ordered).write_parquet(path)
    else:
        ordered[: 200 if pieces == "files" else 300].to_parquet(path, row_group_size=20 if pieces != "one" else None)
    if pieces == "files":
        ordered[200:].to_parquet(tmp_path / "b.parquet")
    source = str(tmp_path / "*.parquet") if pieces == "files" else str(path)
    assert main(["mixed", source, "--formula", "y ~ x + f + (1 | id)", "--format", "csv"]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:5]]
    expected = mlmed.mixed("y ~ x + f + (1 | id)", ordered).params
    assert [row[1] for row in rows] == list(expected.index)
    np.testing.assert_allclose([float(row[2]) for row in rows], expected, rtol=1e-6)


def test_categories_that_are_numbers_in_a_file(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parquet keeps the numbers only."""
    frame.assign(k=pd.Categorical(frame["id"] % 3)).to_parquet(tmp_path / "k.parquet")
    assert main(["mixed", str(tmp_path / "k.parquet"), "--formula", "y ~ x + k + (1 | id)"]) == 0
    assert "k: categories in pandas, but numbers in the files" in capsys.readouterr().err


def test_a_parquet_file_with_a_name_twice(
    frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DuckDB makes it x_1."""
    columns = [pa.array(frame[name]) for name in ("id", "x", "y", "w")]
    pq.write_table(pa.Table.from_arrays(columns, ["id", "x", "y", "x"]), tmp_path / "twice.parquet")
    assert main(["mixed", str(tmp_path / "twice.parquet"), "--formula", "y ~ x + (1 | id)"]) == 2
    assert "two columns" in capsys.readouterr().err
