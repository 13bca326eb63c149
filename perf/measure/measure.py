"""The main path, top to bottom: cases -> races -> (refer, prove or build, race with check) ->
answers -> results file.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from ..artefacts import manifest
from ..lookup import plugins, workloads
from ..lookup.cases import races
from ..race.race import Entrant, Race
from ..race.servers import Servers
from ..terms.case import Case, Plan
from ..terms.reasons import Reason, Refusal
from ..terms.result import Result
from .answer import answer, proven, unmeasured
from .prepare import Preparation, folder_name, own_work
from .rundir import RunFolder


class Progress:
    """Who watches:

    `line` for what is worth a line, `race` for each change within a race, `finished` when its
    results are final.
    """

    def line(self, text: str) -> None:
        """One event."""

    def race(self, group: str, entrants: Sequence[Entrant], event: str) -> None:
        """The race's entrants as they stand, and what happens next."""

    def finished(self, group: str, results: Sequence[Result]) -> None:
        """Final results of one race."""


def measure(
    cases: Sequence[Case],
    run: RunFolder,
    plan: Plan,
    environment: str,
    progress: Progress,
    train: bool = True,
    prove: bool = True,
) -> list[Result]:
    """Measures every case, race by race; what lacks only its device is proven (prove) or skipped.

    `run` has the results after each block: a Ctrl-C or a crash loses at most one.
    """
    collected: list[Result] = []
    servers = Servers(run.folder, plan.timeout_s, progress.line)
    try:
        for group, members in races(cases):
            results = Entry(group, members, run, plan, environment, progress, servers, prove).go(train)
            collected += results
            progress.finished(group, results)
    finally:
        servers.close()
    return collected


class Entry:
    """One race from its cases to their results.

    What cannot take part gets its reason; what lacks only its device is proven without it; the
    others are built, checked and timed.
    """

    def __init__(
        self,
        group: str,
        cases: Sequence[Case],
        run: RunFolder,
        plan: Plan,
        environment: str,
        progress: Progress,
        servers: Servers,
        prove: bool,
    ) -> None:
        self.servers, self.prove = servers, prove
        self.group = group
        self.cases = cases
        self.run = run
        self.environment = environment
        self.progress = progress
        self.plan = msgspec.structs.replace(
            plan, budget_s=plan.budget_s * len({case.precision for case in cases})
        )
        self.race_id = f"{run.id}/{group}"
        self.folder = run.folder / "work" / group
        self.reference = workloads.Reference(
            cases[0].workload, run.results.references.get(cases[0].workload, "")
        )
        self.entrants: list[Entrant] = []
        self.settled: dict[Case, Result] = {}
        self.absent: dict[Case, Reason] = {}
        self.stopped_by = ""

    def go(self, train: bool) -> list[Result]:
        willing = [case for case in self.cases if self.accepts(case)]
        workers = [case for case in willing if not own_work(case)]
        if not workers:
            self.settle(
                willing,
                Reason(
                    "unsupported_target",
                    "no other entrant of this race can run here, so there is nothing to keep pace with",
                ),
            )
            willing = []
        if not workers and not self.absent:
            return self.results()
        shutil.rmtree(self.folder, ignore_errors=True)
        made = Preparation(self.reference, self.folder, self.plan, self.servers)
        try:
            made.refer([*workers, *self.absent], train, self.progress.line, self.tell, here=bool(workers))
            for case, device in self.absent.items():
                self.tell(f"proving {case.label} for {case.target}")
                found = proven(
                    case, self.race_id, self.plan, made.prove(case), device, made.info, self.environment
                )
                self.settled[case] = msgspec.structs.replace(found, artefact=self.kept(case))
                self.journal()
            if not willing:
                return self.results()
            for case in willing:
                self.tell(f"building {case.label}")
                try:
                    self.entrants.append(made.build(case))
                except Refusal as refusal:
                    self.settle([case], refusal.reason)
            race = Race(self.entrants, self.plan, self.servers, self.tell, self.journal)
            race.run()
            self.stopped_by = race.stopped_by
        except Refusal as refusal:
            self.settle(
                [*willing, *(case for case in self.absent if case not in self.settled)], refusal.reason
            )
        except KeyboardInterrupt:
            unbuilt = [
                case
                for case in [*willing, *self.absent]
                if case not in self.settled and all(entrant.case != case for entrant in self.entrants)
            ]
            self.settle(
                unbuilt, Reason("interrupted", "Ctrl-C before it was built; go on with: hotlap run --resume")
            )
            self.journal()
            raise
        finally:
            made.close()
        self.journal(interrupted=False)
        if any(one.artefact for one in self.settled.values()):
            self.progress.line(
                f"artefacts in {self.folder / 'artefacts'}; time one by itself with: hotlap bench-artefact"
                " FOLDER"
            )
        return self.results()

    def accepts(self, case: Case) -> bool:
        backend = plugins.backend(case.backend)
        reason = backend.supports(case) or backend.available(case.target)
        if self.prove and reason is not None and reason.code == "no_device" and hasattr(backend, "verify"):
            self.absent[case] = reason
        elif reason is not None:
            self.settle([case], reason)
        return reason is None

    def journal(self, interrupted: bool = True) -> None:
        """Writes what is known now; until the race has ended it counts as interrupted."""
        for entrant in self.entrants:
            fp32 = next(
                (other for other in self.entrants if other.case == replace(entrant.case, precision="fp32")),
                None,
            )
            found = answer(
                entrant,
                self.entrants[0],
                self.race_id,
                self.plan,
                self.environment,
                self.stopped_by,
                interrupted,
                fp32,
            )
            self.settled[entrant.case] = msgspec.structs.replace(found, artefact=self.kept(entrant.case))
        self.run.put(self.settled.values())
        self.tell("")

    def kept(self, case: Case) -> str:
        """The case's artefact, relative to the run's folder; empty where there is none."""
        folder = self.folder / "artefacts" / folder_name(case)
        return folder.relative_to(self.run.folder).as_posix() if (folder / manifest.FILE).is_file() else ""

    def settle(self, cases: Sequence[Case], reason: Reason) -> None:
        for case in cases:
            self.settled[case] = unmeasured(case, self.race_id, self.plan, reason, self.environment)
        self.run.put(self.settled.values())

    def results(self) -> list[Result]:
        return [self.settled[case] for case in self.cases]

    def tell(self, event: str) -> None:
        self.progress.race(self.group, self.entrants, event)
