"""Tables that hold what no table should, by name: cells, types, labels, shapes, engines."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import mlmed
from tests.hostile.subjects import table

BASE = table()[["id", "x", "m", "y", "w", "f"]]
N = len(BASE)
ROLES = tuple(BASE)
M, Y = "m ~ x + w + f + (1 | id)", "y ~ m + x + w + f + (1 | id)"

#: One call of each mode, which reads every column.
CALLS: dict[str, Callable[[Any], Any]] = {
    "mixed": lambda data: mlmed.mixed(M, data).summary(),
    "mediate": lambda data: mlmed.mediate(M, Y, data, treatment="x").effects(),
    "piecewise": lambda data: mlmed.piecewise(M, Y, data, treatment="x").effects(),
    "causal": lambda data: mlmed.causal(
        "m ~ x + w + f", "y ~ m + x + w + f", data, treatment="x", cluster="id"
    ).effects(),
    "location_scale": lambda data: mlmed.location_scale("m ~ x + w + f + (1 | id)", "~ x", data).summary(),
    "stack": lambda data: mlmed.stack(data, x="x", m="m", y="y", cluster="id", covariates=["w"]),
    "grams": lambda data: mlmed.grams(M, data),
}

#: Single values, put into one row or into all.
CELLS: dict[str, Any] = {
    "10**400": 10**400, "10**5000": 10**5000, "2**70": 2**70, "sNaN": Decimal("sNaN"), "NaN": Decimal("NaN"),
    "Decimal inf": Decimal("Infinity"), "inf": np.inf, "-inf": -np.inf, "1e308": 1e308, "5e-324": 5e-324,
    "Fraction": Fraction(1, 3), "complex": 1 + 2j, "True": True, "None": None, "NA": pd.NA, "NaT": pd.NaT,
    "list": [1, 2], "dict": {"a": {"b": 1}}, "set": {1}, "tuple": (1, 2), "array": np.array([1, 2]),
    "Series": pd.Series([1]), "DataFrame": pd.DataFrame({"a": [1]}), "generator": iter([1]), "class": dict,
    "function": len, "object": object(), "surrogate": "\ud800", "NUL": "a\0b", "empty": "", "long": "x" * 100_000,
    "bytes": b"x", "numpy text": np.str_("a"), "Period": pd.Period("2020-01"), "Interval": pd.Interval(0, 1),
    "Timestamp": pd.Timestamp("2020"), "Timestamp, zone": pd.Timestamp("2020", tz="UTC"),
    "date": datetime.date(2020, 1, 1), "timedelta": datetime.timedelta(1),
}  # fmt: skip


def arrow(values: Any, kind: Any) -> Any:
    return pd.array(values, dtype=pd.ArrowDtype(kind))


def objects(*values: Any) -> pd.Series:
    return pd.Series((list(values) * N)[:N], dtype=object)


#: Columns of one type.
COLUMNS: dict[str, Any] = {
    "Period": pd.period_range("2000", periods=N, freq="D"),
    "Interval": pd.arrays.IntervalArray.from_breaks(np.arange(N + 1.0)),
    "dates": pd.date_range("2000", periods=N),
    "dates, zone": pd.date_range("2000", periods=N, tz="Europe/Berlin"),
    "timedelta": pd.to_timedelta(np.arange(N), unit="s"),
    "sparse": pd.arrays.SparseArray(np.arange(N) % 3 * 1.0),
    "sparse int": pd.arrays.SparseArray(np.arange(N) % 3),
    "Int64": pd.array(np.arange(N) % 5, dtype="Int64"),
    "float16": np.arange(N).astype("float16"),
    "longdouble": np.arange(N).astype("longdouble"),
    "uint64": np.arange(N).astype("uint64") + np.uint64(2**63),
    "complex": np.arange(N) * 1j,
    "arrow null": arrow([None] * N, pa.null()),
    "arrow list": arrow([[1, 2]] * N, pa.list_(pa.int64())),
    "arrow struct": arrow([{"a": 1}] * N, pa.struct([("a", pa.int64())])),
    "arrow map": arrow([[("a", 1)]] * N, pa.map_(pa.string(), pa.int64())),
    "arrow decimal": arrow([Decimal(k) for k in range(N)], pa.decimal128(10, 2)),
    "arrow binary": arrow([b"a", b"\xff"] * (N // 2), pa.binary()),
    "arrow time": arrow([datetime.time(1, 2)] * N, pa.time64("us")),
    "arrow duration": arrow([datetime.timedelta(1)] * N, pa.duration("us")),
    "arrow dictionary": arrow(
        pa.array(["b", "a"] * (N // 2)).dictionary_encode(), pa.dictionary(pa.int32(), pa.string())
    ),
    "categories, numbers": pd.Categorical(np.arange(N) % 3),
    "categories, intervals": pd.cut(np.arange(N) * 1.0, 3),
    "categories, tuples": pd.Categorical.from_codes(np.arange(N) % 2, pd.Index([(1, 2), (3, 4)], tupleize_cols=False)),
    "categories, mixed": pd.Categorical(objects(1, "a", 2.5)),
    "categories, surrogate": pd.Categorical.from_codes(np.arange(N) % 2, pd.Index(["\ud800", "b"], dtype=object)),
    "categories, none used": pd.Categorical.from_codes([-1] * N, ["a", "b"]),
    "constant": 1.0,
    "zero": 0.0,
    "missing": np.nan,
    "infinite": np.inf,
    "one text": "a",
    "texts, all different": [f"s{k}" for k in range(N)],
    "text and numbers": objects("a", 1),
    "true and numbers": objects(True, 2),
    "text and gaps": objects("a", None),
    "surrogates": objects("\ud800", "b"),
    "dates and text": objects(pd.Timestamp("2020"), "a"),
    "dicts": objects({"a": {"b": 1}}),
    "1e300": np.linspace(-1e300, 1e300, N),
    "big whole numbers": pd.Series([10**30 + k for k in range(N)], dtype=object),
}

#: Columns of Polars, eager and lazy, and of DuckDB.
POLARS: dict[str, Any] = {
    "list": pl.lit([1, 2]), "struct": pl.struct("x", "w"), "null": pl.lit(None), "binary": pl.lit(b"x"),
    "date": pl.lit(datetime.date(2020, 1, 1)), "time": pl.lit(datetime.time(1)), "inf": pl.lit(float("inf")),
    "duration": pl.lit(datetime.timedelta(1)), "decimal": pl.lit(Decimal("1.5")), "int128": pl.lit(2**100, pl.Int128),
    "array": pl.concat_list("x", "w").list.to_array(2), "enum": pl.col("f").cast(pl.Enum(["a", "b"])),
    "cannot be computed": pl.col("f").cast(pl.Int64),
}  # fmt: skip
DUCKDB = {
    "list": "[1, 2]", "struct": "{'a': 1}", "null": "NULL", "map": "map {'a': 1}", "date": "DATE '2020-01-01'",
    "zone": "TIMESTAMPTZ '2020-01-01'", "interval": "INTERVAL 1 DAY", "blob": "'ab'::BLOB", "uuid": "uuid()",
    "decimal": "1.5::DECIMAL(38, 10)", "huge": "170141183460469231731687303715884105727::HUGEINT", "bit": "'101'::BIT",
    "enum": "'a'::ENUM('a', 'b')", "inf": "'inf'::DOUBLE", "union": "union_value(k := 1)",
    "array": "[1., 2.]::DOUBLE[2]",
    "cannot be computed": "f::INT",
}  # fmt: skip


def with_cell(role: str, value: Any, rows: Any = (3,)) -> pd.DataFrame:
    values = BASE[role].astype(object).tolist()
    for row in rows:
        values[row] = value
    return BASE.assign(**{role: pd.Series(values, dtype=object)})


def renamed(label: Any) -> pd.DataFrame:
    """A column more, with a label that is no name."""
    return BASE.assign(extra=1.0).rename(columns={"extra": label})


def duck(query: str) -> Any:
    connection = duckdb.connect()
    connection.register("base", BASE)
    return connection.sql(query)


def closed() -> Any:
    connection = duckdb.connect()
    connection.execute("create table t as select 1 as x, 2 as m, 3 as y, 4 as w, 5 as id, 6 as f")
    relation = connection.sql("select * from t")
    connection.close()
    return relation


def gone() -> Any:
    connection = duckdb.connect()
    connection.register("base", BASE)
    connection.execute("create table t as select * from base")
    relation = connection.sql("select * from t")
    connection.execute("drop table t")
    return relation


EVEN = np.arange(N) % 2 == 0
#: Shapes, labels and things that are no tables.
SHAPES: dict[str, Callable[[], Any]] = {
    "index that repeats": lambda: BASE.set_axis(np.zeros(N, int)),
    "index of two": lambda: BASE.set_index(["id", "x"], drop=False),
    "labels of two": lambda: pd.concat({"a": BASE}, axis=1),
    "labels that are numbers": lambda: BASE.set_axis(range(len(ROLES)), axis=1),
    "label None": lambda: renamed(None),
    "label nan": lambda: renamed(np.nan),
    "label tuple": lambda: renamed((1, 2)),
    "label number": lambda: renamed(3),
    "label date": lambda: renamed(pd.Timestamp("2020")),
    "label bytes": lambda: renamed(b"q"),
    "label class": lambda: renamed(int),
    "label empty": lambda: renamed(""),
    "label NUL": lambda: renamed("a\0b"),
    "label backtick": lambda: renamed("a`b"),
    "label long": lambda: renamed("q" * 100_000),
    "w is None": lambda: BASE.rename(columns={"w": None}),
    "w is a tuple": lambda: BASE.rename(columns={"w": ("w", 1)}),
    "columns twice": lambda: pd.concat([BASE, BASE[["x"]]], axis=1),
    "no rows": lambda: BASE.head(0),
    "no columns": lambda: pd.DataFrame(index=range(5)),
    "nothing": lambda: pd.DataFrame(),
    "one row": lambda: BASE.head(1),
    "two rows": lambda: BASE.head(2),
    "one cluster": lambda: BASE[BASE["id"] == BASE["id"].iloc[0]],
    "two clusters": lambda: BASE[BASE["id"].isin(BASE["id"].unique()[:2])],
    "clusters of one": lambda: BASE.assign(id=range(N)),
    "all constant": lambda: BASE.assign(x=1.0, m=1.0, y=1.0, w=1.0, f="a"),
    "all missing": lambda: BASE.assign(x=np.nan, m=np.nan, y=np.nan),
    "no row left, two variables": lambda: BASE.assign(x=BASE["x"].where(EVEN), m=BASE["m"].where(~EVEN)),
    "no row left, id": lambda: BASE.assign(x=BASE["x"].where(EVEN), id=BASE["id"].where(~EVEN)),
    "no row left, factor": lambda: BASE.assign(f=BASE["f"].where(EVEN), y=BASE["y"].where(~EVEN)),
    "no row left, factor and x": lambda: BASE.assign(f=None, x=np.nan),
    "dict": lambda: {name: BASE[name].tolist() for name in BASE},
    "dict, lengths": lambda: {"id": [1], "x": [1, 2]},
    "dict of numbers": lambda: dict.fromkeys(ROLES, 1),
    "dict of sets": lambda: {name: set(BASE[name]) for name in BASE},
    "dict of iterators": lambda: {name: iter(BASE[name]) for name in BASE},
    "dict of matrices": lambda: {name: np.zeros((N, 2)) for name in BASE},
    "dict, empty": dict,
    "lists": lambda: BASE.to_numpy().tolist(),
    "records": lambda: BASE.to_records(),
    "array": lambda: BASE[["x", "m"]].to_numpy(),
    "Series": lambda: BASE["x"],
    "text": lambda: "file.csv",
    "None": lambda: None,
    "class": lambda: pd.DataFrame,
    "groups": lambda: BASE.groupby("id"),
    "window": lambda: BASE.rolling(2),
    "Polars, Series": lambda: pl.Series([1]),
    "Polars, no columns": lambda: pl.DataFrame(),
    "Polars, no rows": lambda: pl.from_pandas(BASE).head(0).lazy(),
    "Polars, objects": lambda: pl.from_pandas(BASE).with_columns(pl.Series("w", [object()] * N, dtype=pl.Object)),
    "Polars, no file": lambda: pl.scan_parquet("/nonexistent.parquet"),
    "Polars, no column": lambda: pl.from_pandas(BASE).lazy().select("nonsense"),
    "Arrow, array": lambda: pa.array([1]),
    "DuckDB, connection": lambda: duckdb.connect(),
    "DuckDB, closed": closed,
    "DuckDB, table gone": gone,
    "DuckDB, no rows": lambda: duck("select * from base limit 0"),
    "DuckDB, dots": lambda: duck('select *, 1 as "a.b" from base'),
}  # fmt: skip


def tables() -> dict[str, Callable[[], Any]]:
    """Every table, by name."""
    out: dict[str, Callable[[], Any]] = {}
    frame = pl.from_pandas(BASE)
    for role in ROLES:
        for name, cell in CELLS.items():
            out[f"{role}, one: {name}"] = lambda role=role, cell=cell: with_cell(role, cell)
            out[f"{role}, all: {name}"] = lambda role=role, cell=cell: with_cell(role, cell, range(N))
        for name, column in COLUMNS.items():
            out[f"{role}, type: {name}"] = lambda role=role, column=column: BASE.assign(**{role: column})
        for name, made in POLARS.items():
            if name != "cannot be computed":  # a table in memory has been
                out[f"{role}, Polars: {name}"] = lambda role=role, made=made: frame.with_columns(made.alias(role))
            out[f"{role}, lazy: {name}"] = lambda role=role, made=made: frame.lazy().with_columns(made.alias(role))
        for name, text in DUCKDB.items():
            out[f"{role}, DuckDB: {name}"] = lambda role=role, text=text: duck(
                f"select * replace ({text} as {role}) from base"
            )
    return out | SHAPES
