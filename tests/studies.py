"""A task that workers of another process can import."""

from __future__ import annotations

import warnings

import numpy as np

import mlmed
from mlmed.errors import BoundaryWarning


def indirect_effect(rng: np.random.Generator) -> float:
    """Simulate, fit, return the indirect effect."""
    data = mlmed.simulate.bpg(25, 6, seed=int(rng.integers(2**31))).data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BoundaryWarning)
        fit = mlmed.mediate("m ~ x + (1 + x | id)", "y ~ m + x + (1 + m + x | id)", data)
    return float(fit.effects().set_index("term").loc["indirect", "estimate"])
