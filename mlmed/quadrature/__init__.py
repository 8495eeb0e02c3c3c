"""Location-scale models: the log residual sd has its own fixed and random effects; arrays only."""
