"""Other libraries beside this one: what they write, what a step costs, how fast they learn."""
