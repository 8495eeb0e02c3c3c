"""LmmFit models: the optimum with its names, covariances and notes; the specification and its sufficient statistics."""
