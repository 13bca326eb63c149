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


def several(outputs: Any) -> tuple[torch.Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


def gradients(op: Any, inputs: tuple[torch.Tensor, ...], slopes: tuple[torch.Tensor, ...], wanted: list[bool]) -> tuple[torch.Tensor, ...]:
    """The reference's outputs, then its gradients of the inputs that have one."""
    leaves = [value.detach().clone().requires_grad_(want) if isinstance(value, torch.Tensor) else value for value, want in zip(inputs, wanted, strict=True)]
    outputs = several(op.reference(*leaves))
    found = torch.autograd.grad(outputs, [leaf for leaf, want in zip(leaves, wanted, strict=True) if want], slopes)
    return (*(one.detach() for one in outputs), *found)


def raised(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def prove(op: Any, dtype: str) -> Any:
    count = getattr(op, "OUTPUTS", 1)
    for number, inputs in enumerate(op.examples(dtype)):
        interpreter.LAUNCHES.clear()
        made = op.forward(*inputs)
        outputs, saved = made[:count], made[count:]
        slopes = tuple(torch.randn(one.shape, dtype=one.dtype) for one in outputs)
        given = op.backward(*slopes, *inputs, *saved)
        wanted = [one is not None for one in given]
        mine = (*outputs, *(one for one in given if one is not None))
        exact = gradients(op, tuple(raised(value) for value in inputs), tuple(slope.double() for slope in slopes), wanted)
        eager = gradients(op, inputs, slopes, wanted)
        names = [*("y" for _ in outputs), *(f"gradient {at}" for at in range(len(mine) - count))]
        errors = []
        for name, found, true, theirs in zip(names, mine, exact, eager, strict=True):
            errors.append({"name": name, "rmse": rms(found.double() - true), "allowed": allowed(name, dtype, true, theirs), "finite": bool(found.isfinite().all())})
            assert found.shape == true.shape and found.dtype == theirs.dtype, (name, found.shape, found.dtype)
        tensors = [value for value in inputs if isinstance(value, torch.Tensor)]
        unique = len({value.untyped_storage().data_ptr() for value in tensors}) == len(tensors) and all(0 not in value.stride() or value.numel() < 2 for value in tensors)
        yield {
            "example": number, "shape": list(inputs[0].shape), "stride": list(inputs[0].stride()), "errors": errors, "exact_bytes": unique,
            "moved": [watch.moved_bytes for watch in interpreter.LAUNCHES], "costs": [cost.moved_bytes for cost in op.cost(*inputs)],
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
