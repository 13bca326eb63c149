"""PyTorch as it is:

`module(*inputs)`, the whole model cast to the case's precision. The baseline of every race.

With autocast:on the module and its inputs stay fp32 and torch.autocast casts at each operator of
its list; the weights are cast again in every call, since autocast keeps casts only of what requires
a gradient (aten/src/ATen/autocast_mode.cpp, cached_cast).

compile.py shares `prepare` and `step` with this file: they differ only in what is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import profiling, tf32
from ..case import Case, Workload
from ..reasons import Reason, Refusal
from ..result import Placement
from . import Arrays, Artefact, Phase, Proven, Step, _machine, nothing

if TYPE_CHECKING:
    import torch

SUMMARY = "PyTorch without a compiler: the baseline"
OPTIONS = {"layout": ("contiguous", "channels-last"), "autocast": ("off", "on"), "l2": ("warm", "cold")}
PRELOAD = ("torch",)

REMEDY = "pip install torch"
HALF = ("bf16", "fp16")


def available(target: str) -> Reason | None:
    return _machine.missing("torch", REMEDY) or _machine.no_device(target)


def supports(case: Case) -> Reason | None:
    if case.mode != "inference":
        return Reason("unsupported_op", f"mode {case.mode}: this backend runs inference only")
    if case.precision == "int8":
        return Reason(
            "unsupported_precision", "int8 needs a quantised module; PyTorch's cast gives bf16 and fp16 only"
        )
    if case.option("l2", "warm") == "cold" and case.target == "cpu":
        return Reason(
            "unsupported_target",
            "l2:cold empties the L2 cache of a GPU between calls; on a CPU the inputs rotate and nothing is"
            " emptied",
        )
    if case.option("autocast", "off") == "on" and case.precision not in HALF:
        return Reason(
            "unsupported_precision",
            f"autocast:on runs operators in bf16 or fp16; with {case.precision} there is nothing to cast: add"
            " --precision bf16 or drop it",
        )
    if case.precision == "tf32" and case.target == "cpu":
        return Reason(
            "unsupported_precision", "tf32 is a mode of NVIDIA's matrix units from Ampere on; a CPU has none"
        )
    return None


def variables(case: Case, threads: int) -> dict[str, str]:
    """OpenMP's own binding: it binds the pool and the calling thread when the library is loaded
    (OpenMP 5.0, 6.4 to 6.6).
    """
    bound = _machine.places(case, threads)
    binding = (
        {"OMP_PROC_BIND": "close", "OMP_PLACES": ",".join(f"{{{cpu}}}" for cpu in bound)} if bound else {}
    )
    return {"OMP_NUM_THREADS": str(threads), **binding}


def load(artefact: Artefact) -> Step:
    import torch

    torch.set_num_threads(artefact.threads)
    prepared = prepare(artefact.workload(), artefact.case)
    return step(prepared, prepared.module, prepared)


def placement(artefact: Artefact, step: Step) -> Placement:
    """Counts the aten operators that one call dispatches, by the device and by the dtype of what
    they return.
    """
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    devices: dict[str, int] = {}
    strangers: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()

    class Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            first = next((leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), None)
            device = "cpu" if first is None else str(first.device)
            dtypes[name_of(first)] += 1
            devices[device] = devices.get(device, 0) + 1
            if first is not None and device != artefact.case.target:
                strangers[f"{func} on {device}"] += 1
            return result

    inputs = step.about.place(step.about.inputs)
    with Count():  # type: ignore[no-untyped-call]
        step.call(inputs)
    elsewhere = [device for device in devices if device != artefact.case.target]
    wrong = None
    if artefact.case.target not in devices:
        wrong = Reason(
            "wrong_provider",
            f"no operator ran on {artefact.case.target}; they ran on {', '.join(elsewhere) or 'nothing'}",
        )
    evidence = ["aten operators of one call, by TorchDispatchMode"]
    if artefact.case.precision in HALF:
        evidence.append(by_dtype(artefact.case, dtypes))
        wanted = artefact.case.precision
        if wrong is None and not dtypes[wanted]:
            wrong = Reason("unsupported_precision", f"no operator returned {wanted}: {evidence[-1]}")
    told = ", ".join(f"{count} {name}" for name, count in strangers.most_common())
    partial = (
        f"{strangers.total()} operators did not run on {artefact.case.target}: {told}"
        if strangers and wrong is None
        else ""
    )
    return Placement(
        artefact.case.target, devices, {"operators": sum(devices.values())}, tuple(evidence), wrong, partial
    )


def name_of(value: torch.Tensor | None) -> str:
    """fp32, bf16, fp16, or torch's own name of the dtype; `none` for an operator that returns no
    tensor.
    """
    if value is None:
        return "none"
    name = str(value.dtype).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(name, name)


def by_dtype(case: Case, dtypes: Counter[str]) -> str:
    how = (
        "under torch.autocast, module and inputs in fp32"
        if case.option("autocast", "off") == "on"
        else "whole model cast"
    )
    return (
        f"{how}; operators by the dtype of their output:"
        f" {', '.join(f'{count} {name}' for name, count in dtypes.most_common())}"
    )


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """Without the device: configuration, and the module exported for it (_verify.py).

    Nothing of eager is lowered, so it ends there.
    """
    from ._verify import configured, exported

    yield from configured(workload, case)
    if case.option("autocast", "off") == "off":
        yield exported(workload, case, phase).proven


def profile(
    artefact: Artefact, step: Step, feed: Sequence[Arrays], schedule: profiling.Schedule, path: Path
) -> list[float]:
    """torch's profiler, each call one of its steps."""
    import torch

    def call(inputs: Any) -> None:
        step.call(inputs)
        step.synchronize()

    placed, seconds = [step.place(arrays) for arrays in feed], []
    profiler = profiling.torch_profiler(schedule, artefact.case.target != "cpu")
    with torch.inference_mode(), profiler:
        for inputs in placed:
            seconds.append(profiling.timed(partial(call, inputs)))
            profiler.step()
    profiling.export_torch(profiler, path)
    return seconds[-schedule.active :]


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """How arrays become inputs. cold: empty the L2 cache before each call."""

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

    `inputs`: the workload's own, a batch as the case has it.
    """

    module: torch.nn.Module
    inputs: Arrays


def tensors(case: Case) -> Tensors:
    """Sets up the case's device. Raises Refusal: no_device, unsupported_precision."""
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
    """Of the module and its inputs."""
    import torch

    if case.option("autocast", "off") == "on":
        return torch.float32
    return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(case.precision, torch.float32)


