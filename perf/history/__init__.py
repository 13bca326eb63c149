"""Stored results over time."""
