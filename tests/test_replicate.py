"""Seeded replicates: the same numbers from one process, several processes, and a Dask cluster."""

from __future__ import annotations

import joblib
import numpy as np
import pytest

import mlmed
from mlmed.errors import DataError
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
