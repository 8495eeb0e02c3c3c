"""Potential-outcome mediation: fits, effects, intervals, tests, sensitivity."""

from mlmed.modes.causal.entry import causal
from mlmed.modes.causal.results import CausalResults
from mlmed.modes.causal.sensitivity_results import SensitivityResults

__all__ = ["CausalResults", "SensitivityResults", "causal"]
