"""Does the gate find injected slow-downs on this machine, beside a process that loads one core, and
leave the same code alone?

    python bench/gate_live.py [--trials 20]
        appends one line a trial to docs/results/gate_live.jsonl; goes on where it was stopped
    python bench/gate_live.py --table docs/results/gate_live.jsonl
        the table of docs/gate.md

A network of 60 equal layers is raced against one with as many (A/A), or with 2, 3 or 6 layers more:
3.3, 5 and 10 % more of the same work, no sleep. A trial is 16 blocks; the gate stops looking where
it has decided. The same samples are given to pytest-benchmark's
`--benchmark-compare-fail=median:5%` and to `pyperf compare_to`, both called themselves (pip install
pyperf), and to benchstat's rule, here re-implemented: Mann-Whitney's U at 5 %.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hotlap.perf.machine import survey

HERE = Path(__file__).resolve().parent
FILE = HERE.parent / "docs" / "results" / "gate_live.jsonl"
LAYERS, EXTRA = 60, (0, 2, 3, 6)
KINDS = ("linear", "conv")
BLOCKS, ROUNDS, TOLERANCE, ALPHA = 16, 30, 0.03, 0.05
# It dies with its parent however that ends (prctl(2): PR_SET_PDEATHSIG, SIGKILL).
NEIGHBOUR = "import ctypes; ctypes.CDLL(None).prctl(1, 9)\nwhile True: pass"
REPLAY = """
import json, sys
times = json.load(open("samples.json"))
readings = [reading for one in reversed(times) for reading in (one, 0.0)]
def clock():
    return readings.pop() if readings else 0.0
import pytest
@pytest.mark.benchmark(timer=clock)
def test_replayed(benchmark):
    benchmark.pedantic(int, rounds=len(times))
"""


def network(kind: str, layers: int) -> Any:
    """(module, example input):

    60 linear layers of 128 features over 64 rows, or 3x3 convolutions of 8 channels over 24x24; a
    ReLU after each.
    """
    import torch
    from torch import nn

    torch.manual_seed(0)
    if kind == "linear":
        return nn.Sequential(
            *[part for _ in range(layers) for part in (nn.Linear(128, 128), nn.ReLU())]
        ), torch.randn(64, 128)
    return nn.Sequential(
        *[part for _ in range(layers) for part in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())]
    ), torch.randn(1, 8, 24, 24)


def __getattr__(name: str) -> Any:
    """`linear_3` is the function that makes the network of linear layers with 3 more than 60."""
    kind, _, extra = name.partition("_")
    if kind not in KINDS or not extra.isdecimal():
        raise AttributeError(name)
    return lambda: network(kind, LAYERS + int(extra))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--trials", type=int, default=20, help="of each slow-down; twice as many of the same code"
    )
    parser.add_argument("--table", type=Path, metavar="FILE")
    asked = parser.parse_args()
    if asked.table:
        print(table(read(asked.table)), end="")
        return
    lock = FILE.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(
            "another one is measuring on this machine; each would be the other's neighbour"
        ) from None
    neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])
    try:
        while (found := next_one(read(FILE), asked.trials)) is not None:
            done = trial(*found)
            with FILE.open("a") as file:
                file.write(json.dumps(done) + "\n")
            print({name: value for name, value in done.items() if name != "ratios"}, flush=True)
    finally:
        neighbour.kill()
        neighbour.wait()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def next_one(done: list[dict[str, Any]], trials: int) -> tuple[str, int] | None:
    """The kind and slow-down with the fewest trials for their share; None when all have enough."""
    share = {extra: 2.0 if extra == 0 else 1.0 for extra in EXTRA}
    count = {
        (kind, extra): sum((one["kind"], one["extra"]) == (kind, extra) for one in done)
        for kind in KINDS
        for extra in EXTRA
    }
    open_ones = [cell for cell, number in count.items() if number < trials * share[cell[1]] / len(KINDS)]
    return min(open_ones, key=lambda cell: count[cell] / share[cell[1]], default=None)


def raced(kind: str, extra: int, blocks: int) -> tuple[list[list[float]], list[list[float]]]:
    """Latencies of BASE and of HEAD.

    As in hotlap ab each side has fork servers of its own, and they are new for each trial.
    """
    from hotlap.perf.lookup.workloads import Reference
    from hotlap.perf.measure.prepare import Preparation
    from hotlap.perf.race.origin import Origin
    from hotlap.perf.race.race import Race
    from hotlap.perf.race.servers import Servers
    from hotlap.perf.terms.case import Case, Plan

    plan = Plan(budget_s=600, looks=(blocks,), rounds=ROUNDS, tail_s=0, fresh_blocks=0, threads=2)
    made, lanes = [], []
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder), 600, print)
        try:
            for name, count in (("base", 0), ("head", extra)):
                workload = f"bench.gate_live:{kind}_{count}"
                side = Preparation(Reference(workload), Path(folder) / name, plan, servers, Origin(name))
                made.append(side)
                case = Case(workload, "eager", batch=64 if kind == "linear" else 1)
                side.refer([case], train=False, report=print, tell=lambda text: None)
                lanes.append(side.build(case))
            Race(lanes, plan, servers, lambda text: None, lambda: None).run()
        finally:
            for side in made:
                side.close()
            servers.close()
    for lane in lanes:
        if lane.refusal is not None:
            raise SystemExit(f"{lane.case.id}: {lane.refusal}")
    base, head = (lane.latencies() for lane in lanes)
    return base, head


def trial(kind: str, extra: int) -> dict[str, Any]:
    """One race of 16 blocks, and what each tool says of its samples."""
    from hotlap.perf.stats import compare, estimates

    start = time.monotonic()
    base, head = raced(kind, extra, BLOCKS)
    ratios = [math.log(estimates.middle(block)) for block in estimates.paired(base, head)]
    each, looks = compare.level(ALPHA)
    samples = [[value for block in side for value in block] for side in (base, head)]
    return {
        "kind": kind,
        "extra": extra,
        "at_tolerance": sequence(ratios, TOLERANCE, each, looks),
        "at_zero": sequence(ratios, 0.0, each, looks),
        "benchstat": mann_whitney(*samples),
        "pytest-benchmark": pytest_benchmark(*samples),
        "pyperf": pyperf(*samples),
        "ratio": math.exp(estimates.fmean(ratios)),
        "seconds": time.monotonic() - start,
        "ratios": [round(value, 6) for value in ratios],
        "hardware": survey.collect(2, "keep").hardware,
    }


def sequence(ratios: list[float], tolerance: float, each: float, looks: tuple[int, ...]) -> dict[str, Any]:
    """The gate's verdict and the block at which it stood."""
    from hotlap.perf.stats import compare

    for n in looks:
        found = compare.lockstep(ratios[:n], tolerance, each, each)
        if found.verdict != "inconclusive":
            break
    return {"verdict": found.verdict, "blocks": n}


