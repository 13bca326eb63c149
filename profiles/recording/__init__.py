"""A case or a training recorded by its own profiler."""
