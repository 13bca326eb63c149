"""From what was seen of an entrant to its Result: metrics, what is absent and why, status and
reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from ..lookup import plugins
from ..lookup.cases import LIBRARY_DEFAULTS
from ..machine import cpu, telemetry
from ..oracle.ladder import MEANING, Ladder
from ..race import priority
from ..race.entrant import Entrant
from ..race.observations import Observations
from ..stats import estimates
from ..terms.case import Case, Plan
from ..terms.reasons import WRONG, Reason, Refusal
from ..terms.result import Disturbance, Placement, Result, Samples, Status
from ..terms.work import Subject

# What makes a case skipped, not failed.
SKIPS = (
    "not_tried",
    "no_device",
    "unsupported_target",
    "unsupported_precision",
    "dep_missing",
    "dep_conflict",
)
# Page faults a call, from which on the allocator is named.
FAULTS_WORTH_A_WORD = 100


@dataclass(frozen=True)
class Setting:
    """What all results of one race share. environment: its key in the results file."""

    race_id: str
    plan: Plan
    environment: str


def unmeasured(setting: Setting, case: Case, reason: Reason) -> Result:
    """The result of a case that never had a worker in the race."""
    status: Status = "skipped" if reason.code in SKIPS or reason.code == "interrupted" else "failed"
    return Result(case, setting.race_id, setting.plan, status, reason, environment=setting.environment)


def proven(setting: Setting, case: Case, ladder: Ladder, device: Reason, subject: Subject) -> Result:
    """The result of a case whose device is not here. It has no time, whatever it reached."""
    status: Status = "verified"
    reason = Reason(device.code, f"{device.detail}; proven to {ladder.rung} ({MEANING[ladder.rung]})")
    if ladder.stopped is not None:
        status, reason = ("skipped" if ladder.stopped.code in SKIPS else "failed"), ladder.stopped
    return Result(
        case,
        setting.race_id,
        setting.plan,
        status,
        reason,
        verified_to=ladder.rung,
        proofs=ladder.proofs,
        build_s=ladder.build_s,
        weights=subject.weights,
        items=subject.work.items,
        item=subject.work.item,
        placement=with_bytes(ladder.placement, ladder.artefact_bytes),
        deviation=ladder.deviation,
        warnings=random_weights(subject),
        environment=setting.environment,
    )


def answer(
    setting: Setting,
    entrant: Entrant,
    baseline: Entrant,
    stopped_by: str,
    interrupted: bool,
    fp32: Entrant | None = None,
) -> Result:
    """The result of one entrant.

    Wrong outputs and wrong placement carry no time; samples taken before a crash stay. fp32: the
    entrant that differs from it in precision only.
    """
    seen = entrant.seen
    status, reason = standing(entrant, baseline, setting.plan, interrupted)
    wrong = entrant.fell_back or (reason is not None and reason.code in WRONG)
    shown = bool(seen.timed) and not wrong
    metrics, absent = measured(seen, entrant.own_work) if shown else ({}, {})
    ran = entrant.placement is not None or (entrant.own_work and bool(seen.timed))
    return Result(
        entrant.case,
        setting.race_id,
        setting.plan,
        status,
        reason,
        verified_to="L7" if ran else "L0",
        weights=seen.subject.weights,
        items=seen.subject.work.items,
        item=seen.subject.work.item,
        placement=with_bytes(entrant.placement, seen.artefact_bytes),
        metrics=metrics,
        absent=absent,
        deviation=entrant.deviation,
        disturbance=disturbance(seen) if shown else None,
        warnings=tuple(warnings(entrant, fp32 if shown else None)),
        environment=setting.environment,
        stopped_by=stopped_by,
    )


def standing(
    entrant: Entrant, baseline: Entrant, plan: Plan, interrupted: bool
) -> tuple[Status, Reason | None]:
    if entrant.refusal is not None:
        return ("fell_back" if entrant.fell_back else "failed"), entrant.refusal
    if interrupted:
        return "noisy", Reason(
            "interrupted", f"stopped after {len(entrant.seen.timed)} blocks; go on with: hotlap run --resume"
        )
    if not entrant.seen.steady:
        return "noisy", Reason(
            "not_steady",
            f"in {entrant.seen.unsteady} of {len(entrant.seen.timed)} blocks the warm-up ended before"
            " samples agreed; raise --budget",
        )
    if entrant is not baseline and baseline.seen.timed and not entrant.own_work:
        width = estimates.ratio(baseline.latencies(), entrant.latencies()).half_width
        if math.isinf(width):
            blocks = len(entrant.seen.timed)
            return "noisy", Reason(
                "wide_interval",
                f"{blocks} block{' gives' if blocks == 1 else 's give'} no interval; raise --budget",
            )
        if width > plan.noisy_half_width:
            return "noisy", Reason(
                "wide_interval",
                f"the ratio to {baseline.case.backend} is known to {width:.0%} only; raise --budget or"
                " quieten the machine",
            )
    return "ok", None


def measured(seen: Observations, own_work: bool) -> tuple[dict[str, Samples], dict[str, Reason]]:
    """Every metric there is, or the reason why it is absent."""
    metrics: dict[str, Samples] = {}
    absent: dict[str, Reason] = {}
    for name in plugins.modules("hotlap.metrics"):
        if own_work and name != "latency":
            continue
        try:
            metrics[name] = plugins.load("hotlap.metrics", name).measure(seen)
        except Refusal as refusal:
            absent[name] = refusal.reason
    return metrics, absent


def with_bytes(placement: Placement | None, artefact_bytes: int) -> Placement | None:
    """The placement with the artefact's size among its counters."""
    if placement is None:
        return None
    counters = {**placement.counters, "artefact_bytes": artefact_bytes}
    return msgspec.structs.replace(placement, counters=counters)


