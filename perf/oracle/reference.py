"""The oracle's own side, with torch: fp64 eager on the CPU, and what same-precision eager makes of
the same inputs.

It runs once a race, in a worker that stays as referee. It leaves npz files, with arrays (K, B, ...)
for K batches of B samples:
random.npz, real.npz: in0.., ref0.. (fp64), and eager-<precision>-0.. (float32; those of int8 by
  rounded.py); timed.npz: in0.., ref0.. of the rotating inputs;
validation.npz: in0.. (N, ...).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..lookup.workloads import resized
from ..machine import tf32
from ..machine.memory import exhausted
from ..terms.case import Workload
from ..terms.reasons import Refusal
from ..terms.work import Subject, TaskMetric, Work
from .rounded import rounded

DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# Samples that the check sees of each kind of inputs, in at least LEAST_BATCHES batches: an output
# that depends on the batch before shows in the second.
SAMPLES = 8
LEAST_BATCHES = 2
# Inputs that rotate while a case is timed.
TIMED = 4


def refer(
    workload: Workload, batch: int, precisions: Sequence[str], target: str, folder: Path, threads: int
) -> Subject:
    """Writes the files above and returns what the harness needs to know of the workload.

    Raises Refusal(invalid_input) where forward fails or the fp64 outputs are not finite.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    workload = resized(workload, batch)
    count = max(LEAST_BATCHES, SAMPLES // batch)
    real = real_batches(workload, batch, count)
    sets = {
        "real": real,
        "random": [tuple(lookalike(value) for value in workload.inputs) for _ in range(count)],
    }
    exact = copy.deepcopy(workload.module).double()
    stored: dict[str, dict[str, np.ndarray]] = {}
    for name, batches in sets.items():
        arrays = stacked("in", batches)
        arrays |= stacked(
            "ref",
            [
                forward(exact, tuple(raised(value) for value in inputs), workload, "fp64")
                for inputs in batches
            ],
        )
        for precision in precisions:
            device, dtype = torch.device(target), DTYPES.get(precision, torch.float32)
            module = copy.deepcopy(workload.module).to(device, dtype)
            if device.type == "cuda":
                tf32.allow(precision == "tf32")
            with rounded(module) if precision == "int8" else contextlib.nullcontext():
                outputs = [
                    forward(module, cast(inputs, dtype, device), workload, precision) for inputs in batches
                ]
            arrays |= stacked(f"eager-{precision}-", outputs)
        stored[name] = arrays
        np.savez(folder / f"{name}.npz", allow_pickle=False, **arrays)
    if any(
        not np.isfinite(value).all()
        for arrays in stored.values()
        for name, value in arrays.items()
        if name.startswith("ref")
    ):
        raise Refusal(
            "invalid_input",
            f"{workload.name}: the fp64 reference itself has NaN or infinite outputs; mend the model or its"
            " weights",
        )
    timed = timed_batches(stored, len(workload.inputs))
    np.savez(folder / "timed.npz", allow_pickle=False, **timed)
    sensitive = any(not (value == value[:1]).all() for name, value in timed.items() if name.startswith("ref"))
    counts = counted(workload)
    work = Work(counts.flops, counts.operators, counts.terms, workload.items, workload.item, sensitive)
    return Subject(work, workload.weights, task_metric(workload, folder))


def task_metric(workload: Workload, folder: Path) -> TaskMetric | None:
    """What fp32 eager reaches on the validation split, whose inputs and outputs are written; None
    for a workload without one.
    """
    evaluation = workload.evaluate
    if evaluation is None:
        return None
    inputs = {f"in{index}": value.numpy() for index, value in enumerate(evaluation.inputs)}
    np.savez(folder / "validation.npz", allow_pickle=False, **inputs)
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


def real_batches(workload: Workload, batch: int, count: int) -> list[tuple[torch.Tensor, ...]]:
    """Returns `count` batches of the validation split.

    Without a split they are the example inputs, rotated along the batch.
    """
    if workload.evaluate is None or not workload.dynamic:
        return [
            tuple(value.roll(shift, 0) if value.ndim else value for value in workload.inputs)
            for shift in range(count)
        ][: max(1, batch)]
    total = workload.evaluate.inputs[0].shape[0]
    rows = [torch.arange(index * batch, (index + 1) * batch) % total for index in range(count)]
    return [tuple(value[row] for value in workload.evaluate.inputs) for row in rows]


def lookalike(value: torch.Tensor) -> torch.Tensor:
    """Returns a random input like a real one.

    Floating-point values are normal with its mean and spread, integers lie in its range.
    """
    if value.is_floating_point():
        return torch.randn_like(value) * (value.std() if value.numel() > 1 else 1.0) + value.mean()
    if value.dtype == torch.bool:
        return torch.rand(value.shape) < 0.5
    return torch.randint(int(value.min()), int(value.max()) + 1, value.shape, dtype=value.dtype)


def forward(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], workload: Workload, precision: str
) -> tuple[np.ndarray, ...]:
    """Returns the outputs of one call; raises Refusal(invalid_input) with what forward raised."""
    try:
        with torch.inference_mode():
            outputs = module(*inputs)
    except Exception as error:  # a module may raise anything; it becomes the reason of every case of the race
        if exhausted(error):
            raise
        text = " ".join(str(error).split())[:300]
        hint = "; constants in forward must follow the inputs' dtype" if precision == "fp64" else ""
        raise Refusal(
            "invalid_input",
            f"{workload.name}: forward fails in {precision} eager: {type(error).__name__}: {text}{hint}",
        ) from error
    return host(outputs, workload)


