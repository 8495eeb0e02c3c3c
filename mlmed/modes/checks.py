"""Counts, seeds, workers and names as users give them."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral
from typing import Any

from mlmed.errors import EffectError

__all__ = ["check_count", "check_jobs", "check_own_name", "check_seed"]


def _is_whole(value: Any) -> bool:
    """Whether it is an integer of Python or NumPy; truth values are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_count(value: Any, of: str) -> int:
    """A number of draws or replicates."""
    if not _is_whole(value) or value < 1:
        raise EffectError(f"n is a number of {of}, a whole number from 1; found {value!r}")
    return int(value)


def check_seed(value: Any, what: str) -> int:
    """A seed; ``what`` draws the numbers."""
    if value is None:
        raise EffectError(f"{what} draws random numbers: give a seed, as in seed=1, to get them again")
    if not _is_whole(value) or value < 0:
        raise EffectError(f"seed is a whole number from 0, as in seed=1, of which generators are made; found {value!r}")
    return int(value)


def check_own_name(name: str, columns: Collection[str], what: str) -> None:
    """Refuse a name of the user's that a table has for a column of its own."""
    if name in columns:
        raise EffectError(
            f"{what} called {name!r} cannot be told from a column of the table, which has {', '.join(columns)}; rename "
            "it in the data and fit again"
        )


def check_jobs(value: Any) -> int | None:
    """A number of workers; negative ones count from the number of cores, as in joblib."""
    if value is None:
        return None
    if not _is_whole(value) or value == 0:
        raise EffectError(
            f"n_jobs is a number of workers: 1 for none beside this process, -1 for one per core; found {value!r}"
        )
    return int(value)
