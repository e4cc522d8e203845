"""From an audit to neutral parts to HTML or text."""
