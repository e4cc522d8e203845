"""Concepts that a latent may stand for, checked against computable labels."""
