"""Every kind of column in every kind of table: the columns of the model are those that are made here by hand.

The oracle knows nothing of formulas: a design matrix of NumPy, generalized least squares with the fit's variances, and
the restricted log-likelihood of dense covariance matrices.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
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
from mlmed.data.design import complete_rows, plain_design, read_columns
from mlmed.data.readers import open_parquet, read_table, with_category_order
from mlmed.errors import CategoryWarning, DataError, DroppedRowsWarning
from mlmed.formula import parse_equation

N, J = 160, 16
_RNG = np.random.default_rng(11)
IDS = np.repeat(np.arange(J), N // J)
X, V = _RNG.normal(size=(2, N))
K = _RNG.integers(0, 3, N)
GAP = np.arange(N) % 9 == 0
Y = X + 0.8 * (K == 1) - 0.5 * (K == 2) + 0.4 * V * X + _RNG.normal(size=J)[IDS] + _RNG.normal(size=N)
TEXT = np.array(["b", "c", "a"])[K].astype(object)


@dataclass(frozen=True)
class Kind:
    """A column: numbers, or levels in the order that its type has (``declared``) or that is left of it (sorted)."""

    column: Any
    numbers: Any = None
    levels: tuple[Any, ...] = ()
    values: Any = None

    @property
    def known(self) -> np.ndarray:
        """Rows without a gap."""
        return ~np.isnan(self.numbers) if self.numbers is not None else np.array([v is not None for v in self.values])


def _objects(values: Any) -> pd.Series:
    return pd.Series(list(values), dtype=object)


def _with_gaps(values: Any) -> np.ndarray:
    return np.where(GAP, None, np.asarray(values).astype(object))


def _number(column: Any, values: Any, *, gaps: bool = False) -> Kind:
    numbers = np.asarray(values, dtype=np.float64)
    return Kind(column, np.where(GAP, np.nan, numbers) if gaps else numbers)


def _factor(column: Any, levels: str | tuple[Any, ...] = "abc", values: Any = TEXT) -> Kind:
    return Kind(column, None, tuple(levels), list(values))


_DECIMALS = np.array([Decimal(str(round(v, 3))) for v in V])
KINDS: dict[str, Kind] = {
    "float": _number(V, V),
    "float with gaps": _number(np.where(GAP, np.nan, V), V, gaps=True),
    "single precision": _number((2.0**-8 * np.round(V * 2**8)).astype("float32"), 2.0**-8 * np.round(V * 2**8)),
    "int8": _number(K.astype("int8"), K),
    "uint8": _number(K.astype("uint8"), K),
    "nullable integers": _number(pd.array(_with_gaps(K), dtype="Int64"), K, gaps=True),
    "nullable floats": _number(pd.array(_with_gaps(V), dtype="Float64"), V, gaps=True),
    "truth values": _number(K > 0, K > 0),
    "nullable truth values": _number(pd.array(_with_gaps(K > 0), dtype="boolean"), K > 0, gaps=True),
    "objects that are truth values": _number(_objects([bool(k) for k in K > 0]), K > 0),
    "decimals": _number(_objects(_DECIMALS), _DECIMALS),
    "decimals with gaps": _number(_objects(_with_gaps(_DECIMALS)), _DECIMALS, gaps=True),
    "arrow numbers": _number(pd.array(V, dtype=pd.ArrowDtype(pa.float64())), V),
    "text": _factor(_objects(TEXT)),
    "text with gaps": _factor(_objects(_with_gaps(TEXT)), values=_with_gaps(TEXT)),
    "pandas strings": _factor(pd.array(TEXT, dtype="string")),
    "categories": _factor(pd.Categorical(TEXT, ["c", "a", "b"]), "cab"),
    "ordered categories": _factor(pd.Categorical(TEXT, ["c", "a", "b"], ordered=True), "cab"),
    "unused categories": _factor(pd.Categorical(TEXT, ["z", "c", "y", "a", "b"]), "cab"),
    "categories with gaps": _factor(pd.Categorical(_with_gaps(TEXT), ["c", "a", "b"]), "cab", _with_gaps(TEXT)),
    "categories of digits": _factor(
        pd.Categorical((K + 9).astype(str), ["11", "9", "10"]), ("11", "9", "10"), (K + 9).astype(str)
    ),
    "levels like terms": _factor(
        _objects(np.array(["x:w", "[T.b]", "a'b"])[K]), ("[T.b]", "a'b", "x:w"), np.array(["x:w", "[T.b]", "a'b"])[K]
    ),
    "levels that differ in case": _factor(_objects(np.array(["A", "a", "B"])[K]), "ABa", np.array(["A", "a", "B"])[K]),
    "levels with blanks": _factor(
        _objects(np.array(["a", " a", "b"])[K]), (" a", "a", "b"), np.array(["a", " a", "b"])[K]
    ),
}
NAMES = [
    "a",
    "1",
    "x:a",
    "a[T.b]",
    "I(a)",
    "np.log(a)",
    "a.b",
    "a b",
    "class",
    "C",
    "µ",
    "*",
    "^a$",
    "-a",
    "(a)",
    "a|id",
]


def _parquet(table: pd.DataFrame, place: Path) -> str:
    table.to_parquet(place / "table.parquet")
    return str(place / "table.parquet")


def _csv(table: pd.DataFrame, place: Path) -> pd.DataFrame:
    table.to_csv(place / "table.csv", index=False)
    return read_table(place / "table.csv")


def _files_in_duckdb(table: pd.DataFrame, place: Path) -> Any:
    path = _parquet(table, place)
    return with_category_order(open_parquet(path), path, list(table.columns))


BACKENDS: dict[str, Callable[[pd.DataFrame, Path], Any]] = {
    "pandas": lambda t, place: t,
    "polars": lambda t, place: pl.from_pandas(t),
    "polars, lazy": lambda t, place: pl.from_pandas(t).lazy(),
    "arrow": lambda t, place: pa.Table.from_pandas(t),
    "duckdb": lambda t, place: duckdb.from_df(t),
    "dask": lambda t, place: dd.from_pandas(t, npartitions=3),
    "csv": _csv,
    "parquet": lambda t, place: read_table(_parquet(t, place)),
    "parquet in duckdb": _files_in_duckdb,
    "parquet in polars": lambda t, place: pl.scan_parquet(_parquet(t, place)),
}
FORMULAS = ["y ~ x + {a} + (1 | id)", "y ~ {a} + (1 | id)", "y ~ x * {a} + (1 | id)", "y ~ 0 + {a} + x + (1 | id)"]


def _matrix(kind: Kind, levels: tuple[Any, ...], number: int) -> np.ndarray:
    """The design matrix of a formula, by hand."""
    one = np.ones(N)
    if kind.numbers is not None:
        full = rest = [np.where(kind.known, kind.numbers, 0.0)]
    else:
        full = [np.array([value == level for value in kind.values], dtype=float) for level in levels]
        rest = full[1:]
    columns = [[one, X, *rest], [one, *rest], [one, X, *rest, *(X * c for c in rest)], [*full, X]]
    return np.column_stack(columns[number])


def _dense(matrix: np.ndarray, rows: np.ndarray, variance: float, sigma2: float) -> tuple[np.ndarray, float]:
    """Coefficients of generalized least squares, and the restricted log-likelihood."""
    left, right, total, logs = 0.0, 0.0, 0.0, 0.0
    for cluster in range(J):
        own = rows & (cluster == IDS)
        covariance = sigma2 * np.eye(own.sum()) + variance
        inverse = np.linalg.inv(covariance)
        left = left + matrix[own].T @ inverse @ matrix[own]
        right = right + matrix[own].T @ inverse @ Y[own]
        total += Y[own] @ inverse @ Y[own]
        logs += np.linalg.slogdet(covariance)[1]
    beta = np.linalg.solve(left, right)
    freedom = rows.sum() - matrix.shape[1]
    likelihood = logs + np.linalg.slogdet(left)[1] + total - right @ beta + freedom * np.log(2.0 * np.pi)
    return beta, -0.5 * float(likelihood)


def _order(kind: str, backend: str) -> tuple[Any, ...]:
    """Levels in the order that is left in a table: Polars' Categorical and CSV files have none."""
    levels = KINDS[kind].levels
    return tuple(sorted(levels)) if "polars" in backend or backend == "csv" else levels


