"""Every operation that formulas list, on rows in memory and in Polars, DuckDB and Dask: the same columns."""

from __future__ import annotations

import warnings
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import mlmed
from mlmed.allowed import METHODS, NUMPY
from mlmed.data.operations import OPERATIONS
from mlmed.errors import FormulaError

dd = pytest.importorskip("dask.dataframe")

#: Sums of squares of columns of size 1, added in other orders.
SUMS = 1e-12

#: Calls of those that need other operands than ``q``, between -.9 and .9, or the positive ``p``.
CALLS = {
    "np.clip": "np.clip(q, -.5, .5)",
    "np.where": "np.where(q > 0, q, 2*p)",
    "np.isin": "np.isin(k, [1, 3])",
    "np.digitize": "np.digitize(q, [-.5, 0, .5])",
    "np.arccosh": "np.arccosh(p + 1)",
    "np.round": "np.round(q*10, 1)",
    "np.around": "np.around(100*q, -1)",
    "np.power": "np.power(p, 1.5)",
    "np.float_power": "np.float_power(p, q)",
    "np.quantile": "np.quantile(q, .5)",
    "np.percentile": "np.percentile(q, 50)",
    ".round": "q.round(1)",
    ".clip": "q.clip(-.5, upper=.5)",
    ".between": "q.between(-.5, .5)",
    ".isin": "k.isin([2, 4])",
    ".quantile": "q.quantile(.5)",
    "round": "round(10*q)",
    "+": "I(q + p)",
    "-": "I(q - p)",
    "*": "I(q*p)",
    "/": "I(q/p)",
    "//": "I(10*q//p)",
    "%": "I(q % 0.3)",
    "**": "I(q**3)",
    "&": "I((q > 0) & (p > 1))",
    "|": "I((q > 0) | (p > 1))",
    "u-": "I(-q)",
    "u+": "I(+q)",
    **{sign: f"I(k {sign} 2)" for sign in ("==", "!=", "<", "<=", ">", ">=")},
}
POSITIVE = {"log", "log2", "log10", "sqrt", "np.log", "np.log2", "np.log10", "np.sqrt", "np.log1p", "np.reciprocal"}
#: Other spellings of an operation with the same operands.
TWICE = {"np.absolute", "np.fabs", "np.true_divide", "np.radians", "np.degrees", "log", "log2", "log10", "exp", "abs"}
#: Written otherwise.
MORE = [
    "g:q", "C(k)", "C(k)*q", "C(g, Sum)", "C(g, contr.helmert):q", "C(g, Treatment('b'))", "C(k, Poly)",
    "I(g == 'a')*q", "I(g != 'b')", "np.where(g == 'a', q, p)", "g.isin(['a', 'c'])", "I((q > 0) + (p > 1))",
    "I((q > 0)*(p > 1))", "I(-(q > 0))", "I((q > 0)*2)", "I((q > 0) & q)", "I(k == 1):g", "q:np.exp(k)", "I(2*p):k",
    "I(np.log(p) > 0)*q", "np.maximum(q, 0)", "np.minimum(0, q)", "q.clip(0, p)", "np.logical_and(q > 0, k)",
    "q.between(0, 1)", "scale(q)*g", "np.digitize(q, bins=[-.5, 0], right=True)", "np.digitize(q, [.5, 0, -.5])",
    "np.digitize(q, [.5, 0, -.5], right=True)", "np.rint(k/2)",
    "center(q)*np.sin(p)", "I(np.pi*q**2)", "I(2**q)",
]  # fmt: skip
ENGINES = {
    "polars": lambda rows: pl.from_pandas(rows).lazy(),
    "duckdb": lambda rows: duckdb.connect().from_arrow(pa.Table.from_pandas(rows, preserve_index=False)),
    "dask": lambda rows: dd.from_pandas(rows, npartitions=3),
}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """30 clusters of 8."""
    rng = np.random.default_rng(5)
    n = 240
    return pd.DataFrame(
        {
            "id": np.repeat(np.arange(30), 8),
            "y": rng.normal(size=n),
            "q": rng.uniform(-0.9, 0.9, n).round(2),
            "p": np.exp(0.3 * rng.normal(size=n)),
            "k": rng.integers(1, 5, n).astype(float),
            "g": rng.choice(list("abc"), n),
        }
    )


def _call(key: str) -> str:
    """One use of an operation."""
    if key in CALLS:
        return CALLS[key]
    operand = "p" if key in POSITIVE else "q"
    if key.startswith("."):
        return f"{operand}{key}({'0.1' if METHODS[key[1:]].data else ''})"
    is_pair = key.startswith("np.") and NUMPY[key[3:]].data == 2
    return f"{key}({operand}, p)" if is_pair else f"{key}({operand})"


def _sums(data: Any, text: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mlmed.grams(f"y ~ {text} + (1 | id)", data).arrays


def _same(rows: pd.DataFrame, text: str) -> None:
    expected = _sums(rows, text)
    for engine, made in ENGINES.items():
        found = _sums(made(rows), text)
        # columns that remember the rows are told by their equation there
        assert [name.removeprefix("y~") for name in found.layout.columns] == list(expected.layout.columns), engine
        own, other = expected.layout.equations[0], found.layout.equations[0]
        assert (own.fixed, own.levels, own.observed.keys()) == (other.fixed, other.levels, other.observed.keys())
        ours, theirs = _raw(expected), _raw(found)
        size = np.sqrt(np.einsum("kk->k", ours))
        size[size == 0.0] = 1.0  # np.isinf(q)
        np.testing.assert_allclose(
            theirs / np.outer(size, size), ours / np.outer(size, size), rtol=0, atol=SUMS, err_msg=engine
        )


def _raw(grams: Any) -> np.ndarray:
    """Cross-products of all rows in the units of the columns, (K, K)."""
    K = len(grams.layout.columns)
    packed, whole = grams.products.sum(axis=(0, 2)), np.zeros((K, K))
    for i in range(K):
        for j in range(i + 1):
            whole[i, j] = whole[j, i] = packed[i * (i + 1) // 2 + j]
    units = np.diag(grams.scale)
    units[:, 0] = grams.shift
    units[0, 0] = 1.0
    return np.asarray(units @ whole @ units.T)


def _batches(texts: list[str], size: int) -> list[str]:
    return [" + ".join(texts[at : at + size]) for at in range(0, len(texts), size)]


#: Few enough columns for one query.
PUSHED = [_call(key) for key, one in OPERATIONS.items() if one.is_rowwise and one.engine and key not in TWICE]
FETCHED = [_call(key) for key, one in OPERATIONS.items() if one.is_rowwise and not one.engine]


@pytest.mark.parametrize("text", [*_batches(PUSHED, 8), *_batches(FETCHED, 40)])
def test_operations_mean_the_same_everywhere(rows: pd.DataFrame, text: str) -> None:
    _same(rows, text)


@pytest.mark.parametrize("text", _batches(MORE, 3))
def test_expressions_mean_the_same_everywhere(rows: pd.DataFrame, text: str) -> None:
    _same(rows, text)


@pytest.mark.parametrize("key", [key for key, one in OPERATIONS.items() if not one.is_rowwise])
def test_statistics_are_refused_everywhere(rows: pd.DataFrame, key: str) -> None:
    """What a row takes from other rows is told in the same words."""
    for data in (rows, *(made(rows) for made in ENGINES.values())):
        with pytest.raises(FormulaError, match="takes its value in a row from other rows"):
            _sums(data, _call(key))
