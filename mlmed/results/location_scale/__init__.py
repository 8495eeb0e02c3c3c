"""Mixed-effects location-scale models: fit, tables, text, predictions, pictures."""
