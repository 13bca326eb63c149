"""The oracle's own side, with torch: fp64 eager on the CPU, and what same-precision eager makes of
the same inputs. Of a model that does not run in fp64, fp32 eager takes its place.

It runs once a race, in a worker that stays as referee. It leaves npz files, with arrays (K, B, ...)
for K batches of B samples:
real.npz, and random.npz where the model takes random inputs: in0.., ref0.. (fp64),
  eager-<precision>-0.. (float32; those of int8 by rounded.py), rounding0.. and minor-rounding0..
  (rounding.py) of the outputs that are floating point;
timed.npz, fresh.npz: in0.., ref0.. of the rotating inputs, and of those that are kept back for
  calls whose inputs nothing can have seen before;
validation.npz: in0.. (N, ...);
inputs/: the same files without their outputs, for those who are to be checked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..lookup import arguments
from ..lookup.onnx_file import OnnxFile
from ..lookup.workloads import Axis, Returns, resized, taken_apart
from ..machine import tf32
from ..terms.case import Workload
from ..terms.contract import Arrays
from ..terms.reasons import Reason, Refusal
from ..terms.work import Subject, TaskMetric, Work
from . import arrays, leaves, onnx_rounding, rows
from .check import half_ulp, summing
from .counts import Counts, counted
from .inputs import chosen
from .recast import Held, Recast
from .rounded import rounded
from .rows import Inputs
from .sizes import other_sizes
from .truth import Truth, call, forward, no_fp64, truth_of

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Samples that the check sees of each kind of inputs, in at least LEAST_BATCHES batches: an output
# that depends on the batch before shows in the second.
SAMPLES = 8
LEAST_BATCHES = 2
# Where fp32 eager is what outputs are held against, its own error is not known: what rounding was
# seen to cost stands for it, and may be had twice (check.py, k), and once for the other side.
IN_PLACE_OF_EAGER = 3
# How often the first answer is asked for again: dropout of 8 values repeats itself once in 20
# tries.
REPEATS = 3
# Inputs that rotate while a case is timed.
TIMED = 4
# Inputs that are kept back.
FRESH = 3
# What showed what dimension 0 is, where nobody looked.
AUTHOR = "as its author says"


class Referral(NamedTuple):
    """What the referee saw of a workload."""

    subject: Subject
    # What dimension 0 of the inputs is.
    axis: Axis
    # Whether forward returns what has to be taken apart.
    returns: Returns
    # Axes of each input that may have any size, with their names.
    free: tuple[dict[int, str], ...]
    # Kinds of inputs that outputs are compared on.
    kinds: tuple[str, ...]
    # The inputs and what was left out, a line each.
    notes: tuple[str, ...]
    # Precisions in which eager does not run, or not alike each time.
    refused: dict[str, Reason]


def refer(
    workload: Workload, batch: int, precisions: Sequence[str], target: str, folder: Path, threads: int
) -> Referral:
    """Writes the files above and returns what the harness needs to know of the workload.

    Raises Refusal: invalid_input where forward fails, the fp64 outputs are not finite or the batch
    is not one that it takes; nondeterministic where the same inputs have several answers.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    workload, returns, left_out = returning_tensors(workload)
    example = workload
    truth = truth_of(workload)
    first = truth.run(workload.inputs)
    for _ in range(REPEATS):
        repeats(workload, first, truth.run(workload.inputs), "fp32" if truth.no_fp64 else "fp64", 1)
    seen = axis_of(workload, truth)
    workload = replace(workload, dynamic=seen.axis == "free", batched=seen.axis != "whole")
    workload = resized(workload, batch)
    plain = partial(forward, workload.module, workload, "fp32")
    sets = chosen(workload, example, truth.run, plain, max(LEAST_BATCHES, SAMPLES // batch), FRESH)
    sizes = other_sizes(workload, truth.run, plain)
    sets.batches.update({kind: [inputs] for kind, (inputs, _) in sizes.batches.items()})
    sets.outputs.update({kind: [outputs] for kind, (_, outputs) in sizes.batches.items()})
    counts = counts_of(workload)
    (folder / "inputs").mkdir(exist_ok=True)
    stored = {
        kind: stacked("in", batches) | stacked("ref", sets.outputs[kind])
        for kind, batches in sets.batches.items()
    }
    stored["timed"] = timed_batches(stored, len(workload.inputs))
    kinds = (*(kind for kind in ("random", "real") if kind in stored), *sizes.batches)
    refused: dict[str, Reason] = {}
    for kind in kinds:
        for precision in precisions:
            try:
                outputs = in_precision(workload, precision, target, sets.batches[kind], counts.terms)
            except Refusal as refusal:
                refused[precision] = refusal.reason
            else:
                stored[kind] |= stacked(f"eager-{precision}-", outputs)
        stored[kind] |= roundings(truth, sets.batches[kind][0], stored[kind])
    if set(refused) == set(precisions):
        raise Refusal(*next((why.code, why.detail) for why in refused.values()))
    for name, content in stored.items():
        np.savez(folder / f"{name}.npz", allow_pickle=False, **content)
        arrays.inputs_alone(folder / f"{name}.npz", folder / "inputs" / f"{name}.npz")
    references = [value for name, value in stored["timed"].items() if name.startswith("ref")]
    sensitive = any(not (value == value[:1]).all() for value in references)
    work = Work(counts.flops, counts.operators, counts.terms, workload.items, workload.item, sensitive)
    with torch.inference_mode():
        names = leaves.names(workload.module(*workload.inputs))
    task = task_metric(workload, folder)
    notes = (*workload.notes, *left_out, *no_fp64(workload, truth), *sets.notes, *sizes.notes)
    subject = Subject(work, workload.weights, task, notes, tuple(names), workload.names)
    lines = (described(example, seen), *notes)
    return Referral(subject, seen.axis, returns, tuple(workload.free), kinds, lines, refused)


def own_batch(workload: Workload) -> int:
    """Returns the batch of a workload that takes no other; 1 for one that takes any. Raises
    Refusal(invalid_input).
    """
    workload, *_ = returning_tensors(workload)
    axis = axis_of(workload, truth_of(workload)).axis
    return workload.batch if axis == "fixed" else 1


def returning_tensors(workload: Workload) -> tuple[Workload, Returns, tuple[str, ...]]:
    """Returns the workload with a module whose outputs are tensors and None, whether that is
    another than its own, and what is left out of them, in words. Raises Refusal(invalid_input).
    """
    module = workload.module
    function = module.whole if isinstance(module, arguments.Flat) else module
    before = Held(module)
    outputs = call(function, workload, "fp32", tuple(value.clone() for value in workload.inputs))
    before.restore()
    if arguments.returns_tensors(outputs) or not leaves.tensors(arguments.plain(outputs)):
        return workload, "tensors", ()
    others = arguments.left_out(outputs)
    notes = (
        f"forward returns {', '.join(others)} besides, which is left out: outputs are tensors"
        if others
        else ""
    )
    return taken_apart(workload), "objects", (notes,) if others else ()


def axis_of(workload: Workload, truth: Truth) -> rows.Seen:
    """Returns what dimension 0 is: what the workload's author says, where that is no batch of any
    size; else what is seen. Raises Refusal(invalid_input).
    """
    if not workload.batched and not rows.of_one_size(workload.inputs):
        return rows.SEVERAL_SIZES
    if not workload.dynamic:
        return rows.Seen("fixed" if workload.batched else "whole", AUTHOR)
    # ONNX's evaluator computes some operators in fp32 whatever their inputs are.
    in_fp32 = bool(truth.no_fp64) or isinstance(workload.module, OnnxFile)
    close = rows.CLOSE_IN_FP32 if in_fp32 else rows.CLOSE
    seen = rows.look(truth.run, workload.inputs, close)
    if seen.axis != "free" and workload.evaluate is not None:
        raise Refusal(
            "invalid_input",
            f"{workload.name}: {seen.why}, so its validation split cannot be run in batches of another size;"
            " say Workload(..., dynamic=False)",
        )
    return seen


def described(workload: Workload, seen: rows.Seen) -> str:
    """Returns the inputs and what dimension 0 of them is, in words."""
    names = workload.names or [""] * len(workload.inputs)
    shapes = ", ".join(
        f"{name} {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}".strip()
        for name, value in zip(names, workload.inputs, strict=True)
    )
    words = {
        "free": f"dimension 0 is the batch ({seen.why})",
        "fixed": f"dimension 0 is a batch of {workload.batch} and of no other size ({seen.why})",
        "whole": f"dimension 0 is no batch ({seen.why}), and a call takes them as they are."
        + ("" if seen.why == AUTHOR else " To say so in the code: Workload(..., batched=False).")
        + " For a --batch, let forward take the batch first",
    }
    return f"inputs {shapes}: {words[seen.axis]}"


def repeats(workload: Workload, first: Arrays, second: Arrays, precision: str, terms: int) -> None:
    """Raises Refusal(nondeterministic) where two answers to the same inputs are further apart than
    rounding puts them.
    """
    for index, (value, again) in enumerate(zip(first, second, strict=False)):
        apart, scale = arrays.rmse([again], [value]), rms(value)
        if not np.isfinite(scale):
            continue
        if apart > half_ulp("fp32" if precision == "fp64" else precision, scale) + summing(terms, scale):
            raise Refusal(
                "nondeterministic",
                f"{workload.name}: in {precision} eager, forward answers the same inputs otherwise each time"
                f" (output {index} is {apart:.3g} RMSE apart, its own size is {scale:.3g}), so no backend can"
                " be checked; take random numbers as an input, forward(x, noise), or switch them off in eval"
                " mode, F.dropout(x, p, self.training)",
            )


def rms(values: np.ndarray) -> float:
    """Returns the root of the mean square; 0 of no values."""
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64)))) if values.size else 0.0


