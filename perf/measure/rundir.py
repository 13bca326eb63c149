"""The folder of a run: one writer at a time, and a results file that is whole after every block."""

from __future__ import annotations

import errno
import fcntl
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..terms import files, result
from ..terms.case import Case
from ..terms.environment import Environment
from ..terms.files import runs_folder
from ..terms.reasons import Misuse
from ..terms.result import Result, Results

# A result with one of these reasons is measured again by --resume: its cause may have gone.
RETRY = ("interrupted", "crashed", "timeout", "out_of_space")


class Unusable(Misuse):
    """A folder that cannot be used; the message says why and what to do."""


def new_id() -> str:
    """A run's id, which sorts by time."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def latest() -> Path:
    """The newest race folder with results. Raises Unusable."""
    files = sorted((runs_folder() / "race").glob("*/results.json"), key=lambda path: path.stat().st_mtime)
    if not files:
        raise Unusable(f"no run to resume under {runs_folder() / 'race'}; start one with: hotlap run")
    return files[-1].parent


class RunFolder:
    """The folder of one run, locked while it is open.

    `put` replaces results of the same case and writes the file anew, as a whole.
    """

    def __init__(
        self,
        folder: Path | None,
        command: str,
        environment: Environment,
        asked: Iterable[Case] = (),
        references: dict[str, str] | None = None,
        arguments: dict[str, dict[str, str]] | None = None,
    ) -> None:
        self.id = new_id() if folder is None else folder.name
        self.folder = folder or runs_folder() / "race" / self.id
        self.file = self.folder / "results.json"
        self._open()
        try:
            self._start(command, environment, asked, references or {}, arguments or {})
        except BaseException:
            self.close()
            raise

    def _start(
        self,
        command: str,
        environment: Environment,
        asked: Iterable[Case],
        references: dict[str, str],
        arguments: dict[str, dict[str, str]],
    ) -> None:
        try:
            old = result.read(self.file) if self.file.exists() else None
        except Misuse as error:
            raise Unusable(f"{error}; move it away or choose another --out") from None
        results = old or Results(self.id, command, {}, started=result.now())
        self.results = msgspec.structs.replace(
            results,
            environment={**results.environment, environment.key: environment},
            references={**results.references, **references},
            arguments={**results.arguments, **arguments},
        )
        self.ask(asked)

    def ask(self, cases: Iterable[Case]) -> None:
        """Adds cases to what this run was asked for."""
        self.results = msgspec.structs.replace(
            self.results, asked=tuple(dict.fromkeys([*self.results.asked, *cases]))
        )
        self._write()

    def put(self, new: Iterable[Result]) -> None:
        """Replaces the results of the same cases, adds the others, and writes the file."""
        merged = {result.case.id: result for result in [*self.results.results, *new]}
        self.results = msgspec.structs.replace(self.results, results=tuple(merged.values()))
        self._write()

    def unfinished(self) -> list[Case]:
        """The cases of every race in which one has no final result yet: ratios need all of a race's
        entrants in the same blocks.
        """
        final = {
            result.case.id
            for result in self.results.results
            if result.reason is None or result.reason.code not in RETRY
        }
        groups = {case.group for case in self.results.asked if case.id not in final}
        return [case for case in self.results.asked if case.group in groups]

    def close(self) -> None:
        self._lock.close()

    def _open(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.refuse_links(self.folder, ".lock", "results.json", "work", "log")
            self._lock = files.appended(self.folder / ".lock")
        except OSError as error:
            raise Unusable(f"cannot write to {self.folder}: {error.strerror}; choose another --out") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise Unusable(f"cannot lock {self.folder}: {error.strerror}; choose another --out") from None
            raise Unusable(
                f"another run is writing to {self.folder}; wait for it or choose another --out"
            ) from None

    def _write(self) -> None:
        try:
            files.write(self.file, result.encode(self.results))
        except OSError as error:
            raise Unusable(
                f"cannot write {self.file}: {error.strerror}; free space or choose another --out (what was"
                " written before is whole)"
            ) from None
