"""CPUs and memory as control groups grant them, and workers in a box. Control groups of v1 are made
for real where this process may; those of v2 are a made tree, since one machine has controllers in
one of them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotlap.perf.machine import box, control_groups, cores, survey
from hotlap.perf.machine.box import Box, Size, parse
from hotlap.perf.race.handle import Worker
from hotlap.perf.race.messages import Preload
from hotlap.perf.terms.reasons import Misuse, Refusal

BURN = "import time\nend = time.perf_counter() + 1\nwhile time.perf_counter() < end:\n    pass\n"
SHARE = BURN + "print(time.process_time())"
FILL = "blocks = [bytearray(b'1' * (1 << 20)) for _ in range({mib})]\nprint('kept', len(blocks))"


def tree(root: Path, files: dict[str, str]) -> Path:
    """Returns a made tree of /proc and /sys."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return root


V2 = {"proc/self/cgroup": "0::/pod/job", "sys/fs/cgroup/cgroup.procs": ""}
V1 = {
    "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/b/c\n0::/",
    "sys/fs/cgroup/cpu,cpuacct/cgroup.procs": "",
}
OF_V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        (V2, None),
        (V2 | {"sys/fs/cgroup/pod/job/cpu.max": "150000 100000"}, 1.5),
        (V2 | {"sys/fs/cgroup/pod/job/cpu.max": "max 100000"}, None),
        # The smallest on the way up holds.
        (
            V2
            | {
                "sys/fs/cgroup/pod/job/cpu.max": "max 100000",
                "sys/fs/cgroup/pod/cpu.max": "50000 100000",
                "sys/fs/cgroup/cpu.max": "200000 100000",
            },
            0.5,
        ),
        # A container that sees the host's name of its group has its own folder mounted.
        (V2 | {"sys/fs/cgroup/cpu.max": "120000 100000"}, 1.2),
        (V1 | {f"{OF_V1}/b/c/cpu.cfs_quota_us": "-1", f"{OF_V1}/b/c/cpu.cfs_period_us": "100000"}, None),
        (
            V1
            | {
                f"{OF_V1}/b/c/cpu.cfs_quota_us": "-1",
                f"{OF_V1}/b/c/cpu.cfs_period_us": "100000",
                f"{OF_V1}/b/cpu.cfs_quota_us": "70000",
                f"{OF_V1}/b/cpu.cfs_period_us": "50000",
            },
            1.4,
        ),
    ],
)
def test_quota(files: dict[str, str], quota: float | None, tmp_path: Path) -> None:
    assert control_groups.quota(tree(tmp_path, files)) == quota


def test_threads_are_as_many_as_affinity_and_quota_let_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    root = tree(tmp_path, V2 | {"sys/fs/cgroup/cpu.max": "150000 100000"})
    assert cores.count(root) == 2 and cores.count(tmp_path / "none") == 4
    tree(tmp_path, {"sys/fs/cgroup/cpu.max": "20000 100000"})
    assert cores.count(root) == 1
    tree(tmp_path, {"sys/fs/cgroup/cpu.max": "900000 100000"})
    assert cores.count(root) == 4


@pytest.mark.parametrize(
    ("text", "size", "words"),
    [
        ("cpus=1", Size(1.0, None), "1 CPU"),
        ("cpus=0.5,memory=1GiB", Size(0.5, 2**30), "0.5 CPUs and 1.00 GiB"),
        (" memory = 500MB ", Size(None, 500_000_000), "477 MiB"),
    ],
)
def test_size(text: str, size: Size, words: str) -> None:
    assert parse(text) == size and size.words == words and parse(str(size)) == size
    assert box.threads(text) == (1 if size.cpus else cores.count())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cpus",
        "cpus=",
        "cpus=0",
        "cpus=-1",
        "cpus=1,cpus=1",
        "memory=5",
        "memory=1Gb",
        "gpus=1",
        "cpus=1x",
    ],
)
def test_a_size_that_is_none_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(Misuse, match=r"--box .*expected cpus=2,memory=1GiB"):
        parse(text)


def test_more_cpus_than_there_are_is_refused() -> None:
    for cpus in ("1000", "0.001"):
        with pytest.raises(Misuse, match=rf"--box cpus={cpus}: this process may use 0\.01 to \d+ CPUs"):
            parse(f"cpus={cpus}")


def waiting(program: str) -> subprocess.Popen[str]:
    """Returns a process that runs a program once it gets a line."""
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys\nsys.stdin.readline()\n{program}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def in_a_group(text: str) -> Box:
    """Returns a box of control groups, where this process may make them."""
    holder = Box(parse(text))
    if holder.lacks:
        pytest.skip(f"no control group may be made here: {holder.lacks}")
    return holder


def test_half_a_cpu_gives_half_the_time() -> None:
    process = waiting(SHARE)
    held = in_a_group("cpus=0.5").put(process.pid)
    output, _ = process.communicate("\n")
    held.close()
    assert 0.2 < float(output) < 0.75 and not any(group.exists() for group in held.groups)


