"""Where a refused answer went wrong, asked of a worker of its own after the race."""

from __future__ import annotations

from ..race.entrant import Entrant
from ..race.messages import LocateFault
from ..terms.reasons import Reason, Refusal
from .journal import Journal
from .prepare import Preparation, folder_name


def locate_all(journal: Journal, preparation: Preparation) -> None:
    """Adds to the reason of each entrant whose outputs were refused which node is the first wrong
    one, or why that is not known.
    """
    for entrant in journal.entrants:
        if entrant.refusal is not None and entrant.refusal.code == "accuracy":
            journal.tell(f"locating the fault of {entrant.case.label}")
            line = located(entrant, journal, preparation)
            entrant.refusal = Reason(entrant.refusal.code, f"{entrant.refusal.detail}; {line}")


def located(entrant: Entrant, journal: Journal, preparation: Preparation) -> str:
    """Returns what a worker says of one refused entrant, or why it could say nothing."""
    name = folder_name(entrant.case)
    folder = journal.folder / "located" / name
    request = LocateFault(
        preparation.reference,
        entrant.case,
        str(entrant.artefact),
        str(entrant.oracle.folder),
        str(entrant.outputs),
        entrant.oracle.kinds,
        entrant.seen.subject.work.terms,
        journal.plan.threads,
        str(folder),
        folder.relative_to(journal.run.folder).as_posix(),
    )
    try:
        worker = preparation.torch_worker(f"{name}/locate")
        try:
            return worker.ask(request, journal.plan.timeout_s)
        finally:
            worker.kill()
    except Refusal as refusal:
        return f"not located: {refusal.reason}"