def _is_kept(kind: str, backend: str) -> bool:
    """Whether a table holds a column as it is: Dask makes text of all objects, CSV numbers of digits."""
    objects = ("objects", "decimals", "days")
    return not (backend == "dask" and kind.startswith(objects)) and (kind, backend) != ("categories of digits", "csv")


CASES = [
    (kind, backend, row % len(FORMULAS), NAMES[(3 * row + row // len(NAMES)) % len(NAMES)])
    for row, (kind, backend) in enumerate(itertools.product(KINDS, BACKENDS))
    if _is_kept(kind, backend)
]


@pytest.mark.parametrize(("kind", "backend", "number", "name"), CASES)
@pytest.mark.filterwarnings("ignore::mlmed.errors.BoundaryWarning")
def test_the_model_has_the_columns_made_by_hand(
    tmp_path: Path, kind: str, backend: str, number: int, name: str
) -> None:
    table = pd.DataFrame({"id": IDS, "x": X, "y": Y, name: KINDS[kind].column})
    formula = FORMULAS[number].format(a=f"`{name}`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CategoryWarning)
        warnings.simplefilter("ignore", DroppedRowsWarning)
        fit = mlmed.mixed(formula, BACKENDS[backend](table, tmp_path))
    rows = KINDS[kind].known
    matrix = _matrix(KINDS[kind], _order(kind, backend), number)
    assert fit.nobs == rows.sum()
    beta, likelihood = _dense(matrix, rows, float(fit.G.iloc[0, 0]), float(fit.sigma2.iloc[0]))
    np.testing.assert_allclose(fit.params, beta, rtol=1e-6, atol=1e-8)
    assert fit.llf == pytest.approx(likelihood, rel=1e-8)


@pytest.mark.parametrize(
    ("kind", "backend"), [pair for pair in itertools.product(KINDS, BACKENDS) if pair[1] != "csv" and _is_kept(*pair)]
)
def test_rows_in_memory_have_the_columns_made_by_hand(tmp_path: Path, kind: str, backend: str) -> None:
    """As piecewise, causal and location_scale read them."""
    table = pd.DataFrame({"id": IDS, "x": X, "y": Y, "a": KINDS[kind].column})
    equation = parse_equation(FORMULAS[2].format(a="a"))
    read = read_columns([equation], BACKENDS[backend](table, tmp_path), keep=("id",))
    rows = complete_rows(read, equation.variables)
    np.testing.assert_array_equal(rows, KINDS[kind].known)
    design = plain_design(equation, read.loc[rows].reset_index(drop=True))
    np.testing.assert_allclose(design.X, _matrix(KINDS[kind], _order(kind, backend), 2)[rows], rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "backend"),
    [
        pair
        for pair in itertools.product(["days", "times", "durations", "numbers as text"], BACKENDS)
        if pair[1] != "csv" and _is_kept(*pair)
    ],
)
def test_kinds_without_a_meaning_are_refused(tmp_path: Path, kind: str, backend: str) -> None:
    columns = {
        "days": _objects(pd.to_datetime("2020-01-01") + pd.to_timedelta(K, unit="D")).map(lambda day: day.date()),
        "times": pd.Series(pd.to_datetime("2020-01-01") + pd.to_timedelta(K, unit="h")),
        "durations": pd.Series(pd.to_timedelta(K, unit="h")),
        "numbers as text": _objects((K + 0.5).astype(str)),
    }
    table = pd.DataFrame({"id": IDS, "x": X, "y": Y, "a": columns[kind]})
    with pytest.raises(DataError, match=r"column 'a'|predictor 'a'"):
        mlmed.mixed("y ~ x + a + (1 | id)", BACKENDS[backend](table, tmp_path))
