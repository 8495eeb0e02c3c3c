"""Sufficient statistics that users can make, store, read, add and fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import narwhals as nw

from mlmed.data.frames import column_names, lazy_frame
from mlmed.data.grams import Grams as Arrays
from mlmed.data.grams import add_grams
from mlmed.data.pushdown import sums_query
from mlmed.data.stored import load_grams, save_grams
from mlmed.errors import DataError
from mlmed.fit.lmm import make_grams
from mlmed.formula import parse_equation
from mlmed.notes import warn_of
from mlmed.options import check_formulas, check_path
from mlmed.results.remarks import table_notes
from mlmed.system.system import System


@dataclass(frozen=True)
class Grams:
    """Cross-products per cluster: the sufficient statistics of a linear mixed model.

    ``mediate`` and ``mixed`` take them as ``data`` for the same formulas. Grams of shards add up, also if shards share
    clusters.

    Attributes
    ----------
    arrays : mlmed.data.grams.Grams
        The arrays, with every shape in its docstring.

    Examples
    --------
    >>> import mlmed
    >>> df = mlmed.datasets.load("yuan_mackinnon_sim")
    >>> formula = "Med ~ X + (1 + X | group)"
    >>> halves = mlmed.grams(formula, df[:500]) + mlmed.grams(formula, df[500:])
    >>> round(mlmed.mixed(formula, halves).reml_criterion, 1)
    2647.9
    """

    arrays: Arrays

    @property
    def equations(self) -> tuple[str, ...]:
        """Formulas that the Grams belong to."""
        return tuple(equation.text for equation in self.arrays.layout.asked)

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.arrays.clusters)

    def __add__(self, other: Grams) -> Grams:
        """Add the cross-products of other rows."""
        if not isinstance(other, Grams):
            raise DataError(f"Grams can be added to Grams; found {type(other).__name__}")
        return Grams(add_grams(self.arrays, other.arrays))

    def save(self, path: str | Path) -> None:
        """Write to a Parquet file (extra ``io``), whole or not at all.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        DataError
            The file cannot be written, or the Grams hold something that cannot be stored.
        """
        save_grams(self.arrays, check_path(path, "path"))

    @staticmethod
    def load(path: str | Path) -> Grams:
        """Read a file of ``save``; nothing in it is executed, and a changed file is refused.

        Parameters
        ----------
        path : str or Path
            The file.

        Returns
        -------
        Grams

        Raises
        ------
        DataError
            The file holds no Grams, is damaged, or was changed after it was written.
        FormulaError
            It holds a formula that mlmed does not read.
        """
        return Grams(load_grams(check_path(path, "path")))

    def __repr__(self) -> str:
        rows = int(self.arrays.rows_per_cluster.sum())
        return f"Grams({'; '.join(self.equations)}: {rows} rows, {self.n_clusters} clusters)"


def _spec(equations: str | Sequence[str], data: Any) -> System:
    texts, columns = check_formulas(equations), column_names(data)
    return System(tuple(parse_equation(text, columns) for text in texts))


def grams(equations: str | Sequence[str], data: Any) -> Grams:
    """Sum the cross-products of a model, in memory or in the engine that holds the rows.

    Parameters
    ----------
    equations : str or sequence of str
        One formula, or one for each of several responses (mediator and outcome).
    data : dataframe
        pandas, Polars (eager or lazy), Arrow, a DuckDB relation, Dask, Spark, ...; an engine returns cluster sums
        only.

    Returns
    -------
    Grams

    Raises
    ------
    FormulaError
        A formula that cannot be read.
    DataError
        A column is missing or of the wrong type, or no row is complete.

    Examples
    --------
    >>> import mlmed
    >>> mlmed.grams("Med ~ X + (1 | group)", mlmed.datasets.load("yuan_mackinnon_sim"))
    Grams(Med ~ X + (1 | group): 1000 rows, 50 clusters)
    """
    spec = _spec(equations, data)
    made = make_grams(spec, data)
    warn_of(table_notes(data, spec.equations, made.layout.equations, made.clusters), stacklevel=2)
    return Grams(made)


def grams_sql(equations: str | Sequence[str], data: Any, *, dialect: str = "duckdb") -> str:
    """Write the SQL that sums the cross-products, from a DuckDB relation (docs/scale.md).

    Parameters
    ----------
    equations : str or sequence of str
        One formula, or one for each of several responses (mediator and outcome).
    data : DuckDB relation
        Rows with the same columns as the table that the SQL is for; shift and scale of each column come from them.
    dialect : str
        ``"duckdb"``, or a dialect of sqlglot (``"spark"``, ``"snowflake"``, ``"bigquery"``, ``"postgres"``, ...;
        extra ``scale``). Replace the source in the first FROM by the name of the table.

    Returns
    -------
    str

    Raises
    ------
    DataError
        The data are not a DuckDB relation, or the dialect is unknown.
    """
    frame = lazy_frame(data)
    if frame is None or frame.implementation is not nw.Implementation.DUCKDB:
        raise DataError(
            f"SQL is written for a DuckDB relation; found {type(data).__name__}; use one with the same columns"
        )
    text = str(sums_query(_spec(equations, data), frame).to_native().sql_query())
    return text if dialect == "duckdb" else _translated(text, dialect)


def _translated(text: str, dialect: str) -> str:
    try:
        import sqlglot
    except ImportError as error:
        raise DataError('other dialects need sqlglot; install it with: pip install "mlmed[scale]"') from error
    if dialect not in sqlglot.Dialect.classes:
        known = ", ".join(sorted(name for name in sqlglot.Dialect.classes if name))
        raise DataError(f"unknown SQL dialect {dialect!r}; use one of {known}")
    return str(sqlglot.transpile(text, read="duckdb", write=dialect, pretty=True)[0])
