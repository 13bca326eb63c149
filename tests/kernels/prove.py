"""Child process: an operation through the interpreter, against fp64 and eager of its precision.

`python prove.py OPERATION` prints JSON lines. With HOTLAP_PROVE_ON=cuda the same on a GPU,
compiled, and then no bytes are counted (bench/on_gpu.sh).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
DEVICE = os.environ.get("HOTLAP_PROVE_ON", "cpu")
if DEVICE == "cpu":
    import interpreter  # first: it decides what Triton is

    LAUNCHES: list[Any] = interpreter.LAUNCHES
else:
    LAUNCHES = []
import torch  # noqa: E402  # the interpreter decides what Triton is

from hotlap.kernels.contract import DTYPES  # noqa: E402
from hotlap.perf.oracle.check import allowance, summing  # noqa: E402
from hotlap.perf.oracle.rounding import cost as cost_of_rounding  # noqa: E402
from hotlap.perf.oracle.rounding import moved_by  # noqa: E402

# Roundings of a step of an optimizer in each element of a state: of the scaled gradient, its
# square, the product with a constant, the sum.
ROUNDINGS = 4


def rms(values: torch.Tensor) -> float:
    """The root of the mean square of all elements; 0 of none."""
    return float(values.double().square().mean().sqrt()) if values.numel() else 0.0


def allowed(name: str, dtype: str, exact: torch.Tensor, eager: torch.Tensor, rounding: float = 0.0) -> float:
    """Returns how far from fp64 an output ("y") or a gradient may be, as a root mean square.

    It is the oracle's rule (perf/oracle/check.py). rounding: what rounding in fp32 may cost.
    """
    off, gradient = rms(eager.double() - exact), name != "y"
    return allowance(off, rms(exact), exact.numel(), dtype, rounding, gradient).tolerance


def on_device(value: Any) -> Any:
    """Returns the same tensors on the device.

    They keep their strides and their offset in their memory, which moves as a whole.
    """
    if isinstance(value, list):
        return [on_device(element) for element in value]
    if isinstance(value, tuple):
        return tuple(on_device(element) for element in value)
    if not isinstance(value, torch.Tensor) or DEVICE == "cpu":
        return value
    memory = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
    return memory.to(DEVICE).as_strided(value.size(), value.stride(), value.storage_offset())


def shape_of(value: Any) -> list[int]:
    """The shape of a tensor; of a list of tensors their sizes, but for empty ones."""
    if isinstance(value, torch.Tensor):
        return list(value.shape)
    return [tensor.numel() for tensor in value if tensor.numel()]


def as_tuple(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def sought(op: Any, inputs: dict[str, Any]) -> list[str]:
    """The inputs whose gradient backward gives: those that are tensors."""
    return [name for name in op.GRADIENTS if isinstance(inputs.get(name), torch.Tensor)]


def reference_results(
    op: Any, inputs: dict[str, Any], slopes: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, ...]:
    """Returns the reference's outputs, then its gradients of the inputs that have one."""
    parameters = signature(op.reference).parameters
    leaves = {
        name: (
            value.detach().clone().requires_grad_(name in op.GRADIENTS)
            if isinstance(value, torch.Tensor)
            else value
        )
        for name, value in inputs.items()
        if name in parameters
    }
    outputs = as_tuple(op.reference(**leaves))
    if not op.GRADIENTS:
        return outputs
    gradients = torch.autograd.grad(outputs, [leaves[name] for name in sought(op, inputs)], slopes)
    return (*(output.detach() for output in outputs), *gradients)


def in_fp64(value: Any) -> Any:
    """A tensor of floating-point numbers, or each of a list, in fp64; any other value as it is."""
    if isinstance(value, list):
        return [in_fp64(element) for element in value]
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def prove(op: Any, dtype: str) -> Iterator[dict[str, Any]]:
    """Yields what each example of an operation shows, as a row of JSON."""
    for number, example in enumerate(on_device(inputs) for inputs in op.examples(dtype)):
        inputs = dict(zip(signature(op.forward).parameters, example, strict=False))
        LAUNCHES.clear()
        if hasattr(op, "MUTATES"):
            row = changed_in_place(op, inputs, dtype)
        else:
            row = computed(op, inputs, dtype)
        costs = [cost.moved_bytes for cost in op.cost(*example)]
        yield {"example": number, **row, "costs": costs}


