"""Many fits: independent seeded replicates over joblib's backends (processes, Dask, Ray), and their results."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import lru_cache
from multiprocessing import resource_tracker
from types import GeneratorType
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mlmed.errors import DataError, MlmedError, filtering
from mlmed.options import check_count, check_flag, check_jobs, check_seed
from mlmed.text import shown

Result = TypeVar("Result")
Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: Seconds between a worker's checks that its owner process is alive.
LOOK = 1.0
#: Number of pieces per worker, and the most replicates in one: the task is sent once per piece.
PIECES, MOST = 25, 100


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a replicate has no estimates; failures with the same code are equal, so that they are counted together.

    Attributes
    ----------
    code : str
        What went wrong.
    text : str
        Message common to all failures with this code.
    detail : str
        Details of this failure, such as values; usually empty.

    Examples
    --------
    >>> flat = Failure("not-certified", "not certified", "the likelihood is flat")
    >>> flat == Failure("not-certified", "not certified", "gradient 1.2e-04"), str(flat)
    (True, 'not certified: the likelihood is flat')
    >>> flat.within("equation y, ").text
    'equation y, not certified'
    """

    code: str
    text: str = field(compare=False)
    detail: str = field(default="", compare=False)

    @classmethod
    def of(cls, error: MlmedError) -> Failure:
        """Build from an error."""
        return cls(error.code, str(error))

    def within(self, where: str) -> Failure:
        """The failure of a part, counted separately; ``where`` is prefixed to its text."""
        return changed(self, code=where + self.code, text=where + self.text)

    def __str__(self) -> str:
        return ": ".join(filter(None, [self.text, self.detail]))


@dataclass(frozen=True, slots=True)
class Replicate:
    """Estimates of a replicate.

    Attributes
    ----------
    values : (k,) array
        Its estimates.
    singular : bool
        Whether its optimum lies on the boundary.
    """

    values: Array
    singular: bool = False


class LeaveOut(Protocol):
    """Fits without one unit at a time (jackknife, influence)."""

    @property
    def units(self) -> Indices:
        """Units that can be left out."""
        ...

    def without(self, unit: int) -> Replicate | Failure:
        """Fit all units but this one."""
        ...


@dataclass(frozen=True, slots=True)
class Resampled:
    """Units drawn with replacement (call it), or left out one at a time.

    Attributes
    ----------
    at : callable
        Fits the listed units.
    strata : tuple of int arrays
        Units of each stratum, drawn within it, so that it keeps its size.
    """

    at: Callable[[Indices], Replicate | Failure]
    strata: tuple[Indices, ...]

    @property
    def units(self) -> Indices:
        """All units."""
        return np.sort(np.concatenate(self.strata))

    def draw_index(self, rng: np.random.Generator) -> Indices:
        """Draw the units of one replicate."""
        return np.concatenate([members[rng.integers(len(members), size=(len(members),))] for members in self.strata])

    def __call__(self, rng: np.random.Generator) -> Replicate | Failure:
        """Draw and fit one replicate."""
        return self.at(self.draw_index(rng))

    def without(self, unit: int) -> Replicate | Failure:
        """Fit all units but this one."""
        units = self.units
        return self.at(units[units != unit])


def stacked(found: Sequence[Replicate | Failure], width: int) -> Array:
    """Values of all replicates, (n, width); NaN where they failed."""
    out = np.full((len(found), width), np.nan)
    for row, one in zip(out, found, strict=True):
        if isinstance(one, Replicate):
            row[:] = one.values
    return out


def replicate(
    task: Callable[[np.random.Generator], Result],
    n: int,
    *,
    seed: int,
    n_jobs: int | None = None,
    progress: bool = False,
) -> list[Result]:
    """Call ``task`` n times, each with its own random generator.

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
        ``task`` is not callable; ``n``, ``seed``, ``n_jobs`` or ``progress`` is invalid.

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
    size = min(max(n // (PIECES * joblib.effective_n_jobs(n_jobs)), 1), MOST)
    pieces = [children[start : start + size] for start in range(0, n, size)]
    results: list[Result] = []
    with tqdm(total=n, disable=not progress) as bar, results_of(_seeded, ((task, p) for p in pieces), n_jobs) as parts:
        for found in parts:
            results += found
            bar.update(len(found))
    return results


def leave_out(task: Callable[[int], Result], units: Indices, *, n_jobs: int | None = None) -> list[Result]:
    """Call ``task`` with each of the units (jackknife); workers as in ``replicate``.

    Examples
    --------
    >>> leave_out(abs, np.array([-2, 1, -3]))
    [2, 1, 3]
    """
    import joblib

    pieces = np.array_split(units, max(min(4 * joblib.effective_n_jobs(n_jobs), len(units)), 1))
    with results_of(_each, ((task, piece) for piece in pieces), n_jobs) as parts:
        return [one for found in parts for one in found]


@contextmanager
def results_of(
    function: Callable[..., Result], calls: Iterable[tuple[Any, ...]], n_jobs: int | None
) -> Iterator[Iterator[Result]]:
    """Results of ``function(*call)`` in order, by workers, which stop when the block is left early.

    Otherwise, after an interruption, a closed generator or an error, workers would go on computing unused results.
    Worker processes on this machine also end whenever this process does, even if killed (see ``_for``).
    """
    import joblib

    backend, _ = joblib.parallel.get_active_backend()
    how, owner = "generator" if backend.supports_return_generator else "list", os.getpid()
    # so that workers without a task end, too, if this process is killed
    early = {"initializer": _belong, "initargs": (owner,)} if type(backend).__name__ == "LokyBackend" else {}
    run = joblib.Parallel(n_jobs=n_jobs, return_as=how, **early)
    tasks = (joblib.delayed(_for)(owner, function, *call) for call in calls)
    apart = (
        how == "generator" and not getattr(backend, "supports_sharedmem", False) and joblib.effective_n_jobs(n_jobs) > 1
    )
    found: Iterator[Result] = iter(())
    try:  # a signal may come while the workers are started
        with _quiet_start() if apart else nullcontext():
            found = iter(run(tasks))
        yield found
    finally:
        if isinstance(found, GeneratorType) and found.gi_frame is not None:  # not exhausted
            with filtering(ignore=UserWarning):  # joblib advises fewer tasks
                found.close()


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Block Ctrl-C while workers start: they inherit the blocked signal (see ``_belong``)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # if loky started it, that would unblock Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _for(owner: int, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call the function in a worker of the process ``owner``."""
    if os.name == "posix" and os.getpid() != owner:
        of_joblib = multiprocessing.current_process().name.startswith("LokyProcess")  # its owner may have ended
        if of_joblib or os.getppid() == owner:
            _belong(owner)
    return function(*arguments)


@lru_cache(maxsize=1)
def _belong(owner: int) -> None:
    """Ignore interruptions, which the owner process handles, and end when it ends.

    A killed process cannot stop its workers, which would hold their data for minutes.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(LOOK)
    os._exit(1)


def _each(task: Callable[[int], Result], units: Indices) -> list[Result]:
    return [task(int(unit)) for unit in units]


def _seeded(task: Callable[[np.random.Generator], Result], children: list[np.random.SeedSequence]) -> list[Result]:
    return [task(np.random.default_rng(child)) for child in children]
