"""From the bytes of any trace to tables of integers."""
