"""Some of many clusters, on which starts are compared that would be dear on all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlmed.data.grams import Grams
from mlmed.lmm.assembly import assemble, assembly_for
from mlmed.lmm.problem import Problem
from mlmed.system.model import ModelSpec

__all__ = ["MOST", "sample_of", "spread_clusters"]

#: Clusters up to which every start is tried on all of them, and that a sample has.
MOST = 500


def spread_clusters(grams: Grams, n: int = MOST) -> NDArray[np.intp]:
    """Positions of ``n`` clusters, at equal steps in the order of their squared responses: one of every stratum.

    What decides is what a cluster contains and not where it stands, so the order of the rows does not matter.
    """
    J, responses = len(grams.clusters), dict.fromkeys(e.response_at for e in grams.layout.equations)
    diagonal = [k * (k + 1) // 2 + k for k in responses]
    size = np.sum([grams.row(p, at) for p in range(len(grams.patterns)) for at in diagonal], axis=0)
    middle = ((np.arange(n) + 0.5) * (J / n)).astype(np.intp)
    return np.argsort(size, kind="stable")[middle]


def sample_of(spec: ModelSpec, grams: Grams) -> Problem | None:
    """The problem of a sample of clusters in the units of the whole; None where there are not too many."""
    if len(grams.clusters) <= MOST:
        return None
    assembly, chosen = assembly_for(spec, grams), spread_clusters(grams)
    return assemble(assembly, grams.sums[..., chosen], None if assembly.roots is None else assembly.roots.take(chosen))
