"""The target of what has none: a pixel without measurement, a token that was not masked."""

# What torch.nn.functional.cross_entropy leaves out by default.
UNKNOWN = -100
