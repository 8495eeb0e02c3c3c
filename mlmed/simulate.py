"""Generators that return data and the truth they were made from; every one takes a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from mlmed.errors import DataError

__all__ = ["BPGTruth", "Simulated", "simulate_bpg"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BPGTruth:
    """Population values of a Bauer-Preacher-Gil model.

    Attributes
    ----------
    a, b, cprime : float
        Average paths x to m, m to y, x to y.
    G : (5, 5) array
        Covariance (variance scale) of the random effects in the order intercept of m, a, intercept of y, b, c'.
    sigma2 : (2,) array
        Residual variances of m and y.

    Examples
    --------
    >>> round(BPGTruth().indirect, 3)
    0.473
    """

    a: float = 0.6
    b: float = 0.6
    cprime: float = 0.2
    G: ArrayLike = (
        (0.6, 0.0, 0.0, 0.0, 0.0),
        (0.0, 0.16, 0.0, 0.113, 0.0),
        (0.0, 0.0, 0.4, 0.0, 0.0),
        (0.0, 0.113, 0.0, 0.16, 0.0),
        (0.0, 0.0, 0.0, 0.0, 0.04),
    )
    sigma2: ArrayLike = (0.65, 0.45)

    @property
    def cov_ab(self) -> float:
        """Covariance of the slopes a_j and b_j."""
        return float(np.asarray(self.G)[1, 3])

    @property
    def indirect(self) -> float:
        """Average indirect effect a b + cov_ab."""
        return self.a * self.b + self.cov_ab

    @property
    def total(self) -> float:
        """Average total effect."""
        return self.indirect + self.cprime


@dataclass(frozen=True, slots=True)
class Simulated:
    """A data set and its truth.

    Attributes
    ----------
    data : DataFrame
        Columns id, x, m, y; one row per observation.
    truth : BPGTruth
        Values it was made from.
    ranef : (n_clusters, 5) array
        Random effects that were drawn.
    """

    data: pd.DataFrame
    truth: BPGTruth
    ranef: Array


def simulate_bpg(
    n_clusters: int = 100,
    n_rows: int = 8,
    *,
    truth: BPGTruth | None = None,
    x_between: float = 0.9,
    skewed: bool = False,
    seed: int | np.random.SeedSequence,
) -> Simulated:
    """Draw a 1-1-1 mediation data set with random slopes (Bauer, Preacher & Gil, 2006).

    Parameters
    ----------
    n_clusters, n_rows : int
        Clusters, and rows in each.
    truth : BPGTruth, optional
        Population values; by default those of the 2006 paper's simulated example.
    x_between : float
        x is ``x_between`` times a normal cluster value plus a normal row value.
    skewed : bool
        Random effects with the same covariance made of exponential instead of normal variables (skewness 2 and
        kurtosis 9 of each before they are mixed).
    seed : int or SeedSequence
        Seed of ``numpy.random.default_rng``.

    Raises
    ------
    DataError
        If G has a negative eigenvalue.

    Examples
    --------
    >>> sim = simulate_bpg(50, 4, seed=1)
    >>> sim.data.shape, sim.truth.total
    ((200, 4), 0.673)
    """
    truth = truth or BPGTruth()
    G = np.asarray(truth.G, dtype=float)
    values, vectors = np.linalg.eigh(G)
    if values[0] < -1e-10 * values[-1]:
        raise DataError(f"G has the eigenvalue {values[0]:.3g}; a covariance matrix has none below zero")
    rng = np.random.default_rng(seed)
    # for normal variables any root will do; the symmetric one spreads the skewness evenly
    root = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ (vectors.T if skewed else np.eye(5))
    standard = rng.exponential(size=(n_clusters, 5)) - 1.0 if skewed else rng.normal(size=(n_clusters, 5))
    u = standard @ root.T
    codes = np.repeat(np.arange(n_clusters), n_rows)
    e = rng.normal(size=(codes.size, 2)) * np.sqrt(np.asarray(truth.sigma2, dtype=float))
    x = x_between * rng.normal(size=n_clusters)[codes] + rng.normal(size=codes.size)
    v = u[codes]
    m = v[:, 0] + (truth.a + v[:, 1]) * x + e[:, 0]
    y = v[:, 2] + (truth.b + v[:, 3]) * m + (truth.cprime + v[:, 4]) * x + e[:, 1]
    return Simulated(pd.DataFrame({"id": codes + 1, "x": x, "m": m, "y": y}), truth, u)
