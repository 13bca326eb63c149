"""One data module per file.

All data come with a package that is installed anyway; nothing is downloaded.
"""
