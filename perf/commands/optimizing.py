"""What `hotlap optimize` and hotlap.optimize do: a question answered with someone watching, and its
folder written.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from rich.console import Console
from rich.table import Table

from ..choose import candidates, choose, sentences, ship, wishes
from ..choose.choose import Choice
from ..choose.wishes import Wish
from ..lookup.workloads import Reference, check, named
from ..machine import box as boxes
from ..machine import survey
from ..measure.rundir import RunFolder, new_id
from ..race.interrupts import Stopped
from ..reports.console import console
from ..terms import escape, files, units
from ..terms.case import Plan
from ..terms.reasons import Misuse, Refusal, Unreadable
from ..terms.stored import UNDECODABLE
from .lists import AUTO, batches_of, split, target_of
from .progress import Watched

if TYPE_CHECKING:
    import torch

    from ..artefacts.opening import Opened

# What is tried where nobody says: the coarse ones where an evaluation says what they cost.
ON_CPU = ("fp32", "bf16", "int8")
ON_GPU = ("fp32", "bf16", "fp16", "int8")
# The argument of a file's workload that names its evaluation.
EVALUATE = "evaluate"
# The file of a question, in the folder of its results, and what stands for the last one's ID.
QUESTION, LATEST = "question.json", "latest"


class Question(msgspec.Struct, frozen=True):
    """What is asked for, which lies beside the results, so that it can be asked again.

    precisions: empty where nobody named any. batch: 0 for the model's own.
    """

    reference: Reference
    goal: str
    subject_to: str
    plan: Plan
    target: str
    batch: int
    precisions: tuple[str, ...]
    # Folder of the artefact; empty for one beside the results.
    out: str
    # The command line, for the results.
    command: str
    # The user's function around the model, `package.module:function`; empty where there is none.
    pipeline: str = ""
    # Whether it is confirmed beside every library by default, and not the best alone.
    against_all: bool = False

    @property
    def wish(self) -> Wish:
        """The goal and its bounds. Raises Misuse for what cannot be read."""
        return wishes.parse(self.goal, self.subject_to)


class Answered(NamedTuple):
    """The choice, the folder of its results, and that of the artefact where there is one."""

    choice: Choice
    results: Path
    artefact: Path | None


def answered(question: Question, output: Console) -> Answered:
    """Chooses, prints what was found, and writes the artefact. Raises Misuse, Refusal."""
    reference, plan, wish = question.reference, question.plan, question.wish
    out = Path(question.out) if question.out else None
    check(reference)
    notes: list[str] = []
    target = target_of(question.target, notes)
    if target.startswith(("sm_", "gfx")):
        raise Misuse(f"--target {target}: what is chosen must be timed here; use auto, cpu or cuda:N")
    if out is not None:
        ship.suitable(out)
    here = survey.collect(plan.threads, "keep", boxes.words(plan.box))
    end = time.strftime("%H:%M:%S", time.localtime(time.time() + plan.budget_s))
    asked = f"{sentences.question(wish)}; {here.hardware}; done by about {end}"
    for line in [asked, *notes]:
        output.print(line, soft_wrap=True)
    (batch,) = [question.batch] if question.batch else batches_of(reference, "", plan)
    wanted = question.precisions or (ON_CPU if target == "cpu" else ON_GPU)
    cases = candidates.ways(reference.text, batch, target, wanted, plan)
    folder = files.runs_folder() / "choose" / new_id()
    references = {reference.text: reference.checkpoint} if reference.checkpoint else {}
    arguments = {reference.text: dict(reference.arguments)} if reference.arguments else {}
    search, confirm = (
        RunFolder(folder / part, question.command, here, (), references, arguments)
        for part in ("search", "confirm")
    )
    files.write(folder / QUESTION, msgspec.json.encode(question))
    progress = Watched(output)
    try:
        choice = choose.choose(
            cases,
            wish,
            search,
            confirm,
            plan,
            here.key,
            progress,
            bool(question.precisions),
            question.pipeline,
            question.against_all,
        )
    except KeyboardInterrupt as error:
        raise Stopped(f"stopped before anything was timed; go on with: {again(folder)}") from error
    finally:
        progress.close()
        search.close()
        confirm.close()
    output.print(ways(choice))
    for line in sentences.answer(choice):
        output.print(line, style="bold", soft_wrap=True)
    output.print(
        f"results: {folder / 'search'} and {folder / 'confirm'}, read by hotlap report", soft_wrap=True
    )
    if choice.chosen is None:
        return Answered(choice, folder, None)
    if sentences.confirmed(choice, choice.chosen) is None:
        output.print(f"confirm it: {again(folder)}", soft_wrap=True)
    artefact = (out or folder / "artefact").absolute()
    source = folder / "search" / choice.chosen.artefact
    try:
        ship.ship(source, artefact, choice.chosen)
    except OSError as error:
        raise Misuse(f"cannot write {artefact}: {error.strerror}; what was built lies in {source}") from None
    output.print(f"artefact: {artefact}", soft_wrap=True)
    output.print(
        f"run it: {artefact / 'run.sh'}    in Python: hotlap.open_artefact({str(artefact)!r})", soft_wrap=True
    )
    return Answered(choice, folder, artefact)


def again(folder: Path) -> str:
    """Returns the command that asks the question of a folder again."""
    return f"hotlap optimize --resume {folder.name}"


def asked_before(run_id: str, budget_s: float | None = None) -> Question:
    """Returns the question of an earlier choice: of this ID, or the latest. Raises Misuse.

    budget_s: another budget than its own.
    """
    below = files.runs_folder() / "choose"
    if Path(run_id).name != run_id or run_id == "..":
        raise Misuse(f"--resume takes the ID of a choice, not the path {run_id}")
    known = sorted(path.parent.name for path in below.glob(f"*/{QUESTION}"))
    if not known or (run_id != LATEST and run_id not in known):
        raise Misuse(f"no choice {run_id} under {below}; there are {', '.join(known[-3:]) or 'none'}")
    file = below / (known[-1] if run_id == LATEST else run_id) / QUESTION
    try:
        question = msgspec.json.decode(file.read_bytes(), type=Question)
    except (OSError, *UNDECODABLE) as error:
        raise Unreadable(f"{file}: {escape.plain(str(error))}; ask anew") from None
    if budget_s is None:
        return question
    plan = msgspec.structs.replace(question.plan, budget_s=budget_s)
    return msgspec.structs.replace(question, plan=plan)


def ways(choice: Choice) -> Table:
    """Returns the table of what was thought of, and why each was not chosen."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in ("way", "latency", "beside it", "what became of it"):
        drawn.add_column(head, overflow="fold")
    for row in sentences.rows(choice):
        drawn.add_row(*(escape.plain(cell) for cell in row))
    return drawn


