"""The parts of a training around Lightning's Trainer, one a file; `hotlap.models.train` puts them
together.
"""
