"""What the harness knows of a workload without having its module: one call's work, its weights, its
task metric.
"""

from __future__ import annotations

import msgspec

from .case import Better
from .result import Real
from .stored import Count


class Work(msgspec.Struct, frozen=True):
    """What one call of the batch does."""

    # Floating-point operations of matrix products, convolutions and attention.
    flops: Count
    # aten operators that eager dispatches.
    operators: Count
    # Longest sum behind any element of the outputs.
    terms: Count
    # Items of one sample (tokens of a sequence, 1 for an image), and what one is called.
    items: Count
    item: str
    # Whether the outputs depend on the inputs, so that a stale output can be noticed.
    sensitive: bool


class TaskMetric(msgspec.Struct, frozen=True):
    """The task metric on the validation split, and what it may lose."""

    metric: str
    better: Better
    # What fp32 eager reaches.
    reference: Real
    # How much worse any precision but int8 may be, in the metric's own unit.
    budget: float
    # How much worse int8 may be.
    int8_budget: float


class Subject(msgspec.Struct, frozen=True):
    """What a race is about."""

    work: Work
    # Where the weights come from, in words.
    weights: str
    task: TaskMetric | None = None
    # What a reader of every result should know.
    warnings: tuple[str, ...] = ()
    # What to call each output; empty where that is not known.
    outputs: tuple[str, ...] = ()
    # What forward calls each input; empty where that is not known.
    inputs: tuple[str, ...] = ()
