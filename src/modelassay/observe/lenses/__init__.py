"""Lenses: what the residual stream would predict if the model ended at each depth."""
