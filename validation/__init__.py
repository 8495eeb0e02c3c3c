"""Recomputation of published and reference numbers."""
