"""Terms of a dictionary's loss, each in units of the data's variance."""