def in_precision(
    workload: Workload, precision: str, target: str, batches: Sequence[Inputs], terms: int
) -> list[Arrays]:
    """Returns the outputs of same-precision eager on the target, a list for each batch. Raises
    Refusal: invalid_input, nondeterministic.
    """
    device, dtype = torch.device(target), DTYPES.get(precision, torch.float32)
    if device.type == "cuda":
        tf32.allow(precision == "tf32")
    with Recast(workload.module, dtype, device).active() as module, layers_of(module, precision):
        run = partial(forward, module, workload, precision)
        outputs = [run(cast(inputs, dtype, device)) for inputs in batches]
        repeats(workload, outputs[0], run(cast(batches[0], dtype, device)), precision, terms)
    return outputs


def counts_of(workload: Workload) -> Counts:
    """Returns what one call of the batch does."""
    if isinstance(workload.module, OnnxFile):
        return onnx_rounding.counted(workload.module, workload.inputs)
    return counted(workload)


def layers_of(module: torch.nn.Module, precision: str) -> AbstractContextManager[None]:
    """Returns a context in which a module runs in int8 as far as its yardstick does; for every
    other precision one that changes nothing.
    """
    if precision != "int8":
        return contextlib.nullcontext()
    return onnx_rounding.in_8_bits(module) if isinstance(module, OnnxFile) else rounded(module)


