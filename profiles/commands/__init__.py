"""The commands hotlap profile and hotlap review."""
