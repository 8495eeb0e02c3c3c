"""Many fits: independent seeded replicates over joblib's backends (processes, Dask, Ray)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import DataError
from mlmed.options import check_count, check_flag, check_jobs, check_seed, shown

__all__ = ["leave_out", "replicate"]

Result = TypeVar("Result")
#: A worker gets its replicates in about this many pieces, none larger than MOST: the task travels once a piece.
PIECES, MOST = 25, 100


def replicate(
    task: Callable[[np.random.Generator], Result],
    n: int,
    *,
    seed: int,
    n_jobs: int | None = None,
    progress: bool = False,
) -> list[Result]:
    """Call ``task`` n times, each with a random generator of its own.

    Replicate k gets child k of ``SeedSequence(seed)``, so results do not depend on the number of workers or on
    the backend; ``with joblib.parallel_config(backend="dask"):`` runs them on a cluster (docs/scale.md).

    Parameters
    ----------
    task : callable
        A function of a ``numpy.random.Generator``; it must be importable by the workers.
    n : int
        Replicates.
    seed : int
        Seed of the whole study.
    n_jobs : int, optional
        Workers; by default those of the surrounding ``joblib.parallel_config``, or one.
    progress : bool
        Show a progress bar on standard error.

    Raises
    ------
    DataError
        ``task`` cannot be called; ``n``, ``seed``, ``n_jobs`` or ``progress`` is none.

    Examples
    --------
    >>> def mean_of_three(rng):
    ...     return float(rng.normal(size=3).mean())
    >>> replicate(mean_of_three, 2, seed=1) == replicate(mean_of_three, 3, seed=1)[:2]
    True
    """
    import joblib
    from tqdm import tqdm

    if not callable(task):
        raise DataError(f"task is a function of a numpy.random.Generator; found {shown(task)}")
    n, seed = check_count(n, "replicates", least=0, error=DataError), check_seed(seed, "replicate()", error=DataError)
    n_jobs, progress = check_jobs(n_jobs, error=DataError), check_flag(progress, "progress", error=DataError)
    children = np.random.SeedSequence(seed).spawn(n)
    run = joblib.Parallel(n_jobs=n_jobs, return_as="generator" if _streams() else "list")
    size = min(max(n // (PIECES * joblib.effective_n_jobs(n_jobs)), 1), MOST)
    pieces = [children[start : start + size] for start in range(0, n, size)]
    results: list[Result] = []
    with tqdm(total=n, disable=not progress) as bar:
        for found in run(joblib.delayed(_seeded)(task, piece) for piece in pieces):
            results += found
            bar.update(len(found))
    return results


def leave_out(task: Callable[[int], Result], units: NDArray[np.intp], *, n_jobs: int | None = None) -> list[Result]:
    """Call ``task`` with each of the units, as a jackknife leaves them out; workers as in ``replicate``.

    Examples
    --------
    >>> leave_out(abs, np.array([-2, 1, -3]))
    [2, 1, 3]
    """
    import joblib

    pieces = np.array_split(units, max(min(4 * joblib.effective_n_jobs(n_jobs), len(units)), 1))
    run = joblib.Parallel(n_jobs=n_jobs)
    return [one for found in run(joblib.delayed(_each)(task, piece) for piece in pieces) for one in found]


def _streams() -> bool:
    """Whether the backend of the surrounding ``joblib.parallel_config`` gives results as they come."""
    from joblib.parallel import get_active_backend

    return bool(get_active_backend()[0].supports_return_generator)


def _each(task: Callable[[int], Result], units: NDArray[np.intp]) -> list[Result]:
    return [task(int(unit)) for unit in units]


def _seeded(task: Callable[[np.random.Generator], Result], children: list[np.random.SeedSequence]) -> list[Result]:
    return [task(np.random.default_rng(child)) for child in children]
