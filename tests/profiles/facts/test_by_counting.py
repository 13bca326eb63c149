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


def made(seed: int) -> list[dict[str, Any]]:
    """Events of one device within 4 us: three streams, two host threads, nested operators, orphans
    both ways, a graph launch, steps. All times in ns.
    """
    chance = random.Random(seed)
    events: list[dict[str, Any]] = []
    for thread in (1, 2):
        at = 0
        while at < SPAN - 600:
            outer = chance.randint(200, 600)
            events.append(
                {"cat": "cpu_op", "name": chance.choice(OPERATORS), "start": at, "dur": outer, "tid": thread}
            )
            inner = at + chance.randint(0, outer // 2)
            events.append(
                {
                    "cat": "cpu_op",
                    "name": chance.choice(OPERATORS),
                    "start": inner,
                    "dur": chance.randint(1, at + outer - inner),
                    "tid": thread,
                }
            )
            at += outer + chance.randint(1, 200)
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
    for one in events:
        on_gpu = "stream" in one
        args = {key: one[key] for key in ("stream", "correlation") if key in one} | (
            {"device": 0} if on_gpu else {}
        )
        where = {"pid": 0, "tid": one["stream"]} if on_gpu else {"pid": 100, "tid": one["tid"]}
        rows.append(
            {
                "ph": "X",
                "cat": one["cat"],
                "name": one["name"],
                **where,
                "ts": us(one["start"]),
                "dur": us(one["dur"]),
                "args": args,
            }
        )
    path.write_text(
        json.dumps({"deviceProperties": [{"id": 0, "name": "made"}], "traceEvents": rows}, indent=0)
    )
    return path


def moments(events: list[dict[str, Any]]) -> set[int]:
    return {moment for one in events for moment in range(one["start"], one["start"] + one["dur"])}


def counted(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the figures must be."""
    gpu = [one for one in events if "stream" in one]
    calls = {}
    for one in sorted((one for one in events if one["cat"] == "cuda_runtime"), key=lambda one: one["start"]):
        calls.setdefault(one["correlation"], one)
    kernels = [one for one in gpu if one["cat"] == "kernel"]
    comm = moments([one for one in kernels if "nccl" in one["name"]])
    compute = moments([one for one in kernels if "nccl" not in one["name"]])
    mem = moments([one for one in gpu if one["cat"] != "kernel"])
    first, last = min(one["start"] for one in gpu), max(one["start"] + one["dur"] for one in gpu)
    busy = comm | compute | mem
    gaps, idle = [], defaultdict(lambda: [0, 0])
    ends = sorted({one["start"] + one["dur"] for one in gpu} | {one["start"] for one in gpu})
    for begin, end in itertools.pairwise(ends):
        if begin not in busy:
            gaps.append([begin, end] if not gaps or gaps[-1][1] != begin else [gaps.pop()[0], end])
    for begin, end in gaps:
        # the first in the file of those that begin there
        ending = next(one for one in gpu if one["start"] == end)
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
        (one, calls[one["correlation"]])
        for one in gpu
        if one["correlation"] in calls and "Graph" not in calls[one["correlation"]]["name"]
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
            "sum_dur_all_ns": sum(one["dur"] for one in gpu),
        },
        "idle": {cause: tuple(pair) for cause, pair in idle.items()},
        "launch": {
            "n": len(single),
            "n_gpu_shorter_than_host_call": sum(one["dur"] < call["dur"] for one, call in single),
            "delay_us_max": (
                max((max(0, one["start"] - call["start"] - call["dur"]) for one, call in single), default=0)
                / 1000
            ),
            "latency_us_median": (
                statistics.median([one["start"] - call["start"] for one, call in single] or [0]) / 1000
            ),
        },
        "operators": operators(events, gpu, calls),
        "steps": [
            [one["dur"], len(busy & set(range(one["start"], one["start"] + one["dur"])))]
            for one in sorted(events, key=lambda one: one["start"])
            if "Step#" in one["name"]
        ],
    }


def operators(
    events: list[dict[str, Any]], gpu: list[dict[str, Any]], calls: dict[int, dict[str, Any]]
) -> dict[str, tuple[int, int]]:
    """The shortest operator of the call's thread around the call's start; events and their time."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in gpu:
        call = calls.get(one["correlation"])
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
            found[name][0] += 1
            found[name][1] += one["dur"]
    return {name: (count, length) for name, (count, length) in found.items()}


def compare(path: Path, events: list[dict[str, Any]]) -> None:
    found, expected = figures(kineto.read(path)), counted(events)
    assert {key: found["timeline"][key] for key in expected["timeline"]} == expected["timeline"]
    assert {
        cause: (found["idle_device"]["ns"][cause], count)
        for cause, count in found["idle_device"]["gaps"].items()
    } == expected["idle"]
    if expected["launch"]["n"]:
        # medians of two are rounded to a nanosecond
        assert {key: found["launch"][key] for key in expected["launch"]} == pytest.approx(
            expected["launch"], abs=5.1e-4
        )
    assert {
        row["op"]: (row["gpu_events"], row["gpu_sum_ns"]) for row in found["op_attribution"]["top_ops"]
    } == expected["operators"]
    assert [
        [round(step["dur_us"] * 1000), round(step["gpu_busy_in_step_us"] * 1000)] for step in found["steps"]
    ] == expected["steps"]


@pytest.mark.parametrize("seed", range(60))
def test_figures_are_what_counting_gives(seed: int, tmp_path: Path) -> None:
    events = made(seed)
    if not any("stream" in one for one in events):
        pytest.skip("this seed made no GPU event")
    compare(written(events, tmp_path / "trace.json"), events)


def test_the_trace_of_this_repository() -> None:
    events = made(1)
    assert json.loads(SMALL.read_text())["traceEvents"]
    compare(SMALL, events)


def test_a_wrong_figure_would_be_seen(tmp_path: Path) -> None:
    """The counting can fail: one kernel one nanosecond longer is another result."""
    events = made(1)
    path = written(events, tmp_path / "trace.json")
    longer = [{**one, "dur": one["dur"] + 1} if one.get("stream") else one for one in events]
    with pytest.raises(AssertionError):
        compare(path, longer)


if __name__ == "__main__":
    written(made(1), SMALL)
