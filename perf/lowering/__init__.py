"""From torch to what a runtime loads."""
