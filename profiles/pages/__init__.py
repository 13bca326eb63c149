"""A review as text, as a page, and for Perfetto."""
