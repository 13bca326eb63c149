"""Every figure of a trace under fixed names and units, so that two readers of the same file can be
compared key by key.

The definitions stand in docs/traces.md. `_ns` is exact; `_us` and shares are rounded for print.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import numpy as np

from ..tables.trace import NONE, Column, Kind, Spans, Trace
from . import launches as launching
from . import operators, steps, timeline
from .launches import CAUSES, LAUNCH, SYNCHRONISE, Launches
from .timeline import Timeline

# Gaps and rows that are listed, and characters of a name: as in the expected values of the tests.
LARGEST = 5
TOP = 8
NAME = 160
# Bins of the histogram of gaps: name, from, to (ns).
EDGES = (
    ("<10us", 0, 10_000),
    ("10-100us", 10_000, 100_000),
    ("100us-1ms", 100_000, 1_000_000),
    (">=1ms", 1_000_000, 1 << 62),
)


def figures(trace: Trace) -> dict[str, Any]:
    """Returns the sections by name; those of the GPU only where the file has GPU events."""
    sections: dict[str, Any] = {
        "n_events": trace.events,
        "ph": trace.phases,
        "cat": trace.categories,
        "gpu_counts": counted(trace),
    }
    if len(trace.gpu):
        line = timeline.of(trace)
        launched = launching.of(trace, line.gpu)
        behind = operators.behind(trace.operators, launched)
        sections |= {
            "timeline": of_timeline(line),
            "gaps": of_gaps(line),
            "correlation": of_correlation(trace, launched),
            "launch": of_launches(launched),
            "idle_device": of_idle(line, launched),
            "queue_length": of_queues(launched),
            "top_kernels": top(trace, line.gpu.rows(line.gpu.kind == Kind.KERNEL)),
            "op_attribution": of_operators(trace, launched, behind),
            "steps": [
                {"name": step.name, "dur_us": step.dur / 1000, "gpu_busy_in_step_us": step.busy / 1000}
                for step in steps.of(trace, line)
            ],
            "sync": of_calls(trace),
            "memcpy": of_copies(trace, line),
            "occupancy": of_occupancy(trace, line),
        }
    if len(trace.memory):
        sections["memory"] = of_memory(trace)
    return sections


def counted(trace: Trace) -> dict[str, int]:
    return {kind.name.lower(): count for kind in Kind if (count := int(np.sum(trace.gpu.kind == kind)))}


def of_timeline(line: Timeline) -> dict[str, Any]:
    overlap = line.comm.length - line.exposed_comm
    return {
        "window_ns": line.window,
        "busy_ns": line.busy.length,
        "idle_ns": line.idle,
        "sum_dur_all_ns": line.summed(),
        "sum_dur_kernel_ns": line.summed(Kind.KERNEL),
        "sum_dur_memcpy_ns": line.summed(Kind.MEMCPY),
        "sum_dur_memset_ns": line.summed(Kind.MEMSET),
        "compute_union_ns": line.compute.length,
        "comm_union_ns": line.comm.length,
        "mem_union_ns": line.mem.length,
        "exposed_comm_ns": line.exposed_comm,
        "exposed_mem_ns": line.exposed_mem,
        "comm_comp_overlap_ns": overlap,
        "n_gaps": len(line.gaps.start),
        "idle_pct": share(line.idle, line.window),
        "overlap_pct": share(overlap, line.comm.length),
        "comm_ext_kernels": int(np.sum(line.collective)),
        "comm_ext_union_ns": line.all_comm.length,
        "comm_ext_exposed_ns": line.exposed_all_comm,
    }


def share(part: float, whole: float) -> float | None:
    """Returns per cent; None of nothing."""
    return round(100 * part / whole, 3) if whole else None


def of_gaps(line: Timeline) -> dict[str, Any]:
    length = line.gaps.end - line.gaps.start
    largest = np.lexsort((-line.gaps.start, -length))[:LARGEST]
    return {
        "largest5_us(len,offset)": [
            [int(length[row]) / 1000, int(line.gaps.start[row] - line.start) / 1000] for row in largest
        ],
        "hist": {name: int(np.sum((length >= low) & (length < high))) for name, low, high in EDGES},
    }


def of_correlation(trace: Trace, launched: Launches) -> dict[str, int]:
    calls, known = launched.calls, launched.known
    launch = trace.named(LAUNCH)[calls.name]
    under = np.bincount(launched.call[known], minlength=len(calls))
    answered = np.isin(calls.correlation, trace.gpu.correlation)
    gpu, start = launched.gpu.rows(known), launched.call_start[known]
    end = calls.end[launched.call[known]]
    return {
        "gpu_events_without_host_call": int(np.sum(~known)),
        "launch_calls": int(np.sum(launch)),
        "launch_calls_without_gpu_event": int(np.sum(launch & ~answered)),
        "graph_launch_calls": int(np.sum(launched.graph)),
        "gpu_events_under_graph_launch": int(np.sum(launched.graph[launched.call[known]])),
        "max_gpu_events_per_host_call": int(under.max(initial=0)),
        "gpu_start_before_host_call_start": int(np.sum(gpu.start < start)),
        "gpu_start_before_host_call_end": int(np.sum(gpu.start < end)),
    }


def of_launches(launched: Launches) -> dict[str, Any]:
    single = launched.single
    gpu, calls = launched.gpu.rows(single), launched.calls.rows(launched.call[single])
    if not len(gpu):
        return {"n": 0}
    delay, latency = np.maximum(0, gpu.start - calls.end), gpu.start - calls.start
    return {
        "n": len(gpu),
        "host_call_us_median": micro(np.median(calls.dur)),
        "host_call_us_sum": micro(np.sum(calls.dur)),
        "gpu_dur_us_median": micro(np.median(gpu.dur)),
        "gpu_dur_us_mean": micro(np.mean(gpu.dur)),
        "delay_us_median": micro(np.median(delay)),
        "delay_us_p90": micro(np.sort(delay)[min(len(delay) - 1, int(0.9 * len(delay)))]),
        "delay_us_max": micro(np.max(delay)),
        "latency_us_median": micro(np.median(latency)),
        "n_gpu_shorter_than_host_call": int(np.sum(gpu.dur < calls.dur)),
        "n_gpu_dur_lt_10us": int(np.sum(gpu.dur < 10_000)),
        "n_delay_gt_100us": int(np.sum(delay > 100_000)),
        "n_host_call_gt_50us": int(np.sum(calls.dur > 50_000)),
    }


def micro(value: float | np.integer[Any] | np.floating[Any]) -> float:
    """Returns nanoseconds as microseconds, to a nanosecond."""
    return round(float(value) / 1000, 3)


def of_idle(line: Timeline, launched: Launches) -> dict[str, Any]:
    idle = launching.idle(line, launched)
    charged = {cause: idle.charged(cause) for cause in CAUSES}
    host = idle.cause == CAUSES.index("host_wait")
    before = int(np.sum(idle.before[host]))
    return {
        "ns": {cause: length for cause, (length, count) in charged.items() if count},
        "gaps": {cause: count for cause, (_, count) in charged.items() if count},
        "host_wait_before_call_start_ns": before,
        "host_wait_call_start_to_gpu_start_ns": int(np.sum(idle.length[host])) - before,
    }


def of_queues(launched: Launches) -> dict[str, Any]:
    return {
        f"{device}/{stream}": {
            "points": len(queue.moments),
            "max": int(queue.length.max()),
            "min": int(queue.length.min()),
            "mean_of_points": round(float(queue.length.mean()), 4),
            "time_weighted_mean": round(queue.weighted_mean, 4),
        }
        for (device, stream), queue in launching.queues(launched).items()
    }


def top(trace: Trace, events: Any) -> list[dict[str, Any]]:
    """Returns the first by summed time, with names cut to NAME."""
    return [
        {"name": trace.names[code][:NAME], "n": count, "sum_ns": total}
        for code, count, total in summed(events.name, events.dur)[:TOP]
    ]


def summed(codes: Column, dur: Column) -> list[tuple[int, int, int]]:
    """Returns code, count and summed time of each code, the longest first."""
    distinct, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    counts = np.bincount(inverse, minlength=len(distinct))
    totals = np.zeros(len(distinct), np.int64)
    np.add.at(totals, inverse, dur)
    return [(int(distinct[row]), int(counts[row]), int(totals[row])) for row in np.lexsort((first, -totals))]


def of_operators(trace: Trace, launched: Launches, behind: Column) -> dict[str, Any]:
    gpu, known = launched.gpu, behind != NONE
    own = gpu.rows(known)
    spans: Spans = trace.operators.rows(behind[known])
    linked = dict(zip(trace.operators.external.tolist(), trace.operators.name.tolist(), strict=True))
    agrees = np.array(
        [
            linked.get(external) == name
            for external, name in zip(own.external.tolist(), spans.name.tolist(), strict=True)
        ],
        dtype=bool,
    ) & (own.external != NONE)
    total = int(np.sum(gpu.dur))
    return {
        "gpu_events_attributed": int(np.sum(known)),
        "of": len(gpu),
        "gpu_time_attributed_pct": share(int(np.sum(own.dur)), total),
        "external_id_agrees": int(np.sum(agrees)),
        "external_id_disagrees_or_dangling": int(np.sum(~agrees & (own.external != NONE))),
        "no_external_id": int(np.sum(own.external == NONE)),
        "top_ops": [
            {"op": trace.names[code], "gpu_events": count, "gpu_sum_ns": length}
            for code, count, length in summed(spans.name, own.dur)[:TOP]
        ],
    }


def of_calls(trace: Trace) -> dict[str, Any]:
    """Returns the figures of host calls that wait for the GPU."""
    calls = trace.calls.rows(trace.named(SYNCHRONISE)[trace.calls.name])
    names = Counter(trace.names[code] for code in calls.name)
    return {"n": len(calls), "sum_us": micro(np.sum(calls.dur)), "by_name": dict(names.most_common())}


def of_copies(trace: Trace, line: Timeline) -> dict[str, Any]:
    copies = line.gpu.rows(line.gpu.kind == Kind.MEMCPY)
    kinds = {}
    for code, count, total in summed(copies.name, copies.dur):
        size = copies.bytes[copies.name == code]
        kinds[trace.names[code]] = {
            "n": count,
            "sum_us": micro(total),
            "bytes": int(np.sum(size[size != NONE])),
        }
    return kinds


def of_occupancy(trace: Trace, line: Timeline) -> dict[str, Any]:
    """Returns the occupancy that the profiler estimated.

    A kernel without an estimate counts as 0, as its makers' own tools have it.
    """
    kernels = line.gpu.rows(line.gpu.kind == Kind.KERNEL)
    recorded = [msgspec.json.decode(text)[:3:2] for text in trace.launches]
    numbers = np.array(
        [[value if isinstance(value, int | float) else np.nan for value in pair] for pair in recorded],
        dtype=float,
    ).reshape(-1, 2)
    kernels = kernels.rows(kernels.shape != NONE)
    blocks, occupancy = numbers[kernels.shape].T if len(kernels) else np.empty((2, 0))
    known = ~np.isnan(blocks)
    if not known.any():
        return {}
    dur = kernels.dur[known].astype(float)
    return {
        "kernels_with_info": int(np.sum(known)),
        "mean_occ_pct_dur_weighted": (
            round(float(np.sum(dur * np.nan_to_num(occupancy[known])) / np.sum(dur)), 3)
            if np.sum(dur)
            else None
        ),
        "sm_eff_pct_of_window(sum dur*min(1,blocksPerSM)/window)": share(
            float(np.sum(dur * np.minimum(1, blocks[known]))), line.window
        ),
    }


def of_memory(trace: Trace) -> dict[str, Any]:
    memory = trace.memory
    peaks: dict[str, int] = {}
    known = memory.total != NONE
    for kind, device, total in zip(
        memory.device_type[known].tolist(),
        memory.device[known].tolist(),
        memory.total[known].tolist(),
        strict=True,
    ):
        key = f"{kind}/{device}"
        peaks[key] = max(peaks.get(key, 0), total)
    return {"events": len(memory), "peak_total_allocated_bytes(type/id)": peaks}
