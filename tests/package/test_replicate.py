"""Seeded replicates: the same numbers from one process, several processes, and a Dask cluster."""

from __future__ import annotations

import pickle
from collections import Counter

import joblib
import numpy as np
import pytest

import mlmed
from mlmed.errors import DataError, NotIdentifiedError
from mlmed.replication import Failure, Replicate, Resampled, leave_out, stacked
from tests.studies import indirect_effect

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def serial() -> list[float]:
    """Six replicates in this process."""
    return mlmed.replicate(indirect_effect, 6, seed=3)


def test_replicates_do_not_depend_on_how_many_there_are(serial):
    assert mlmed.replicate(indirect_effect, 3, seed=3) == serial[:3]
    assert mlmed.replicate(indirect_effect, 3, seed=4) != serial[:3]
    assert len(set(serial)) == 6


def test_two_processes(serial):
    assert mlmed.replicate(indirect_effect, 6, seed=3, n_jobs=2) == serial


def test_a_local_dask_cluster(serial):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, processes=False) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        found = mlmed.replicate(indirect_effect, 6, seed=3)
    np.testing.assert_allclose(found, serial, rtol=1e-12)


def test_a_negative_number_is_refused():
    with pytest.raises(DataError, match="number of replicates"):
        mlmed.replicate(indirect_effect, -1, seed=1)


def test_progress(capsys):
    mlmed.replicate(indirect_effect, 1, seed=1, progress=True)
    assert "1/1" in capsys.readouterr().err


# -- what replicates give ------------------------------------------------------------------------------------------


def test_failures_are_counted_by_their_code():
    """Numbers, brackets and colons in the text do not matter."""
    found = [
        Failure("flat", "flat in m:x (curvature 1e-9)", "first"),
        Failure("flat", "flat in m:x (curvature 2e-9)", "second"),
        Failure("few", "flat in m:x (curvature 1e-9)"),
    ]
    (first, most), (second, one) = Counter(found).most_common()
    assert (first.code, str(first), most) == ("flat", "flat in m:x (curvature 1e-9): first", 2)
    assert (second.code, one) == ("few", 1)
    assert found[0].within("equation y, ") != found[0]
    assert str(found[2].within("equation y, ")) == "equation y, flat in m:x (curvature 1e-9)"


def test_errors_carry_a_code_through_pickle():
    """Of their class, unless where they are raised says more."""
    plain, coded = DataError("no data"), NotIdentifiedError("equation y: (1)", code="infinite")
    for error in (plain, coded):
        again = Failure.of(pickle.loads(pickle.dumps(error)))
        assert (again.code, again.text) == (error.code, str(error))
    assert (plain.code, coded.code) == ("DataError", "infinite")


def test_failed_replicates_are_rows_of_nan():
    found = stacked([Replicate(np.array([1.0, 2.0])), Failure("few", "few"), Replicate(np.array([3.0, 4.0]))], 2)
    np.testing.assert_array_equal(found, [[1.0, 2.0], [np.nan, np.nan], [3.0, 4.0]])
    assert stacked([Failure("few", "few")], 3).shape == (1, 3)


def test_units_are_drawn_within_strata_and_left_out():
    """The same stream as drawing each stratum by hand; 3 is in no stratum, so it is neither drawn nor left in."""
    units = Resampled(lambda index: Replicate(index.astype(float)), (np.array([0, 4]), np.array([1, 2, 5])))
    np.testing.assert_array_equal(units.units, [0, 1, 2, 4, 5])
    rng, own = np.random.default_rng(7), np.random.default_rng(7)
    for _ in range(5):
        by_hand = [np.array([0, 4])[own.integers(2, size=2)], np.array([1, 2, 5])[own.integers(3, size=3)]]
        np.testing.assert_array_equal(units(rng).values, np.concatenate(by_hand))
    np.testing.assert_array_equal(units.without(2).values, [0, 1, 4, 5])
    assert [len(one.values) for one in leave_out(units.without, units.units)] == [4] * 5
