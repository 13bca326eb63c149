"""A user's own function around a model, timed as one call: decoding, what comes before the model,
the model, what comes after it.

The function takes the model and does all of its work: `def predict(model): ...`. The model takes
numpy arrays or tensors and returns the same kind, of several outputs a tuple; whatever runs it, the
function is the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

from ..lookup import workloads
from ..terms.contract import Step
from ..terms.reasons import Refusal
from .messages import Breakdown

# Calls behind a breakdown.
CALLS = 5


class Model:
    """A loaded step as the function calls it."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.spent_s = 0.0

    def __call__(self, *inputs: Any) -> Any:
        start = perf_counter()
        tensors = bool(inputs) and hasattr(inputs[0], "detach")
        arrays = tuple(value.detach().cpu().numpy() if tensors else value for value in inputs)
        outputs = self.step.call(self.step.place(arrays))
        self.step.synchronize()
        results: tuple[Any, ...] = self.step.fetch(outputs)
        if tensors:
            import torch

            results = tuple(torch.from_numpy(value) for value in results)
        self.spent_s += perf_counter() - start
        return results[0] if len(results) == 1 else results


def function_of(text: str) -> Callable[[Model], Any]:
    """Returns the function that `package.module:function` names. Raises Refusal(invalid_input)."""
    module, colon, name = text.partition(":")
    workloads.add_user_folder()
    try:
        function: Any = getattr(importlib.import_module(module), name) if colon else None
    except (ImportError, AttributeError) as error:
        raise Refusal("invalid_input", f"--pipeline {text}: {error}") from error
    if not callable(function):
        raise Refusal("invalid_input", f"--pipeline {text}: expected package.module:function")
    return function  # type: ignore[no-any-return]  # a user's attribute


def around(step: Step, text: str) -> Step:
    """Returns a step whose call is the function's, whatever its inputs. Raises
    Refusal(invalid_input) with what the function raised.
    """
    function, model = function_of(text), Model(step)
    try:
        function(model)
    except Exception as error:  # a user's function may raise anything
        raise Refusal("invalid_input", f"--pipeline {text}: {type(error).__name__}: {error}") from error
    if not model.spent_s:
        raise Refusal("invalid_input", f"--pipeline {text} never called the model that it is given")
    return replace(
        step, call=lambda _: function(model), place=lambda arrays: None, fetch=lambda outputs: (), about=model
    )


def broken_down(step: Step, text: str) -> Breakdown:
    """Returns where a pipeline's call spends its time; the profiler's own time is not in the
    totals.
    """
    import cProfile
    import pstats

    function, model = function_of(text), step.about
    model.spent_s, start = 0.0, perf_counter()
    for _ in range(CALLS):
        function(model)
    total_s, model_s = (perf_counter() - start) / CALLS, model.spent_s / CALLS
    profiler = cProfile.Profile()
    profiler.runcall(function, model)
    stats: Any = pstats.Stats(profiler)
    code = getattr(function, "__code__", None)
    caller = (code.co_filename, code.co_firstlineno, code.co_name) if code is not None else None
    inside: Any = Model.__call__.__code__
    beside = [
        (by[caller][3], name)
        for (file, _, name), (*_, by) in stats.stats.items()
        if caller in by and file != inside.co_filename
    ]
    whole_s = max((entry[3] for entry in stats.stats.values()), default=0.0)
    other_s, other = max(beside, default=(0.0, "the function itself"))
    return Breakdown(total_s, model_s, other.strip("<>"), total_s * other_s / whole_s if whole_s else 0.0)
