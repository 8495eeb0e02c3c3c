"""Numerical methods shared by all models: no data, no names of parameters."""
