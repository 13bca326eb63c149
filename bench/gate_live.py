"""Does the gate find injected slow-downs on this machine, and leave the same code alone?

It is asked beside a process that loads one core.

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
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hotlap.perf.machine import survey

HERE = Path(__file__).resolve().parent
FILE = HERE.parent / "docs" / "results" / "gate_live.jsonl"
# Layers of BASE.
LAYERS = 60
# Layers that HEAD has more.
EXTRA = (0, 2, 3, 6)
# What the layers are.
KINDS = ("linear", "conv")
# Of one trial, and samples of each entrant in a block.
BLOCKS = 16
ROUNDS = 30
# The gate's defaults: how much slower counts, and the error rate.
TOLERANCE = 0.03
ALPHA = 0.05
# It dies with its parent however that ends (prctl(2): PR_SET_PDEATHSIG, SIGKILL).
NEIGHBOUR = "import ctypes; ctypes.CDLL(None).prctl(1, 9)\nwhile True: pass"
# A test whose clock shows stored samples, so that pytest-benchmark reports them as its own.
REPLAY = """
import json, sys
times = json.load(open("samples.json"))
readings = [reading for time in reversed(times) for reading in (time, 0.0)]
def clock():
    return readings.pop() if readings else 0.0
import pytest
@pytest.mark.benchmark(timer=clock)
def test_replayed(benchmark):
    benchmark.pedantic(int, rounds=len(times))
"""


def network(kind: str, layers: int) -> Any:
    """The module and its example input.

    Linear layers of 128 features over 64 rows, or 3x3 convolutions of 8 channels over 24x24, each
    with a ReLU behind it.
    """
    import torch
    from torch import nn

    torch.manual_seed(0)
    parts: list[nn.Module] = []
    for _ in range(layers):
        parts += [nn.Linear(128, 128) if kind == "linear" else nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts), torch.randn(64, 128) if kind == "linear" else torch.randn(1, 8, 24, 24)


def __getattr__(name: str) -> Any:
    """The function that makes a network: of `linear_3` one of linear layers, 3 more than LAYERS."""
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
    arguments = parser.parse_args()
    if arguments.table:
        print(table(read(arguments.table)), end="")
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
        while (cell := next_cell(read(FILE), arguments.trials)) is not None:
            result = trial(*cell)
            with FILE.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print({name: value for name, value in result.items() if name != "ratios"}, flush=True)
    finally:
        neighbour.kill()
        neighbour.wait()


def read(path: Path) -> list[dict[str, Any]]:
    """The trials of a results file, none where it is not there yet."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def next_cell(done: list[dict[str, Any]], trials: int) -> tuple[str, int] | None:
    """The kind and extra layers with the fewest trials for their share; None if all have enough."""
    share = {extra: 2.0 if extra == 0 else 1.0 for extra in EXTRA}
    stored = Counter((result["kind"], result["extra"]) for result in done)
    count = {cell: stored[cell] for cell in itertools.product(KINDS, EXTRA)}
    wanting = [cell for cell, number in count.items() if number < trials * share[cell[1]] / len(KINDS)]
    return min(wanting, key=lambda cell: count[cell] / share[cell[1]], default=None)


def raced(kind: str, extra: int, blocks: int) -> tuple[list[list[float]], list[list[float]]]:
    """Races the network against one with `extra` layers more.

    Returns the latencies of BASE and of HEAD, by block, in seconds. As in hotlap ab each side has
    fork servers of its own, and they are new for each trial.
    """
    from hotlap.perf.lookup.workloads import Reference
    from hotlap.perf.measure.prepare import Preparation
    from hotlap.perf.race.origin import Origin
    from hotlap.perf.race.race import Race
    from hotlap.perf.race.servers import Servers
    from hotlap.perf.terms.case import Case, Plan

    plan = Plan(budget_s=600, looks=(blocks,), rounds=ROUNDS, tail_s=0, fresh_blocks=0, threads=2)
    sides, entrants = [], []
    with tempfile.TemporaryDirectory() as folder:
        servers = Servers(Path(folder), 600, print)
        try:
            for name, count in (("base", 0), ("head", extra)):
                workload = f"bench.gate_live:{kind}_{count}"
                side = Preparation(Reference(workload), Path(folder) / name, plan, servers, Origin(name))
                sides.append(side)
                case = Case(workload, "eager", batch=64 if kind == "linear" else 1)
                side.refer([case], train=False, report=print, tell=lambda text: None)
                entrants.append(side.build(case))
            Race(entrants, plan, servers, lambda text: None, lambda: None).run()
        finally:
            for side in sides:
                side.close()
            servers.close()
    for entrant in entrants:
        if entrant.refusal is not None:
            raise SystemExit(f"{entrant.case.id}: {entrant.refusal}")
    base, head = (entrant.latencies() for entrant in entrants)
    return base, head


def trial(kind: str, extra: int) -> dict[str, Any]:
    """Runs a race of BLOCKS blocks and returns what each tool says of its samples."""
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
    """The gate's verdict, and after how many blocks it had decided.

    ratios are the logarithms of HEAD / BASE by block; each is the error rate of one look.
    """
    from hotlap.perf.stats import compare

    for n in looks:
        comparison = compare.lockstep(ratios[:n], tolerance, each, each)
        if comparison.verdict != "inconclusive":
            break
    return {"verdict": comparison.verdict, "blocks": n}


def mann_whitney(base: list[float], head: list[float]) -> bool:
    """Whether benchstat would report a slow-down.

    It does where the U test of all samples is significant at 5 % and the median is larger.
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
    if done.returncode == 0:
        return False
    if done.returncode == 1 and "Performance has regressed" in done.stdout + done.stderr:
        return True
    raise SystemExit(f"pytest-benchmark: {done.stdout[-500:]}{done.stderr[-500:]}")


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
        alike = [trial for trial in trials if trial["extra"] == extra]
        if alike:
            lines.append("| " + " | ".join(row(extra, alike)) + " |")
    slowest = max(trial["seconds"] for trial in trials)
    lines += [
        "",
        (
            f"A trial took at most {slowest:.0f} s. Of the other tools: how many of the trials they called"
            " slower."
        ),
    ]
    return "\n".join(lines) + "\n"


def row(extra: int, trials: list[dict[str, Any]]) -> list[str]:
    """The table's cells for the trials with so many layers more."""
    from hotlap.perf.stats.estimates import fmean

    def count(name: str, verdict: str) -> int:
        return sum(trial[name]["verdict"] == verdict for trial in trials)

    alarms = count("at_zero", "regression")
    low, high = clopper_pearson(alarms, len(trials))
    others = [[trial[name] for trial in trials] for name in ("pytest-benchmark", "pyperf", "benchstat")]
    return [
        f"+{extra / LAYERS:.1%} work" if extra else "the same",
        str(len(trials)),
        f"{alarms} slower",
        f"{low:.0%} to {high:.0%}",
        f"{fmean([trial['at_zero']['blocks'] for trial in trials]):.1f}",
        *(str(count("at_tolerance", verdict)) for verdict in ("regression", "pass", "inconclusive")),
        *("not installed" if None in slower else str(sum(slower)) for slower in others),
    ]


def clopper_pearson(hits: int, n: int) -> tuple[float, float]:
    """Exact 95 % interval of a share (Clopper and Pearson, Biometrika 26, 1934)."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
