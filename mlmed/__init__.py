"""Multilevel mediation by mixed models: certified optima, indirect effects with their covariance.

``mediate`` fits the Bauer-Preacher-Gil model, ``mixed`` one equation, ``stack`` shows the stacked table.
"""

from mlmed import datasets, errors
from mlmed.data.stacking import stack
from mlmed.modes.grams import Grams, grams, grams_sql
from mlmed.modes.mediation import MediationResults, mediate
from mlmed.modes.mixed import mixed
from mlmed.modes.results import MixedResults
from mlmed.replicate import replicate
from mlmed.simulate import simulate_bpg

__version__ = "0.1.0"

__all__ = [
    "Grams",
    "MediationResults",
    "MixedResults",
    "__version__",
    "datasets",
    "errors",
    "grams",
    "grams_sql",
    "mediate",
    "mixed",
    "replicate",
    "simulate_bpg",
    "stack",
]
