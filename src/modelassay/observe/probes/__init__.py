"""Probes with their controls: what can be decoded at a site, and whether the model uses it."""
