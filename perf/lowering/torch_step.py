"""A module on its device in the case's precision and layout, and the step that calls it: what every
backend that runs in torch shares.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..machine import tf32
from ..terms.case import Case, Workload
from ..terms.contract import Arrays, Schedule, Step, nothing
from ..terms.reasons import Refusal

if TYPE_CHECKING:
    import torch

# Precisions of 16 bits, to which a module is cast.
HALF = ("bf16", "fp16")


def name_of(value: torch.Tensor | None) -> str:
    """Returns fp32, bf16, fp16, or torch's own name of the dtype; `none` without a tensor."""
    if value is None:
        return "none"
    name = str(value.dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)


def by_dtype(case: Case, dtypes: Counter[str]) -> str:
    """Returns how a case was cast and in which dtypes its operators ran, in words."""
    how = (
        "under torch.autocast, module and inputs in fp32"
        if case.option("autocast", "off") == "on"
        else "whole model cast"
    )
    return (
        f"{how}; operators by the dtype of their output:"
        f" {', '.join(f'{count} {name}' for name, count in dtypes.most_common())}"
    )


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """How arrays become inputs.

    cold: whether the L2 cache is emptied before each call.
    """

    target: str
    dtype: torch.dtype
    layout: torch.memory_format
    cold: bool = False

    def place(self, arrays: Arrays) -> tuple[torch.Tensor, ...]:
        import torch

        return tuple(self._place(torch.tensor(array)) for array in arrays)

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.is_floating_point():
            tensor = tensor.to(self.dtype)
        tensor = tensor.to(self.target)
        return tensor.contiguous(memory_format=self.layout) if tensor.dim() == 4 else tensor


@dataclass(frozen=True, kw_only=True)
class Prepared(Tensors):
    """A module on the case's target in its precision and layout.

    inputs: the workload's own, a batch as the case has it.
    """

    module: torch.nn.Module
    inputs: Arrays


def tensors(case: Case) -> Tensors:
    """Sets up the case's device and returns how arrays become its inputs.

    Raises Refusal: no_device, unsupported_precision.
    """
    import torch

    if case.target != "cpu":
        _set_up_cuda(case)
    layout = (
        torch.channels_last
        if case.option("layout", "contiguous") == "channels-last"
        else torch.contiguous_format
    )
    return Tensors(
        target=case.target, dtype=dtype(case), layout=layout, cold=case.option("l2", "warm") == "cold"
    )


def dtype(case: Case) -> torch.dtype:
    """Returns the dtype of the module and its inputs."""
    import torch

    if case.option("autocast", "off") == "on":
        return torch.float32
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(case.precision, torch.float32)


def prepare(workload: Workload, case: Case) -> Prepared:
    """Casts and moves the workload's module in place.

    Raises Refusal: no_device, unsupported_precision, unsupported_op.
    """
    import torch

    from ..oracle.recast import cast_floats

    form = tensors(case)
    if form.layout is torch.channels_last and all(tensor.dim() != 4 for tensor in workload.inputs):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in workload.inputs)
        raise Refusal(
            "unsupported_op",
            f"layout channels-last needs an input with 4 dimensions; {workload.name} has {shapes}",
        )
    module = cast_floats(workload.module, form.dtype).to(device=form.target)
    module = module.to(memory_format=form.layout)
    if case.option("autocast", "off") == "on":
        module = _autocast(module, case)
    return Prepared(
        module=module,
        inputs=tuple(tensor.numpy() for tensor in workload.inputs),
        target=form.target,
        dtype=form.dtype,
        layout=form.layout,
        cold=form.cold,
    )


def _autocast(module: torch.nn.Module, case: Case) -> torch.nn.Module:
    """Returns a module that runs another under torch.autocast.

    It is a module and no context around the call, because torch.export forgets an autocast that is
    not entered inside of forward (seen with torch 2.14.1).
    """
    import torch

    lower = {"fp16": torch.float16, "bf16": torch.bfloat16}[case.precision]

    class Autocast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *inputs: Any) -> Any:
            with torch.autocast(case.target.partition(":")[0], dtype=lower):
                return self.module(*inputs)

    return Autocast().eval()


def _set_up_cuda(case: Case) -> None:
    """Makes the device the current one, on whose stream events are recorded and kernels start, and
    says what fp32 means.
    """
    import torch

    device = int(case.target[5:])
    if not torch.cuda.is_available() or device >= torch.cuda.device_count():
        raise Refusal(
            "no_device",
            f"{case.target}: torch {torch.__version__} sees {torch.cuda.device_count()} CUDA device(s)",
        )
    capability = torch.cuda.get_device_capability(device)
    if case.precision == "tf32" and capability < (8, 0):
        raise Refusal(
            "unsupported_precision",
            f"tf32 needs compute capability 8.0; {case.target} has {capability[0]}.{capability[1]}",
        )
    torch.cuda.set_device(device)
    tf32.allow(case.precision == "tf32")


def step(prepared: Tensors, function: Callable[..., Any], about: Any) -> Step:
    """Returns the step that calls a function of tensors.

    Its outputs are the tensors in their order, whatever holds them: tuple, list, dict or a class
    that pytree knows.
    """
    import torch

    from ..oracle import leaves

    @torch.inference_mode()
    def call(inputs: tuple[torch.Tensor, ...]) -> Any:
        return function(*inputs)

    def fetch(outputs: Any) -> Arrays:
        return tuple(leaves.array(leaf) for leaf in leaves.tensors(outputs))

    def synchronize() -> None:
        torch.cuda.synchronize(prepared.target)

    between = emptied_l2(prepared.target) if prepared.cold else nothing
    return Step(
        call, prepared.place, fetch, nothing if prepared.target == "cpu" else synchronize, about, between
    )


def emptied_l2(target: str) -> Callable[[], None]:
    """Returns a function that writes twice as much as the device's L2 cache holds."""
    import torch

    size = 2 * torch.cuda.get_device_properties(target).L2_cache_size
    buffer = torch.empty(size, dtype=torch.uint8, device=target)

    def write() -> None:
        buffer.zero_()

    return write


def torch_profiler(schedule: Schedule, cuda: bool, write: Callable[[Any], None] | None = None) -> Any:
    """Returns a `torch.profiler.profile` that waits for nothing.

    Warm-up steps come first, then the active ones, each closed by its `step()`; `write` gets the
    profiler when they are over.
    """
    from torch import profiler

    kinds = profiler.ProfilerActivity
    return profiler.profile(
        activities=[kinds.CPU, *([kinds.CUDA] if cuda else [])],
        schedule=profiler.schedule(wait=0, warmup=schedule.warmup, active=schedule.active, repeat=1),
        on_trace_ready=write,
        record_shapes=schedule.shapes,
        profile_memory=schedule.memory,
        with_stack=schedule.stacks,
        acc_events=True,
    )


def export_torch(profiler: Any, path: Path) -> None:
    """Writes Kineto's JSON.

    Kineto writes the path into the file, so it is called from the folder: the folders of this
    machine stay out.
    """
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        profiler.export_chrome_trace(path.name)
    finally:
        os.chdir(here)
