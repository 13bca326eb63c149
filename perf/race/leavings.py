"""What a worker leaves when it ends: processes that it gave a session of their own, temporary
files, shared memory.

Killing a worker's process group reaches none of these. So each worker adopts what its children
leave (worker.py: PR_SET_CHILD_SUBREAPER), which makes a daemon's parent known while the worker
lives; and all that descends from it carries its mark in the environment and has a folder with that
mark as TMPDIR, which tells where they belong when it is dead. The mark names the process that
started the worker: what a killed hotlap left is ended by the next one, its own temporary folders
too.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

VARIABLE = "HOTLAP_WORKER"
PREFIX = "hotlap-"
SHARED_MEMORY = "/dev/shm/"
# How often killed processes are looked for again, and the pause between: what was about to fork is
# met the next time, what the kernel does not let go is left after a second.
TRIES = 100
PAUSE_S = 0.01


class OwnerMark(NamedTuple):
    """The mark of a worker or a folder. pid and start (clock ticks after the boot) are of the
    hotlap that owns it, as its namespace of process ids knows it.
    """

    namespace: int
    pid: int
    start: int
    chance: str

    @classmethod
    def new(cls) -> OwnerMark:
        """A mark for something that this process owns."""
        return cls(_namespace(), os.getpid(), _start(os.getpid()) or 0, secrets.token_hex(4))

    @classmethod
    def parse(cls, text: str) -> OwnerMark | None:
        """The mark that a text stands for; None where it is none."""
        parts = text.split("-")
        if len(parts) != 4 or not all(part.isdecimal() for part in parts[:3]):
            return None
        return cls(int(parts[0]), int(parts[1]), int(parts[2]), parts[3])

    def __str__(self) -> str:
        return "-".join(str(part) for part in self)

    @property
    def folder(self) -> Path:
        """Where the worker's temporary files lie."""
        return Path(tempfile.gettempdir()) / f"{PREFIX}{self}"

    @property
    def orphaned(self) -> bool:
        """Whether the owner is gone; of one in another namespace that cannot be known."""
        return self.namespace == _namespace() and _start(self.pid) != self.start

    def variables(self) -> dict[str, str]:
        """The environment variables by which the worker's leavings are known."""
        return {VARIABLE: str(self), "TMPDIR": str(self.folder)}

    def processes(self) -> list[psutil.Process]:
        """All processes with this mark, the worker among them."""
        return [process for process, mark in _marked() if mark == self]


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yields a new temporary folder and removes it; where this process is killed, the next hotlap
    does.
    """
    folder = OwnerMark.new().folder
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def below(pid: int) -> list[psutil.Process]:
    """All that descends from a process, also what left its session; nothing if it is gone."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def outside(group: int, processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that belong to another process group and have not ended."""
    return [process for process in processes if _group(process) not in (None, group)]


def names(processes: Iterable[psutil.Process]) -> list[str]:
    """The names of the processes that have not ended."""
    known = []
    for process in processes:
        with contextlib.suppress(psutil.Error):
            known.append(process.name())
    return known


def end(find: Callable[[], Iterable[psutil.Process]]) -> list[str]:
    """Kills what is found until nothing is found. Returns the names of what was killed."""
    ended: dict[int, str] = {}
    for _ in range(TRIES):
        alive = [process for process in find() if _group(process) is not None]
        if not alive:
            break
        for process in alive:
            with contextlib.suppress(psutil.Error):
                ended[process.pid] = process.name()
                process.kill()
        time.sleep(PAUSE_S)
    return list(ended.values())


def shared_memory(pids: Iterable[int], since: float) -> list[Path]:
    """The named segments of shared memory that the processes map and that are younger than `since`
    (time.time).
    """
    segments = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                _, name, rest = line.partition(SHARED_MEMORY)
                if name and not rest.endswith(" (deleted)"):
                    segments.add(Path(SHARED_MEMORY + rest))
    return [segment for segment in sorted(segments) if _changed(segment) >= since]


def release(segments: Iterable[Path]) -> None:
    """Removes the segments that no process maps."""
    for segment in segments:
        if not any(segment in shared_memory([process.pid], 0.0) for process in psutil.process_iter()):
            segment.unlink(missing_ok=True)


def clear(report: Callable[[str], None]) -> None:
    """Ends the processes and removes the temporary folders that a killed hotlap left."""
    ended = end(lambda: [process for process, mark in _marked() if mark.orphaned])
    folders = [
        folder
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")
        if (mark := OwnerMark.parse(folder.name.removeprefix(PREFIX))) is not None and mark.orphaned
    ]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    if ended:
        report(f"ended what a killed hotlap had left running: {', '.join(ended)}")


def _marked() -> list[tuple[psutil.Process, OwnerMark]]:
    """All processes whose environment can be read and has a mark."""
    return [
        (process, mark)
        for process in psutil.process_iter(["environ"])
        if (mark := OwnerMark.parse((process.info["environ"] or {}).get(VARIABLE, ""))) is not None
    ]


def _group(process: psutil.Process) -> int | None:
    """A process's group; None if it has ended."""
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getpgid(process.pid)
    except (psutil.Error, ProcessLookupError):
        return None


def _changed(path: Path) -> float:
    """When the file was made or last changed; 0 where it is gone."""
    try:
        return path.stat().st_ctime
    except OSError:
        return 0.0


def _namespace() -> int:
    return os.stat("/proc/self/ns/pid").st_ino


def _start(pid: int) -> int | None:
    """When a process started, in clock ticks after the boot (proc_pid_stat(5)); None if it is
    gone.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
