"""Separate equations (Krull and MacKinnon): fits, effects, intervals, text."""
