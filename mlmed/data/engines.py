"""What the engines that hold rows raise, under our own name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from narwhals.exceptions import NarwhalsError

from mlmed.errors import DataError

__all__ = ["engine_errors", "engine_rows"]


@contextmanager
def engine_rows() -> Iterator[None]:
    """Where rows are asked of an engine, which only then says what it cannot do.

    Raises
    ------
    DataError
        The engine gave up: its connection is closed, a table or file is gone, a value is not of its type.
    """
    try:
        yield
    except _errors() as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".! ")
        raise DataError(
            f"the rows cannot be read from the engine that holds them: {first}. Check that its connection is open, "
            "that its tables and files are still there and that its columns can be computed, or give a data frame"
        ) from error


def _errors() -> tuple[type[Exception], ...]:
    """Those of the file system, of narwhals, and of the engines that have been loaded."""
    polars, arrow = sys.modules.get("polars"), sys.modules.get("pyarrow")
    own = (polars.exceptions.PolarsError,) if polars is not None else ()
    batches = (arrow.ArrowException,) if arrow is not None else ()
    return (OSError, NarwhalsError, *engine_errors(), *own, *batches)


def engine_errors() -> tuple[type[Exception], ...]:
    """Errors of DuckDB while it scans files, if it has been loaded."""
    module = sys.modules.get("duckdb")
    return (module.Error,) if module is not None else ()