def random_weights(subject: Subject) -> tuple[str, ...]:
    """A warning where the weights are no trained ones."""
    return (f"weights: {subject.weights}",) if subject.weights.startswith("random") else ()


def disturbance(seen: Observations) -> Disturbance:
    blocks = seen.timed
    return Disturbance(
        cpu_s=tuple(tuple(turn.cpu_s for turn in block.turns) for block in blocks),
        first_s=tuple(tuple(turn.first_s for turn in block.turns) for block in blocks),
        calls=tuple(block.warm.calls if block.warm else 0 for block in blocks),
        switches=tuple(tuple(turn.switches for turn in block.turns) for block in blocks),
        migrations=tuple(tuple(turn.migrations for turn in block.turns) for block in blocks),
        faults=tuple(tuple(turn.faults / turn.calls for turn in block.turns) for block in blocks),
        steal=tuple(block.steal for block in blocks),
        steady=tuple(block.warm is not None and block.warm.steady for block in blocks),
        priority=next(
            (block.priority for block in blocks if block.priority != priority.RAISED), priority.RAISED
        ),
        spent_s=tuple(block.spent_s for block in blocks),
    )


def warnings(entrant: Entrant, fp32: Entrant | None = None) -> list[str]:
    """What a reader of the result should know beside its status."""
    seen = entrant.seen
    lines: list[str] = []
    if not entrant.own_work:
        if not seen.subject.work.sensitive:
            lines.append("the outputs do not depend on the inputs, so a stale output could not be noticed")
        lines += [*seen.subject.warnings, *random_weights(seen.subject)]
    if entrant.strays:
        lines.append(
            f"the model started processes of its own ({', '.join(sorted(entrant.strays))}): they were ended,"
            " but ran beside the turns of all entrants"
        )
    if entrant.let_go:
        lines.append(entrant.let_go)
    if entrant.placement is not None and entrant.placement.partial:
        lines.append(entrant.placement.partial)
    lines += filter(None, [slow_precision(seen), slower(entrant, fp32) if fp32 is not None else ""])
    lines += telemetry.warnings([block.device for block in seen.blocks if block.device is not None])
    unwatched = [block.no_device for block in seen.blocks if block.no_device is not None]
    if unwatched:
        lines.append(f"the GPU's clocks and memory errors were not watched: {unwatched[0]}")
    by_library = dict(LIBRARY_DEFAULTS).items() <= dict(entrant.case.options).items()
    if seen.timed and by_library:
        faults = disturbance(seen).faults_per_call
        if faults > FAULTS_WORTH_A_WORD:
            lines.append(
                f"{faults:.0f} page faults a call: the allocator returns memory to the system;"
                " MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000 may help"
            )
    return lines


def slower(entrant: Entrant, fp32: Entrant) -> str:
    """Empty, or that a precision took longer than fp32 did in the same backend, and what was
    measured of why where `slow_precision` has not said it.
    """
    if entrant is fp32 or not fp32.live or not entrant.seen.timed or not fp32.seen.timed:
        return ""
    ratio = estimates.ratio(fp32.latencies(), entrant.latencies())
    if ratio.low <= 1:
        return ""
    message = f"{entrant.case.precision} takes {ratio.centre:.2f} times as long as fp32 in this backend"
    if slow_precision(entrant.seen):
        return message
    ours, theirs = entrant.seen.peaks.get("flop_rate"), entrant.seen.fp32.get("flop_rate")
    if ours and theirs:
        message += (
            f", although a product of large matrices runs at {ours / theirs:.1f} of fp32's speed here: this"
            " model's time is in smaller ones or elsewhere"
        )
    return f"{message}; hotlap profile shows where its time goes"


def slow_precision(seen: Observations) -> str:
    """Empty, or why this precision can be slower than fp32: what this machine's own matrix product
    says.
    """
    ours, fp32 = seen.peaks.get("flop_rate"), seen.fp32.get("flop_rate")
    if not ours or not fp32 or ours >= fp32:
        return ""
    precision = seen.case.precision
    lacking = [flag for flag in cpu.HALF_PRODUCTS.get(precision, ()) if flag not in cpu.flags()]
    why = f"; this CPU lacks {' and '.join(lacking)}" if lacking else ""
    return (
        f"a matrix product in {precision} runs at {ours / fp32:.2f} of fp32's speed on this machine{why}: the"
        " precision can make a model slower"
    )
