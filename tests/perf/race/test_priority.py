"""The scheduler's preference, asked for in child processes: it would stay with the asker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CLAIM = """
import os, resource, sys
from pathlib import Path
from hotlap.perf.race import priority
if sys.argv[2] == "user":
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    os.setresuid(65534, 65534, 65534)
print(priority.claim(Path(sys.argv[1])))
print(os.getpriority(os.PRIO_PROCESS, 0))
"""
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be given the priority or to give it up")


def claim(autogroup: Path, user: str) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", CLAIM, str(autogroup), user],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        start_new_session=True,
    ).stdout.splitlines()


@root
def test_root_is_preferred_in_its_core_and_in_its_session(tmp_path: Path) -> None:
    autogroup = tmp_path / "autogroup"
    autogroup.write_text("/autogroup-1 nice 0\n")
    assert claim(autogroup, "root") == ["raised", "-20"]
    assert autogroup.read_text() == "-20"


@root
def test_the_kernels_own_file_takes_it() -> None:
    assert claim(Path("/proc/self/autogroup"), "root") == ["raised", "-20"]


@root
def test_without_the_right_to_it_the_reason_names_the_remedy(tmp_path: Path) -> None:
    answer, nice = claim(tmp_path / "absent", "user")
    assert answer.startswith("normal (") and "RLIMIT_NICE" in answer
    assert nice == "0"
