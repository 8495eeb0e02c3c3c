"""Numerics that serve every model: no data, no names of parameters."""
