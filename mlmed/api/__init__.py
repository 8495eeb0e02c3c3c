"""Functions that users call: each builds a system, fits it, and returns Results."""
