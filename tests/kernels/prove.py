"""Child process: an operation through the interpreter, against fp64 and against eager of the same
precision. `python prove.py OPERATION` prints JSON lines.

With HOTLAP_PROVE_ON=cuda the same on a GPU, compiled, and then no bytes are counted
(bench/on_gpu.sh).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import tempfile
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
from rounding import cost as cost_of_rounding  # noqa: E402

from hotlap.kernels.contract import DTYPES  # noqa: E402


def rms(values: torch.Tensor) -> float:
    return float(values.double().square().mean().sqrt()) if values.numel() else 0.0


def allowed(name: str, dtype: str, exact: torch.Tensor, eager: torch.Tensor, rounding: float = 0.0) -> float:
    """The oracle's rule (perf/check.py): twice, or three times for gradients, half precision and
    small outputs, what eager is off by, and a floor: half an ulp of the output's precision at its
    RMS, which is nowhere finer than between subnormal numbers (IEEE 754), and what rounding in fp32
    may cost this result (rounding.py).
    """
    factor = 3 if name != "y" or dtype != "fp32" or exact.numel() < 1000 else 2
    numbers = torch.finfo(getattr(torch, DTYPES[dtype]))
    half_ulp = 0.5 * numbers.eps * max(rms(exact), numbers.smallest_normal)
    return factor * rms(eager.double() - exact) + half_ulp + rounding


def on_device(value: Any) -> Any:
    """The same tensors there, with their strides and their place in their memory, which moves as a
    whole.
    """
    if isinstance(value, (list, tuple)):
        return type(value)(on_device(one) for one in value)
    if not isinstance(value, torch.Tensor) or DEVICE == "cpu":
        return value
    memory = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
    return memory.to(DEVICE).as_strided(value.size(), value.stride(), value.storage_offset())


def shape_of(value: Any) -> list[int]:
    """Of a list of tensors their sizes, but for empty ones."""
    return (
        list(value.shape)
        if isinstance(value, torch.Tensor)
        else [one.numel() for one in value if one.numel()]
    )


def several(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def sought(op: Any, inputs: dict[str, Any]) -> list[str]:
    """Inputs whose gradient backward gives: those that are there."""
    return [name for name in op.GRADIENTS if isinstance(inputs.get(name), torch.Tensor)]


def gradients(op: Any, inputs: dict[str, Any], slopes: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The reference's outputs, then its gradients of the inputs that have one."""
    taken = signature(op.reference).parameters
    leaves = {
        name: (
            value.detach().clone().requires_grad_(name in op.GRADIENTS)
            if isinstance(value, torch.Tensor)
            else value
        )
        for name, value in inputs.items()
        if name in taken
    }
    outputs = several(op.reference(**leaves))
    if not op.GRADIENTS:
        return outputs
    found = torch.autograd.grad(outputs, [leaves[name] for name in sought(op, inputs)], slopes)
    return (*(one.detach() for one in outputs), *found)


