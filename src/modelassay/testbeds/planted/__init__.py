"""Language models with planted features whose use is known by construction."""
