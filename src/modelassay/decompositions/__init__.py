"""What takes activations apart: dictionaries, linear baselines, their formats."""
