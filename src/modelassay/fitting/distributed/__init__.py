"""Fitting with many processes: tokens are divided between them, and so are latents."""