def prepare(workload: Workload, case: Case) -> Prepared:
    """Casts and moves the workload's module in place.

    Raises Refusal: no_device, unsupported_precision, unsupported_op.
    """
    import torch

    made = tensors(case)
    if made.layout is torch.channels_last and all(tensor.dim() != 4 for tensor in workload.inputs):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in workload.inputs)
        raise Refusal(
            "unsupported_op",
            f"layout channels-last needs an input with 4 dimensions; {workload.name} has {shapes}",
        )
    module = workload.module.to(device=made.target, dtype=made.dtype)
    module = module.to(memory_format=made.layout)
    if case.option("autocast", "off") == "on":
        module = _autocast(module, case)
    return Prepared(
        module=module,
        inputs=tuple(tensor.numpy() for tensor in workload.inputs),
        target=made.target,
        dtype=made.dtype,
        layout=made.layout,
        cold=made.cold,
    )


def _autocast(module: torch.nn.Module, case: Case) -> torch.nn.Module:
    """A module, not a context around the call: torch.export forgets an autocast that is not entered
    inside of forward (seen with torch 2.14.1).
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
    """Tensors of the outputs in their order, whatever holds them: tuple, list, dict or a class that
    pytree knows.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    @torch.inference_mode()
    def call(inputs: tuple[torch.Tensor, ...]) -> Any:
        return function(*inputs)

    def fetch(outputs: Any) -> Arrays:
        return tuple(_array(leaf) for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor))

    def _array(tensor: torch.Tensor) -> Any:
        kept = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        return tensor.detach().to("cpu", kept, copy=True).numpy()

    def synchronize() -> None:
        torch.cuda.synchronize(prepared.target)

    between = emptied_l2(prepared.target) if prepared.cold else nothing
    return Step(
        call, prepared.place, fetch, nothing if prepared.target == "cpu" else synchronize, about, between
    )


def emptied_l2(target: str) -> Callable[[], None]:
    """Writes twice as much as the device's L2 cache holds."""
    import torch

    size = 2 * torch.cuda.get_device_properties(target).L2_cache_size
    buffer = torch.empty(size, dtype=torch.uint8, device=target)

    def write() -> None:
        buffer.zero_()

    return write
