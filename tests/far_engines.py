"""Spark and Ibis against rows in memory: ``python tests/far_engines.py [spark] [ibis]`` (``make test-engines``).

They are no part of the test suite: pyspark is 450 MB and needs Java, and neither is installed for development. What is
asked for and missing is a failure, not skipped.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mlmed
from mlmed.errors import DataError, FormulaError, MlmedError, MlmedWarning

M, Y = "m ~ x + (1 + x | id)", "y ~ m + x + (1 + m | id)"


def table() -> pd.DataFrame:
    """Rows with gaps, a factor, names that are no words of Python, and two names that differ in case."""
    data = mlmed.simulate.bpg(30, 6, seed=2).data
    rng = np.random.default_rng(2)
    data["f"] = rng.choice(["b", "c", "a"], len(data))
    data["wide"] = rng.choice([f"level {k}" for k in range(20)], len(data))
    data["gaps"] = np.where(rng.random(len(data)) < 0.1, np.nan, rng.normal(size=len(data)))
    for name in ("a.b", "a b", 'a"b', "a`b", "*", "^x$"):
        data[name] = rng.normal(size=len(data))
    return data.assign(**{"g.id": data["id"], "class": data["x"] > 0})


def _of(fit: Any) -> np.ndarray:
    return np.append(fit.params.to_numpy(dtype=float), fit.llf)


#: What is compared with the same call on rows in memory.
SAME: dict[str, Callable[[Any], Any]] = {
    "one equation": lambda d: _of(mlmed.mixed("y ~ x + (1 | id)", d)),
    "two equations": lambda d: mlmed.mediate(M, Y, d).effects()["estimate"],
    "a factor": lambda d: _of(mlmed.mixed("y ~ x * f + (1 | id)", d)),
    "many levels": lambda d: _of(mlmed.mixed("y ~ x + wide + (1 | id)", d)),
    "missing values": lambda d: _of(mlmed.mixed("y ~ x + gaps + (1 | id)", d)),
    "transformed": lambda d: _of(mlmed.mixed("y ~ np.exp(x) + I(m**2) + np.abs(m) + (1 | id)", d)),
    "centred": lambda d: _of(mlmed.mixed("y ~ center(x) + scale(m) + (1 | id)", d)),
    "a dot": lambda d: _of(mlmed.mixed("y ~ x + `a.b` + (1 | id)", d)),
    "a response with a dot": lambda d: _of(mlmed.mixed("`a.b` ~ x + (1 | id)", d)),
    "clusters with a dot": lambda d: _of(mlmed.mixed("y ~ x + (1 | `g.id`)", d)),
    "other signs": lambda d: _of(mlmed.mixed('y ~ `a b` + `a"b` + `*` + `^x$` + `class` + (1 | id)', d)),
    "stored": lambda d: _of(mlmed.mixed("y ~ `a.b` + (1 | id)", mlmed.grams("y ~ `a.b` + (1 | id)", d))),
    "piecewise": lambda d: mlmed.piecewise(M, "y ~ m + x + `a.b` + (1 | id)", d).effects()["estimate"],
    "causal": lambda d: mlmed.causal("m ~ x", "y ~ m + x + `a.b`", d, treatment="x").effects()["estimate"],
    "location_scale": lambda d: _of(mlmed.location_scale("y ~ x + `a.b` + (1 | id)", "~ x", d)),
    "stack": lambda d: mlmed.stack(d, x="x", m="m", y="y", cluster="id", covariates=["a.b"]).sum(),
    "predict": lambda d: mlmed.mixed("y ~ x + `a.b` + (1 | id)", table()).predict(d),
}
#: What is refused, and by which words.
REFUSED: dict[str, tuple[Callable[[Any], Any], type[MlmedError], str]] = {
    "no such column": (lambda d: mlmed.mixed("y ~ `a.c` + (1 | id)", d), DataError, "did you mean a.b"),
    "a backtick": (lambda d: mlmed.mixed("y ~ no + (1 | id)", d), DataError, "the columns are"),
    "a function": (lambda d: mlmed.mixed("y ~ np.sin(x) + (1 | id)", d), FormulaError, "not translated"),
}


#: What falls short and is told without counting as a failure: pyspark asserts that its session runs.
KNOWN = {("spark", "closed"): "AssertionError"}


def spark(data: pd.DataFrame, folder: Path) -> Any:
    """A frame of a Spark session in this process."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    settings = {
        "spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "2", "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1", "spark.ui.showConsoleProgress": "false",
    }  # fmt: skip
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    data.to_parquet(folder / "rows.parquet", index=False)
    return session.read.parquet(str(folder / "rows.parquet"))


def ibis(data: pd.DataFrame, folder: Path) -> Any:
    """A table of Ibis over DuckDB."""
    import ibis as package

    data.to_parquet(folder / "rows.parquet", index=False)
    connection = package.duckdb.connect()
    connection.raw_sql(f"CREATE TABLE t AS SELECT * FROM read_parquet('{folder / 'rows.parquet'}')")
    return connection.table("t")


def closed(rows: Any) -> None:
    """End what holds the rows."""
    if hasattr(rows, "sparkSession"):
        rows.sparkSession.stop()
    else:
        rows.get_backend().disconnect()


def judged(call: Callable[[Any], Any], rows: Any, data: pd.DataFrame) -> str:
    """Empty if both are the same."""
    try:
        found, expected = (np.asarray(call(one), dtype=float) for one in (rows, data))
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return "" if np.allclose(found, expected, rtol=1e-7, atol=1e-9) else f"{found} for {expected}"


def refused(call: Callable[[Any], Any], error: type[MlmedError], words: str, rows: Any) -> str:
    """Empty if it is refused by these words."""
    try:
        call(rows)
    except error as said:
        return "" if words in str(said) else f"said {str(said)[:300]}"
    except Exception as other:
        return f"{type(other).__name__}: {str(other)[:300]}"
    return "answered"


def check(name: str, make: Callable[[pd.DataFrame, Path], Any]) -> int:
    """Run everything in one engine; how many failed."""
    data, failed = table(), 0

    def tell(case: str, said: str) -> None:
        nonlocal failed
        failed += bool(said) and not said.startswith(KNOWN.get((name, case), "nothing is known"))
        sys.stdout.write(f"{name}, {case}: {said or 'passed'}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory() as folder:
        rows = make(data, Path(folder))
        for case, call in SAME.items():
            tell(case, judged(call, rows, data))
        for case, asked in REFUSED.items():
            tell(case, refused(*asked, rows))
        closed(rows)
        tell("closed", refused(SAME["one equation"], DataError, "cannot be read from the engine", rows))
    return failed


def main(asked: Sequence[str]) -> int:
    """Exit status: 0 if everything passed."""
    engines = {"spark": spark, "ibis": ibis}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MlmedWarning)
        warnings.simplefilter("ignore", FutureWarning)  # pyspark 4 of pandas 3
        failed = sum(check(name, engines[name]) for name in asked or engines)
    sys.stdout.write(f"{failed} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
