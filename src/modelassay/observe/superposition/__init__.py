"""Toy models of superposition: more features than dimensions, trained many at a time."""
