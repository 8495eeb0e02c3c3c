"""Recovery of effects on simulated data with a stated truth."""
