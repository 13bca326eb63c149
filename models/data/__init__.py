"""Data modules, one per file.

All data come with a package that is installed anyway; nothing is downloaded.
"""
