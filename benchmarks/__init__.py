"""Measured figures: each module prints its own with `python -m benchmarks.NAME`."""
