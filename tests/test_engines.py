"""Engines that cannot give the rows any more: a named error from every entry, with what the engine said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest

import mlmed
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
