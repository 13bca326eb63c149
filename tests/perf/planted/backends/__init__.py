"""One planted defect a file."""
