"""A profile of one case, captured as a race would run it: its own worker, checked against fp64
before anything is recorded.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ...perf.lookup import plugins, workloads
from ...perf.machine import cores, survey
from ...perf.measure.prepare import Preparation, worker_environment
from ...perf.race.entrant import load_worker
from ...perf.race.messages import Record
from ...perf.race.race import Race
from ...perf.race.servers import Servers
from ...perf.terms.case import Case, Plan
from ...perf.terms.contract import Overhead, Schedule
from ...perf.terms.reasons import Refusal


def inference(
    case: Case,
    reference: workloads.Reference,
    plan: Plan,
    schedule: Schedule,
    file: Path,
    work: Path,
    report: Callable[[str], None],
) -> Overhead:
    """Writes the file.

    Raises Refusal: what the backend refuses, wrong outputs, dep_missing for a backend without a
    profiler.
    """
    backend = plugins.backend(case.backend)
    if reason := backend.available(case.target) or backend.supports(case):
        raise Refusal(reason.code, reason.detail)
    if not hasattr(backend, "profile"):
        raise Refusal(
            "dep_missing",
            f"backend {case.backend} has no profiler of its own; profile eager, compile, onnxruntime or"
            " openvino",
        )
    servers = Servers(work, plan.timeout_s, report)
    preparation = Preparation(reference, work, plan, servers)
    try:
        preparation.refer([case], False, report, report)
        report(f"building {case.backend}")
        entrant = preparation.build(case)
        race = Race([entrant], plan, servers, report, lambda: None)
        try:
            race.check()
            if entrant.refusal is not None:
                raise Refusal(entrant.refusal.code, entrant.refusal.detail)
            report("profiling")
            load_worker(entrant, plan, servers, "profile", fresh=True)
            about = {
                **origin(case, plan.threads),
                "weights": entrant.seen.subject.weights,
                "flops": entrant.seen.subject.work.flops,
                "peaks": entrant.seen.peaks,
            }
            record = Record(str(file.absolute()), schedule, about)
            return entrant.running().ask(record, plan.timeout_s)
        finally:
            race.end()
    finally:
        preparation.close()
        servers.close()


def training(case: Case, seed: int, plan: Plan, schedule: Schedule, file: Path) -> None:
    """Steps of a network of models/nets/ through Lightning's own fit, on its own data, in a process
    of its own.

    Raises Refusal: no_device, unsupported_precision, timeout, crashed.
    """
    if reason := plugins.backend(case.backend).available(case.target):
        raise Refusal(reason.code, reason.detail)
    if case.precision != "fp32":
        why = (
            "our networks clip gradients beside a fused optimizer, which Lightning refuses in mixed"
            " precision; hotlap.Profile records any training of your own"
        )
        raise Refusal("unsupported_precision", f"training in {case.precision}: {why}")
    asked = {
        "case": case,
        "seed": seed,
        "schedule": schedule,
        "file": str(file.absolute()),
        "about": origin(case, plan.threads),
    }
    program = [sys.executable, "-P", "-m", f"{__package__}.fit"]
    environment = worker_environment(Case(case.workload, case.backend, target=case.target), plan.threads)
    try:
        done = subprocess.run(
            program,
            input=msgspec.json.encode(asked),
            env=environment,
            stderr=subprocess.PIPE,
            timeout=plan.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refusal(
            "timeout",
            f"training {case.workload} did not end within {plan.timeout_s:g} s; raise --timeout or record"
            " fewer steps",
        ) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise Refusal("crashed", f"training {case.workload} ended with status {done.returncode}: {lines[-1]}")


def origin(case: Case, threads: int) -> dict[str, Any]:
    """What the file says of where it comes from."""
    here = survey.collect(threads, "keep")
    return {"case": case.id, "backend": case.backend, "hardware": here.hardware, "libraries": here.libraries}


def threads() -> int:
    return cores.count()
