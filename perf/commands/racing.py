"""What `hotlap run` does beside the races: the cases that were asked for, how long they take, what
a stopped run keeps, and its last lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from rich.console import Console

from ..lookup import plugins, workloads
from ..lookup.cases import PACE, default_backends, expand, races
from ..measure.prepare import own_work
from ..measure.rundir import RunFolder, latest
from ..race.interrupts import Stopped
from ..reports import outcome
from ..terms import files
from ..terms.case import ARCHITECTURES, Case, Plan
from ..terms.environment import Environment
from ..terms.reasons import Misuse
from ..terms.result import Result
from .lists import batches_of, split

# Building and checking one entrant with cold caches, s. On two shared cores an mlp's five took 12 s
# each; compiling a transformer takes several times as long as its other backends together.
BUILDING_S = 30.0
# Training one of our own models without a checkpoint on two cores, s: four take about four minutes.
TRAINING_S = 60.0


def by_default() -> list[str]:
    """Returns the names of the model files that a run without names takes: those that their package
    names in STANDARD, all of a package that names none. Those in its FIRST come first, so that the
    first table is there soon.
    """
    modules = plugins.modules("hotlap.workloads")
    packages = {name: import_module(module.rpartition(".")[0]) for name, module in modules.items()}
    standard = [name for name in modules if name in getattr(packages[name], "STANDARD", modules)]
    return sorted(standard, key=lambda name: name not in getattr(packages[name], "FIRST", ()))


def asked(
    references: Sequence[workloads.Reference],
    backends: str,
    precisions: str,
    batch: str,
    targets: Sequence[str],
    plan: Plan,
) -> list[Case]:
    """Returns the cases that the options of `hotlap run` name; each text is a comma-separated list.

    An empty `batch` is the model's own where it takes no other, else 1. Raises Misuse for a name
    that nothing has, with the nearest ones, and for two files of one name.
    """
    for reference in references:
        workloads.check(reference)
    paths = {reference.text: reference.checkpoint for reference in references}
    if clash := [each for each in references if paths[each.text] != each.checkpoint]:
        raise Misuse(f"{clash[0].checkpoint} and {paths[clash[0].text]} have one name: run each by itself")
    sizes = {reference.text: batches_of(reference, batch, plan) for reference in references}
    return [
        case
        for target in targets
        for name, batches in sizes.items()
        for case in expand(
            [name], split(backends) or default_backends(target, name), split(precisions), batches, target
        )
    ]


def resumed(run_id: str, out: Path | None, environment: Environment) -> RunFolder:
    """Opens the folder of an earlier run: of this id, or of the `latest`. Raises Misuse."""
    if Path(run_id).name != run_id or run_id == "..":
        raise Misuse(f"--resume takes the ID of a run, not the path {run_id}; a folder goes with --out")
    folder = latest() if run_id == "latest" else out or files.runs_folder() / "race" / run_id
    if not (folder / "results.json").exists():
        raise Misuse(
            f"no results.json in {folder}; hotlap run --resume takes an ID under"
            f" {files.runs_folder() / 'race'}"
        )
    return RunFolder(folder, "", environment)


def duration(cases: Sequence[Case], plan: Plan) -> str:
    """Returns one line that says how long these cases take at most, and what of it is what."""
    groups = [members for _, members in races(cases)]
    measuring_s = sum(
        plan.budget_s * len({case.precision for case in members})
        for members in groups
        if not members[0].target.startswith(ARCHITECTURES)
    )
    building = sum(not own_work(case) for case in cases)
    ours = plugins.modules("hotlap.workloads")
    training = len({case.workload for case in cases if case.workload.partition(":")[0] in ours})
    total_s = measuring_s + BUILDING_S * building + TRAINING_S * training
    parts = [f"{counted(len(groups), 'race')}: {minutes(measuring_s)} of measuring"]
    parts.append(f"{minutes(BUILDING_S * building)} for {counted(building, 'entrant')} to build and check")
    if training:
        parts.append(
            f"{minutes(TRAINING_S * training)} for {counted(training, 'model')} to train if untrained"
        )
    return f"at most about {minutes(total_s)}: {', '.join(parts)}"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def minutes(seconds: float) -> str:
    """Returns a length of time for people, rounded up: seconds below two minutes, else minutes."""
    return f"{math.ceil(seconds)} s" if seconds < 120 else f"{math.ceil(seconds / 60)} min"


@contextmanager
def resumable(opened: RunFolder, again: str) -> Iterator[None]:
    """Where a run is asked to end, says what it keeps and the command that goes on with it."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise Stopped(f"{kept(opened)}; go on with: {again}") from error


def kept(opened: RunFolder) -> str:
    """Returns how many of a stopped run's cases are finished, how many measured in part, and where;
    the pace is none of them.
    """
    asked = {case for case in opened.results.asked if case.backend != PACE}
    unfinished = asked.intersection(opened.unfinished())
    begun = sum(
        result.case in unfinished and "latency" in result.metrics for result in opened.results.results
    )
    finished = len(asked) - len(unfinished)
    if not finished and not begun:
        return "stopped before the first block was measured"
    in_part = f", {begun} measured in part" if begun else ""
    return f"stopped; {finished} of {counted(len(asked), 'case')} finished{in_part}, in {opened.file}"


def conclude(results: Sequence[Result], opened: RunFolder, console: Console) -> None:
    """Prints what came out, where the evidence is, and how to go on from there."""
    console.print()
    for text in outcome.sentences(results):
        console.print(text, style="bold", soft_wrap=True)
    console.print(f"results: {opened.file}", soft_wrap=True)
    for text in outcome.follow_up(results, opened.folder, opened.results.references):
        console.print(text, soft_wrap=True)


def complete(results: Sequence[Result]) -> bool:
    """Whether every race has a case that was measured, or proven without its device."""
    groups = {result.case.group for result in results}
    measured = {
        result.case.group for result in results if "latency" in result.metrics or result.status == "verified"
    }
    return groups == measured
