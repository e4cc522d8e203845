"""The papers that methods come from, by subject."""
