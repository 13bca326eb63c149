"""The figures of small traces of our own making, against counting nanosecond by nanosecond: the
definitions of docs/traces.md in the plainest Python.

`small.json` is such a trace; `python tests/profiles/facts/test_by_counting.py` writes it again.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from hotlap.profiles.facts.figures import figures
from hotlap.profiles.tables import kineto

SMALL = Path(__file__).with_name("small.json")
SPAN = 4000
KERNELS = (
    "gemm",
    "vectorized_elementwise_kernel",
    "ncclDevKernel_AllReduce_Sum_f32",
    "triton_poi_fused_add_0",
)
OPERATORS = ("aten::linear", "aten::addmm", "aten::add", "aten::copy_")


def us(ns: int) -> float:
    return ns / 1000


def drawn(seed: int) -> list[dict[str, Any]]:
    """Events of one device within 4 us: three streams, two host threads, nested operators, orphans
    both ways, a graph launch, steps. All times in ns.
    """
    chance = random.Random(seed)
    events: list[dict[str, Any]] = []
    for thread in (1, 2):
        start_of_next = 0
        while start_of_next < SPAN - 600:
            outer = chance.randint(200, 600)
            events.append(
                {
                    "cat": "cpu_op",
                    "name": chance.choice(OPERATORS),
                    "start": start_of_next,
                    "dur": outer,
                    "tid": thread,
                }
            )
            inner = start_of_next + chance.randint(0, outer // 2)
            events.append(
                {
                    "cat": "cpu_op",
                    "name": chance.choice(OPERATORS),
                    "start": inner,
                    "dur": chance.randint(1, start_of_next + outer - inner),
                    "tid": thread,
                }
            )
            start_of_next += outer + chance.randint(1, 200)
    free = dict.fromkeys((7, 8, 9), 0)
    for correlation in range(1, chance.randint(4, 14)):
        called, length = chance.randrange(SPAN - 400), chance.randint(1, 120)
        graph = chance.random() < 0.15
        if chance.random() < 0.9:
            name = "cudaGraphLaunch" if graph else "cudaLaunchKernel"
            events.append(
                {
                    "cat": "cuda_runtime",
                    "name": name,
                    "start": called,
                    "dur": length,
                    "tid": chance.choice((1, 2)),
                    "correlation": correlation,
                }
            )
        for _ in range(3 if graph else chance.random() < 0.95):
            stream = chance.choice((7, 8, 9))
            start = max(free[stream], called + chance.randint(0, 300))
            dur = chance.randint(0, 250)
            free[stream] = start + dur
            kind = chance.choices(("kernel", "gpu_memcpy", "gpu_memset"), (8, 1, 1))[0]
            events.append(
                {
                    "cat": kind,
                    "name": chance.choice(KERNELS) if kind == "kernel" else kind,
                    "start": start,
                    "dur": dur,
                    "stream": stream,
                    "correlation": correlation,
                }
            )
    for number, start in enumerate(range(0, SPAN, SPAN // 3)):
        events.append(
            {
                "cat": "user_annotation",
                "name": f"ProfilerStep#{number}",
                "start": start,
                "dur": SPAN // 3,
                "tid": 1,
            }
        )
    chance.shuffle(events)
    return events


def written(events: list[dict[str, Any]], path: Path) -> Path:
    rows = []
    for event in events:
        on_gpu = "stream" in event
        args = {key: event[key] for key in ("stream", "correlation") if key in event} | (
            {"device": 0} if on_gpu else {}
        )
        where = {"pid": 0, "tid": event["stream"]} if on_gpu else {"pid": 100, "tid": event["tid"]}
        rows.append(
            {
                "ph": "X",
                "cat": event["cat"],
                "name": event["name"],
                **where,
                "ts": us(event["start"]),
                "dur": us(event["dur"]),
                "args": args,
            }
        )
    path.write_text(
        json.dumps({"deviceProperties": [{"id": 0, "name": "made"}], "traceEvents": rows}, indent=0)
    )
    return path


def moments(events: list[dict[str, Any]]) -> set[int]:
    return {moment for event in events for moment in range(event["start"], event["start"] + event["dur"])}


def counted(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the figures must be."""
    gpu = [event for event in events if "stream" in event]
    calls = {}
    for event in sorted(
        (event for event in events if event["cat"] == "cuda_runtime"), key=lambda event: event["start"]
    ):
        calls.setdefault(event["correlation"], event)
    kernels = [event for event in gpu if event["cat"] == "kernel"]
    comm = moments([event for event in kernels if "nccl" in event["name"]])
    compute = moments([event for event in kernels if "nccl" not in event["name"]])
    mem = moments([event for event in gpu if event["cat"] != "kernel"])
    first, last = min(event["start"] for event in gpu), max(event["start"] + event["dur"] for event in gpu)
    busy = comm | compute | mem
    gaps, idle = [], defaultdict(lambda: [0, 0])
    ends = sorted({event["start"] + event["dur"] for event in gpu} | {event["start"] for event in gpu})
    for begin, end in itertools.pairwise(ends):
        if begin not in busy:
            gaps.append([begin, end] if not gaps or gaps[-1][1] != begin else [gaps.pop()[0], end])
    for begin, end in gaps:
        # the first in the file of those that begin there
        ending = next(event for event in gpu if event["start"] == end)
        call = calls.get(ending["correlation"])
        cause = (
            "unknown"
            if call is None
            else "host_wait"
            if call["start"] > begin
            else "kernel_wait"
            if end - begin < 30_000
            else "other"
        )
        idle[cause][0] += end - begin
        idle[cause][1] += 1
    single = [
        (event, calls[event["correlation"]])
        for event in gpu
        if event["correlation"] in calls and "Graph" not in calls[event["correlation"]]["name"]
    ]
    return {
        "timeline": {
            "window_ns": last - first,
            "busy_ns": len(busy),
            "idle_ns": last - first - len(busy),
            "compute_union_ns": len(compute),
            "comm_union_ns": len(comm),
            "mem_union_ns": len(mem),
            "exposed_comm_ns": len(comm - compute),
            "exposed_mem_ns": len(mem - compute - comm),
            "comm_comp_overlap_ns": len(comm & compute),
            "sum_dur_all_ns": sum(event["dur"] for event in gpu),
        },
        "idle": {cause: tuple(pair) for cause, pair in idle.items()},
        "launch": {
            "n": len(single),
            "n_gpu_shorter_than_host_call": sum(event["dur"] < call["dur"] for event, call in single),
            "delay_us_max": (
                max(
                    (max(0, event["start"] - call["start"] - call["dur"]) for event, call in single),
                    default=0,
                )
                / 1000
            ),
            "latency_us_median": (
                statistics.median([event["start"] - call["start"] for event, call in single] or [0]) / 1000
            ),
        },
        "operators": operators(events, gpu, calls),
        "steps": [
            [event["dur"], len(busy & set(range(event["start"], event["start"] + event["dur"])))]
            for event in sorted(events, key=lambda event: event["start"])
            if "Step#" in event["name"]
        ],
    }


