"""Mixed-effects location-scale models: fit, tables, text, predictions, pictures."""

from mlmed.modes.location_scale.entry import location_scale
from mlmed.modes.location_scale.results import LocationScaleResults

__all__ = ["LocationScaleResults", "location_scale"]
