"""What holds a model back, what would help, what changed, and how far to trust it."""
