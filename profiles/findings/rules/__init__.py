"""One rule a file: `look(facts)` returns a Fix with its evidence, or None.

A rule is found by its file.
"""
