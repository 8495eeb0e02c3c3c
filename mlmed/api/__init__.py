"""What a user calls: each function builds a system, fits it, and returns its results."""
