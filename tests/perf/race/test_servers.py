"""Fork servers with real processes: they import once, grow with what a race needs, and are given up
where a fork would not be safe.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotlap.perf.race.messages import Preload
from hotlap.perf.race.servers import Servers
from hotlap.perf.terms.reasons import Refusal

WHO = "import os, pathlib; pathlib.Path(__file__).with_suffix('.pid').open('a').write(f'{os.getpid()}\\n')\n"


class Fixture:
    """Servers whose environment finds the modules of `site`; `said` is what they reported."""

    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.site.mkdir()
        self.said: list[str] = []
        self.servers = Servers(folder, 60, self.said.append)
        self.environment = {
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.site), os.environ.get("PYTHONPATH")])),
        }
        self.log = folder / "log.txt"

    def module(self, name: str, text: str) -> None:
        (self.site / f"{name}.py").write_text(text)

    def worker(self, *modules: str, kind: str = "eager") -> tuple[int, bool]:
        """A worker's process id and whether it was started afresh; the worker has preloaded its
        modules and is ended.
        """
        worker, fresh = self.servers.worker(kind, self.environment, ["torch", *modules], self.log)
        try:
            worker.ask(Preload(["torch", *modules]), 60)
        finally:
            worker.kill()
        return worker.pid, fresh


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path)
    yield fixture
    fixture.servers.close()


def test_a_server_imports_once_for_all_workers_and_grows_with_the_next_race(launcher: Fixture) -> None:
    launcher.module("first", WHO)
    launcher.module("second", WHO)
    workers = [launcher.worker("first"), launcher.worker("first"), launcher.worker("second")]
    assert len({pid for pid, _ in workers}) == 3 and not any(fresh for _, fresh in workers)
    servers = [
        server.process.pid for server in launcher.servers.running.values() if server.process is not None
    ]
    assert len(servers) == 1
    for name in ("first", "second"):
        assert [int(line) for line in (launcher.site / f"{name}.pid").read_text().split()] == servers


def test_each_kind_of_worker_has_a_server_of_its_own(launcher: Fixture) -> None:
    launcher.worker()
    launcher.worker(kind="compile")
    assert len(launcher.servers.running) == 2


def test_a_server_whose_imports_start_threads_is_given_up(launcher: Fixture) -> None:
    launcher.module(
        "threads",
        "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n",
    )
    assert [launcher.worker("threads")[1] for _ in range(2)] == [True, True]
    assert launcher.said == ["importing the workload starts threads, so every worker starts afresh"]


def test_a_module_that_cannot_be_imported_is_a_reason_and_takes_no_other_race_with_it(
    launcher: Fixture,
) -> None:
    launcher.module("broken", "raise ValueError('planted')\n")
    with pytest.raises(Refusal, match="planted") as refused:
        launcher.worker("broken")
    assert refused.value.reason.code == "crashed"
    assert launcher.worker()[1] is False


def test_a_worker_without_torch_is_always_fresh(launcher: Fixture) -> None:
    worker, fresh = launcher.servers.worker("pace", launcher.environment, ["numpy"], launcher.log)
    worker.kill()
    assert fresh and not launcher.servers.running
