"""Runs an experiment's trainings: each in a process of its own, in random order within a seed.

A training's folder, SEED/ARM in that of the experiment, is its own place for runs and says how far
it is: finished where its run has metrics, failed where failed.json says why. Whatever ends the
experiment, it goes on from there. The test split is not touched.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from ...perf.race.worker import settle
from ...perf.terms import files, printer, stored
from ...perf.terms.reasons import Misuse
from .. import records, runs
from .design import PILOT, Design, fingerprint
from .sources import own_sources

# Version of design.json and failed.json. 1: the first.
SCHEMA = 1
# In an experiment's folder: what was asked, before the first training.
REGISTERED = "design.json"
# In a training's folder: why it has no value, why it did not begin, what code it ran, what it
# printed.
FAILED, REFUSED, SOURCES, LOG = "failed.json", "refused.json", "sources.json", "log.txt"
# A training whose process dies is gone on with, and counts as failed the second time.
TRIES = 2
# What the machine lacked, and not the arm: such a training is tried again with --resume.
OF_THE_DAY = (OSError, MemoryError, ImportError)
# Seeds of a pilot.
PILOT_SEEDS = 5


class Trial(NamedTuple):
    """One training to be done."""

    arm: str
    seed: int
    # Where its run is; it has no `train/ID` before it has begun.
    folder: Path


class TrialResult(msgspec.Struct, frozen=True):
    """How a training ended."""

    arm: str
    seed: int
    status: Literal["finished", "failed"]
    # The metric on the validation split; None of a failed one.
    value: float | None
    # Optimizer steps, and wall time over all sessions.
    steps: int
    seconds: float
    reason: str = ""


def place(name: str) -> Path:
    """Returns the folder of an experiment."""
    return files.runs_folder() / "experiments" / name


def order(design: Design, folder: Path, seeds: Sequence[int]) -> list[Trial]:
    """Returns all trainings, seed by seed, the arms of each in random order: that of the design."""
    drawn = random.Random(fingerprint(msgspec.to_builtins(design)))
    trials = []
    for seed in seeds:
        arms = list(design.every_arm)
        drawn.shuffle(arms)
        trials += [Trial(arm, seed, folder / str(seed) / arm) for arm in arms]
    return trials


def pilot_seeds() -> list[int]:
    return [PILOT + seed for seed in range(PILOT_SEEDS)]


def register(design: Design, config: bytes, folder: Path, resume: bool) -> str:
    """Writes what is asked before anything is trained, and returns when that was.

    config: the settings of all arms that lie in a file of their own. Raises Misuse where it was
    asked before, unless that is to be resumed and is the same.
    """
    path = folder / REGISTERED
    if not path.exists():
        if resume:
            raise Misuse(f"{folder} is not there, so nothing has begun; leave --resume out")
        at = f"{datetime.now(UTC):%Y-%m-%d %H:%M}"
        content = {
            "schema": SCHEMA,
            "at": at,
            "sha256": fingerprint(msgspec.to_builtins(design), config),
            "design": msgspec.to_builtins(design),
        }
        runs.write_json(path, content)
        return at
    registered = decoded(path)
    if registered.get("sha256") != fingerprint(msgspec.to_builtins(design), config):
        raise Misuse(
            f"{folder.name} was changed after it had begun; give the changed one another name, or remove"
            f" {folder} with what was trained"
        )
    if not resume:
        raise Misuse(f"{folder.name} has begun already; --resume goes on with it")
    return str(registered["at"])


def ended(trial: Trial, metric: str) -> TrialResult | None:
    """Returns how a training ended; None where it has not. Raises Misuse where its network logs no
    such metric, Unreadable for a damaged file.
    """
    finished = next(iter((trial.folder / "train").glob(f"*/{runs.METRICS}")), None)
    if finished is None:
        path = trial.folder / FAILED
        if not path.exists():
            return None
        content = decoded(path)
        return TrialResult(trial.arm, trial.seed, "failed", None, 0, 0.0, str(content["reason"]))
    record = records.read(finished.parent)
    if metric not in record.validation:
        names = ", ".join(record.validation) or "nothing"
        raise Misuse(
            f"metric: {record.settings.name} logs no {metric!r} of the validation split, but {names}"
        )
    value = record.validation[metric]
    failed = "" if value is not None else f"its {metric} is no finite number"
    status: Literal["finished", "failed"] = "failed" if failed else "finished"
    return TrialResult(trial.arm, trial.seed, status, value, record.steps, record.seconds, failed)


def carry_out(
    design: Design, trials: Sequence[Trial], config: Path | None, jobs: int, report: Callable[[str], None]
) -> list[TrialResult]:
    """Runs the trainings that have not ended, so many at once, and returns how all of them ended.
    `prepare` has been called.

    report gets a line a training, with the time that the others will take. Whatever ends this
    early ends the trainings too, which then go on from their last checkpoints.
    """
    for trial in trials:
        again(trial)
    known = {trial: result for trial in trials if (result := ended(trial, design.metric))}
    waiting = [trial for trial in trials if trial not in known]
    if known and waiting:
        report(f"{len(known)} of {len(trials)} trainings are there already")
    context = multiprocessing.get_context("forkserver")
    content = config.read_bytes() if config is not None else b""
    running: dict[ForkServerProcess, Trial] = {}
    tries: dict[Trial, int] = {}
    spent = [result.seconds for result in known.values() if result.seconds]
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                trial = waiting.pop(0)
                tries[trial] = tries.get(trial, 0) + 1
                trial.folder.mkdir(parents=True, exist_ok=True)
                if config is not None and config.read_bytes() != content:
                    raise Misuse(f"{config} was changed while the experiment ran; put it back, and --resume")
                process = context.Process(target=trained, args=(trial, design, config))
                process.start()
                running[process] = trial
            for process in [each for each in running if each.sentinel in wait([p.sentinel for p in running])]:
                trial = running.pop(process)
                process.join()
                result = ended(trial, design.metric)
                if result is None:
                    refused(trial)
                    if tries[trial] < TRIES:
                        waiting.insert(0, trial)
                        report(f"{trial.arm}, seed {trial.seed}: {ending(process)}; it goes on")
                        continue
                    fail(trial, f"{ending(process)}, {TRIES} times; see {trial.folder / LOG}", retried=True)
                    result = ended(trial, design.metric)
                    assert result is not None
                known[trial] = result
                spent += [result.seconds] if result.seconds else []
                report(line(result, design.metric, len(known), len(trials), spent, jobs))
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.join()
    return [known[trial] for trial in trials]


def line(result: TrialResult, metric: str, done: int, of: int, spent: Sequence[float], jobs: int) -> str:
    """Returns what is printed of a training that has ended."""
    score = result.reason if result.value is None else f"{metric} {result.value:.5g}"
    left = f", {duration(sum(spent) / len(spent) * (of - done) / jobs)} left" if spent and done < of else ""
    return f"{result.arm}, seed {result.seed}: {score} ({result.seconds:.0f} s); {done} of {of}{left}"


def duration(seconds: float) -> str:
    """Returns a time that is not known well: 40 s, 12 min, 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ending(process: ForkServerProcess) -> str:
    """Returns how a process ended that said nothing."""
    code = process.exitcode or 0
    return f"its process was ended by signal {-code}" if code < 0 else f"its process ended with {code}"


