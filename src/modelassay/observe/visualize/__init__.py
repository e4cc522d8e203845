"""Images made or chosen to show what a unit of a vision model responds to."""
