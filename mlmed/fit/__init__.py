"""Fitted models of all kinds: parameters by name, covariances, replicates and notes."""
