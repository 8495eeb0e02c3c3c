"""The examples of the source documents: published numbers, ours, and the differences."""

from mlmed.reproduce.registry import describe, names, run
from mlmed.reproduce.tables import Compared, Reproduction

__all__ = ["Compared", "Reproduction", "describe", "names", "run"]
