"""Estimators and tolerances that the tests of simulations share."""

from __future__ import annotations

from mlmed.simulate.study import ESTIMATORS

#: Monte Carlo claims are checked to this many Monte Carlo standard errors: a true one fails once in 2,000 times.
ERRORS = 3.5
SEPARATE, PRODUCT, JOINT_REML, JOINT_ML = ESTIMATORS
