"""What all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import pandas as pd

# Threaded BLAS sums in an order that varies with the load, which moves last digits, and several test
# workers with several threads each are slower than one thread each. BLAS reads these variables when numpy
# is first imported, so nothing above may import it.
for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

# Some tests run in a folder of their own, where a relative address would lead elsewhere.
if os.environ.get("MLMED_DATA"):
    os.environ["MLMED_DATA"] = os.path.abspath(os.environ["MLMED_DATA"])


@pytest.fixture(autouse=True)
def no_figures_left() -> Iterator[None]:
    """Close what a test drew."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(scope="session")
def dataset() -> Callable[[str], pd.DataFrame]:
    """Return a function that loads a data set by name, and skips the test where it cannot be had.

    On CI nothing is skipped: there a data set that cannot be had fails the test.
    """
    from mlmed import datasets
    from mlmed.errors import DatasetError

    absent: dict[str, str] = {}  # waiting for the network once is enough

    def load(name: str) -> pd.DataFrame:
        if name not in absent:
            try:
                return datasets.load(name)
            except DatasetError as error:
                absent[name] = str(error)
        if os.environ.get("CI") == "true":
            pytest.fail(absent[name])
        pytest.skip(absent[name])

    return load
