"""The command line: one file a command, each parses, calls public functions and prints.

`--help` loads neither torch nor transformers: what a command needs is imported inside it.
"""
