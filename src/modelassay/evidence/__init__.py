"""One file per question that an audit asks."""
