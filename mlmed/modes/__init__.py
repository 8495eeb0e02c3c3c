"""What a user calls: each mode builds a ModelSpec, runs the one engine, and wraps the estimates."""