def roundings(truth: Truth, inputs: Inputs, stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns rounding0.. of each floating-point output: what rounding may cost it, and where it
    has elements that are judged by themselves minor-rounding0.., what it may cost these. Its own
    size does not say that where terms cancel, nor does eager's error in one run: the sine of a
    large number is right or not by the last bit of that number.
    """
    floats = [
        int(name.removeprefix("ref"))
        for name, value in stored.items()
        if name.startswith("ref") and value.dtype.kind == "f"
    ]
    if not floats:
        return {}
    costs, times = truth.costs(inputs), IN_PLACE_OF_EAGER if truth.no_fp64 else 1
    whole = {f"rounding{index}": np.array(times * costs[index].whole) for index in floats}
    minor = {
        f"minor-rounding{index}": np.array(times * costs[index].minor)
        for index in floats
        if costs[index].minor
    }
    return whole | minor


def task_metric(workload: Workload, folder: Path) -> TaskMetric | None:
    """What fp32 eager reaches on the validation split, whose inputs and outputs are written; None
    for a workload without one.
    """
    evaluation = workload.evaluate
    if evaluation is None:
        return None
    inputs = {f"in{index}": value.numpy() for index, value in enumerate(evaluation.inputs)}
    for place in (folder, folder / "inputs"):
        np.savez(place / "validation.npz", allow_pickle=False, **inputs)
    outputs = folder / "validation-reference.npz"
    np.savez(outputs, allow_pickle=False, **split_outputs(workload))
    int8_budget = evaluation.budget if evaluation.int8_budget is None else evaluation.int8_budget
    reached = score(workload, outputs)[evaluation.metric]
    return TaskMetric(evaluation.metric, evaluation.better, reached, evaluation.budget, int8_budget)


def score(workload: Workload, path: Path) -> dict[str, float]:
    """Returns the task metrics of stored outputs out0.. (N, ...)."""
    assert workload.evaluate is not None
    with np.load(path, allow_pickle=False) as stored:
        outputs = tuple(stored[f"out{index}"] for index in range(len(stored.files)))
    return {name: float(value) for name, value in workload.evaluate.score(outputs).items()}


def cast(
    inputs: tuple[torch.Tensor, ...], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Returns inputs on the device in the dtype; integers keep theirs."""
    return tuple(
        value.to(device, dtype) if value.is_floating_point() else value.to(device) for value in inputs
    )


def stacked(prefix: str, batches: Sequence[Sequence[Any]]) -> dict[str, np.ndarray]:
    """Returns prefix0, prefix1, ...: each (K, B, ...) of K batches."""
    return {
        f"{prefix}{index}": np.stack([np.asarray(value) for value in parts])
        for index, parts in enumerate(zip(*batches, strict=True))
    }


def timed_batches(stored: dict[str, dict[str, np.ndarray]], inputs: int) -> dict[str, np.ndarray]:
    """Returns the rotating inputs and their references (TIMED, B, ...).

    They are the first distinct real batches, filled up with random ones.
    """
    chosen: list[tuple[str, int]] = []
    seen: set[bytes] = set()
    for name in ("real", "random"):
        for index in range(len(stored[name]["in0"]) if name in stored else 0):
            digest = b"".join(stored[name][f"in{i}"][index].tobytes() for i in range(inputs))
            if digest not in seen and len(chosen) < TIMED:
                seen.add(digest)
                chosen.append((name, index))
    keys = [key for key in stored["real"] if key.startswith(("in", "ref"))]
    return {key: np.stack([stored[name][key][index] for name, index in chosen]) for key in keys}


def split_outputs(workload: Workload, rows: int = 64) -> dict[str, np.ndarray]:
    """Returns out0.. (N, ...): fp32 eager on the whole validation split, `rows` at a time."""
    assert workload.evaluate is not None
    split, fixed = workload.evaluate.inputs, workload.inputs[0].shape[0]
    total, rows = split[0].shape[0], rows if workload.dynamic else fixed
    batches = [torch.arange(start, start + rows) % total for start in range(0, total, rows)]
    results = [
        forward(workload.module, workload, "fp32", tuple(value[batch] for value in split))
        for batch in batches
    ]
    return {
        f"out{index}": np.concatenate(parts)[:total] for index, parts in enumerate(zip(*results, strict=True))
    }
