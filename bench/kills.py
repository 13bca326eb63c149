"""What does a SIGKILL cost?

Nothing that was finished is lost, nothing counts twice, nothing stays behind.

    python bench/kills.py [--tries 100] [--seed 0]
        about 40 s a try; writes docs/results/kills.json after each
    python bench/kills.py --table docs/results/kills.json
        the table of docs/results/kills.md

A try runs two small models in two races and sends SIGKILL to a victim at a random moment: the
parent, a fork server, the process that builds, the referee, or a worker that checks or is timed.
Then `hotlap run --resume` goes on, and all is held against what a run that nobody disturbs leaves.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from hotlap.perf.machine import survey
from hotlap.perf.measure import rundir
from hotlap.perf.race.leavings import SHARED_MEMORY
from hotlap.perf.terms.result import Result, read

FILE = Path(__file__).resolve().parent.parent / "docs" / "results" / "kills.json"
# 1 (0.1.0): first version.
SCHEMA = 1
# Stands in the environment of all that a try starts.
VARIABLE = "HOTLAP_TRY"
MODEL = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)), torch.randn(1, 64)
"""
WIDTHS = {"first": 128, "second": 256}
COMMAND = ("run", *(f"{name}:make" for name in WIDTHS), "--backends", "eager,onnxruntime", "--budget", "2s")
# A process id in the name of a segment: no part of a hexadecimal number.
PID = re.compile(r"(?<![0-9a-z])[0-9]{3,7}(?![0-9a-z])")
# Victim -> what its log is called, as pathlib matches it; the parent has none.
VICTIMS = {
    "parent": (),
    "server": ("log/server-*.txt",),
    "builder": ("log/*/build.txt",),
    "referee": ("log/referee.txt",),
    "worker": ("log/*/check.txt", "log/*/block-*.txt"),
}
# A victim that has just appeared lives on for at most this long, s.
GRACE_S = 1.0
# The moments of a victim that comes and goes lie in this share of a run, after which there may be
# none.
SHARE = {"builder": 0.5, "referee": 0.6, "worker": 0.7}
# Longest wait for the processes of a run that has ended, s.
PATIENCE_S = 20.0
# Longest that a run may take, s.
TIMEOUT_S = 280.0


class Try(NamedTuple):
    """One run that was disturbed, and what was wrong afterwards.

    moment_s: of the kill. status: of the disturbed run. finished: results that it left.
    """

    victim: str
    moment_s: float
    status: int
    resumed: int
    finished: int
    lost: list[str]
    twice: list[str]
    left: list[str]
    wrong: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--victim", choices=VICTIMS, help="this one only")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--table", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(json.loads(arguments.table.read_text())), end="")
        return
    chance = random.Random(arguments.seed)
    tries: list[Try] = []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        (Path(folder) / "tmp").mkdir()
        for name, width in WIDTHS.items():
            (Path(folder) / f"{name}.py").write_text(MODEL.replace("WIDTH", str(width)))
        undisturbed = disturbed(Path(folder) / "out-0", "", 0.0, chance)
        print(f"undisturbed: {undisturbed.moment_s:.1f} s {problems(undisturbed)}", flush=True)
        order = [arguments.victim] if arguments.victim else [*VICTIMS]
        for number in itertools.count(1):
            if len(tries) == arguments.tries:
                break
            victim = order[len(tries) % len(order)]
            moment_s = chance.uniform(0.0, SHARE.get(victim, 1.0) * undisturbed.moment_s)
            trial = disturbed(Path(folder) / f"out-{number}", victim, moment_s, chance)
            if trial.victim != victim:
                continue
            tries.append(trial)
            print(f"{len(tries)} {victim} at {trial.moment_s:.1f} s: {problems(trial)}", flush=True)
            write(arguments.out, undisturbed.moment_s, tries)


def write(file: Path, undisturbed_s: float, tries: list[Try]) -> None:
    here = survey.collect(len(os.sched_getaffinity(0)), "keep")
    about = {
        "schema": SCHEMA,
        "machine": here.hardware,
        "command": " ".join(["hotlap", *COMMAND]),
        "undisturbed_s": undisturbed_s,
    }
    file.write_text(json.dumps({**about, "tries": [trial._asdict() for trial in tries]}, indent=1) + "\n")


def disturbed(out: Path, victim: str, moment_s: float, chance: random.Random) -> Try:
    """Runs into the folder, kills the victim as soon after the moment as there is one, goes on with
    what is left, and looks at it. A run that ended before there was one has no victim.
    """
    temporary = out.parent / "tmp"
    environment = {**os.environ, VARIABLE: out.name, "TMPDIR": str(temporary)}
    segments = {*os.listdir(SHARED_MEMORY)}
    start = time.monotonic()
    with out.with_suffix(".txt").open("wb") as log:
        process = hotlap(COMMAND, out, environment, log)
        killed = victim != "" and kill(process, victim, start + moment_s, chance)
        killed_s = time.monotonic() - start
        status = process.wait(TIMEOUT_S)
        ended_s = time.monotonic() - start
        before = results(out)
        left = [f"{text} after the run" for text in processes(out.name)]
        again = ("run", "--resume", out.name) if (out / "results.json").exists() else COMMAND
        resumed = hotlap(again, out, environment, log).wait(TIMEOUT_S)
    after = results(out)
    left += [f"{text} after --resume" for text in processes(out.name)]
    left += [f"{SHARED_MEMORY}{name}" for name in nobodys({*os.listdir(SHARED_MEMORY)} - segments)]
    left += [path.name for path in temporary.iterdir()]
    left += [str(path.relative_to(out)) for path in parts(out)] + locked(out)
    shutil.rmtree(temporary)
    temporary.mkdir()
    return Try(
        victim if killed else "",
        killed_s if killed else ended_s,
        status,
        resumed,
        len(finished(before)),
        lost(before, after),
        twice(after),
        left,
        wrong(after, resumed),
    )


