"""Simulated mediation data with their truth, the power of a planned design, and a study of estimators.

``bpg`` draws a data set, ``power`` estimates the power of a design, ``study`` shows why a*b is biased when slopes
covary.
"""

from mlmed.simulate.population import BPGTruth, Simulated, bpg
from mlmed.simulate.power import PowerResults, power
from mlmed.simulate.study import StudyResults, study

__all__ = ["BPGTruth", "PowerResults", "Simulated", "StudyResults", "bpg", "power", "study"]
