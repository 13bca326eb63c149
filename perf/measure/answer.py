"""From what was seen of an entrant to its Result: metrics, what is absent and why, status and
reason.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ..lookup import plugins
from ..lookup.cases import LIBRARY_DEFAULTS
from ..machine import cpu, telemetry
from ..oracle.ladder import MEANING, Ladder
from ..race import priority
from ..race.observations import Observations
from ..race.race import Entrant
from ..stats import estimates
from ..terms.case import Case, Plan
from ..terms.reasons import Reason, Refusal
from ..terms.result import Disturbance, Placement, Result, Samples, Status

SKIPS = ("no_device", "unsupported_target", "unsupported_precision", "dep_missing", "dep_conflict")
FAULTS_WORTH_A_WORD = 100


def unmeasured(case: Case, race_id: str, plan: Plan, reason: Reason, environment: str) -> Result:
    """The result of a case that never had a worker in the race."""
    status: Status = "skipped" if reason.code in SKIPS or reason.code == "interrupted" else "failed"
    return Result(case, race_id, plan, status, reason, environment=environment)


def proven(
    case: Case,
    race_id: str,
    plan: Plan,
    found: Ladder,
    device: Reason,
    info: dict[str, Any],
    environment: str,
) -> Result:
    """The result of a case whose device is not here. It has no time, whatever it reached."""
    status: Status = "verified"
    reason = Reason(device.code, f"{device.detail}; proven to {found.rung} ({MEANING[found.rung]})")
    if found.stopped is not None:
        status, reason = ("skipped" if found.stopped.code in SKIPS else "failed"), found.stopped
    placement = found.placement
    if placement is not None:
        placement = msgspec.structs.replace(
            placement, counters={**placement.counters, "artefact_bytes": found.artefact_bytes}
        )
    weights = (f"weights: {info['weights']}",) if str(info["weights"]).startswith("random") else ()
    return Result(
        case=case,
        race_id=race_id,
        plan=plan,
        status=status,
        reason=reason,
        verified_to=found.rung,
        proofs=found.proofs,
        build_s=found.build_s,
        weights=str(info["weights"]),
        items=int(info["items"]),
        item=str(info["item"]),
        placement=placement,
        deviation=found.deviation,
        warnings=weights,
        environment=environment,
    )


def answer(
    entrant: Entrant,
    baseline: Entrant,
    race_id: str,
    plan: Plan,
    environment: str,
    stopped_by: str,
    interrupted: bool,
    fp32: Entrant | None = None,
) -> Result:
    """The result of one entrant.

    Wrong outputs and wrong placement carry no time; samples taken before a crash stay. fp32: the
    entrant that differs from it in precision only.
    """
    status, reason = standing(entrant, baseline, plan, interrupted)
    shown = (
        bool(entrant.seen.timed)
        and not entrant.fell_back
        and not (reason is not None and reason.code in ("accuracy", "stale_output", "nondeterministic"))
    )
    metrics, absent = measured(entrant.seen, entrant.own_work) if shown else ({}, {})
    return Result(
        case=entrant.case,
        race_id=race_id,
        plan=plan,
        status=status,
        reason=reason,
        verified_to="L7"
        if entrant.placement is not None or (entrant.own_work and entrant.seen.timed)
        else "L0",
        weights=str(entrant.seen.info["weights"]),
        items=int(entrant.seen.info["items"]),
        item=str(entrant.seen.info["item"]),
        placement=with_counters(entrant),
        metrics=metrics,
        absent=absent,
        deviation=entrant.deviation,
        disturbance=disturbance(entrant.seen) if shown else None,
        warnings=tuple(warnings(entrant, fp32 if shown else None)),
        environment=environment,
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
    unsteady = sum(block.warm is not None and not block.warm.steady for block in entrant.seen.timed)
    if 2 * unsteady >= len(entrant.seen.timed):
        return "noisy", Reason(
            "not_steady",
            f"in {unsteady} of {len(entrant.seen.timed)} blocks the warm-up ended before samples agreed;"
            " raise --budget",
        )
    if entrant is not baseline and baseline.seen.timed and not entrant.own_work:
        width = estimates.ratio(baseline.latencies(), entrant.latencies()).half_width
        if math.isinf(width):
            return "noisy", Reason(
                "wide_interval", f"{len(entrant.seen.timed)} blocks give no interval; raise --budget"
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


def with_counters(entrant: Entrant) -> Placement | None:
    if entrant.placement is None:
        return None
    return msgspec.structs.replace(
        entrant.placement,
        counters={**entrant.placement.counters, "artefact_bytes": int(entrant.seen.info["artefact_bytes"])},
    )


def disturbance(seen: Observations) -> Disturbance:
    blocks = seen.timed
    return Disturbance(
        cpu_s=tuple(tuple(turn.cpu_s for turn in block.turns) for block in blocks),
        first_s=tuple(tuple(turn.first_s for turn in block.turns) for block in blocks),
        calls=tuple(block.turns[0].calls for block in blocks),
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
    found = list(entrant.warnings)
    info = entrant.seen.info
    if not entrant.own_work:
        if not info["sensitive"]:
            found.append("the outputs do not depend on the inputs, so a stale output could not be noticed")
        if str(info["weights"]).startswith("random"):
            found.append(f"weights: {info['weights']}")
    if entrant.placement is not None and entrant.placement.partial:
        found.append(entrant.placement.partial)
    if share := slow_precision(entrant.seen):
        found.append(share)
    if fp32 is not None and (longer := slower(entrant, fp32)):
        found.append(longer)
    found += telemetry.warnings([block.device for block in entrant.seen.blocks if block.device is not None])
    if unseen := next(
        (block.no_device for block in entrant.seen.blocks if block.no_device is not None), None
    ):
        found.append(f"the GPU's clocks and memory errors were not watched: {unseen}")
    if entrant.seen.timed:
        faults = disturbance(entrant.seen).faults_per_call
        if (
            faults > FAULTS_WORTH_A_WORD
            and dict(LIBRARY_DEFAULTS).items() <= dict(entrant.case.options).items()
        ):
            found.append(
                f"{faults:.0f} page faults a call: the allocator returns memory to the system;"
                " MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000 may help"
            )
    return found


def slower(entrant: Entrant, fp32: Entrant) -> str:
    """Empty, or that a precision took longer than fp32 did in the same back end, and what was
    measured of why where `slow_precision` has not said it.
    """
    if entrant is fp32 or not fp32.live or not entrant.seen.timed or not fp32.seen.timed:
        return ""
    taken = estimates.ratio(fp32.latencies(), entrant.latencies())
    if taken.low <= 1:
        return ""
    told = f"{entrant.case.precision} takes {taken.centre:.2f} times as long as fp32 in this back end"
    if slow_precision(entrant.seen):
        return told
    ours, theirs = entrant.seen.peaks.get("flop_rate"), entrant.seen.fp32.get("flop_rate")
    if ours and theirs:
        told += (
            f", although a product of large matrices runs at {ours / theirs:.1f} of fp32's speed here: this"
            " model's time is in smaller ones or elsewhere"
        )
    return f"{told}; hotlap profile shows where its time goes"


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
