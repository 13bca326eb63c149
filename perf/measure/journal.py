"""What is known of one race's cases, written to the results file whenever it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from ..artefacts import manifest
from ..lookup.workloads import Reference
from ..race.entrant import Entrant
from ..terms.case import Case, Plan
from ..terms.reasons import Reason
from ..terms.result import Result
from .answer import Setting, answer, unmeasured
from .prepare import folder_name
from .rundir import RunFolder


class Progress:
    """Who watches."""

    def line(self, text: str) -> None:
        """Takes one event that is worth a line."""

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        """Takes the race's entrants as they stand, and what happens next."""

    def looked(self, group: str, results: Sequence[Result]) -> None:
        """Takes the results of a first look at a race, which are not kept."""

    def finished(self, group: str, results: Sequence[Result]) -> None:
        """Takes the final results of one race."""


class Journal:
    """Entrants and results of one race. Until `close` a result counts as interrupted."""

    def __init__(
        self,
        group: str,
        cases: Sequence[Case],
        run: RunFolder,
        plan: Plan,
        environment: str,
        progress: Progress,
    ) -> None:
        self.group = group
        self.cases = cases
        self.run = run
        self.progress = progress
        self.plan = plan
        self.setting = Setting(f"{run.id}/{group}", self.plan, environment)
        self.folder = run.folder / "work" / group
        workload = cases[0].workload
        arguments = run.results.arguments.get(workload, {})
        checkpoint = run.results.references.get(workload, "")
        self.reference = Reference(workload, checkpoint, arguments=tuple(arguments.items()))
        self.entrants: list[Entrant] = []
        self.settled: dict[Case, Result] = {}
        self.stopped_by = ""

    def open(self) -> list[Case]:
        """The cases that neither have a result nor take part."""
        taking_part = {entrant.case for entrant in self.entrants}
        return [case for case in self.cases if case not in self.settled and case not in taking_part]

    def settle(self, cases: Sequence[Case], reason: Reason) -> None:
        """Writes why these cases were not measured."""
        for case in cases:
            self.settled[case] = unmeasured(self.setting, case, reason)
        self.run.put(self.settled.values())

    def put(self, result: Result) -> None:
        """Writes one result beside those of the entrants."""
        self.settled[result.case] = msgspec.structs.replace(result, artefact=self.artefact(result.case))
        self.record()

    def record(self, interrupted: bool = True) -> None:
        """Writes what is known of every entrant now."""
        for entrant in self.entrants:
            in_fp32 = replace(entrant.case, precision="fp32")
            fp32 = next((other for other in self.entrants if other.case == in_fp32), None)
            result = answer(self.setting, entrant, self.entrants[0], self.stopped_by, interrupted, fp32)
            self.settled[entrant.case] = msgspec.structs.replace(result, artefact=self.artefact(entrant.case))
        self.run.put(self.settled.values())
        self.tell("")

    def close(self) -> None:
        """Writes the final results."""
        self.record(interrupted=False)

    def artefact(self, case: Case) -> str:
        """The folder of the case's artefact, relative to the run's; empty where there is none."""
        folder = self.folder / "artefacts" / folder_name(case)
        return folder.relative_to(self.run.folder).as_posix() if (folder / manifest.FILE).is_file() else ""

    def results(self) -> list[Result]:
        """A result for each case, in the order in which they were asked for."""
        return [self.settled[case] for case in self.cases]

    def tell(self, event: str) -> None:
        self.progress.race(self.group, self.entrants, event)
