"""The commit that made a case slower, found in a real repository by git bisect."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hotlap.perf import cli
from hotlap.perf.gate.revisions import git
from hotlap.perf.history import culprit
from hotlap.perf.terms.case import Case
from hotlap.perf.terms.reasons import Misuse
from hotlap.perf.terms.verdict import Finding, Verdict

MODELS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(128, 128) for _ in range(LAYERS)])

    def forward(self, x):
        return self.layers(x)


def make():
    torch.manual_seed(0)
    return Net(), torch.randn(16, 128)
"""
CASE = Case("culprit_pkg.models:make", "eager")


def commit(message: str, layers: int) -> str:
    Path("culprit_pkg/models.py").write_text(MODELS.replace("LAYERS", str(layers)))
    subprocess.run(["git", "add", "-A"], check=True)
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-q", "--allow-empty", "-m", message],
        check=True,
    )
    return git(Path(), "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Six commits, of which the fourth adds layers. Returns them, oldest first."""
    folder = tmp_path / "repository"
    (folder / "culprit_pkg").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HOTLAP_RUNS", raising=False)
    subprocess.run(["git", "init", "-q", "."], check=True)
    Path(".gitignore").write_text("runs/\nresults/\n")
    Path("culprit_pkg/__init__.py").write_text("")
    return [commit(f"change {at}", 8 if at < 3 else 12) for at in range(6)]


def history(stored: Any, commits: list[str]) -> list[str]:
    """Forty runs on these commits, slower from commit 3 on; returns the command line that reads
    them.
    """
    for day in range(40):
        at = 0 if day < 20 else 5
        stored.run(
            Path("results") / f"{day}.json",
            day,
            {CASE.workload: (1e-3 if at < 3 else 1.5e-3) * (1 + 0.002 * (day % 5))},
            commit=commits[at],
        )
    return ["history", "results", "--bisect", CASE.id]


@pytest.mark.slow
def test_a_slower_commit_is_found_by_measuring(
    stored: Any, repository: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """First whether it comes back at all; commit 2 then loads the same files as commit 1 and need
    not be measured.
    """
    asked = history(stored, [repository[1], *[repository[3]] * 5])
    assert cli.status([*asked, "--budget", "3m"]) == 1
    output = capsys.readouterr().out
    assert f"slower since {repository[3][:7]}" in output and "change 3" in output
    assert len(git(Path(), "worktree", "list").splitlines()) == 1 and git(Path(), "status", "--short") == ""


def judged_by(commits: list[str], bad_from: int, skipped: tuple[int, ...] = ()) -> Any:
    def judge(tree: Path, case: Case, good: str, candidate: str, *rest: Any) -> str:
        at = commits.index(candidate)
        return "skip" if at in skipped else "bad" if at >= bad_from else "good"

    return judge


@pytest.mark.parametrize("first_bad", [1, 3, 5])
def test_the_first_bad_commit_is_named(
    first_bad: int,
    stored: Any,
    repository: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(culprit, "judge", judged_by(repository, first_bad))
    assert cli.status(history(stored, repository)) == 1
    assert f"change {first_bad}" in capsys.readouterr().out


def test_commits_that_cannot_be_judged_are_left_between(
    stored: Any, repository: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(culprit, "judge", judged_by(repository, 4, skipped=(3, 4)))
    assert cli.status(history(stored, repository)) == 3
    output = capsys.readouterr().out
    assert repository[4] in output and repository[3] in output and "slower since" not in output


def test_what_does_not_come_back_is_not_blamed_on_a_commit(
    stored: Any, repository: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(culprit, "judge", judged_by(repository, 99))
    assert cli.status(history(stored, repository)) == 3
    assert "does not come back" in capsys.readouterr().out
    assert len(git(Path(), "worktree", "list").splitlines()) == 1


def test_a_step_gives_names_of_results_as_operands_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A results file may call its workload --out:x, which hotlap ab must not take for an option."""
    commands: list[list[str]] = []

    def run(command: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        same = Finding("w/eager", "outputs", "pass", kind="counter")
        verdict = Verdict("ab", "pass", (f"{culprit.UNCHANGED}: the 2 files are the same",), (same,))
        Path(command[command.index("--json") + 1]).write_bytes(msgspec.json.encode(verdict))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(culprit.subprocess, "run", run)
    case = Case("--out:x", "eager")
    assert culprit.judge(tmp_path / "tree", case, "a" * 40, "b" * 40, 0.03, 60, print) == "good"
    (command,) = commands
    assert command[command.index("--") :] == ["--", "a" * 40, "b" * 40, "--out:x"]


@pytest.mark.parametrize(
    ("revision", "words"),
    [
        ("", "no commit"),
        ("abc+", "uncommitted changes"),
        ("0" * 12, "is no commit of"),
        ("--output=planted", "is no commit of"),
        ("--all", "is no commit of"),
    ],
)
def test_results_without_a_commit_cannot_be_bisected(
    revision: str, words: str, repository: list[str]
) -> None:
    with pytest.raises(Misuse, match=words):
        culprit.measured_commit(revision, "results/run.json")
    assert not Path("planted").exists()


def test_git_speaks_english_and_of_any_bytes(repository: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert git(Path(), "-c", "alias.language=!printenv LC_ALL", "language") == "C"
    assert git(Path(), "-c", r"alias.bytes=!printf '\377'", "bytes") == "\ufffd"
