"""Where a result was measured: what forbids a comparison, what is only noted, and what is read from
this machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from hotlap.perf.machine import cpu, survey
from hotlap.perf.terms.environment import Environment

HERE = Environment(
    cpu="Xeon",
    cores=8,
    memory_bytes=16 * 2**30,
    isa=("avx2", "amx_bf16"),
    system="Linux 6",
    python="3.11.7",
    libraries={"torch": "2.14.1"},
    gpus=(),
    driver="",
    threads=4,
    allocator="keep",
    hugepages="madvise",
    commit="abc",
    host="one",
)
OTHER = Environment(
    cpu="Epyc",
    cores=9,
    memory_bytes=17,
    isa=(),
    system="Linux 7",
    python="3.12.0",
    libraries={"torch": "2.15.0"},
    gpus=("H200",),
    driver="600",
    threads=5,
    allocator="default",
    hugepages="always",
    commit="abd",
    host="two",
    quota=1.5,
    box="1 CPU (control group)",
)
OPTIONAL = {"quota", "box"}
NOTED = {"host", "commit", "system", "memory_bytes"}


@pytest.mark.parametrize("name", Environment.__struct_fields__)
def test_each_difference_blocks_or_is_noted(name: str) -> None:
    changed = msgspec.structs.replace(HERE, **{name: getattr(OTHER, name)})
    blocking, noted = HERE.differs(changed)
    pair = (
        {name: ("none" if name in OPTIONAL else str(getattr(HERE, name)), str(getattr(OTHER, name)))}
        if name != "libraries"
        else {"torch": ("2.14.1", "2.15.0")}
    )
    assert (blocking, noted) == (({}, pair) if name in NOTED else (pair, {}))
    assert changed.key != HERE.key


def test_an_environment_that_was_stored_before_boxes_is_the_same() -> None:
    """So a history does not break where hotlap is updated."""
    assert OPTIONAL.isdisjoint(HERE.setting)
    earlier = msgspec.json.decode(msgspec.json.encode(HERE), type=dict)
    assert OPTIONAL.isdisjoint(earlier)
    assert msgspec.convert(earlier, Environment).differs(HERE) == ({}, {})


def test_the_same_environment_differs_in_nothing_and_has_the_same_key() -> None:
    turned = msgspec.structs.replace(HERE, libraries={"numpy": "2", "torch": "2.14.1"})
    again = msgspec.structs.replace(HERE, libraries={"torch": "2.14.1", "numpy": "2"})
    assert turned.differs(again) == ({}, {})
    assert turned.key == again.key


def test_hardware_in_one_line() -> None:
    assert HERE.hardware == "Xeon, 4 of 8 cores (avx2, amx_bf16), 16 GiB, no GPU"
    assert (
        msgspec.structs.replace(HERE, isa=(), gpus=("H200", "H200")).hardware
        == "Xeon, 4 of 8 cores (baseline), 16 GiB, H200, H200"
    )


def test_what_is_read_from_this_machine() -> None:
    here = survey.collect(3, "default")
    assert (here.threads, here.allocator) == (3, "default")
    assert (here.cores, here.host) == (len(os.sched_getaffinity(0)), platform.node())
    assert here.memory_bytes == pytest.approx(psutil.virtual_memory().total, rel=0.01)
    assert here.libraries["torch"] == metadata.version("torch")
    assert set(here.libraries) <= set(survey.LIBRARIES)
    assert set(here.isa) <= cpu.flags()
    assert here.cpu
    choice = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    assert here.hugepages == "unknown" or f"[{here.hugepages}]" in choice.read_text()


def test_the_commit_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert survey.collect(1, "keep").commit == ""

    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *settings, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    Path("file").write_text("1")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD")
    assert survey.collect(1, "keep").commit == commit
    Path("file").write_text("2")
    assert survey.collect(1, "keep").commit == commit + "+"


def test_nothing_that_is_measured_is_imported() -> None:
    code = (
        "import json, sys; from hotlap.perf.machine import survey; survey.collect(1, 'keep');"
        " print(json.dumps(sorted(sys.modules)))"
    )
    modules: list[Any] = json.loads(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    )
    assert "hotlap.perf.terms.environment" in modules
    assert {"torch", "numpy", "onnx", "onnxruntime", "openvino", "lightning", "triton"}.isdisjoint(modules)
