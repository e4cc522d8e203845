"""What everything else stands on: errors, files, provenance, progress, references, randomness."""
