"""How long `hotlap review` takes for a whole trace, and how much memory.

Beside HolisticTraceAnalysis on the same files, in turns; process start is included.

    python bench/bench_traces.py --hta PYTHON [--traces FOLDER] [--big] > docs/results/traces.json
    python bench/bench_traces.py --table docs/results/traces.json

PYTHON is an interpreter with HolisticTraceAnalysis installed. FILES are looked for in FOLDER, then
among the repository's traces, for which two of them are too large; what is in neither is left out,
and where to get it is printed. --big adds a synthetic trace of 2 GB, which HTA is not given. HTA
loads the file and does the analyses that a review has too: temporal, idle time, kernels, launch
statistics, queue lengths.
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
from typing import Any

# The repository's traces; their MANIFEST.json has the public source of each, also of those that are
# too large to lie there.
TRACES = Path(__file__).resolve().parents[1] / "tests" / "profiles" / "traces"
# The largest of each kind, and a small one.
FILES = (
    "v100_resnet50_train_nw0.pt.trace.json.gz",
    "a100_cudagraph_triton_train.json.gz",
    "rtx2080ti_linear_train.json.gz",
    "h100_bert_small_infer.json.gz",
)
# Runs of each tool on each file, without the first, which does not count.
TURNS = 7
# Size of the synthetic trace: 57 times the largest of FILES.
BIG_BYTES = 2_000_000_000
REVIEW = [sys.executable, "-m", "hotlap.perf.cli", "review"]
HTA = """
import sys
from hta.trace_analysis import TraceAnalysis
analysis = TraceAnalysis(trace_files={0: sys.argv[1]}, trace_dir="/")
analysis.get_temporal_breakdown(visualize=False)
analysis.get_idle_time_breakdown(ranks=[0], visualize=False)
analysis.get_gpu_kernel_breakdown(visualize=False)
analysis.get_cuda_kernel_launch_stats(ranks=[0], visualize=False)
analysis.get_queue_length_summary(ranks=[0])
"""
HTA_VERSION = "from importlib.metadata import version; print(version('HolisticTraceAnalysis'))"
# One operator with its launch, its kernel and their arrow, as torch 2.8 writes them: str.format of
# the correlation c, the name's number a, and times in microseconds t, u, v with r ns behind t's.
OPERATOR = (
    '{{"ph": "X", "cat": "cpu_op", "name": "aten::op{a}", "pid": 1, "tid": 1, "ts": {t}.{r:03d},'
    ' "dur": 18.250, "args": {{"External id": {c}, "Concrete Inputs": ["", "0", "1"], "Input type":'
    ' ["float", "Scalar", "Scalar"], "Input Strides": [[64, 1], [], []], "Input Dims": [[64, {a}],'
    ' [], []], "Ev Idx": {c}}}}}'
)
LAUNCH = (
    '{{"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 1, "tid": 1, "ts":'
    ' {u}.500, "dur": 6.125, "args": {{"External id": {c}, "cbid": 211, "correlation": {c}}}}}'
)
KERNEL = (
    '{{"ph": "X", "cat": "kernel", "name": "void at::native::vectorized_elementwise_kernel<4,'
    ' at::native::CUDAFunctor_add<float>, at::detail::Array<char*, 3> >(int) {a}", "pid": 0, "tid":'
    ' 7, "ts": {v}.001, "dur": 5.5, "args": {{"External id": {c}, "queued": 0, "device": 0,'
    ' "context": 1, "stream": 7, "correlation": {c}, "registers per thread": 16, "shared memory": 0,'
    ' "blocks per SM": 0.5, "warps per SM": 2.0, "grid": [{a}, 1, 1], "block": [128, 1, 1], "est.'
    ' achieved occupancy %": 3}}}}'
)
ARROW_START = '{{"ph": "s", "id": {c}, "pid": 1, "tid": 1, "ts": {u}.500, "cat": "ac2g", "name": "ac2g"}}'
ARROW_END = (
    '{{"ph": "f", "id": {c}, "pid": 0, "tid": 7, "ts": {v}.001, "cat": "ac2g", "name": "ac2g", "bp": "e"}}'
)
GROUP = (OPERATOR, LAUNCH, KERNEL, ARROW_START, ARROW_END)

# {"seconds": ..., "peak_bytes": ...} of a process, or {"failed": how}.
Run = dict[str, float | int | str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--traces", type=Path, metavar="FOLDER", default=TRACES, help="looked in first; default: %(default)s"
    )
    parser.add_argument("--hta", type=Path, help="an interpreter with HolisticTraceAnalysis")
    parser.add_argument(
        "--big", action="store_true", help="also the synthetic trace of 2 GB (needs as much disk)"
    )
    parser.add_argument("--table", type=Path, metavar="RESULTS")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_bytes())))
        return
    from hotlap.perf.machine.survey import collect

    traces = []
    for path in files(arguments.traces):
        traces.append(beside_hta(path, arguments.hta))
        print(traces[-1], file=sys.stderr)
    if arguments.big:
        traces.append(synthetic())
    results = {
        "hardware": collect(len(os.sched_getaffinity(0)), "keep").hardware,
        "turns": TURNS,
        "hta": hta_version(arguments.hta),
        "traces": traces,
    }
    print(json.dumps(results, indent=1))


def files(folder: Path) -> list[Path]:
    """Paths of FILES in the folder, else in TRACES; says on stderr which are in neither."""
    sources = {
        entry["file"]: entry["source"] for entry in json.loads((TRACES / "MANIFEST.json").read_bytes())
    }
    paths = []
    for name in FILES:
        if path := next((place / name for place in (folder, TRACES) if (place / name).is_file()), None):
            paths.append(path)
        else:
            print(
                f"left out: {name}; get {sources[name]}, name it so and give --traces FOLDER", file=sys.stderr
            )
    return paths


def hta_version(python: Path | None) -> str:
    """The version of HolisticTraceAnalysis that an interpreter has; "absent" without one."""
    if python is None:
        return "absent"
    command = [str(python), "-c", HTA_VERSION]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def beside_hta(path: Path, python: Path | None) -> dict[str, Any]:
    """A file's size unpacked, its number of events, and the runs of both tools."""
    with gzip.open(path) as file:
        size = sum(map(len, iter(lambda: file.read(1 << 20), b"")))
    review = subprocess.run([*REVIEW, str(path), "--json", "-"], capture_output=True, check=True)
    events = json.loads(review.stdout)["file"]["events"]
    runs = in_turns([*REVIEW, str(path)], [str(python), "-c", HTA, str(path)] if python else None)
    return {"file": path.name.partition(".")[0], "bytes": size, "events": events, **runs}


