"""Where directions lie relative to each other."""
