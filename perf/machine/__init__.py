"""This machine: what it is, what it can do at most, and how noisy it is."""
