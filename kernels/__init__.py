"""Triton kernels for the operations that cost most memory traffic: one operation a file in ops/. Imports nothing of ours."""
