"""The subject that modelassay brings along."""
