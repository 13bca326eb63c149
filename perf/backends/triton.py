"""Our Triton kernels in place of aten's operators (kernels/surgery.py), in eager or under
torch.compile.

For GPUs: on a CPU a replaced model runs the same aten operators as eager, so a time under this name
would be eager's.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..lowering import torch_step
from ..machine import present
from ..terms.case import Case, Workload
from ..terms.contract import Artefact, Phase, Proven, Step
from ..terms.reasons import Reason, Refusal
from ..terms.result import Placement
from . import eager

if TYPE_CHECKING:
    from ...kernels.surgery import Report
    from ..compiled.entries import Entry, Failed

SUMMARY = "our Triton kernels in place of aten's operators, on GPUs"
OPTIONS = {"compile": ("off", "on"), "attention": ("torch", "triton"), **eager.OPTIONS}
PRELOAD = ("torch", "triton")
TARGETS = ("cuda", "sm_", "gfx")

supports = eager.supports
variables = eager.variables
profile = eager.profile


def available(target: str) -> Reason | None:
    if target == "cpu":
        return Reason(
            "no_device",
            "Triton kernels run on a GPU; on a CPU a replaced model runs the same aten operators as eager"
            " (hotlap kernels shows what the compiler makes of them)",
        )
    return present.missing("triton", "pip install triton") or eager.available(target)


@dataclass(frozen=True)
class Ready:
    """What `placement` and `profile` need."""

    prepared: torch_step.Prepared
    report: Report

    @property
    def inputs(self) -> Any:
        return self.prepared.inputs

    @property
    def place(self) -> Callable[..., Any]:
        return self.prepared.place


def load(artefact: Artefact) -> Step:
    import torch

    torch.set_num_threads(artefact.threads)
    prepared, report = replaced(artefact)
    function: Callable[..., Any] = prepared.module
    if artefact.case.option("compile", "off") == "on":
        function = torch.compile(prepared.module, dynamic=False)
    return torch_step.step(prepared, function, Ready(prepared, report))


def replaced(artefact: Artefact) -> tuple[torch_step.Prepared, Report]:
    """The module on its target, with our operations in it."""
    from ...kernels import dispatch
    from ...kernels.surgery import replace

    prepared = torch_step.prepare(artefact.workload(), artefact.case)
    report = replace(prepared.module, chosen(artefact.case))
    dispatch.reset()
    return prepared, report


def chosen(case: Case) -> list[str] | None:
    """Names of operations, None for all but attention."""
    from ...kernels import library

    if case.option("attention", "torch") == "torch":
        return None
    return [name for name in library.NAMES if getattr(library.operation(name).module, "PATTERNS", ())]


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """To L5 for an architecture that `hotlap kernels` knows: the operations that were found,
    compiled at their typical sizes. No rule may be broken (rules.py).
    """
    import triton

    from ...kernels.surgery import replace
    from ..compiled import aot, builds
    from ..lowering.proofs import exported

    yield Proven("L0", f"triton {triton.__version__}")
    beside = ""
    if case.option("autocast", "off") == "off":
        try:
            yield exported(workload, case, phase).proven
        except Refusal as refusal:  # our operations need no export
            if refusal.reason.code != "export_failed":
                raise
            beside = f"; not seen on the device's tensors, since torch.export fails: {refusal.reason.detail}"
    prepared = torch_step.prepare(workload, dataclasses.replace(case, target="cpu", options=()))
    report = replace(prepared.module, chosen(case))
    if not report.replaced:
        raise Refusal(
            "unsupported_op",
            f"nothing in {case.workload} is one of our operations, so all of it would be eager:"
            f" {str(report).splitlines()[0]}",
        )
    found = Counter(one.operation for one in report.replaced)
    words = ", ".join(f"{count} {name}" for name, count in found.most_common())
    placement = Placement(
        "triton", dict(found), {"modules_replaced": found.total()}, tuple(str(report).splitlines())
    )
    yield Proven(
        "L2", f"our operations take {words}; {len(report.kept)} modules stay aten's{beside}", placement
    )
    step = torch_step.step(prepared, prepared.module, None)
    yield Proven(
        "L3",
        "the module with our operations in it, which take their references on a CPU",
        lowered=lambda arrays: step.fetch(step.call(step.place(arrays))),
    )
    if case.target not in aot.ARCHITECTURES:
        return
    with phase("compile"):
        kernels = [
            kernel for name in found for _, kernel in builds.kernels(name, case.precision, case.target, False)
        ]
    if wrong := [text for kernel in kernels if (text := fault(kernel))]:
        raise Refusal("build_failed", f"{len(wrong)} of {len(kernels)} kernels for {case.target}: {wrong[0]}")
    yield Proven(
        "L5",
        f"{len(kernels)} kernels of these operations compiled for {case.target}; none spills or breaks a"
        " rule",
    )


def fault(kernel: Entry | Failed) -> str:
    """Empty, or what is wrong with it."""
    said = getattr(kernel, "why", "") or ", ".join(getattr(kernel, "violations", ()))
    return f"{kernel.op}: {said}" if said else ""


def placement(artefact: Artefact, step: Step) -> Placement:
    """Launches of our operations in one call, and calls that took the reference although Triton was
    asked for: with one of these the case fell back.
    """
    from ...kernels import dispatch

    report, target = step.about.report, artefact.case.target
    before = sum(dispatch.launched.values())
    step.call(step.about.place(step.about.inputs))
    step.synchronize()
    launched, fallbacks = sum(dispatch.launched.values()) - before, sum(dispatch.fallbacks.values())
    counts = {
        "kernel_calls": launched,
        "kernel_fallbacks": fallbacks,
        "modules_replaced": len(report.replaced),
    }
    evidence = [
        *str(report).splitlines(),
        *(f"{count} x {name} took the reference: {why}" for (name, why), count in dispatch.fallbacks.items()),
    ]
    wrong = judged(artefact.case, launched, fallbacks, evidence)
    return Placement(
        target,
        {f"triton on {target}": launched, f"aten instead on {target}": fallbacks},
        counts,
        tuple(evidence),
        wrong,
    )


def judged(case: Case, launched: int, fallbacks: int, evidence: list[str]) -> Reason | None:
    if fallbacks:
        return Reason(
            "unsupported_op", f"{fallbacks} calls of our operations took the reference: {evidence[-1]}"
        )
    if not launched:
        return Reason(
            "unsupported_op",
            f"nothing in {case.workload} is one of our operations, so all of it would be eager:"
            f" {evidence[0]}",
        )
    return None
