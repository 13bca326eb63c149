"""What a run's folder says of where it took place, and which run is the newest."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from hotlap.models import runs


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True)


def test_a_run_keeps_its_commit_and_what_is_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    monkeypatch.chdir(repository)
    git("init", "-q", ".")
    Path("net.py").write_text("width = 8\n")
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    clean = runs.create(runs.Settings("net:Net", 0, 1))
    runs.describe(clean, "threads: 2\n", 2)
    assert {path.name for path in clean.iterdir()} == {"settings.json", "config.yaml", "environment.json"}
    here = json.loads((clean / runs.ENVIRONMENT).read_bytes())
    assert here["threads"] == 2 and len(here["commit"]) == 12 and here["libraries"]["torch"]
    Path("net.py").write_text("width = 9\n")
    dirty = runs.create(runs.Settings("net:Net", 0, 1))
    runs.describe(dirty, "threads: 2\n", 2)
    assert json.loads((dirty / runs.ENVIRONMENT).read_bytes())["commit"] == here["commit"] + "+"
    assert "+width = 9" in (dirty / runs.UNCOMMITTED).read_text()


def test_the_newest_run_is_the_one_of_the_class_that_was_asked_for() -> None:
    first = runs.create(runs.Settings("one.net:Net", 0, 1))
    second = runs.create(runs.Settings("other.net:Net", 0, 1))
    ours = runs.create(runs.Settings("mlp", 0, 1))
    assert first.name.startswith("Net-") and second.name.startswith("Net-")
    assert runs.newest("one.net:Net", finished=False) == first
    assert runs.newest("other.net:Net", finished=False) == second
    assert runs.newest("", finished=False) == ours
    assert runs.newest("other.net:Net", finished=True) is None
    (second / runs.METRICS).write_text("{}")
    assert runs.newest("other.net:Net", finished=True) == second
    with pytest.raises(runs.NotResumable, match=r"trains one\.net:Net, not mlp"):
        runs.to_resume("mlp", first.name, None, None)


def test_what_is_not_committed_does_not_grow_with_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs lie in the repository of who trains, and each would hold all those before it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOTLAP_RUNS")
    git("init", "-q", ".")
    git("commit", "-q", "--allow-empty", "-m", "first")
    folder = runs.create(runs.Settings("net:Net", 0, 1))
    assert folder.is_relative_to("runs") and runs.uncommitted() == b""
    # What the user has in such a folder already is the user's.
    Path("runs/.gitignore").unlink()
    runs.create(runs.Settings("net:Net", 0, 1))
    assert not Path("runs/.gitignore").exists()
