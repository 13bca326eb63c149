"""What is tried, in the order in which it is built: first what a library does by default, which
everything is compared with, then what promises most for each second of building.

Some hundred candidates at most, so the order and a race that drops who is surely slower do what a
search library would: there is nothing to learn a model from.
"""

from __future__ import annotations

from typing import NamedTuple

from ..lookup import plugins
from ..lookup.cases import LIBRARY_DEFAULTS, parse_backend, takes
from ..terms.case import Case, Plan

DEFAULTS = "".join(f"[{name}:{value}]" for name, value in LIBRARY_DEFAULTS)
# Backends as their users start them, which the choice is measured against; the first is the
# baseline.
RIVALS = ("eager", "onnxruntime", "openvino", "compile")


class Prior(NamedTuple):
    """A way to run a model, with the speed-up over eager and the seconds of building that are
    expected of it: what orders candidates, and nothing else.
    """

    spec: str
    precision: str
    gain: float
    build_s: float


# On the CPU: geometric means over the four own and eight public models of docs/results/own.json and
# public.json at batch 1; where those have none, a guess below the way that it varies.
CPU = (
    Prior("onnxruntime", "fp32", 2.35, 5),
    Prior("openvino", "fp32", 2.2, 5),
    Prior("openvino", "int8", 4.15, 12),
    Prior("onnxruntime", "int8", 3.5, 6),
    Prior("openvino", "bf16", 3.5, 5),
    Prior("onnxruntime[int8:dynamic]", "int8", 2.4, 5),
    Prior("compile[package:aoti]", "int8", 2.95, 24),
    Prior("compile[package:aoti]", "bf16", 1.9, 23),
    Prior("compile[package:aoti]", "fp32", 1.5, 22),
    Prior("onnxruntime[threads:1]", "fp32", 1.5, 5),
    Prior("openvino[threads:1]", "fp32", 1.5, 5),
    Prior("openvino[threads:1]", "int8", 2.5, 12),
    Prior("onnxruntime[threads:1]", "int8", 2.2, 6),
    Prior("onnxruntime[fusion:transformer]", "fp32", 2.0, 5),
    Prior("onnxruntime[optimization:extended]", "fp32", 2.0, 5),
    Prior("openvino[hint:throughput][streams:1]", "fp32", 1.8, 5),
    Prior("compile[layout:channels-last][package:aoti]", "fp32", 1.4, 24),
)
# On a GPU nothing of ours was measured yet: guesses, in the order of what each does.
GPU = (
    Prior("onnxruntime", "fp32", 1.5, 5),
    Prior("onnxruntime", "fp16", 2.0, 6),
    Prior("tensorrt", "fp32", 1.8, 60),
    Prior("tensorrt", "fp16", 3.0, 60),
    Prior("compile[package:aoti]", "fp32", 1.5, 60),
    Prior("compile[package:aoti]", "fp16", 2.5, 60),
    Prior("compile[package:aoti]", "bf16", 2.5, 60),
)


# Seconds of building up to which a candidate comes before the rivals that take longer.
SOON_S = 15.0


def ways(workload: str, batch: int, target: str, precisions: tuple[str, ...], plan: Plan) -> list[Case]:
    """Returns all that is built, in order: rivals that are there soon, the baseline first, then
    candidates that are; the other rivals, then the other candidates.
    """
    by_default = rivals(workload, batch, target)
    tried = candidates(workload, batch, target, precisions, plan)
    return [
        case
        for soon in (True, False)
        for cases in (by_default, tried)
        for case in cases
        if (expected_s(case) <= SOON_S) == soon
    ]


def rivals(workload: str, batch: int, target: str) -> list[Case]:
    """Returns the cases of libraries by default, the baseline first."""
    return [
        Case(workload, spec, "fp32", batch, target, "inference", parse_backend(f"{spec}{DEFAULTS}")[1])
        for spec in RIVALS
        if takes(spec, workload) and able(spec, target)
    ]


def candidates(workload: str, batch: int, target: str, precisions: tuple[str, ...], plan: Plan) -> list[Case]:
    """Returns what can be shipped, the most promising for a second of building first."""
    priors = sorted(GPU if target.startswith("cuda") else CPU, key=lambda each: each.gain / each.build_s)
    cases = []
    for prior in reversed(priors):
        backend, options = parse_backend(prior.spec)
        same = dict(options).get("threads") == "1" and plan.threads == 1
        able_to = takes(backend, workload) and able(backend, target)
        if prior.precision in precisions and able_to and not same:
            cases.append(Case(workload, backend, prior.precision, batch, target, "inference", options))
    return cases


def expected_s(case: Case) -> float:
    """Returns the seconds that building a case is expected to take."""
    own = dict(case.options).items() - dict(LIBRARY_DEFAULTS).items()
    for prior in (*CPU, *GPU):
        backend, options = parse_backend(prior.spec)
        if (backend, set(options), prior.precision) == (case.backend, set(own), case.precision):
            return prior.build_s
    return {"eager": 1.0, "compile": 40.0}.get(case.backend, 5.0)


def able(spec: str, target: str) -> bool:
    """Returns whether a backend is for this kind of target."""
    backend = plugins.backend(parse_backend(spec)[0])
    return target.startswith(getattr(backend, "TARGETS", ("",)))