def hotlap(
    words: tuple[str, ...], out: Path, environment: dict[str, str], log: Any
) -> subprocess.Popen[bytes]:
    """Starts a command beside the folder that gets its results."""
    return subprocess.Popen(
        [sys.executable, "-m", "hotlap.perf.cli", *words, "--out", str(out)],
        cwd=out.parent,
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[bytes], victim: str, moment: float, chance: random.Random) -> bool:
    """Waits for the moment (time.monotonic), then for a victim, and kills it."""
    time.sleep(max(0.0, moment - time.monotonic()))
    while process.poll() is None:
        if alive(process, victim):
            time.sleep(chance.uniform(0.0, GRACE_S))
            if victims := alive(process, victim):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(victims), signal.SIGKILL)
                    return True
        time.sleep(0.01)
    return False


def alive(process: subprocess.Popen[bytes], victim: str) -> list[int]:
    """The victims of a kind that run now."""
    if victim == "parent":
        return [process.pid] if process.poll() is None else []
    return logging_to(process.pid, VICTIMS[victim])


def logging_to(pid: int, patterns: tuple[str, ...]) -> list[int]:
    """What descends from a process and prints to a file of such a name."""
    return [
        child
        for child in descendants(pid)
        if (log := written(child)) is not None and any(log.match(pattern) for pattern in patterns)
    ]


def descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def written(pid: int) -> Path | None:
    """The file that a process prints to."""
    try:
        return Path(os.readlink(f"/proc/{pid}/fd/1"))
    except OSError:
        return None


def results(out: Path) -> dict[str, Result]:
    """What a run left, by case; nothing where it left no file."""
    file = out / "results.json"
    return {result.case.id: result for result in read(file).results} if file.exists() else {}


def finished(all_results: dict[str, Result]) -> dict[str, Result]:
    """The results of races in which all are final, which --resume does not repeat."""
    open_races = {result.race_id for result in all_results.values() if unfinished(result)}
    return {name: result for name, result in all_results.items() if result.race_id not in open_races}


def unfinished(result: Result) -> bool:
    return result.reason is not None and result.reason.code in rundir.RETRY


def lost(before: dict[str, Result], after: dict[str, Result]) -> list[str]:
    """The cases whose finished result is another now, or gone."""
    return [
        name
        for name, result in finished(before).items()
        if name not in after or msgspec.json.encode(after[name]) != msgspec.json.encode(result)
    ]


def twice(after: dict[str, Result]) -> list[str]:
    """The cases with a turn, or a whole block of samples, that counts more than once."""
    again = []
    for name, result in after.items():
        latency = result.metrics.get("latency")
        if latency is None:
            continue
        turns = [turn for block in latency.turns for turn in block]
        if turns != sorted(set(turns)) or len({*latency.values}) != len(latency.values):
            again.append(name)
    return again


def wrong(after: dict[str, Result], resumed: int) -> list[str]:
    """What is not as after a run that nobody disturbed."""
    lines = [f"--resume exited with {resumed}"] if resumed else []
    expected = 3 * len(WIDTHS)
    if len(after) != expected:
        lines.append(f"{len(after)} results instead of {expected}")
    return lines + [
        f"{name}: {result.status} {result.reason}"
        for name, result in after.items()
        if result.status not in ("ok", "noisy") or unfinished(result)
    ]


def processes(name: str) -> list[str]:
    """The processes of a try that are still there when its run had time to end; they are ended."""
    deadline = time.monotonic() + PATIENCE_S
    while (alive := of_try(name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in alive:
        process.kill()
    return [" ".join(process.info["cmdline"] or [process.info["name"]]) for process in alive]


def of_try(name: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["environ", "status", "cmdline", "name"])
        if (process.info["environ"] or {}).get(VARIABLE) == name
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def nobodys(segments: Iterable[str]) -> list[str]:
    """The segments of shared memory without those that name a process that lives: another program
    has made them meanwhile.
    """
    return [
        name
        for name in sorted(segments)
        if not any(psutil.pid_exists(int(number)) for number in PID.findall(name))
    ]


def parts(out: Path) -> list[Path]:
    """Files and folders that were never finished, by the names that they have until then."""
    return [
        path
        for path in out.rglob("*")
        if path.name.endswith(".part") or (path.name.startswith(".") and path.name != ".lock")
    ]


def locked(out: Path) -> list[str]:
    """A word where the run's folder is still locked."""
    with (out / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return [f"lock of {out}"]
    return []


def problems(trial: Try) -> str:
    lines = [
        f"{name} {value}" for name, value in trial._asdict().items() if isinstance(value, list) and value
    ]
    return "; ".join(lines) or "nothing lost, twice, left or wrong"


def table(file: dict[str, Any]) -> str:
    """The tries by victim."""
    tries = [Try(**trial) for trial in file["tries"]]
    lines = [
        f"{file['machine']}. `{file['command']}`, {file['undisturbed_s']:.0f} s undisturbed.",
        "",
        "| SIGKILL to | tries | exit of the run | finished before | lost | twice | left | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for victim in [*VICTIMS, ""]:
        of_it = [trial for trial in tries if victim in ("", trial.victim)]
        if not of_it:
            continue
        statuses = Counter(trial.status for trial in of_it)
        exits = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
        cells = [victim or "all", len(of_it), exits, sum(trial.finished for trial in of_it)]
        cells += [
            sum(bool(getattr(trial, name)) for trial in of_it) for name in ("lost", "twice", "left", "wrong")
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