def optimize(
    model: torch.nn.Module,
    example: Any = None,
    *,
    goal: str = "min latency",
    subject_to: str = "",
    evaluate: str | Callable[..., Any] | None = None,
    budget: str = "5m",
    out: str | Path | None = None,
    target: str = AUTO,
    batch: int = 0,
    precisions: str = "",
    threads: int = 0,
    box: str = "",
) -> Opened:
    """Returns the fastest right way to run a module on this machine, opened: it takes numpy arrays
    and returns them. Its folder is `out`, by default under runs/choose/.

    example: a tensor, a tuple of arguments or a dict of keywords; by default the module's own
    example_input_array. evaluate: a function that returns a hotlap.Evaluation, by itself or as
    `package.module:function`; it must be importable, since processes of their own call it. The
    other arguments are those of `hotlap optimize`.

    The module is exported by torch.export, and eager in what is printed is the exported program.
    Raises Misuse for what cannot be read, Refusal for a module that cannot be exported or where
    nothing meets the bounds.
    """
    from ..artefacts.opening import open_artefact
    from ..lookup import saved_program

    wishes.parse(goal, subject_to)
    plan = Plan(
        budget_s=units.seconds(budget), threads=threads or boxes.threads(box), box=boxes.canonical(box)
    )
    folder = files.runs_folder() / "choose" / new_id()
    folder.mkdir(parents=True)
    program = folder / f"{type(model).__name__}.pt2"
    saved_program.save(model, example, program)
    arguments = {} if evaluate is None else {EVALUATE: importable(evaluate)}
    place = Path(out) if out is not None else folder / "artefact"
    question = Question(
        named(str(program), "", arguments),
        goal,
        subject_to,
        plan,
        target,
        batch,
        tuple(split(precisions)),
        str(place),
        "hotlap.optimize",
    )
    answer = answered(question, console())
    if answer.artefact is None:
        raise Refusal("not_tried", f"{program.name}: {next(iter(sentences.answer(answer.choice)))}")
    return open_artefact(answer.artefact)


def importable(function: str | Callable[..., Any]) -> str:
    """Returns `package.module:function` of a function. Raises Misuse for one that another process
    cannot import.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not module or module == "__main__" or not name.isidentifier():
        raise Misuse(
            f"evaluate={name or function!r}: processes of their own must import it; put it into a file"
            " and give package.module:function"
        )
    return f"{module}:{name}"
