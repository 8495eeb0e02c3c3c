"""Command line: ``mlmed fit``, ``effects``, ``piecewise``, ``causal``, ``compare``, ``reproduce`` and more."""

from mlmed.cli.run import main

__all__ = ["main"]
