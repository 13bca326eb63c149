"""The way of an experiment: its design, checked and stated, its trainings, its answer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import typer
from rich.table import Table

from ...perf.machine import cores
from ...perf.reports.console import console
from ...perf.terms import escape, files, printer
from ...perf.terms.reasons import Misuse
from .. import records, runs
from . import design as designs
from . import page, plan, trials
from .design import Design, fingerprint
from .record import FinishedExperiment, sentence

# Of a file's hash that is shown.
DIGITS = 8


def conduct(file: Path, planning: bool, resume: bool, jobs: int | None, out: Path | None) -> int:
    """Answers the question of a design, or plans it, and returns the command's exit status: 3 where
    an arm could not be told.

    jobs: trainings at once; None: as many as the cores have room for. out: where the answer is
    written; None: beside the design. Raises Misuse.
    """
    design = designs.read(file)
    config = file.parent / design.config if design.config else None
    if config is not None and not config.is_file():
        raise Misuse(f"{file}: config: there is no {config}")
    place, written = trials.place(file.stem), out or file.parent
    make(place, written)
    try:
        with runs.held(place):
            trials.prepare()
            each = threads(design, config)
            at_once = jobs or max(cores.count() // each, 1)
            if planning:
                return planned(design, config, place, at_once)
            settings = config.read_bytes() if config is not None else b""
            registered = trials.register(design, settings, place, resume)
            todo = trials.order(design, place, design.every_seed)
            outcomes = trials.carry_out(design, todo, config, at_once, printer.line)
    except runs.NotResumable as error:
        raise Misuse(str(error)) from error
    except KeyboardInterrupt:
        words = ["hotlap", "experiment", str(file), "--plan" if planning else "--resume"]
        words += ["--jobs", str(jobs)] if jobs else []
        words += ["--out", str(out)] if out else []
        printer.note(f"interrupted; what was trained is kept, and {shlex.join(words)} goes on")
        raise typer.Exit(130) from None
    record = FinishedExperiment(file.stem, registered, design, outcomes, *places(todo))
    paths = publish(record, written)
    for arm, contrast in record.contrasts().items():
        printer.line(sentence(record, arm, contrast))
    printer.line(f"written: {', '.join(map(str, paths))}")
    return 0 if record.told else 3


def make(place: Path, written: Path) -> None:
    """Makes the folders of the trainings and of the answer, unless they are there. Raises Misuse
    where that cannot be: before anything is trained.
    """
    try:
        if not place.is_dir():
            runs.make(place)
        written.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misuse(f"{error.filename}: {error.strerror}") from None


def threads(design: Design, config: Path | None) -> int:
    """Returns how many threads a training takes. Raises Misuse for settings that no training can
    begin with, of any arm: before the first of them is trained.
    """
    from ..quiet import undisturbed
    from ..train import theirs
    from ..training import configuration
    from ..training.guards import TrainingFailed

    every = []
    for arm in design.every_arm:
        try:
            with undisturbed(), theirs():
                words = configuration.words(design.train, design.data, config, design.overrides(arm, 0))
                every.append(configuration.Configuration(words).threads)
        except (Misuse, TrainingFailed) as error:
            raise Misuse(f"{arm}: {error}") from error
    return max(every)


def planned(design: Design, config: Path | None, folder: Path, jobs: int) -> int:
    """Trains the pilot and prints what it says."""
    asked = {
        "arms": design.every_arm,
        "train": design.train,
        "data": design.data,
        "settings": design.settings,
    }
    content = config.read_bytes() if config is not None else b""
    place = folder / f"pilot-{fingerprint(asked, content)[:8]}"
    todo = trials.order(design, place, trials.pilot_seeds())
    outcomes = trials.carry_out(design, todo, config, jobs, quiet)
    known = plan.spreads(design, outcomes)
    for outcome in outcomes:
        if outcome.value is None:
            printer.line(f"{outcome.arm} failed with a seed of the pilot: {outcome.reason}")
    if not known:
        printer.line("no arm has two pairs of trainings that ended well: nothing can be planned")
        return 3
    console().print(detectable(design, known, outcomes, jobs))
    for spread in known:
        r = "unknown" if spread.correlation is None else f"{spread.correlation:+.2f}"
        printer.line(
            f"{spread.arm}: the differences of {spread.pairs} pairs vary by {spread.deviation:.3g} (SD),"
            f" their correlation is {r}"
        )
    values = [each.value for each in outcomes if each.arm == design.control_name and each.value is not None]
    smallest = design.smallest(sum(values) / len(values))
    seeds = plan.needed(design, known, smallest)
    words = f"more than {plan.MOST}" if seeds is None else str(seeds)
    printer.line(
        f"the smallest effect of interest, {smallest:.3g}, takes {words} seeds; the design has"
        f" {len(design.every_seed)}"
    )
    return 0


def quiet(text: str) -> None:
    """Reports a training of a pilot, which is not to show its score."""
    printer.line(f"pilot: {text.rpartition('; ')[2]}")


def detectable(
    design: Design, known: list[plan.PairSpread], outcomes: list[trials.TrialResult], jobs: int
) -> Table:
    """Returns a table of what numbers of seeds would find, and their cost."""
    heads = [f"{escape.log(spread.arm)}: finds" for spread in known]
    table = Table("seeds", *heads, "trainings", f"hours, {jobs} at once")
    for seeds in sorted({*plan.SEEDS, len(design.every_seed)}):
        table.add_row(
            str(seeds),
            *(f"{plan.detectable_by(design, spread, seeds):.2g}" for spread in known),
            str(seeds * len(design.every_arm)),
            f"{plan.hours(design, outcomes, seeds, jobs):.2g}",
        )
    return table


def places(todo: Sequence[trials.Trial]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Returns where the first training took place, and what differed elsewhere: of the machine, the
    commit, and the user's own files.
    """
    environments, sources = [], []
    for trial in todo:
        finished = (trial.folder / "train").glob(f"*/{runs.METRICS}")
        environments += [records.read(path.parent).environment for path in finished]
        if (trial.folder / trials.SOURCES).exists():
            sources.append(trials.decoded(trial.folder / trials.SOURCES))
    varied = distinct(environments)
    for name, hashes in distinct(sources).items():
        varied[f"file {name}"] = [each and each[:DIGITS] for each in hashes]
    return environments[0] if environments else {}, varied


def distinct(every: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Returns what is not the same in all -> its values."""
    keys = dict.fromkeys(key for each in every for key in each)
    values = {
        key: {msgspec.json.encode(each.get(key)): each.get(key) for each in every}.values() for key in keys
    }
    return {key: list(each) for key, each in values.items() if len(each) > 1}


def publish(record: FinishedExperiment, folder: Path) -> list[Path]:
    """Writes the page, the picture and the file, and returns their paths. Raises Misuse."""
    from . import picture  # brings matplotlib

    contents: Mapping[str, bytes] = {
        "json": record.json(),
        "md": page.markdown(record).encode(),
        "png": picture.png(record),
    }
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{record.name}.{suffix}"
        files.put(path, content)
        paths.append(path)
    return paths
