"""`hotlap experiment`: a question, answered by trainings with many seeds.

Imports torch only once there is something to train.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from ..perf.machine import cores
from ..perf.terms import escape, files, printer
from ..perf.terms.reasons import Misuse
from . import records, runs
from .experiments import design as designs
from .experiments import page, plan, trials
from .experiments.design import Design, fingerprint
from .experiments.record import FinishedExperiment, sentence

if TYPE_CHECKING:
    from rich.table import Table


def experiment(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="What is asked, and how.")],
    planning: Annotated[
        bool,
        typer.Option("--plan", help="Train five pilot seeds and say which differences how many would find."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an experiment that has begun.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Trainings at once. Default: as many as the cores have room for."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder of what is written. Default: that of FILE.")
    ] = None,
) -> int:
    """Compare arms with a control over seeds: better, worse, no different, or could not tell.

    Writes NAME.md, NAME.png and NAME.json beside FILE; the trainings lie in runs/experiments/NAME.
    """
    design = designs.read(file)
    config = file.parent / design.config if design.config else None
    if config is not None and not config.is_file():
        raise Misuse(f"{file}: config: there is no {config}")
    folder = trials.place(file.stem)
    at_once = jobs or max(cores.count() // threads(design, config), 1)
    try:
        if planning:
            return planned(design, config, folder, at_once)
        settings = config.read_bytes() if config is not None else b""
        registered = trials.register(design, settings, folder, resume)
        todo = trials.order(design, folder, design.every_seed)
        outcomes = trials.carry_out(design, todo, config, at_once, printer.line)
    except KeyboardInterrupt:
        again = f"hotlap experiment {file} {'--plan' if planning else '--resume'}"
        printer.note(f"interrupted; what was trained is kept, and {again} goes on")
        raise typer.Exit(130) from None
    place, varied = places(todo)
    record = FinishedExperiment(file.stem, registered, design, outcomes, place, varied)
    written = publish(record, out or file.parent)
    for arm, contrast in record.contrasts().items():
        printer.line(sentence(record, arm, contrast))
    printer.line(f"written: {', '.join(map(str, written))}")
    return 3 if record.verdict().verdict == "inconclusive" else 0


def threads(design: Design, config: Path | None) -> int:
    """Returns how many threads a training takes. Raises Misuse for settings that no training can
    begin with, of any arm: before the first of them is trained.
    """
    from .quiet import undisturbed
    from .train import theirs
    from .training import configuration

    every = []
    for arm in design.every_arm:
        words = configuration.words(design.train, design.data, config, design.overrides(arm, 0))
        try:
            with undisturbed(), theirs():
                every.append(configuration.Configuration(words).threads)
        except Misuse as error:
            raise Misuse(f"{arm}: {error}") from error
    return max(every)


def planned(design: Design, config: Path | None, folder: Path, jobs: int) -> int:
    """Trains the pilot and prints what it says."""
    from ..perf.reports.console import console

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
    """Reports a training of a pilot, which is not to show its scores."""
    printer.counter(text.rpartition("; ")[2])


def detectable(
    design: Design, known: list[plan.PairSpread], outcomes: list[trials.TrialResult], jobs: int
) -> Table:
    """Returns a table of what numbers of seeds would find, and their cost."""
    from rich.table import Table

    heads = [f"{escape.log(spread.arm)}: finds" for spread in known]
    table = Table("seeds", *heads, "trainings", f"hours, {jobs} at once")
    for seeds in sorted({*plan.SEEDS, len(design.every_seed)}):
        table.add_row(
            str(seeds),
            *(f"{plan.found(design, spread, seeds):.2g}" for spread in known),
            str(seeds * len(design.every_arm)),
            f"{plan.hours(design, outcomes, seeds, jobs):.2g}",
        )
    return table


def places(todo: list[trials.Trial]) -> tuple[dict[str, object], dict[str, list[object]]]:
    """Returns where the first training took place, and what differed elsewhere."""
    every = [
        records.read(path.parent).environment
        for trial in todo
        for path in (trial.folder / "train").glob(f"*/{runs.METRICS}")
    ]
    if not every:
        return {}, {}
    varied = {
        key: distinct
        for key in every[0]
        if len(
            distinct := [*{msgspec.json.encode(place.get(key)): place.get(key) for place in every}.values()]
        )
        > 1
    }
    return every[0], varied


def publish(record: FinishedExperiment, folder: Path) -> list[Path]:
    """Writes the page, the picture and the file, and returns their paths. Raises Misuse."""
    from .experiments import picture  # brings matplotlib

    contents: Mapping[str, bytes] = {
        "json": record.json(),
        "md": page.markdown(record).encode(),
        "png": picture.png(record),
    }
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{record.name}.{suffix}"
        folder.mkdir(parents=True, exist_ok=True)
        files.put(path, content)
        paths.append(path)
    return paths