def refused(trial: Trial) -> None:
    """Raises Misuse for what a training refused to begin with."""
    path = trial.folder / REFUSED
    if path.exists():
        raise Misuse(f"{trial.arm}: {decoded(path)['reason']}")


def fail(trial: Trial, reason: str, retried: bool = False) -> None:
    """Leaves why a training has no value. retried: for what another machine, or another day, may
    not have: it is tried again when the experiment goes on.
    """
    runs.write_json(trial.folder / FAILED, {"schema": SCHEMA, "reason": reason, "retried": retried})


def again(trial: Trial) -> None:
    """Forgets how a training failed that is to be tried again, and what it refused."""
    path = trial.folder / FAILED
    if path.exists() and decoded(path).get("retried"):
        path.unlink()
    (trial.folder / REFUSED).unlink(missing_ok=True)


def decoded(path: Path) -> dict[str, Any]:
    """Reads a file of an experiment. Raises Unreadable."""
    return stored.decode(path, stored.content(path), dict[str, Any], "not a file of an experiment")


def prepare() -> None:
    """Starts the process that trainings are forked from, which imports torch and Lightning once,
    not for each, while this one goes on.

    A file of the user's, such as statistics.py, is not taken there for one of Python's.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["hotlap.models.train"])
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]


def trained(trial: Trial, design: Design, config: Path | None) -> None:
    """Does one training, in a process of its own, and leaves how it ended in its folder."""
    settle(os.getppid())
    trial = trial._replace(folder=trial.folder.resolve())  # the user's code may go elsewhere
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the experiment, which then ends this
    os.environ["HOTLAP_RUNS"] = str(trial.folder)
    log = os.open(trial.folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        train_one(trial, design, config)
    finally:
        runs.write_json(trial.folder / SOURCES, own_sources())
    printer.flush()
    os._exit(0)  # not waiting for threads that the user's code may have left


def train_one(trial: Trial, design: Design, config: Path | None) -> None:
    """Trains, from the last checkpoint where there is one, and leaves why it failed or refused."""
    from ..train import train
    from ..training.guards import TrainingFailed, TrainingStopped

    begun = runs.newest("", finished=False)
    try:
        if begun is not None and (begun / runs.CHECKPOINT).exists():
            train(resume=begun.name, test=False)
            return
        settings = design.overrides(trial.arm, trial.seed)
        train(design.train, data=design.data, config=config, overrides=settings, test=False)
    except Misuse as error:
        runs.write_json(trial.folder / REFUSED, {"reason": str(error)})
    except (TrainingFailed, TrainingStopped, runs.RunRefused, ValueError) as error:
        import traceback

        traceback.print_exc()
        fail(trial, " ".join(str(error).split()), isinstance(error.__cause__, OF_THE_DAY))
