"""Is HEAD worse than BASE."""
