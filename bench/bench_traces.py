"""How long `hotlap review` takes for a whole trace, process start included, and how much memory;
beside HolisticTraceAnalysis on the same files in turns.

    python bench/bench_traces.py --hta PYTHON [--big] > docs/results/traces.json
    python bench/bench_traces.py --table docs/results/traces.json

PYTHON is an interpreter with HolisticTraceAnalysis installed. The traces are those of
../shared/traces. --big adds a synthetic one of 2 GB, which HTA is not given. HTA loads the file and
does the analyses that a review has too: temporal, idle time, kernels, launch statistics, queue
lengths.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT.parent / "shared" / "traces"
FILES = (
    "v100_resnet50_train_nw0.pt.trace.json.gz",
    "a100_cudagraph_triton_train.json.gz",
    "rtx2080ti_linear_train.json.gz",
    "h100_bert_small_infer.json.gz",
)
TURNS = 7
BIG_BYTES = 2_000_000_000
HTA = """
import sys
from hta.trace_analysis import TraceAnalysis
found = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir="/")
found.get_temporal_breakdown(visualize=False)
found.get_idle_time_breakdown(ranks=[0], visualize=False)
found.get_gpu_kernel_breakdown(visualize=False)
found.get_cuda_kernel_launch_stats(ranks=[0], visualize=False)
found.get_queue_length_summary(ranks=[0])
"""


def run(command: list[str]) -> dict[str, float | int | str]:
    """Seconds and peak bytes of a process, or how it failed."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if code := os.waitstatus_to_exitcode(status):
            errors.seek(0)
            last = (errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]
            return {"failed": f"exit {code}: {last.partition(':')[0][:80]}"}
    return {"seconds": seconds, "peak_bytes": usage.ru_maxrss * 1024}


def measured(command: list[str], peer: list[str] | None) -> dict[str, object]:
    """Both in turns, after one turn each that does not count."""
    found: dict[str, list[dict[str, float | int | str]]] = {"hotlap": [], "hta": []}
    for turn in range(TURNS + 1):
        for name, words in (("hotlap", command), ("hta", peer)):
            if words is not None and not (found[name] and "failed" in found[name][-1]):
                one = run(words)
                if turn or "failed" in one:
                    found[name].append(one)
    return {name: summary(runs) for name, runs in found.items() if runs}


def summary(runs: list[dict[str, float | int | str]]) -> dict[str, object]:
    failed = [one["failed"] for one in runs if "failed" in one]
    if failed:
        return {"failed": failed[0]}
    return {name: [one[name] for one in runs] for name in ("seconds", "peak_bytes")}


def write_big(path: Path) -> int:
    """A trace of 2 GB: operators, launches, kernels and their arrows as torch 2.8 writes them.

    Returns its events.
    """
    pieces = [
        (
            '{{"ph": "X", "cat": "cpu_op", "name": "aten::op{a}", "pid": 1, "tid": 1, "ts": {t}.{r:03d},'
            ' "dur": 18.250, "args": {{"External id": {c}, "Concrete Inputs": ["", "0", "1"], "Input type":'
            ' ["float", "Scalar", "Scalar"], "Input Strides": [[64, 1], [], []], "Input Dims": [[64, {a}],'
            ' [], []], "Ev Idx": {c}}}}}'
        ),
        (
            '{{"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts":'
            ' {u}.500, "dur": 6.125, "args": {{"External id": {c}, "cbid": 211, "correlation": {c}}}}}'
        ),
        (
            '{{"ph": "X", "cat": "kernel", "name": "void at::native::vectorized_elementwise_kernel<4,'
            ' at::native::CUDAFunctor_add<float>, at::detail::Array<char*, 3> >(int) {a}", "pid": 0, "tid":'
            ' 7, "ts": {v}.001, "dur": 5.5, "args": {{"External id": {c}, "queued": 0, "device": 0,'
            ' "context": 1, "stream": 7, "correlation": {c}, "registers per thread": 16, "shared memory": 0,'
            ' "blocks per SM": 0.5, "warps per SM": 2.0, "grid": [{a}, 1, 1], "block": [128, 1, 1], "est.'
            ' achieved occupancy %": 3}}}}'
        ),
        '{{"ph": "s", "id": {c}, "pid": 1, "tid": 1, "ts": {u}.500, "cat": "ac2g", "name": "ac2g"}}',
        (
            '{{"ph": "f", "id": {c}, "pid": 0, "tid": 7, "ts": {v}.001, "cat": "ac2g", "name": "ac2g", "bp":'
            ' "e"}}'
        ),
    ]
    line = ",\n".join(pieces)
    with path.open("w") as file:
        file.write(
            '{"schemaVersion": 1, "deviceProperties": [{"name": "made", "computeMajor": 8}],'
            ' "traceEvents": [\n'
        )
        number = 0
        while file.tell() < BIG_BYTES:
            start = 4_203_669_603_000 + 20 * number
            file.write(
                (",\n" if number else "")
                + line.format(
                    a=number % 40, t=start, r=number % 1000, u=start + 3, v=start + 12, c=number + 1
                )
            )
            number += 1
        file.write('\n], "traceName": "made"}')
    return number * len(pieces)