def raised(value: Any) -> Any:
    if isinstance(value, list):
        return [raised(one) for one in value]
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def prove(op: Any, dtype: str) -> Any:
    count = getattr(op, "OUTPUTS", 1)
    for number, given in enumerate(on_device(inputs) for inputs in op.examples(dtype)):
        inputs = dict(zip(signature(op.forward).parameters, given, strict=False))
        LAUNCHES.clear()
        if hasattr(op, "MUTATES"):
            yield {
                "example": number,
                **changed_in_place(op, inputs, dtype),
                "costs": [cost.moved_bytes for cost in op.cost(*given)],
            }
            continue
        made = dict(zip(op.RETURNS, op.forward(**inputs), strict=True))
        forwards = len(LAUNCHES)
        outputs = tuple(made.values())[:count]
        slopes = {
            f"d{name}": torch.randn(one.shape, dtype=one.dtype, device=one.device)
            for name, one in zip(made, outputs, strict=False)
        }
        known = slopes | inputs | made
        undone = (
            op.backward(**{name: known[name] for name in signature(op.backward).parameters if name in known})
            if op.GRADIENTS
            else ()
        )
        mine = (*outputs, *undone)
        in_fp64 = partial(
            gradients,
            op,
            {name: raised(value) for name, value in inputs.items()},
            tuple(slope.double() for slope in slopes.values()),
        )
        exact = in_fp64()
        eager = gradients(op, inputs, tuple(slopes.values()))
        errors = []
        for name, found, true, theirs, rounding in zip(
            ["y"] * count + [f"gradient of {name}" for name in sought(op, inputs)],
            mine,
            exact,
            eager,
            cost_of_rounding(in_fp64, exact),
            strict=True,
        ):
            errors.append(
                {
                    "name": name,
                    "rmse": rms(found.double() - true),
                    "allowed": allowed(name, dtype, true, theirs, rounding),
                    "finite": bool(found.isfinite().all()),
                }
            )
            assert found.shape == true.shape and found.dtype == theirs.dtype, (name, found.shape, found.dtype)
        if hasattr(op, "results") and getattr(op, "STATISTICS", True):
            errors += statistics(op, inputs, made)
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        unique = len({value.untyped_storage().data_ptr() for value in tensors}) == len(tensors) and all(
            0 not in value.stride() or value.numel() < 2 for value in tensors
        )
        strides = list(given[0].stride()) if isinstance(given[0], torch.Tensor) else []
        yield {
            "example": number,
            "shape": shape_of(given[0]),
            "stride": strides,
            "errors": errors,
            "exact_bytes": unique,
            "moved": moved(LAUNCHES[:forwards]) + moved(LAUNCHES[forwards:]),
            "costs": [cost.moved_bytes for cost in op.cost(*given)],
        }


def changed_in_place(op: Any, inputs: dict[str, Any], dtype: str) -> dict[str, Any]:
    """What an operation makes of what it changes, against its reference in fp64 and in the dtypes
    given.
    """
    exact, eager = (
        {
            name: [turn(one).clone() for one in value] if isinstance(value, list) else turn(value)
            for name, value in inputs.items()
        }
        for turn in (raised, lambda one: one)
    )
    op.forward(**inputs)
    op.reference(**exact)
    op.reference(**eager)
    errors = []
    for name in op.MUTATES:
        mine, true, theirs = (
            torch.cat([one.flatten() for one in values[name]]) for values in (inputs, exact, eager)
        )
        limit = allowed(
            "y" if mine.dtype == torch.float32 else name, dtype if name == "params" else "fp32", true, theirs
        )
        errors.append(
            {
                "name": name,
                "rmse": rms(mine.double() - true),
                "allowed": limit,
                "finite": bool(mine.isfinite().all()),
            }
        )
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


def statistics(op: Any, inputs: dict[str, Any], made: dict[str, torch.Tensor]) -> list[dict[str, Any]]:
    """What only backward needs is what `results` makes of these inputs, within 64 ulp of fp32."""
    theirs = dict(zip(op.RETURNS, op.results(**inputs), strict=True))
    found = []
    for name in op.RETURNS[getattr(op, "OUTPUTS", 1) :]:
        mine, other = made[name], theirs[name]
        assert mine.shape == other.shape and mine.dtype == other.dtype, (name, mine.shape, other.shape)
        allowed = 64 * torch.finfo(torch.float32).eps * (rms(other) + 1)
        found.append(
            {
                "name": name,
                "rmse": rms(mine.double() - other.double()),
                "allowed": allowed,
                "finite": bool(mine.isfinite().all()),
            }
        )
    return found


def operation(name: str, old: str = "", new: str = "") -> Any:
    """The operation, or a mutant of it: another text in its source."""
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


if __name__ == "__main__":
    torch.manual_seed(0)
    for precision in DTYPES:
        for row in prove(operation(*sys.argv[1:]), precision):
            print(json.dumps({"dtype": precision, **row}))
