"""Data modules, one per file.

All data come with an installed package; nothing is downloaded.
"""
