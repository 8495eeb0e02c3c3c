"""Conditions of the coverage study and the data of each replicate."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from mlmed.simulate import BPGTruth, bpg

__all__ = ["CELLS", "REPRESENTATIVE", "SEED", "Cell", "simulate", "truths"]

#: Seed of the whole study; replicate k of cell c has the spawn key (c, k) whatever is computed from it.
SEED = 20061

CLUSTERS, SIZES = (25, 50, 100, 200), (4, 8, 16, 32)
PATHS, COVARIANCES = (0.3, 0.6), (-0.113, 0.0, 0.113)


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition: a = b = ``path``, c' = 0.2, variances of the slopes 0.16, 0.16 and 0.04."""

    number: int
    skewed: bool
    clusters: int
    size: int
    path: float
    cov_ab: float

    @property
    def name(self) -> str:
        """File name."""
        kind = "skewed" if self.skewed else "normal"
        return f"{kind}-{self.clusters}x{self.size}-path{self.path:g}-cov{self.cov_ab:g}"

    @property
    def truth(self) -> BPGTruth:
        """Population values."""
        G = np.diag([0.6, 0.16, 0.4, 0.16, 0.04])
        G[1, 3] = G[3, 1] = self.cov_ab
        return BPGTruth(a=self.path, b=self.path, cprime=0.2, G=G, sigma2=(0.65, 0.45))


CELLS = tuple(
    Cell(number, *conditions)
    for number, conditions in enumerate(product((False, True), CLUSTERS, SIZES, PATHS, COVARIANCES))
)

_CHOSEN = {
    (False, 25, 4, 0.3, 0.113), (False, 25, 8, 0.6, 0.113), (False, 50, 4, 0.3, 0.0), (False, 50, 8, 0.3, -0.113),
    (False, 100, 4, 0.6, 0.113), (False, 100, 8, 0.3, 0.113), (True, 50, 8, 0.3, 0.113), (True, 100, 8, 0.6, 0.113),
}  # fmt: skip
#: Where the costly intervals are studied.
REPRESENTATIVE = tuple(
    cell for cell in CELLS if (cell.skewed, cell.clusters, cell.size, cell.path, cell.cov_ab) in _CHOSEN
)


def simulate(cell: Cell, replicate: int) -> pd.DataFrame:
    """The data of one replicate."""
    key = np.random.SeedSequence(SEED, spawn_key=(cell.number, replicate))
    return bpg(cell.clusters, cell.size, truth=cell.truth, skewed=cell.skewed, seed=key).data


def truths(cell: Cell) -> dict[str, float]:
    """Population value of every effect."""
    truth = cell.truth
    return {
        "a": truth.a, "b": truth.b, "cprime": truth.cprime, "cov_ab": truth.cov_ab, "indirect": truth.indirect,
        "total": truth.total,
    }  # fmt: skip
