"""Which evidence an audit gathers, the passports, the verdict rule, and the result on disk."""
