"""Child process: an operation through the interpreter, against fp64 and against eager of the same precision. `python prove.py OPERATION` prints JSON lines."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import interpreter  # first: it decides what Triton is
import torch

from hotlap.kernels.contract import DTYPES


def rms(values: torch.Tensor) -> float:
    return float(values.double().square().mean().sqrt()) if values.numel() else 0.0


def allowed(name: str, dtype: str, exact: torch.Tensor, eager: torch.Tensor) -> float:
    """The oracle's rule (DESIGN.md): twice, or three times for gradients, half precision and small outputs, what eager is off by, and half an ulp at the output's RMS."""
    factor = 3 if name != "y" or dtype != "fp32" or exact.numel() < 1000 else 2
    kind = getattr(torch, DTYPES[dtype])
    return factor * rms(eager.double() - exact) + 0.5 * torch.finfo(kind).eps * rms(exact)


def gradients(op: Any, inputs: tuple[torch.Tensor, ...], slope: torch.Tensor, wanted: list[bool]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The reference's output, and its gradients of the inputs that have one."""
    leaves = [value.detach().clone().requires_grad_(want) for value, want in zip(inputs, wanted, strict=True)]
    y = op.reference(*leaves)
    return y.detach(), torch.autograd.grad(y, [leaf for leaf, want in zip(leaves, wanted, strict=True) if want], slope)


def raised(value: torch.Tensor) -> torch.Tensor:
    return value.double() if value.is_floating_point() else value


def prove(op: Any, dtype: str) -> Any:
    for number, inputs in enumerate(op.examples(dtype)):
        forward_cost, backward_cost = op.cost(*inputs)
        y, *saved = op.forward(*inputs)
        forward_bytes = interpreter.WATCH.moved_bytes
        slope = torch.randn(y.shape, dtype=y.dtype)
        given = op.backward(slope, *inputs, *saved)
        backward_bytes = interpreter.WATCH.moved_bytes
        wanted, found = [one is not None for one in given], [one for one in given if one is not None]
        exact_y, exact = gradients(op, tuple(raised(value) for value in inputs), slope.double(), wanted)
        eager_y, eager = gradients(op, inputs, slope, wanted)
        names = ["y", *(f"gradient {at}" for at in range(len(found)))]
        errors = []
        for name, mine, true, theirs in zip(names, (y, *found), (exact_y, *exact), (eager_y, *eager), strict=True):
            errors.append({"name": name, "rmse": rms(mine.double() - true), "allowed": allowed(name, dtype, true, theirs), "finite": bool(mine.isfinite().all())})
            assert mine.shape == true.shape and mine.dtype == theirs.dtype, (name, mine.shape, mine.dtype)
        unique = len({value.untyped_storage().data_ptr() for value in inputs}) == len(inputs) and all(0 not in value.stride() or value.numel() < 2 for value in inputs)
        yield {
            "example": number, "shape": list(inputs[0].shape), "stride": list(inputs[0].stride()), "errors": errors, "exact_bytes": unique,
            "forward": [forward_bytes, forward_cost.moved_bytes], "backward": [backward_bytes, backward_cost.moved_bytes],
        }  # fmt: skip


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
