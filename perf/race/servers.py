"""Fork servers: processes that have imported torch and nothing else happened in them, so that a
worker need not import it again.

One server for each kind of worker and environment serves all races of a run. It is used wherever
the import itself is not what is measured: the referee, builds, checks, and all blocks but the
first. A server whose imports started threads cannot be forked safely; its workers then start
afresh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..terms.reasons import Refusal
from .handle import Worker
from .messages import Preload


@dataclass
class Server:
    """process: None if it cannot be forked. modules: what it was told to import."""

    process: Worker | None
    modules: set[str] = field(default_factory=set)


class Servers:
    """Starts workers.

    `close` ends the servers, and with them what was forked from them; a server of no more use lives
    until then for that reason.
    """

    def __init__(self, folder: Path, timeout_s: float, report: Callable[[str], None]) -> None:
        self.folder, self.timeout_s, self.report = folder, timeout_s, report
        self.retired: list[Worker] = []
        self.running: dict[tuple[str, tuple[tuple[str, str], ...]], Server] = {}

    def worker(
        self, kind: str, environment: Mapping[str, str], modules: Sequence[str], log: Path
    ) -> tuple[Worker, bool]:
        """A worker in this environment and whether it is a fresh process; only those that import
        torch are worth a fork. Raises Refusal.

        kind: of workers that differ in nothing but the workload's module. A server imports what any
        of them needs; what one has no use for would count as its memory.
        """
        server = self.server(kind, environment, modules) if "torch" in modules else None
        return (
            (Worker.start(environment, log), True)
            if server is None
            else (server.fork(log, self.timeout_s), False)
        )

    def server(self, kind: str, environment: Mapping[str, str], modules: Sequence[str]) -> Worker | None:
        key = (kind, tuple(sorted(environment.items())))
        if key not in self.running:
            self.running[key] = Server(
                Worker.start(environment, self.folder / "log" / f"server-{len(self.running)}.txt")
            )
        server = self.running[key]
        if server.process is not None and not server.modules.issuperset(modules):
            try:
                threads = server.process.ask(Preload(list(modules)), self.timeout_s).threads
            except Refusal:
                self.retired.append(server.process)
                del self.running[key]
                raise
            server.modules.update(modules)
            if threads > 1:
                self.retired.append(server.process)
                server.process = None
                self.report("importing the workload starts threads, so every worker starts afresh")
        return server.process

    def close(self) -> None:
        for server in self.running.values():
            if server.process is not None:
                server.process.kill()
        for process in self.retired:
            process.kill()
        self.running.clear()