def in_turns(review: list[str], hta: list[str] | None) -> dict[str, dict[str, Any]]:
    """Runs both commands in turns, after one turn each that does not count.

    A command that failed once is not run again.
    """
    commands = {"hotlap": review, "hta": hta}
    runs: dict[str, list[Run]] = {name: [] for name, command in commands.items() if command}
    for turn in range(TURNS + 1):
        for name, earlier in runs.items():
            if earlier and "failed" in earlier[-1]:
                continue
            result = run(commands[name])
            if turn or "failed" in result:
                earlier.append(result)
    return {name: summary(results) for name, results in runs.items()}


def run(command: list[str]) -> Run:
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


def summary(runs: list[Run]) -> dict[str, Any]:
    """Seconds and peak bytes of all runs, or how the first failed."""
    failures = [result["failed"] for result in runs if "failed" in result]
    if failures:
        return {"failed": failures[0]}
    return {name: [result[name] for result in runs] for name in ("seconds", "peak_bytes")}


def synthetic() -> dict[str, Any]:
    """The same as `beside_hta` of the synthetic trace, for hotlap alone and in two runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "big.json"
        events = write_big(path)
        runs = [run([*REVIEW, str(path)]) for _ in range(2)]
        size = path.stat().st_size
    return {"file": "synthetic", "bytes": size, "events": events, "hotlap": summary(runs)}


def write_big(path: Path) -> int:
    """Writes the synthetic trace and returns the number of its events."""
    line = ",\n".join(GROUP)
    with path.open("w") as file:
        file.write(
            '{"schemaVersion": 1, "deviceProperties": [{"name": "made", "computeMajor": 8}],'
            ' "traceEvents": [\n'
        )
        number = 0
        while file.tell() < BIG_BYTES:
            start = 4_203_669_603_000 + 20 * number
            group = line.format(
                a=number % 40, t=start, r=number % 1000, u=start + 3, v=start + 12, c=number + 1
            )
            file.write(f",\n{group}" if number else group)
            number += 1
        file.write('\n], "traceName": "made"}')
    return number * len(GROUP)


def table(results: dict[str, Any]) -> str:
    lines = [
        (
            f"{results['hardware']}. Whole processes, medians of {results['turns']} runs in turns;"
            f" HolisticTraceAnalysis {results['hta']}."
        ),
        "",
        "| trace | JSON | events | hotlap review | peak | HTA load and analyses | peak | times faster |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(f"| {' | '.join(row(trace))} |" for trace in results["traces"])])


def row(trace: dict[str, Any]) -> list[str]:
    own, peer = trace["hotlap"], trace.get("hta")
    cells = [
        trace["file"],
        f"{trace['bytes'] / 1e6:,.1f} MB",
        f"{trace['events']:,}",
        f"{median(own['seconds']):.2f} s",
        f"{max(own['peak_bytes']) / 1e6:.0f} MB",
    ]
    if peer is None:
        return [*cells, "", "", ""]
    if "failed" in peer:
        return [*cells, peer["failed"], "", ""]
    ratios = [theirs / ours for ours, theirs in zip(own["seconds"], peer["seconds"], strict=True)]
    return [
        *cells,
        f"{median(peer['seconds']):.2f} s",
        f"{max(peer['peak_bytes']) / 1e6:.0f} MB",
        f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
    ]


if __name__ == "__main__":
    main()