def host(outputs: Any, workload: Workload) -> tuple[np.ndarray, ...]:
    """Returns outputs (a tensor, or a tuple, list or dict of them) as float arrays on the host."""
    if isinstance(outputs, dict):
        parts = list(outputs.values())
    else:
        parts = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    if not parts or not all(isinstance(part, torch.Tensor) for part in parts):
        kinds = ", ".join(type(part).__name__ for part in parts) or "nothing"
        raise Refusal(
            "invalid_input",
            f"{workload.name}: forward returns {kinds}; expected a tensor or a tuple of tensors",
        )
    return tuple((part if part.dtype == torch.float64 else part.float()).cpu().numpy() for part in parts)


def raised(value: torch.Tensor) -> torch.Tensor:
    """Returns the tensor in fp64; integers stay."""
    return value.double() if value.is_floating_point() else value


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
        for index in range(len(stored[name]["in0"])):
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
        forward(workload.module, tuple(value[batch] for value in split), workload, "fp32")
        for batch in batches
    ]
    return {
        f"out{index}": np.concatenate(parts)[:total] for index, parts in enumerate(zip(*results, strict=True))
    }


class Counts(NamedTuple):
    """What one call of the batch does.

    flops: of matrix products, convolutions and attention. operators: calls of aten. terms: the
    longest sum behind any element.
    """

    flops: int
    operators: int
    terms: int


def counted(workload: Workload) -> Counts:
    """Returns the counts of one eager call (torch.utils.flop_counter; a dispatch mode)."""
    count, terms = 0, 1

    class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its metaclass has no types
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal count, terms
            output = func(*args, **(kwargs or {}))
            count += 1
            tensors = [value for value in args if isinstance(value, torch.Tensor)]
            terms = max(terms, summed(func.overloadpacket.__name__, tensors, output))
            return output

    with torch.no_grad():
        with FlopCounterMode(display=False) as flops:
            workload.module(*workload.inputs)
        with Operators():  # type: ignore[no-untyped-call]
            workload.module(*workload.inputs)
    return Counts(int(flops.get_total_flops()), count, terms)


def summed(name: str, tensors: list[torch.Tensor], output: Any) -> int:
    """Returns how many terms an operator sums for one element.

    That is the inner dimension of a product, the filter's size, the number of keys, or what a
    reduction takes together.
    """
    if name in ("mm", "addmm", "bmm", "baddbmm") and len(tensors) >= 2:
        return tensors[-1].shape[-2]
    if "conv" in name and len(tensors) >= 2:
        return tensors[1][0].numel()
    if "attention" in name and len(tensors) >= 2:
        return max(tensors[1].shape[-2:])
    if (
        tensors
        and isinstance(output, torch.Tensor)
        and 0 < output.numel() < tensors[0].numel()
        and name in ("mean", "sum", "_adaptive_avg_pool2d", "avg_pool2d")
    ):
        return tensors[0].numel() // output.numel()
    return 1
