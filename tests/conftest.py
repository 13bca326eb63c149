"""What tests in several folders need: the planted backends on the path of this process and of
every worker.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest_plugins = ["pytester", "tests.crashes"]
PLANTED = Path(__file__).parent / "perf" / "planted"


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A job in the background of a script ignores it, and so would what the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def workers_save_their_coverage() -> Iterator[None]:
    """Under `coverage run` a worker is asked to end (coverage saves at SIGTERM) before it is
    killed; otherwise nothing is changed.
    """
    if "coverage" not in sys.modules:
        yield
        return
    from hotlap.perf.race.handle import Worker

    at_once = Worker.kill

    def kill(worker: Worker) -> int | None:
        if not worker.gone:
            worker.go()
            worker._signal(signal.SIGTERM)
            with contextlib.suppress(psutil.Error):
                psutil.wait_procs([psutil.Process(worker.pid)], timeout=3)
        return at_once(worker)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "kill", kill)
        yield


@pytest.fixture(scope="session", autouse=True)
def the_same_text_is_compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Puts compiled_once.sh before the compiler, where there is one: each build has a cold cache,
    and Inductor's questions about the CPU take longer in it than the model.
    """
    if shutil.which("g++") is None:
        yield
        return
    folder = tmp_path_factory.mktemp("compiler")
    (folder / "g++").symlink_to(Path(__file__).with_name("compiled_once.sh"))
    path = os.environ["PATH"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BEHIND", path)
        patch.setenv("COMPILED_ONCE", str(folder))
        patch.setenv("PATH", os.pathsep.join([str(folder), path]))
        yield


@pytest.fixture(scope="module")
def kept_servers() -> Iterator[None]:
    """Fork servers outlive the run that started them, until the last test of the module: the next
    run in the same environment and working directory need not import torch again.
    """
    from hotlap.perf.race.servers import Servers

    begin = Servers.__init__
    running: dict[str, dict[Any, Any]] = defaultdict(dict)

    def begin_with_what_runs(servers: Servers, *arguments: Any) -> None:
        begin(servers, *arguments)
        servers.running = running[str(Path.cwd())]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Servers, "__init__", begin_with_what_runs)
        patch.setattr(Servers, "close", lambda servers: None)
        yield
    for kept in running.values():
        for server in reversed(kept.values()):
            if server is not None:
                server.kill()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An installed distribution whose entry point names the package `planted`.

    Returns the working directory, which is empty.
    """
    site, here = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("here")
    information = site / "planted-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[hotlap.backends]\nplanted = planted.backends\n")
    (site / "planted").symlink_to(PLANTED)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])))
        patch.delenv("HOTLAP_RUNS", raising=False)
        patch.chdir(here)
        yield here
    for name in [name for name in sys.modules if name.partition(".")[0] == "planted"]:
        del sys.modules[name]
