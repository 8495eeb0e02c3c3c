"""Intervals of effects: delta method, Monte Carlo, products of normals, profile likelihood, bootstrap."""