def test_what_needs_more_memory_than_the_box_has_is_ended_and_known() -> None:
    for mib, code in ((20, 0), (300, -9)):
        process = waiting(FILL.format(mib=mib))
        held = in_a_group("memory=100MiB").put(process.pid)
        process.communicate("\n")
        assert process.returncode == code and held.ended_it() == (code != 0)
        held.close()


def test_a_worker_that_the_box_ended_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: a module that fills memory when it is imported."""
    (tmp_path / "filling.py").write_text(FILL.format(mib=600))
    monkeypatch.chdir(tmp_path)
    worker = Worker.start({**os.environ}, tmp_path / "log.txt")
    worker.hold(in_a_group("memory=200MiB"))
    held = worker.held
    with pytest.raises(Refusal, match=r"oom: preload needs more memory than the box has \(200 MiB\)"):
        worker.ask(Preload(["filling"]), 60)
    assert held is not None and held.groups and not any(group.exists() for group in held.groups)


def test_without_control_groups_affinity_and_limits_hold(tmp_path: Path) -> None:
    holder = Box(parse("cpus=1,memory=200MiB"), tmp_path)
    held_by = "bound to 1 of the cores, RLIMIT_DATA; no control group: none is mounted"
    assert holder.words == f"1 CPU and 200 MiB ({held_by})"
    process = waiting("import os\nprint(len(os.sched_getaffinity(0)))\n" + FILL.format(mib=300))
    held = holder.put(process.pid)
    assert resource.prlimit(process.pid, resource.RLIMIT_DATA) == (200 << 20, 200 << 20)
    output, errors = process.communicate("\n")
    assert output.split() == ["1"] and "MemoryError" in errors and not held.ended_it()


def v2_that_gives(controllers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a new folder under sys/fs/cgroup the files of these controllers, as the kernel does."""
    make_folder = Path.mkdir

    def mkdir(path: Path, *arguments: Any, **more: Any) -> None:
        make_folder(path, *arguments, **more)
        for controller in controllers.split():
            (path / f"{controller}.max").touch()
        (path / "cgroup.procs").touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    # The kernel removes the files of a group with it.
    monkeypatch.setattr(
        Path, "rmdir", lambda path: [file.unlink() for file in path.iterdir()] and os.rmdir(path)
    )


def test_groups_of_v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, V2 | {"sys/fs/cgroup/pod/job/cgroup.controllers": "cpu memory"})
    v2_that_gives("cpu memory", monkeypatch)
    holder = Box(parse("cpus=1,memory=1MiB"), root)
    assert holder.words == "1 CPU and 1.00 MiB (control group)"
    held = holder.put(4321)
    (group,) = held.groups
    assert group.parent == root / "sys/fs/cgroup/pod/job"
    assert {file: (group / file).read_text() for file in ("cpu.max", "memory.max", "cgroup.procs")} == {
        "cpu.max": "100000 100000",
        "memory.max": "1048576",
        "cgroup.procs": "4321",
    }
    assert not held.ended_it()
    (group / "memory.events").write_text("low 0\noom 3\noom_kill 1\n")
    assert held.ended_it()
    held.close()
    assert not group.exists()


def test_a_group_without_the_controller_is_no_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the kernel gives the new group no memory controller, and lets nobody add it."""
    root = tree(tmp_path, V2 | {"sys/fs/cgroup/pod/job/cgroup.controllers": "cpu"})
    v2_that_gives("cpu", monkeypatch)
    for folder in ("pod/job", "pod"):
        (root / "sys/fs/cgroup" / folder / "cgroup.subtree_control").mkdir()
    holder = Box(parse("cpus=1,memory=1MiB"), root)
    assert "no control group: Is a directory" in holder.words
    assert not list(root.rglob("hotlap-*"))


def test_groups_that_a_killed_run_left_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    root = tree(tmp_path, V1 | {f"{OF_V1}/b/c/cpu.cfs_quota_us": "-1", f"proc/{os.getpid()}/stat": ""})
    left, ours = (root / OF_V1 / "b/c" / f"hotlap-{pid}-7" for pid in (gone.pid, os.getpid()))
    left.mkdir()
    ours.mkdir()
    Box(parse("cpus=1"), root)
    assert not left.exists() and ours.exists()


def test_an_environment_in_a_box_is_another() -> None:
    here = survey.collect(1, "keep")
    boxed = msgspec.structs.replace(here, box="1 CPU (control group)", quota=1.5)
    assert {"box", "quota"} <= set(here.differs(boxed).blocking)
    assert boxed.hardware.endswith(", quota of 1.5 CPUs; in a box of 1 CPU (control group)")
    assert b'"box"' not in msgspec.json.encode(here)  # so keys of earlier results stay as they are