def mann_whitney(base: list[float], head: list[float]) -> bool:
    """Whether benchstat would report a slow-down:

    U test of all samples at 5 %, and a larger median.
    """
    from scipy.stats import mannwhitneyu

    from hotlap.perf.stats.estimates import median

    return bool(mannwhitneyu(base, head).pvalue < 0.05) and median(head) > median(base)


def pytest_benchmark(base: list[float], head: list[float]) -> bool:
    """Whether `--benchmark-compare-fail=median:5%` fails."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_replay.py").write_text(REPLAY)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_replay.py"]
        for samples, more in (
            (base, ["--benchmark-save=base"]),
            (head, ["--benchmark-compare=0001", "--benchmark-compare-fail=median:5%"]),
        ):
            (Path(folder) / "samples.json").write_text(json.dumps(samples))
            done = subprocess.run([*command, *more], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 1) or (
            done.returncode == 1 and "Performance has regressed" not in done.stdout + done.stderr
        ):
            raise SystemExit(f"pytest-benchmark: {done.stdout[-500:]}{done.stderr[-500:]}")
        return done.returncode == 1


def pyperf(base: list[float], head: list[float]) -> bool | None:
    """Whether `compare_to` calls HEAD slower; None where pyperf is not installed."""
    try:
        import pyperf as library
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        for name, samples in (("base", base), ("head", head)):
            runs = [library.Run(samples, metadata={"name": "trial", "loops": 1}, collect_metadata=False)]
            library.Benchmark(runs).dump(str(Path(folder) / f"{name}.json"))
        done = subprocess.run(
            [sys.executable, "-m", "pyperf", "compare_to", "base.json", "head.json"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return "slower" in done.stdout


def table(trials: list[dict[str, Any]]) -> str:
    lines = [
        (
            f"{trials[0]['hardware']}; eager, fp32, 2 threads, one core loaded by another process. {BLOCKS}"
            f" blocks of {ROUNDS} rounds."
        ),
        "",
    ]
    judged = ("gate at 0", "95 % interval", "blocks", "gate at 3 %: regression", "pass", "could not tell")
    titles = ("HEAD", "trials", *judged, "pytest-benchmark median:5%", "pyperf", "benchstat's rule")
    lines += ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for extra in EXTRA:
        some = [one for one in trials if one["extra"] == extra]
        if some:
            lines.append("| " + " | ".join(row(extra, some)) + " |")
    slowest = max(one["seconds"] for one in trials)
    return (
        "\n".join(
            [
                *lines,
                "",
                (
                    f"A trial took at most {slowest:.0f} s. Of the other tools: how many of the trials they"
                    " called slower."
                ),
            ]
        )
        + "\n"
    )


def row(extra: int, some: list[dict[str, Any]]) -> list[str]:
    from hotlap.perf.stats.estimates import fmean

    def count(name: str, verdict: str) -> int:
        return sum(one[name]["verdict"] == verdict for one in some)

    alarms = count("at_zero", "regression")
    low, high = clopper_pearson(alarms, len(some))
    others = [[one[name] for one in some] for name in ("pytest-benchmark", "pyperf", "benchstat")]
    return [
        f"+{extra / LAYERS:.1%} work" if extra else "the same",
        str(len(some)),
        f"{alarms} slower",
        f"{low:.0%} to {high:.0%}",
        f"{fmean([one['at_zero']['blocks'] for one in some]):.1f}",
        *(str(count("at_tolerance", verdict)) for verdict in ("regression", "pass", "inconclusive")),
        *("not installed" if None in said else str(sum(said)) for said in others),
    ]


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy.stats import beta

    return float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0, (
        float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    )


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
