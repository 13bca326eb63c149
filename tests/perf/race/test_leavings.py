"""What a worker leaves ends with it: daemons, temporary files, shared memory; with real processes
that are ended, that die by themselves, and whose hotlap was killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import psutil
import pytest

from hotlap.perf.race import leavings
from hotlap.perf.race.handle import Worker
from hotlap.perf.race.leavings import OwnerMark
from hotlap.perf.race.messages import Preload
from hotlap.perf.terms.reasons import Refusal

# Ways in which a model's import can start a process; each writes its id beside the module.
NOTE = "import os, pathlib, subprocess, sys, time\npid = pathlib.Path(__file__).with_suffix('.pid')\n"
SLEEP = "[sys.executable, '-c', 'import time; time.sleep(600)']"
DAEMONS = {
    "session": f"pid.write_text(str(subprocess.Popen({SLEEP}, start_new_session=True).pid))\n",
    "group": f"pid.write_text(str(subprocess.Popen({SLEEP}, process_group=0).pid))\n",
    "nameless": f"pid.write_text(str(subprocess.Popen({SLEEP}, start_new_session=True, env={{}}).pid))\n",
    "forked_twice": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        pid.write_text(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
while not pid.exists() or not pid.read_text():
    time.sleep(0.01)
""",
}
HELPER = f"pid.write_text(str(subprocess.Popen({SLEEP}).pid))\n"
# Makes a temporary folder, a segment of shared memory, and maps one that was there before.
FILES = """
import tempfile
from multiprocessing.shared_memory import SharedMemory
segment, other = SharedMemory(create=True, size=64), SharedMemory("OTHER")
pid.write_text(f"{tempfile.mkdtemp()} /dev/shm/{segment.name} {tempfile.gettempdir()}")
"""


class Site:
    """A folder of modules that a worker finds, and what they wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])),
        }

    def add(self, name: str, text: str) -> None:
        (self.folder / f"{name}.py").write_text(NOTE + text)

    def worker(self) -> Worker:
        return Worker.start(self.environment, self.folder / "log.txt")

    def wrote(self, name: str) -> str:
        return (self.folder / f"{name}.pid").read_text()

    def daemon(self, name: str) -> psutil.Process:
        return psutil.Process(int(self.wrote(name)))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = Site(tmp_path)
    for name, text in DAEMONS.items():
        site.add(name, text)
    return site


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Workers that are ended whatever the test does."""
    started: list[Worker] = []
    yield started
    for worker in reversed(started):
        worker.kill()


