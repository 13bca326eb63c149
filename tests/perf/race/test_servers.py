"""Fork servers with real processes: they import once, no workload reaches another, they are given
up where a fork would not be safe, and replaced where they were killed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hotlap.perf.race.handle import Worker
from hotlap.perf.race.messages import Preload
from hotlap.perf.race.servers import Servers
from hotlap.perf.terms.reasons import Refusal

WHO = "import os, pathlib; pathlib.Path(__file__).with_suffix('.pid').open('a').write(f'{os.getpid()}\\n')\n"


class Fixture:
    """Servers whose environment finds the modules of `site`; `lines` is what they reported."""

    def __init__(self, folder: Path) -> None:
        self.site = folder / "site"
        self.site.mkdir()
        self.lines: list[str] = []
        self.servers = Servers(folder, 60, self.lines.append)
        self.environment = {
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(self.site), os.environ.get("PYTHONPATH")])),
        }
        self.log = folder / "log.txt"

    def module(self, name: str, text: str) -> None:
        (self.site / f"{name}.py").write_text(text)

    def start(self, model: str = "", *modules: str) -> tuple[Worker, bool]:
        """A worker that has preloaded torch, more modules of a backend and the workload's, and
        whether it was started afresh.
        """
        names = ["torch", *modules, *filter(None, [model])]
        worker, fresh = self.servers.worker(self.environment, names, model, self.log)
        worker.ask(Preload(names), 60)
        return worker, fresh

    def worker(self, model: str = "", *modules: str) -> tuple[int, bool]:
        """Process id of such a worker, which is ended, and whether it was started afresh."""
        worker, fresh = self.start(model, *modules)
        worker.kill()
        return worker.pid, fresh

    def importers(self, name: str) -> list[int]:
        """The processes that imported a module that starts with WHO."""
        return [int(line) for line in (self.site / f"{name}.pid").read_text().split()]

    def server(self, model: str = "") -> Worker:
        """The server that runs for a workload, or the one that it was forked from."""
        (server,) = (server for kind, server in self.servers.running.items() if kind.model == model)
        assert server is not None
        return server


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(tmp_path)
    yield fixture
    fixture.servers.close()


def test_a_backend_is_imported_once_and_each_workload_in_a_server_of_its_own(launcher: Fixture) -> None:
    for name in ("backend", "first", "second"):
        launcher.module(name, WHO)
    workers = [launcher.worker(model, "backend") for model in ("first", "first", "second")]
    assert len({pid for pid, _ in workers}) == 3 and not any(fresh for _, fresh in workers)
    servers = {model: launcher.server(model).pid for model in ("", "first", "second")}
    assert launcher.importers("backend") == [servers[""]]
    assert [launcher.importers(name) for name in ("first", "second")] == [
        [servers["first"]],
        [servers["second"]],
    ]


POISON = """
import gc, os, sys, torch
torch.set_num_threads(1)
torch.backends.mkldnn.enabled = False
torch.use_deterministic_algorithms(True)
torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
gc.disable()
sys.setswitchinterval(1.0)
os.environ["OMP_NUM_THREADS"] = "1"
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""
STATE = """
import gc, os, pathlib, sys, torch
pathlib.Path(__file__).with_suffix(".state").write_text(repr((
    torch.get_num_threads(), torch.backends.mkldnn.enabled, torch.are_deterministic_algorithms_enabled(),
    len(torch.nn.modules.module._global_forward_hooks), gc.isenabled(), sys.getswitchinterval(),
    os.environ.get("OMP_NUM_THREADS"), sorted(os.sched_getaffinity(0)), "poison" in sys.modules,
)))
"""


def test_what_one_workloads_import_sets_reaches_no_other_workload(launcher: Fixture) -> None:
    launcher.environment["OMP_NUM_THREADS"] = "2"
    for name, text in {"before": STATE, "poison": POISON, "after": STATE}.items():
        launcher.module(name, text)
        assert launcher.worker(name)[1] is False
    before, after = ((launcher.site / f"{name}.state").read_text() for name in ("before", "after"))
    assert after == before
    assert before.startswith("(2, True, False, 0, True, 0.005, '2', ")


def test_each_set_of_modules_has_a_server_of_its_own(launcher: Fixture) -> None:
    launcher.worker()
    launcher.worker("", "json")
    assert len(launcher.servers.running) == 2


def test_the_servers_of_workloads_whose_races_are_over_end(launcher: Fixture) -> None:
    for name in ("first", "second"):
        launcher.module(name, WHO)
        launcher.worker(name)
    first, second, shared = (launcher.server(name) for name in ("first", "second", ""))
    launcher.servers.keep("second")
    assert [psutil.pid_exists(server.pid) for server in (first, second, shared)] == [False, True, True]


@pytest.mark.parametrize("which", ["", "first"])
def test_a_server_that_was_killed_is_replaced(launcher: Fixture, which: str) -> None:
    launcher.module("first", WHO)
    launcher.worker("first")
    os.kill(launcher.server(which).pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(launcher.server("first").pid)], timeout=5)
    assert launcher.worker("first")[1] is False
    assert len(launcher.importers("first")) == 2


@pytest.mark.parametrize("which", ["", "first"])
def test_a_server_that_is_killed_during_a_race_is_the_reason_and_the_next_worker_runs(
    launcher: Fixture, which: str
) -> None:
    launcher.module("first", WHO)
    worker, _ = launcher.start("first")
    worker.stop()
    os.kill(launcher.server(which).pid, signal.SIGKILL)
    with pytest.raises(Refusal, match=r"forked from was ended.*--resume") as refused:
        worker.ask(Preload(["json"]), 60)
    assert refused.value.reason.code == "crashed"
    assert not psutil.pid_exists(worker.pid) or psutil.Process(worker.pid).status() == psutil.STATUS_ZOMBIE
    assert launcher.worker("first")[1] is False


def test_a_server_whose_imports_start_threads_is_given_up(launcher: Fixture) -> None:
    launcher.module(
        "threads",
        "import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n",
    )
    assert [launcher.worker("threads")[1] for _ in range(2)] == [True, True]
    assert launcher.lines == ["importing the workload starts threads, so every worker starts afresh"]


def test_a_module_that_cannot_be_imported_is_a_reason_and_takes_no_other_race_with_it(
    launcher: Fixture,
) -> None:
    launcher.module("broken", "raise ValueError('planted')\n")
    with pytest.raises(Refusal, match="planted") as refused:
        launcher.worker("broken")
    assert refused.value.reason.code == "crashed"
    assert launcher.worker()[1] is False


def test_a_worker_without_torch_is_always_fresh(launcher: Fixture) -> None:
    worker, fresh = launcher.servers.worker(launcher.environment, ["numpy"], "", launcher.log)
    worker.kill()
    assert fresh and not launcher.servers.running
