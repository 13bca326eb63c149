"""A metric is one file here (or in a package named by the entry point group `hotlap.metrics`); the
file's name is the metric's name.

measure(seen: Observations) -> Samples      raises Refusal where the metric cannot be had; its
                                            reason becomes `absent`
"""
