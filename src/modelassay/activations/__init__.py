"""Corpora, harvests of activations, their stores and streams."""
