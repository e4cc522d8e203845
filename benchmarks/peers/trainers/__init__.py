"""Each library's own training step behind one interface.

A module here has ``ARCHITECTURES``, the names that it can make, and ``make(job, sample)``.
"""