def operators(
    events: list[dict[str, Any]], gpu: list[dict[str, Any]], calls: dict[int, dict[str, Any]]
) -> dict[str, tuple[int, int]]:
    """The shortest operator of the call's thread around the call's start; events and their time."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for event in gpu:
        call = calls.get(event["correlation"])
        around = [
            op
            for op in events
            if call
            and op["cat"] == "cpu_op"
            and op["tid"] == call["tid"]
            and op["start"] <= call["start"] <= op["start"] + op["dur"]
        ]
        if around:
            name = max(around, key=lambda op: (op["start"], -op["dur"]))["name"]
            sums[name][0] += 1
            sums[name][1] += event["dur"]
    return {name: (count, length) for name, (count, length) in sums.items()}


def compare(path: Path, events: list[dict[str, Any]]) -> None:
    computed, expected = figures(kineto.read(path)), counted(events)
    assert {key: computed["timeline"][key] for key in expected["timeline"]} == expected["timeline"]
    assert {
        cause: (computed["idle_device"]["ns"][cause], count)
        for cause, count in computed["idle_device"]["gaps"].items()
    } == expected["idle"]
    if expected["launch"]["n"]:
        # medians of two are rounded to a nanosecond
        assert {key: computed["launch"][key] for key in expected["launch"]} == pytest.approx(
            expected["launch"], abs=5.1e-4
        )
    assert {
        row["op"]: (row["gpu_events"], row["gpu_sum_ns"]) for row in computed["op_attribution"]["top_ops"]
    } == expected["operators"]
    assert [
        [round(step["dur_us"] * 1000), round(step["gpu_busy_in_step_us"] * 1000)]
        for step in computed["steps"]
    ] == expected["steps"]


@pytest.mark.parametrize("seed", range(60))
def test_figures_are_what_counting_gives(seed: int, tmp_path: Path) -> None:
    events = drawn(seed)
    if not any("stream" in event for event in events):
        pytest.skip("this seed made no GPU event")
    compare(written(events, tmp_path / "trace.json"), events)


def test_the_trace_of_this_repository() -> None:
    events = drawn(1)
    assert json.loads(SMALL.read_text())["traceEvents"]
    compare(SMALL, events)


def test_a_wrong_figure_would_be_seen(tmp_path: Path) -> None:
    """The counting can fail: one kernel one nanosecond longer is another result."""
    events = drawn(1)
    path = written(events, tmp_path / "trace.json")
    longer = [{**event, "dur": event["dur"] + 1} if event.get("stream") else event for event in events]
    with pytest.raises(AssertionError):
        compare(path, longer)


if __name__ == "__main__":
    written(drawn(1), SMALL)
