"""Our Triton kernels in place of aten's operators (kernels/surgery.py), in eager or under torch.compile.

For GPUs: on a CPU a replaced model runs the same aten operators as eager, so a time under this name would be eager's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..case import Case
from ..reasons import Reason
from ..result import Placement
from . import Artefact, Step, _machine, eager

if TYPE_CHECKING:
    from ...kernels.surgery import Report

SUMMARY = "our Triton kernels in place of aten's operators, on GPUs"
OPTIONS = {"compile": ("off", "on"), "attention": ("torch", "triton"), **eager.OPTIONS}
PRELOAD = ("torch", "triton")
TARGETS = ("cuda",)

supports = eager.supports
variables = eager.variables
profile = eager.profile


def available(target: str) -> Reason | None:
    if target == "cpu":
        return Reason(
            "no_device", "Triton kernels run on a GPU; on a CPU a replaced model runs the same aten operators as eager (hotlap kernels shows what the compiler makes of them)"
        )
    return _machine.missing("triton", "pip install triton") or eager.available(target)


@dataclass(frozen=True)
class Ready:
    """What `placement` and `profile` need."""

    prepared: eager.Prepared
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
    return eager.step(prepared, function, Ready(prepared, report))


def replaced(artefact: Artefact) -> tuple[eager.Prepared, Report]:
    """The module on its target, with our operations in it."""
    from ...kernels import dispatch, library
    from ...kernels.surgery import replace

    case = artefact.case
    prepared = eager.prepare(artefact.workload(), case)
    chosen = None
    if case.option("attention", "torch") == "triton":
        chosen = [name for name in library.NAMES if getattr(library.operation(name).module, "PATTERNS", ())]
    report = replace(prepared.module, chosen)
    dispatch.reset()
    return prepared, report


def placement(artefact: Artefact, step: Step) -> Placement:
    """Launches of our operations in one call, and calls that took the reference although Triton was asked for: with one of these the case fell back."""
    from ...kernels import dispatch

    report, target = step.about.report, artefact.case.target
    before = sum(dispatch.launched.values())
    step.call(step.about.place(step.about.inputs))
    step.synchronize()
    launched, fallbacks = sum(dispatch.launched.values()) - before, sum(dispatch.fallbacks.values())
    counts = {"kernel_calls": launched, "kernel_fallbacks": fallbacks, "modules_replaced": len(report.replaced)}
    evidence = [*str(report).splitlines(), *(f"{count} x {name} took the reference: {why}" for (name, why), count in dispatch.fallbacks.items())]
    wrong = judged(artefact.case, launched, fallbacks, evidence)
    return Placement(target, {f"triton on {target}": launched, f"aten instead on {target}": fallbacks}, counts, tuple(evidence), wrong)


def judged(case: Case, launched: int, fallbacks: int, evidence: list[str]) -> Reason | None:
    if fallbacks:
        return Reason("unsupported_op", f"{fallbacks} calls of our operations took the reference: {evidence[-1]}")
    if not launched:
        return Reason("unsupported_op", f"nothing in {case.workload} is one of our operations, so all of it would be eager: {evidence[0]}")
    return None
