"""Multilevel mediation by mixed models: certified optima, indirect effects with their covariance.

``mediate`` fits the Bauer-Preacher-Gil model, ``piecewise`` separate equations (Krull and MacKinnon), ``causal``
potential outcomes; ``compare`` sets them side by side. ``mixed`` fits one equation or several responses,
``location_scale`` residual sds that differ; ``stack`` shows the stacked table.
"""

from mlmed import datasets, errors, reproduce, simulate
from mlmed.data.stacking import stack
from mlmed.modes.causal import causal
from mlmed.modes.causal.results import CausalResults
from mlmed.modes.comparison import Comparison, compare
from mlmed.modes.grams import Grams, grams, grams_sql
from mlmed.modes.location_scale import LocationScaleResults, location_scale
from mlmed.modes.mediation import MediationResults, mediate
from mlmed.modes.mixed import mixed
from mlmed.modes.piecewise import PiecewiseResults, piecewise
from mlmed.modes.results import MixedResults
from mlmed.replicate import replicate

__version__ = "0.1.0"

__all__ = [
    "CausalResults",
    "Comparison",
    "Grams",
    "LocationScaleResults",
    "MediationResults",
    "MixedResults",
    "PiecewiseResults",
    "__version__",
    "causal",
    "compare",
    "datasets",
    "errors",
    "grams",
    "grams_sql",
    "location_scale",
    "mediate",
    "mixed",
    "piecewise",
    "replicate",
    "reproduce",
    "simulate",
    "stack",
]
