"""One rule a file:

`look(facts)` gives a Fix with its evidence, or None. A rule is found by its file.
"""
