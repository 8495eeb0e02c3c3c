"""What the engines that hold rows raise, under our own name."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from narwhals.exceptions import NarwhalsError

from mlmed.errors import DataError

__all__ = ["engine_rows", "first_line"]

#: Errors of the engines, by the module that has them; looked up in those that have been loaded.
ERRORS = {
    "duckdb": "Error",
    "ibis.common.exceptions": "IbisError",
    "polars.exceptions": "PolarsError",
    "py4j.protocol": "Py4JError",
    "pyarrow.lib": "ArrowException",
    "pyspark.errors": "PySparkException",
}


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
        raise DataError(
            f"the rows cannot be read from the engine that holds them: {first_line(error)}. Check that its connection "
            "is open, that its tables and files are still there and that its columns can be computed, or give a data "
            "frame"
        ) from error


def first_line(error: BaseException) -> str:
    """What an engine said, without the query and the plan that follow."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".! ")


def _errors() -> tuple[type[Exception], ...]:
    """Those of the file system, of narwhals, and of the engines that have been loaded."""
    own = (getattr(sys.modules[module], name) for module, name in ERRORS.items() if module in sys.modules)
    return (OSError, NarwhalsError, *own)
