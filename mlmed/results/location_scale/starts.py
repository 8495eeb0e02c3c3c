"""The same fit from random starts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from mlmed.fit.starts import End, table_of_starts
from mlmed.quadrature.fit import Fit

__all__ = ["starts_table"]


def starts_table(fit: Fit, n: int, *, seed: int, n_jobs: int | None) -> pd.DataFrame:
    """``table_of_starts`` of a location-scale model."""
    return table_of_starts(partial(_from_random_start, fit), fit.estimates.loglik, n, seed=seed, n_jobs=n_jobs)


def _from_random_start(fit: Fit, rng: np.random.Generator) -> End:
    found, apart = fit.from_other_start(rng)
    return fit.estimates.loglik + (found.loglik - fit.optimum.loglik), found.certificate, apart
