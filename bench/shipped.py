"""What `hotlap optimize` ships, beside what it measured: the folder started by its own run.sh in a
fresh virtual environment that has its requirements.txt and nothing else, the same without run.sh,
and the worker that the races time.

    python -m bench.shipped [NAME ...] [--budget 3m] [--blocks 8] [--precisions fp32]
        writes docs/results/shipped.json after each model and leaves out those that are in it; with
        names it measures these anew
    python -m bench.shipped --table docs/results/shipped.json
        the table of docs/optimize.md

A block has a fresh process of each. They take turns in random order, a sample of some calls each;
compared are the block's medians. The worker calls the library with inputs that are placed; predict
of predict.py places them in each call, which is part of what is shipped.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench import stored
from hotlap.perf.artefacts import opening
from hotlap.perf.machine import cores, survey
from hotlap.perf.measure import artefact
from hotlap.perf.race.entrant import load_worker
from hotlap.perf.race.messages import TakeTurn, Warm
from hotlap.perf.race.servers import Servers
from hotlap.perf.reports.report import way
from hotlap.perf.stats import estimates
from hotlap.perf.terms import escape
from hotlap.perf.terms.case import Plan
from hotlap.perf.terms.units import scaled

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs" / "results" / "shipped.json"
NAMES = ("mlp", "resnet", "vit", "gpt")
# What is timed: the worker of a race, run.sh, and predict.py without it.
ROLES = ("measured", "shipped", "bare")
# The shipped folder is meant to take no more of the measured time than this.
MOST = 1.03
ROUNDS, SAMPLE_S, WARM_S = 30, 0.02, 1.0
# 1 (0.1.0): first version.
SCHEMA = 1
# Runs predict of the folder that is named as often as each line of its input says, and answers with
# the seconds of a call.
CLOCK = """
import importlib.util, json, pathlib, sys, time
import numpy
folder = pathlib.Path(sys.argv[1])
spec = importlib.util.spec_from_file_location("shipped", folder / "predict.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
ports = json.loads((folder / "manifest.json").read_bytes())["inputs"]
with numpy.load(folder / "reference.npz", allow_pickle=False) as stored:
    arrays = [stored[f"in{index}"][0].astype(port["dtype"]) for index, port in enumerate(ports)]
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        module.predict(*arrays)
    print((time.perf_counter() - start) / int(line), flush=True)
"""
# Seconds of a call.
Sample = Callable[[], float]


def main() -> None:
    arguments = stored.arguments(__doc__, FILE, budget="3m", blocks="8", precisions="fp32")
    if arguments.table:
        print(*table(json.loads(arguments.table.read_text())), sep="\n")
        return
    stored.fill(
        arguments.out,
        "models",
        SCHEMA,
        NAMES,
        arguments.names,
        lambda name: measured(name, arguments.budget, arguments.precisions, int(arguments.blocks)),
    )


def measured(name: str, budget: str, precisions: str, blocks: int) -> dict[str, Any]:
    """Returns the block medians of the chosen folder, started in three ways, or what failed."""
    with tempfile.TemporaryDirectory(prefix="shipped-") as place:
        folder = Path(place) / "artefact"
        command = [sys.executable, "-m", "hotlap.perf.cli", "optimize", name, "--budget", budget]
        chosen = subprocess.run(
            [*command, "--target", "cpu", "--precisions", precisions, "-o", str(folder)],
            cwd=ROOT,
            env={**os.environ, "HOTLAP_RUNS": str(Path(place) / "runs")},
            capture_output=True,
            text=True,
            check=False,
        )
        if not (folder / "run.sh").exists():
            return {"failed": (chosen.stderr + chosen.stdout).strip()[-300:]}
        venv.create(Path(place) / "venv", with_pip=True)
        python = Path(place) / "venv" / "bin" / "python"
        install = [python, "-m", "pip", "install", "-q", "-r", folder / "requirements.txt"]
        subprocess.run(install, check=True, cwd=place)
        clock = Path(place) / "clock.py"
        clock.write_text(CLOCK)
        commands = {
            "shipped": [folder / "run.sh", python, clock, folder],
            "bare": [python, clock, folder],
        }
        here = survey.collect(cores.count(), "keep")
        case = opening.checked(folder).parsed()
        return {
            "hardware": here.hardware,
            "libraries": here.libraries,
            "way": f"{way(case)} {case.precision}",
            "budget": budget,
            "requirements": (folder / "requirements.txt").read_text().split(),
            "blocks": list(raced(folder, commands, Path(place), blocks)),
        }


def raced(
    folder: Path, commands: dict[str, list[Any]], place: Path, blocks: int
) -> Iterator[dict[str, list[float]]]:
    """Yields for each block the samples of each role, s a call."""
    order = random.Random(0)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "OMP_", "PYTHON"))
    }
    for number in range(blocks):
        with ExitStack() as stack:
            samplers: dict[str, Sample] = {
                "measured": stack.enter_context(worker(folder, place / f"block-{number}"))
            }
            for role, command in commands.items():
                samplers[role] = stack.enter_context(program(command, environment))
            samples: dict[str, list[float]] = {role: [] for role in ROLES}
            for _ in range(ROUNDS):
                for role in order.sample(ROLES, len(ROLES)):
                    samples[role].append(samplers[role]())
        yield samples


@contextmanager
def worker(folder: Path, place: Path) -> Iterator[Sample]:
    """Yields what takes a sample of the folder as a race does, unpreferred by the scheduler."""
    plan = Plan(threads=cores.count(), priority="normal", sample_s=SAMPLE_S)
    built = opening.checked(folder)
    artefact.copy(folder, built, place)
    entrant = artefact.entrant_of(opening.here(built), built, place, place / "log", plan)
    servers = Servers(place, plan.timeout_s, lambda line: None)
    load_worker(entrant, plan, servers, "worker", fresh=True)
    process = entrant.running()
    process.ask(Warm(plan.sample_s, plan.longest_sample_s, WARM_S), plan.timeout_s)
    process.stop()

    def sample() -> float:
        process.go()
        try:
            return process.ask(TakeTurn(False), plan.timeout_s).turn.call_s
        finally:
            process.stop()

    try:
        yield sample
    finally:
        entrant.end_worker()
        servers.close()


@contextmanager
def program(command: list[Any], environment: dict[str, str]) -> Iterator[Sample]:
    """Yields what takes a sample of a program that runs CLOCK, once it is warm."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None

        def call(calls: int) -> float:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(f"{calls}\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        call(1)
        call_s = call(3)
        call_s = call(max(1, round(WARM_S / call_s)))
        yield lambda: call(max(1, round(SAMPLE_S / call_s)))
        process.stdin.close()


def times(blocks: list[dict[str, list[float]]], role: str) -> estimates.Estimate:
    """Returns how many times the measured time a role takes, with its 95 % interval."""
    return estimates.ratio([block["measured"] for block in blocks], [block[role] for block in blocks])


def table(content: dict[str, Any]) -> Iterator[str]:
    """Yields the lines of the table in Markdown."""
    models = {name: model for name, model in content["models"].items() if "blocks" in model}
    for line in dict.fromkeys(model["hardware"] for model in models.values()):
        yield f"{escape.markdown(line)}; batch 1. Times of what was measured, 95 % interval over blocks."
    yield ""
    yield "| model | chosen | measured | by its run.sh | without run.sh | blocks |"
    yield "|---|---|---|---|---|---|"
    within = 0
    for name, model in models.items():
        shipped, bare = (times(model["blocks"], role) for role in ("shipped", "bare"))
        within += shipped.high <= MOST
        call_s = estimates.median([sample for block in model["blocks"] for sample in block["measured"]])
        cells = [escape.markdown(name), escape.markdown(model["way"]), scaled(call_s, "s")]
        cells += [shown(shipped), shown(bare), str(len(model["blocks"]))]
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield f"- whole interval within {MOST - 1:.0%} of what was measured: {within} of {len(models)}"
    for name, model in content["models"].items():
        if "failed" in model:
            yield f"- {name}: {escape.markdown(model['failed'])}"


def shown(value: estimates.Estimate) -> str:
    interval = f" [{value.low:.3f}, {value.high:.3f}]" if math.isfinite(value.half_width) else ""
    return f"{value.centre:.3f}{interval}"


if __name__ == "__main__":
    main()
