"""bench/versions.py passes nothing that it has not seen: each fault planted."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from pathlib import Path

import pytest

from bench import versions


def environment(folder: Path, body: str) -> Path:
    """An environment with this Python, whose hotlap is a script with this body."""
    (folder / "bin").mkdir(parents=True)
    for name, line in (("python", f'exec {sys.executable} "$@"'), ("hotlap", body)):
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / "bin" / name).chmod(0o755)
    return folder


@pytest.mark.parametrize("body", ["", "echo pass", "exit 1", "echo 'Traceback (most recent call last)'"])
def test_a_hotlap_that_does_nothing_passes_no_step(
    body: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "seen.json"
    assert versions.main(["--in", str(environment(tmp_path / "env", body)), "--json", str(file)]) == 1
    printed = capsys.readouterr().out
    assert "passed" not in printed and printed.count("FAILED") == len(versions.STEPS), printed
    (seen,) = json.loads(file.read_bytes()).values()
    assert not any(step["passed"] for step in seen["steps"].values())
    assert f"| 0 of {len(versions.STEPS)} |" in versions.table(file)


def test_without_a_network_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    file = tmp_path / "seen.json"
    assert versions.main(["2.15", "--json", str(file)]) == 2
    printed = capsys.readouterr().out
    assert "torch 2.15: not installed, so nothing is known of it" in printed and "passed" not in printed
    assert not file.exists()


def test_a_command_that_does_not_end_fails_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "LONGEST_S", 0.2)
    python = environment(tmp_path / "env", "exec sleep 60") / "bin" / "python"
    with pytest.raises(versions.Broken, match=r"doctor: no end after"):
        versions.Environment(python, tmp_path).hotlap("doctor")


def test_what_ci_runs_has_a_baseline_of_its_triton() -> None:
    """Triton 3.6 comes with torch 2.11, 3.8 with 2.14 and 3.9 with 2.15."""
    stored = {file.name for file in (versions.ROOT / "kernels" / "baselines").iterdir()}
    assert stored >= {f"triton-{version}.json" for version in ("3.6.0", "3.8.0", "3.9.0")}


def test_the_oldest_are_the_least_versions_of_every_dependency_but_torch() -> None:
    dependencies = tomllib.loads((versions.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    oldest = versions.oldest()
    assert len(oldest) == len(dependencies) - 1
    assert not any(re.match(r"torch\b", requirement) or ">=" in requirement for requirement in oldest)
    assert {"numpy==2.2.*", "onnxscript==0.6.2", "psutil==7.0.*"} <= {*oldest}


def test_extras_of_one_torch_name_it() -> None:
    """Without it pip 23 takes the newest torch first and then finds no way back."""
    extras = tomllib.loads((versions.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    bound = {
        name for name, needs in extras.items() if any(need.startswith("torch-tensorrt") for need in needs)
    }
    assert bound == {"tensorrt", "tensorrt-rtx"}
    for name in (*bound, "dev"):
        assert "torch>=2.14,<2.15" in extras[name], name
