"""Profiler traces: read any of them, measure what is in them, say what to do about it."""