def table(path: Path) -> str:
    found = json.loads(path.read_bytes())
    rows = [
        (
            f"{found['hardware']}. Whole processes, medians of {found['turns']} runs in turns;"
            f" HolisticTraceAnalysis {found['hta']}."
        ),
        "",
    ]
    rows += [
        "| trace | JSON | events | hotlap review | peak | HTA load and analyses | peak | times faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["traces"]:
        own, peer = one["hotlap"], one.get("hta")
        cells = [
            one["file"],
            f"{one['bytes'] / 1e6:,.1f} MB",
            f"{one['events']:,}",
            f"{median(own['seconds']):.2f} s",
            f"{max(own['peak_bytes']) / 1e6:.0f} MB",
        ]
        if peer is None:
            cells += ["", "", ""]
        elif "failed" in peer:
            cells += [peer["failed"], "", ""]
        else:
            ratios = [b / a for a, b in zip(own["seconds"], peer["seconds"], strict=True)]
            cells += [
                f"{median(peer['seconds']):.2f} s",
                f"{max(peer['peak_bytes']) / 1e6:.0f} MB",
                f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
            ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hta", type=Path, help="an interpreter with HolisticTraceAnalysis")
    parser.add_argument(
        "--big", action="store_true", help="also the synthetic trace of 2 GB (needs as much disk)"
    )
    parser.add_argument("--table", type=Path, metavar="RESULTS")
    asked = parser.parse_args()
    if asked.table:
        print(table(asked.table))
        return
    if not TRACES.is_dir():
        sys.exit("there is no folder ../shared/traces beside the repository")
    from hotlap.perf.machine.survey import collect

    review = [sys.executable, "-m", "hotlap.perf.cli", "review"]
    version = (
        subprocess.run(
            [
                asked.hta,
                "-c",
                "from importlib.metadata import version; print(version('HolisticTraceAnalysis'))",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if asked.hta
        else "absent"
    )
    traces = []
    for name in FILES:
        path = TRACES / name
        with gzip.open(path) as file:
            size = sum(map(len, iter(lambda: file.read(1 << 20), b"")))
        events = json.loads(
            subprocess.run([*review, str(path), "--json", "-"], capture_output=True, check=True).stdout
        )["file"]["events"]
        seen = measured([*review, str(path)], [str(asked.hta), "-c", HTA, str(path)] if asked.hta else None)
        traces.append({"file": name.partition(".")[0], "bytes": size, "events": events, **seen})
        print(traces[-1], file=sys.stderr)
    if asked.big:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "big.json"
            events = write_big(path)
            runs = [run([*review, str(path)]) for _ in range(2)]
            traces.append(
                {"file": "synthetic", "bytes": path.stat().st_size, "events": events, "hotlap": summary(runs)}
            )
    hardware = collect(len(os.sched_getaffinity(0)), "keep").hardware
    print(
        json.dumps({"hardware": hardware, "turns": TURNS, "hta": version.strip(), "traces": traces}, indent=1)
    )


if __name__ == "__main__":
    main()
