"""Fits in several threads: the process's warning filters stay as they are, and results are those of one worker."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pandas as pd
import pytest

import mlmed
from mlmed.errors import filtering
from mlmed.replication import Resampled

WORKERS = 4


def _data(seed: int = 0, *, J: int = 20, n: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(J), n)
    x, e, f = rng.standard_normal((3, J * n))
    u, v = rng.standard_normal((2, J))
    m = 0.5 * x + u[g] + e
    y = 0.4 * m + 0.2 * x + v[g] + f
    return pd.DataFrame({"id": g, "x": x, "m": m, "y": y, "z": (y + rng.standard_normal(J * n) > 0.0) * 1})


def _fits(seed: int) -> None:
    data = _data(seed)
    mlmed.mixed("y ~ x + (1 | id)", data)
    mlmed.piecewise("m ~ x + (1 | id)", "y ~ x + m + (1 | id)", data)
    mlmed.causal("m ~ x", "z ~ m + x", data, treatment="x", family_y="logit")
    mlmed.location_scale("y ~ x + (1 | id)", "~ x", data)


def _bootstraps(seed: int) -> None:
    data = _data(seed)
    fit = mlmed.causal("m ~ x", "z ~ m + x", data, treatment="x", family_y="probit")
    fit.bootstrap(20, seed=1, n_jobs=WORKERS)
    mlmed.mediate("m ~ x + (1 | id)", "y ~ m + x + (1 | id)", data).bootstrap(20, seed=1, n_jobs=WORKERS)


def _studies(seed: int) -> None:
    mlmed.simulate.power(20, 6, a=0.5, b=0.5, cov_ab=0.1, n=8, seed=seed, n_jobs=WORKERS)


@pytest.mark.parametrize("work", [_fits, _bootstraps, _studies])
@pytest.mark.filterwarnings("ignore::mlmed.errors.MlmedWarning")
def test_filters_are_as_before(work: Callable[[int], None]) -> None:
    """Blocks of ``catch_warnings`` that overlap would leave those of another thread."""

    def threaded(seed: int) -> None:
        with joblib.parallel_config(backend="threading"):
            work(seed)

    threaded(0)  # packages that are loaded now add filters of their own
    before = list(warnings.filters)
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(threaded, range(WORKERS)))
    assert list(warnings.filters) == before


def test_blocks_do_not_overlap() -> None:
    """The second thread waits until the first has put its filters back."""
    inside, go, order = threading.Event(), threading.Event(), []

    def first() -> None:
        with filtering(ignore=RuntimeWarning):
            inside.set()
            go.wait(5.0)
            order.append("first")

    def second() -> None:
        inside.wait(5.0)
        go.set()
        with filtering(error=(UserWarning,)):
            order.append("second")

    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda work: work(), (first, second)))
    assert order == ["first", "second"]
    assert list(warnings.filters) == before


@pytest.fixture(scope="module")
def causal() -> mlmed.Results:
    """A linear and a probit equation."""
    return mlmed.causal("m ~ x", "z ~ m + x", _data(), treatment="x", family_y="probit")


def test_causal_jackknife_has_workers(causal: mlmed.Results, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are left out by as many workers as were asked for, and the numbers are those of one."""
    own, seen = Resampled.without, set()

    def watched(task: Resampled, unit: int) -> object:
        seen.add(threading.get_ident())
        return own(task, unit)

    monkeypatch.setattr(Resampled, "without", watched)
    alone = causal.bootstrap(5, seed=1).jackknife
    assert seen == {threading.get_ident()}
    seen.clear()
    with joblib.parallel_config(backend="threading"):
        several = causal.bootstrap(5, seed=1, n_jobs=2).jackknife
    assert threading.get_ident() not in seen
    pd.testing.assert_frame_equal(alone, several, check_exact=True)
    left = _data().drop(index=7).reset_index(drop=True)
    again = mlmed.causal("m ~ x", "z ~ m + x", left, treatment="x", family_y="probit")
    expected = again.effects().set_index("term")["estimate"]
    # two iterations to a Newton decrement of 1e-14 and better
    assert alone.loc[7, "acme"] == pytest.approx(expected["acme"], abs=1e-9)
