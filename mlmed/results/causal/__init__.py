"""Potential-outcome mediation: fits, effects, intervals, tests, sensitivity."""
