"""Chooses the fastest artefact that meets what was asked, and leaves it with a launcher."""
