"""The engine: Problem -> criterion -> optimum -> estimates and their covariance, on arrays only."""
