"""Entrants measured side by side: the parent, its workers, and the one timing loop."""
