"""Engines that cannot give the rows any more: a named error from every entry, with what the engine said."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlmed
from mlmed.cli import main
from mlmed.errors import DataError, MlmedError

MIXED, SCALE = "y ~ x + (1 | id)", "~ 1"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return mlmed.simulate.bpg(20, 5, seed=1).data


ENTRIES: dict[str, Callable[[Any, pd.DataFrame], Any]] = {
    "mixed": lambda rows, _: mlmed.mixed(MIXED, rows),
    "mediate": lambda rows, _: mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", rows),
    "piecewise": lambda rows, _: mlmed.piecewise("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", rows),
    "causal": lambda rows, _: mlmed.causal("m ~ x", "y ~ m + x", rows, treatment="x"),
    "location_scale": lambda rows, _: mlmed.location_scale(MIXED, SCALE, rows),
    "grams": lambda rows, _: mlmed.grams(MIXED, rows),
    "stack": lambda rows, _: mlmed.stack(rows, x="x", m="m", y="y", cluster="id"),
    "predict": lambda rows, data: mlmed.mixed(MIXED, data).predict(rows),
    "predict of scales": lambda rows, data: mlmed.location_scale(MIXED, SCALE, data).predict(rows),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_closed_connection_is_a_named_error(data, entry):
    connection = duckdb.connect()
    relation = connection.from_df(data)
    connection.close()
    said = r"cannot be read from the engine .* Connection has already been closed\. Check"
    with pytest.raises(DataError, match=said) as found:
        ENTRIES[entry](relation, data)
    assert isinstance(found.value.__cause__, duckdb.Error)


def test_sql_of_a_closed_connection_is_a_named_error(data):
    connection = duckdb.connect()
    relation = connection.from_df(data)
    connection.close()
    with pytest.raises(DataError, match="Connection has already been closed"):
        mlmed.grams_sql(MIXED, relation)


@pytest.mark.parametrize("entry", ["mixed", "location_scale", "predict"])
def test_what_is_gone_is_named(data, entry, tmp_path: Path):
    connection = duckdb.connect()
    connection.sql("CREATE TABLE rows AS SELECT * FROM data")
    table = connection.table("rows")
    connection.sql("DROP TABLE rows")
    with pytest.raises(DataError, match="Table with name rows does not exist"):
        ENTRIES[entry](table, data)
    path = tmp_path / "rows.parquet"
    data.to_parquet(path)
    files = pl.scan_parquet(path), duckdb.connect().read_parquet(str(path))
    path.unlink()
    for rows in files:
        with pytest.raises(DataError, match=r"cannot be read from the engine .*rows\.parquet"):
            ENTRIES[entry](rows, data)


@pytest.mark.parametrize("entry", ["mixed", "location_scale"])
def test_a_value_that_is_not_of_its_type_is_named(data, entry):
    words = data.assign(x="a")
    relation = duckdb.connect().from_df(words).select("id, m, y, x::INTEGER AS x")
    lazy = pl.from_pandas(words).lazy().with_columns(pl.col("x").cast(pl.Int64))
    for rows in (relation, lazy):
        with pytest.raises(DataError, match=r"cannot be read from the engine .*(Could not convert|conversion from)"):
            ENTRIES[entry](rows, data)


def test_our_own_errors_keep_their_words(data):
    relation = duckdb.connect().from_df(data)
    with pytest.raises(MlmedError, match="column 'nothing' is not in the data"):
        mlmed.mixed("y ~ nothing + (1 | id)", relation)


#: Names that an engine reads as something else: a column of a table, an argument, a pattern, a quotation.
ODD_NAMES = ["a.b", "self", "*", "^x$", 'a"b', "a b", "select"]
HOLDERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "arrow": pa.Table.from_pandas,
    "polars": pl.from_pandas,
    "polars, lazy": lambda data: pl.from_pandas(data).lazy(),
    "duckdb": duckdb.from_df,
    "dask": lambda data: dd.from_pandas(data, npartitions=2),
}


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_column_is_found_by_its_name_in_every_engine(data, holder, name):
    """Against a plain name in memory: summed by the engine, brought into memory, and stacked."""
    rng = np.random.default_rng(3)
    plain = data.assign(extra=rng.normal(size=len(data)), group=data["id"])
    rows = HOLDERS[holder](plain.rename(columns={"extra": name}))
    expected = mlmed.mixed("y ~ x + extra + (1 | id)", plain).params.to_numpy()
    np.testing.assert_allclose(mlmed.mixed(f"y ~ x + `{name}` + (1 | id)", rows).params, expected, rtol=1e-7)
    as_group = HOLDERS[holder](plain.rename(columns={"group": name}))
    known = mlmed.mixed("y ~ x + (1 | group)", plain).llf
    assert mlmed.mixed(f"y ~ x + (1 | `{name}`)", as_group).llf == pytest.approx(known, rel=1e-10)
    stacked = mlmed.stack(rows, x="x", m="m", y="y", cluster="id", covariates=[name])
    of_plain = mlmed.stack(plain, x="x", m="m", y="y", cluster="id", covariates=["extra"])
    np.testing.assert_allclose(stacked.to_numpy(dtype=float), of_plain.to_numpy(dtype=float), rtol=1e-12)


@pytest.mark.parametrize("damage", ["the second file is cut", "the second file has another type", "a page is damaged"])
def test_the_command_line_has_no_words_of_its_own_for_engines(data, damage, tmp_path: Path, capsys):
    """What DuckDB finds while it scans, while it looks up levels, and while categories are put in order."""
    words = pd.Categorical(np.where(np.arange(len(data)) % 3, "b", "a"), ["b", "a"])
    for k in range(2):
        table = data.assign(f=words)[50 * k : 50 * (k + 1)]
        if k and damage.endswith("another type"):
            table = table.assign(x="word")
        table.to_parquet(tmp_path / f"part-{k}.parquet")
    second = tmp_path / "part-1.parquet"
    content = bytearray(second.read_bytes())
    if damage.endswith("is cut"):
        second.write_bytes(content[: len(content) // 2])
    elif damage.startswith("a page"):
        content[4:400] = bytes(b ^ 0x5A for b in content[4:400])
        second.write_bytes(content)
    for formula in ("y ~ x + (1 | id)", "y ~ x + f + (1 | id)"):
        for command in (["mixed", "--formula", formula], ["grams", "--formula", formula, "--sql"]):
            status = main([command[0], str(tmp_path / "part-*.parquet"), *command[1:]])
            said = capsys.readouterr()
            if status == 0 and command[0] == "grams":  # it looks at the first rows only
                continue
            assert (status, said.out) == (2, "")
            assert said.err.count("\n") == 1
            assert said.err.startswith("mlmed: the rows cannot be read from the engine that holds them: ")


def test_errors_of_engines_are_named_in_one_place():
    """Whoever reads a kind of file by itself says so itself; nothing else knows the classes of an engine."""
    root = Path(mlmed.__file__).parent
    names = r"duckdb\.Error|PolarsError|PySparkException|NarwhalsError|IbisError|Py4JError"
    found = {p.relative_to(root).as_posix() for p in root.rglob("*.py") if re.search(names, p.read_text())}
    assert found == {"data/frames.py", "data/readers.py"}