def ended(process: psutil.Process) -> bool:
    """Whether it ends within seconds; its new parent may not have waited for it yet."""
    return within(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


def within(holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold within seconds."""
    deadline = time.monotonic() + 10
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("name", DAEMONS)
def test_what_left_the_workers_session_ends_with_it(site: Site, workers: list[Worker], name: str) -> None:
    workers.append(worker := site.worker())
    worker.ask(Preload([name]), 60)
    daemon = site.daemon(name)
    worker.kill()
    assert ended(daemon)
    assert len(worker.strays) == 1 and worker.strays[0].startswith("python")


def test_what_stays_in_its_session_is_stopped_with_it_and_worth_no_word(
    site: Site, workers: list[Worker]
) -> None:
    site.add("helper", HELPER)
    workers.append(worker := site.worker())
    worker.ask(Preload(["helper"]), 60)
    helper = site.daemon("helper")
    worker.stop()
    assert within(lambda: helper.status() == psutil.STATUS_STOPPED)
    worker.kill()
    assert ended(helper) and worker.strays == []


@pytest.mark.parametrize("name", ["session", "group", "forked_twice"])
def test_the_daemon_of_a_worker_that_died_by_itself_ends(
    site: Site, workers: list[Worker], name: str
) -> None:
    workers.append(worker := site.worker())
    worker.ask(Preload([name]), 60)
    daemon = site.daemon(name)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(Refusal, match="killed"):
        worker.ask(Preload([]), 60)
    assert ended(daemon)


@pytest.mark.parametrize("name", DAEMONS)
def test_the_daemon_of_a_fork_ends_with_it_and_no_other_worker_does(
    site: Site, workers: list[Worker], name: str
) -> None:
    site.add("helper", HELPER)
    workers.append(server := site.worker())
    log = site.folder / "fork.txt"
    killed, died, other = (server.fork(log, 60) for _ in range(3))
    workers += [killed, died, other]
    other.ask(Preload(["helper"]), 60)
    killed.ask(Preload([name]), 60)
    first = site.daemon(name)
    (site.folder / f"{name}.pid").unlink()
    died.ask(Preload([name]), 60)
    second = site.daemon(name)
    killed.kill()
    assert ended(first) and second.is_running() and killed.strays
    os.kill(died.pid, signal.SIGKILL)
    with pytest.raises(Refusal, match="killed"):
        died.ask(Preload([]), 60)
    assert ended(second)
    assert site.daemon("helper").is_running() and other.ask(Preload([]), 60)


def test_the_forks_of_a_server_know_what_its_imports_started(site: Site, workers: list[Worker]) -> None:
    workers.append(server := site.worker())
    server.ask(Preload(["session"]), 60)
    server.note_strays()
    workers.append(fork := server.fork(site.folder / "fork.txt", 60))
    daemon = site.daemon("session")
    fork.kill()
    assert len(fork.strays) == 1 and daemon.is_running()
    server.kill()
    assert ended(daemon)


def test_temporary_files_and_shared_memory_go_with_the_worker(site: Site, workers: list[Worker]) -> None:
    theirs = SharedMemory(create=True, size=64)
    try:
        site.add("files", FILES.replace("OTHER", theirs.name))
        workers.append(worker := site.worker())
        worker.ask(Preload(["files"]), 60)
        folder, segment, temporary = map(Path, site.wrote("files").split())
        assert worker.mark is not None and temporary == worker.mark.folder == folder.parent
        assert folder.is_dir() and segment.exists()
        worker.kill()
        assert not folder.exists() and not temporary.exists() and not segment.exists()
        assert (Path("/dev/shm") / theirs.name).exists()
    finally:
        theirs.close()
        theirs.unlink()


def test_a_ctrl_c_while_a_worker_starts_leaves_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def interrupted(*arguments: Any, **options: Any) -> None:
        started.append(start(*arguments, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr("hotlap.perf.race.handle.subprocess.Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        site.worker()
    assert started[0].wait(10) == -signal.SIGKILL
    assert [*Path(tempfile.gettempdir()).glob(f"{leavings.PREFIX}*-{os.getpid()}-*")] == []


PARENT = """
import os, sys
from pathlib import Path
from hotlap.perf.race.handle import Worker
from hotlap.perf.race.messages import Preload
worker = Worker.start(dict(os.environ), Path(sys.argv[1]) / "log.txt")
worker.ask(Preload(["forked_twice"]), 60)
print(worker.pid, worker.mark, flush=True)
sys.stdin.read()
"""


def test_the_next_hotlap_ends_what_a_killed_one_left_and_nothing_of_one_that_runs(site: Site) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(site.folder)],
        env=site.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None and parent.stdout is not None
    lines: list[str] = []
    with parent.stdin, parent.stdout:
        pid, text = parent.stdout.readline().split()
        worker, daemon, mark = psutil.Process(int(pid)), site.daemon("forked_twice"), OwnerMark.parse(text)
        assert mark is not None and mark.folder.is_dir()
        leavings.clear(lines.append)
        assert worker.is_running() and daemon.is_running() and mark.folder.is_dir() and lines == []
        parent.kill()
        parent.wait()
        assert ended(worker) and daemon.is_running() and mark.folder.is_dir()
    leavings.clear(lines.append)
    assert ended(daemon) and not mark.folder.exists()
    assert len(lines) == 1 and "python" in lines[0]


@pytest.mark.parametrize("text", ["", "1-2-3", "a-2-3-4", "1-2-3-4-5", "torch"])
def test_what_is_no_mark_is_left_alone(text: str) -> None:
    assert OwnerMark.parse(text) is None


def test_a_mark_of_another_namespace_is_never_an_orphans() -> None:
    mine = OwnerMark.new()
    assert OwnerMark.parse(str(mine)) == mine and not mine.orphaned
    assert mine._replace(start=mine.start + 1).orphaned
    assert not mine._replace(start=mine.start + 1, namespace=1).orphaned
