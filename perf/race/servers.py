"""Fork servers: processes that have imported torch and nothing else happened in them, so that a
worker need not import it again.

A server for each kind of worker and environment serves all races of a run; it never imports a
workload, whose module may set what it likes (torch's threads and flags, the garbage collector,
hooks). For each workload a server of its own is forked from it, imports the module, and ends when
the workload's races are over: importing a module costs once a workload, torch once a run, and no
workload changes another's process.

Forks are used wherever the import itself is not what is measured: the referee, builds, checks, and
all blocks but the first. A server whose imports started threads cannot be forked safely; its
workers then start afresh. One that was killed is replaced where the next worker is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..machine.box import Box, parse
from ..terms.reasons import Refusal
from .handle import Worker
from .messages import Preload


class ServerKind(NamedTuple):
    """What workers of one server share."""

    environment: tuple[tuple[str, str], ...]
    # Modules of the backend.
    modules: tuple[str, ...]
    # The workload's module; empty where workers have none, and in the server above.
    model: str = ""


class Servers:
    """Starts workers. `close` ends the servers, and with them what was forked from them."""

    def __init__(self, folder: Path, timeout_s: float, report: Callable[[str], None], box: str = "") -> None:
        """box: what workers that are measured are held to (machine/box.py); empty for nothing."""
        self.folder, self.timeout_s, self.report = folder, timeout_s, report
        self.box = Box(parse(box)) if box else None
        # None for a kind whose imports start threads.
        self.running: dict[ServerKind, Worker | None] = {}
        # How many servers were started.
        self.count = 0

    def worker(
        self, environment: Mapping[str, str], modules: Sequence[str], model: str, log: Path
    ) -> tuple[Worker, bool]:
        """A worker in this environment and whether it is a fresh process; only those that import
        torch are worth a fork. Raises Refusal.

        modules: what it will import. model: which of them is the workload's, or empty.
        """
        own = tuple(name for name in modules if name != model)
        kind = ServerKind(tuple(sorted(environment.items())), own, model)
        forked = self.fork(kind, log) if "torch" in own else None
        return (Worker.start(environment, log), True) if forked is None else (forked, False)

    def fork(self, kind: ServerKind, log: Path) -> Worker | None:
        """A fork of the kind's server, which is replaced if it was killed since; None where it
        cannot be forked. Raises Refusal.
        """
        if (server := self.server(kind)) is None:
            return None
        try:
            return server.fork(log, self.timeout_s)
        except Refusal:
            if not server.gone:
                raise
        del self.running[kind]
        server = self.server(kind)
        return None if server is None else server.fork(log, self.timeout_s)

    def server(self, kind: ServerKind) -> Worker | None:
        """The kind's server, which has imported what it must; None where it cannot be forked.

        Raises Refusal.
        """
        if kind not in self.running:
            self.count += 1
            log = self.folder / "log" / f"server-{self.count}.txt"
            if kind.model:
                server = self.fork(kind._replace(model=""), log)
            else:
                server = Worker.start(dict(kind.environment), log)
            self.running[kind] = server
            if server is not None:
                self.preload(server, kind)
        return self.running[kind]

    def preload(self, server: Worker, kind: ServerKind) -> None:
        """Has a server import what it must; it ends where that starts threads. Raises Refusal."""
        modules = [*kind.modules, *([kind.model] if kind.model else [])]
        try:
            threads = server.ask(Preload(modules), self.timeout_s).threads
        except Refusal:
            self.end(kind)
            raise
        server.note_strays()
        if threads > 1:
            self.end(kind)
            self.running[kind] = None
            self.report("importing the workload starts threads, so every worker starts afresh")

    def keep(self, model: str) -> None:
        """Ends the servers of all other workloads, whose races are over."""
        for kind in [kind for kind in self.running if kind.model not in ("", model)]:
            self.end(kind)

    def close(self) -> None:
        """Ends all servers, those first that were forked from others."""
        for kind in reversed([*self.running]):
            self.end(kind)

    def end(self, kind: ServerKind) -> None:
        """Ends one server."""
        if (server := self.running[kind]) is not None:
            server.kill()
        del self.running[kind]
