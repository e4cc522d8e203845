"""Vision models whose architecture is written here, so that no other library is needed."""
