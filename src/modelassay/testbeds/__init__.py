"""Paired arms whose two truths are known."""
