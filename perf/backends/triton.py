"""Our Triton kernels in place of aten's operators (kernels/surgery.py), in eager or under
torch.compile.

For GPUs: on a CPU a replaced model runs the same aten operators as eager, so a time under this name
would be eager's.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
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
    """Returns what is missing for it: the package or a GPU."""
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
        """A batch as the case has it."""
        return self.prepared.inputs

    @property
    def place(self) -> Callable[..., Any]:
        """Makes inputs of arrays."""
        return self.prepared.place


def load(artefact: Artefact) -> Step:
    """Puts our operations into the module; with compile:on the rest is torch.compile's."""
    import torch

    torch.set_num_threads(artefact.threads)
    prepared, report = replaced(artefact)
    function: Callable[..., Any] = prepared.module
    if artefact.case.option("compile", "off") == "on":
        function = torch.compile(prepared.module, dynamic=False)
    return torch_step.step(prepared, function, Ready(prepared, report))


def replaced(artefact: Artefact) -> tuple[torch_step.Prepared, Report]:
    """Returns the module on its target with our operations in it, and what was replaced."""
    from ...kernels import dispatch, surgery

    prepared = torch_step.prepare(artefact.workload(), artefact.case)
    report = surgery.replace(prepared.module, chosen(artefact.case))
    dispatch.reset()
    return prepared, report


def chosen(case: Case) -> list[str] | None:
    """Returns the names of the operations to put in, None for all but attention."""
    from ...kernels import library

    if case.option("attention", "torch") == "torch":
        return None
    return [name for name in library.NAMES if getattr(library.operation(name).module, "PATTERNS", ())]


def verify(workload: Workload, case: Case, folder: Path, phase: Phase) -> Iterator[Proven]:
    """Proves the case to L5 for an architecture that `hotlap kernels` knows.

    L5 is the operations that the module has, compiled at their typical sizes. No rule may be broken
    (rules.py). Raises Refusal where it goes no further.
    """
    import triton

    from ...kernels import surgery
    from ..compiled import aot
    from ..lowering import proofs

    yield Proven("L0", f"triton {triton.__version__}")
    beside = ""
    if case.option("autocast", "off") == "off":
        try:
            yield proofs.exported(workload, case, phase).proven
        except Refusal as refusal:  # our operations need no export
            if refusal.reason.code != "export_failed":
                raise
            beside = f"; not seen on the device's tensors, since torch.export fails: {refusal.reason.detail}"
    prepared = torch_step.prepare(workload, dataclasses.replace(case, target="cpu", options=()))
    report = surgery.replace(prepared.module, chosen(case))
    if not report.replaced:
        raise Refusal(
            "unsupported_op",
            f"nothing in {case.workload} is one of our operations, so all of it would be eager:"
            f" {str(report).splitlines()[0]}",
        )
    operations = Counter(replacement.operation for replacement in report.replaced)
    words = ", ".join(f"{count} {name}" for name, count in operations.most_common())
    counts = {"modules_replaced": operations.total()}
    placement = Placement("triton", dict(operations), counts, tuple(str(report).splitlines()))
    yield Proven(
        "L2", f"our operations take {words}; {len(report.kept)} modules stay aten's{beside}", placement
    )
    step = torch_step.step(prepared, prepared.module, None)
    yield Proven(
        "L3",
        "the module with our operations in it, which take their references on a CPU",
        lowered=lambda arrays: step.fetch(step.call(step.place(arrays))),
    )
    if case.target in aot.ARCHITECTURES:
        with phase("compile"):
            yield compiled(operations, case)


def compiled(operations: Iterable[str], case: Case) -> Proven:
    """Returns L5: the kernels of operations, compiled for the case's architecture.

    Raises Refusal(build_failed) where one does not compile or breaks a rule.
    """
    from ..compiled import builds

    kernels = [
        kernel
        for name in operations
        for _, kernel in builds.kernels(name, case.precision, case.target, False)
    ]
    if wrong := [text for kernel in kernels if (text := fault(kernel))]:
        raise Refusal("build_failed", f"{len(wrong)} of {len(kernels)} kernels for {case.target}: {wrong[0]}")
    return Proven(
        "L5",
        f"{len(kernels)} kernels of these operations compiled for {case.target}; none spills or breaks a"
        " rule",
    )


def fault(kernel: Entry | Failed) -> str:
    """Returns what is wrong with a kernel, empty if nothing is."""
    wrong = getattr(kernel, "why", "") or ", ".join(getattr(kernel, "violations", ()))
    return f"{kernel.op}: {wrong}" if wrong else ""


def placement(artefact: Artefact, step: Step) -> Placement:
    """Counts launches of our operations in one call, and calls that took the reference.

    Triton was asked for, so with one of the latter the case fell back.
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
    """Returns the reason if a call took the reference, or nothing was launched."""
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
