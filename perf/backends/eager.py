"""PyTorch as it is: `module(*inputs)`, the whole model cast to the case's precision.

It is the baseline of every race.

With autocast:on the module and its inputs stay fp32 and torch.autocast casts at each operator of
its list; the weights are cast again in every call, since autocast keeps casts only of what requires
a gradient (aten/src/ATen/autocast_mode.cpp, cached_cast).

compile.py differs from this file only in what is called (torch_step.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..lowering import torch_step
from ..lowering.torch_step import HALF, by_dtype, name_of, prepare
from ..machine import present
from ..terms import contract
from ..terms.case import Case, Workload
from ..terms.contract import Arrays, Artefact, Phase, Proven, Step
from ..terms.reasons import Reason
from ..terms.result import Placement

SUMMARY = "PyTorch without a compiler: the baseline"
OPTIONS = {"layout": ("contiguous", "channels-last"), "autocast": ("off", "on"), "l2": ("warm", "cold")}
PRELOAD = ("torch",)
# What a Reason says where torch is missing.
REMEDY = "pip install torch"


def available(target: str) -> Reason | None:
    """Returns what is missing for it: torch or the device."""
    return present.missing("torch", REMEDY) or present.no_device(target)


def supports(case: Case) -> Reason | None:
    """Returns what the case's precision and options rule out, None where nothing is."""
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
    """Returns OpenMP's own variables for threads and binding.

    They bind the pool and the calling thread when the library is loaded (OpenMP 5.0, 6.4 to 6.6).
    """
    bound = present.cpus_to_bind(case, threads)
    binding = (
        {"OMP_PROC_BIND": "close", "OMP_PLACES": ",".join(f"{{{cpu}}}" for cpu in bound)} if bound else {}
    )
    return {"OMP_NUM_THREADS": str(threads), **binding}


def load(artefact: Artefact) -> Step:
    """Puts the module on its target. Raises Refusal: what torch_step.prepare raises."""
    import torch

    torch.set_num_threads(artefact.threads)
    prepared = prepare(artefact.workload(), artefact.case)
    return torch_step.step(prepared, prepared.module, prepared)


def placement(artefact: Artefact, step: Step) -> Placement:
    """Counts the aten operators that one call dispatches.

    By the device and by the dtype of what they return.
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
    partial = ""
    if strangers and wrong is None:
        names = ", ".join(f"{count} {name}" for name, count in strangers.most_common())
        partial = f"{strangers.total()} operators did not run on {artefact.case.target}: {names}"
    return Placement(
        artefact.case.target, devices, {"operators": sum(devices.values())}, tuple(evidence), wrong, partial
    )


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """Proves without the device: configuration, and the module exported for it (proofs.py).

    Nothing of eager is lowered, so it ends there.
    """
    from ..lowering import proofs

    yield from proofs.configured(workload, case)
    if case.option("autocast", "off") == "off":
        yield proofs.exported(workload, case, phase).proven


def profile(
    artefact: Artefact, step: Step, feed: Sequence[Arrays], schedule: contract.Schedule, path: Path
) -> list[float]:
    """Records the calls with torch's profiler, each as one of its steps."""
    import torch

    def call(inputs: Any) -> None:
        step.call(inputs)
        step.synchronize()

    placed = [step.place(arrays) for arrays in feed]
    seconds = []
    profiler = torch_step.torch_profiler(schedule, artefact.case.target != "cpu")
    with torch.inference_mode(), profiler:
        for inputs in placed:
            seconds.append(contract.timed(partial(call, inputs)))
            profiler.step()
    torch_step.export_torch(profiler, path)
    return seconds[-schedule.active :]
