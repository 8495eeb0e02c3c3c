"""Chunks of clusters over threads, results in order, so that sums do not depend on the number of threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

from mlmed.errors import DataError

__all__ = ["ordered_map", "worker_count"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Environment variable that sets the number of threads.
VARIABLE = "MLMED_THREADS"


def worker_count() -> int:
    """Threads for a pass over many clusters: the processors this process may use (8 at most), or MLMED_THREADS.

    Raises
    ------
    DataError
        If MLMED_THREADS is not a positive whole number.
    """
    asked = os.environ.get(VARIABLE)
    if asked is None:
        return max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8))
    if not asked.isdigit() or int(asked) < 1:
        raise DataError(f"{VARIABLE} must be a positive whole number of threads; found {asked!r}")
    return int(asked)


def ordered_map(function: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """``map`` over threads, results in order; numpy releases the interpreter lock inside its loops."""
    if workers == 1:
        yield from map(function, items)
        return
    # one BLAS thread in each of ours: they would otherwise compete for the same processors
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        yield from pool.map(function, items)