def computed(op: Any, inputs: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Runs forward and backward on one example.

    Returns how far outputs and gradients are from fp64, how far they may be, and the bytes that
    each kernel moved.
    """
    count = getattr(op, "OUTPUTS", 1)
    results = dict(zip(op.RETURNS, op.forward(**inputs), strict=True))
    forwards = len(LAUNCHES)
    outputs = tuple(results.values())[:count]
    slopes = {
        f"d{name}": torch.randn(output.shape, dtype=output.dtype, device=output.device)
        for name, output in zip(results, outputs, strict=False)
    }
    gradients: tuple[torch.Tensor, ...] = ()
    if op.GRADIENTS:
        known = slopes | inputs | results
        needed = {name: known[name] for name in signature(op.backward).parameters if name in known}
        gradients = tuple(op.backward(**needed))
    errors = distances(op, inputs, dtype, (*outputs, *gradients), tuple(slopes.values()))
    if hasattr(op, "results") and getattr(op, "STATISTICS", True):
        errors += statistics(op, inputs, results)
    first, *_ = inputs.values()
    return {
        "shape": shape_of(first),
        "stride": list(first.stride()) if isinstance(first, torch.Tensor) else [],
        "errors": errors,
        "exact_bytes": all_apart(inputs.values()),
        "moved": moved(LAUNCHES[:forwards]) + moved(LAUNCHES[forwards:]),
    }


def distances(
    op: Any,
    inputs: dict[str, Any],
    dtype: str,
    mine: tuple[torch.Tensor, ...],
    slopes: tuple[torch.Tensor, ...],
) -> list[dict[str, Any]]:
    """Compares outputs and gradients with the reference in fp64, by what eager is off."""
    wide = {name: in_fp64(value) for name, value in inputs.items()}
    run_in_fp64 = partial(reference_results, op, wide, tuple(slope.double() for slope in slopes))
    exact = run_in_fp64()
    if not any(value.numel() for value in exact):  # torch's attention on CUDA returns None for these
        assert [value.shape for value in mine] == [value.shape for value in exact], inputs
        return []
    eager = reference_results(op, inputs, slopes)
    roundings = cost_of_rounding(moved_by(run_in_fp64), exact)
    names = [f"gradient of {name}" for name in sought(op, inputs)]
    names = ["y"] * (len(mine) - len(names)) + names
    errors = []
    for name, value, true, theirs, cost in zip(names, mine, exact, eager, roundings, strict=True):
        assert value.shape == true.shape and value.dtype == theirs.dtype, (name, value.shape, value.dtype)
        errors.append(error(name, value, true, allowed(name, dtype, true, theirs, cost.whole)))
    return errors


def error(name: str, value: torch.Tensor, true: torch.Tensor, limit: float) -> dict[str, Any]:
    """How far a value is from the true one, and how far it may be, as a row of JSON."""
    rmse = rms(value.double() - true.double())
    return {"name": name, "rmse": rmse, "allowed": limit, "finite": bool(value.isfinite().all())}


def all_apart(inputs: Iterable[Any]) -> bool:
    """Whether no two elements of the tensors among the inputs lie on one address."""
    tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
    storages = {value.untyped_storage().data_ptr() for value in tensors}
    return len(storages) == len(tensors) and all(
        0 not in value.stride() or value.numel() < 2 for value in tensors
    )


def changed_in_place(op: Any, inputs: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Compares what an operation makes of what it changes with its reference in fp64, by what the
    reference is off in the dtypes of the inputs.
    """
    exact, eager = (
        {
            name: [turn(tensor).clone() for tensor in value] if isinstance(value, list) else turn(value)
            for name, value in inputs.items()
        }
        for turn in (in_fp64, lambda value: value)
    )
    op.forward(**inputs)
    op.reference(**exact)
    op.reference(**eager)
    errors = []
    for name in op.MUTATES:
        mine, true, theirs = (
            torch.cat([tensor.flatten() for tensor in values[name]]) for values in (inputs, exact, eager)
        )
        rule = "y" if mine.dtype == torch.float32 else name
        rounded = summing(ROUNDINGS, rms(true))
        limit = allowed(rule, dtype if name == "params" else "fp32", true, theirs, rounded)
        errors.append(error(name, mine, true, limit))
    return {
        "shape": shape_of(inputs[op.MUTATES[0]]),
        "stride": [],
        "errors": errors,
        "exact_bytes": True,
        "moved": moved(LAUNCHES),
    }


def moved(launches: list[Any]) -> list[int]:
    """Bytes of each kernel, over all its launches, in the order of their first launch."""
    total: dict[str, int] = {}
    for watch in launches:
        total[watch.kernel] = total.get(watch.kernel, 0) + watch.moved_bytes
    return list(total.values())


def statistics(op: Any, inputs: dict[str, Any], results: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """Compares what only backward needs with what `results` makes of these inputs: within 64 ulp of
    fp32.
    """
    theirs = dict(zip(op.RETURNS, op.results(**inputs), strict=True))
    errors = []
    for name in op.RETURNS[getattr(op, "OUTPUTS", 1) :]:
        mine, other = results[name], theirs[name]
        assert mine.shape == other.shape and mine.dtype == other.dtype, (name, mine.shape, other.shape)
        limit = 64 * torch.finfo(torch.float32).eps * (rms(other) + 1)
        errors.append(error(name, mine, other, limit))
    return errors


def operation(name: str, old: str = "", new: str = "") -> Any:
    """Returns the operation, or a mutant of it that has another text in its source."""
    module = importlib.import_module(f"hotlap.kernels.ops.{name}")
    if not old:
        return module
    source = Path(str(module.__file__)).read_text()
    assert old in source, f"{name} has no {old!r} to mutate"
    file = Path(tempfile.mkdtemp()) / f"{name}.py"
    file.write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location(f"hotlap.kernels.ops.mutant_{name}", file)
    assert spec is not None and spec.loader is not None
    mutant = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mutant)
    return mutant


def too_far(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The errors of a row that are larger than allowed."""
    return [error for error in row["errors"] if not (error["finite"] and error["rmse"] <= error["allowed"])]


if __name__ == "__main__":
    torch.manual_seed(0)
    # A mutant whose numbers must be too far is caught by the first that are.
    until_caught = sys.argv[4:] == ["until-caught"]
    for precision in DTYPES:
        for row in prove(operation(*sys.argv[1:4]), precision):
            print(json.dumps({"dtype": precision, **row}))
            if until_caught and too_far(row):
                sys.exit()
