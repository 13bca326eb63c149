"""ci/hotlap.sh beside a hotlap that only notes what it was asked, in a real repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "ci" / "hotlap.sh"
WORKLOAD = "pkg:make"
# Notes its arguments, one a line, then does what is planted.
HOTLAP = """#!/bin/sh
printf '%s\\n' "$@" >{asked}
{body}
"""


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a clone with one commit, which an earlier run left its files in."""
    git("init", "-q", "--bare", "-b", "main", str(tmp_path / "origin.git"))
    git("clone", "-q", str(tmp_path / "origin.git"), str(tmp_path / "clone"))
    monkeypatch.chdir(tmp_path / "clone")
    for name in ("GITHUB_ACTIONS", "HOTLAP_OUT", "HOTLAP_OPTIONS", "HOTLAP_BRANCH", "HOTLAP_REMOTE"):
        monkeypatch.delenv(name, raising=False)
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("push", "-q", "origin", "HEAD:main")
    hotlap(tmp_path, "exit 2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    leave(Path("hotlap-out"))
    return tmp_path


def hotlap(folder: Path, body: str) -> None:
    """Plants what hotlap does."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "hotlap").write_text(HOTLAP.format(asked=folder / "asked", body=body))
    (folder / "bin" / "hotlap").chmod(0o755)


def leave(out: Path) -> None:
    """Leaves the files of an earlier green run, and one of somebody else."""
    (out / "run").mkdir(parents=True)
    for name in (
        "comment.md",
        "verdict.json",
        "gate.sarif",
        "gate.xml",
        "history.md",
        "run/results.json",
        "own",
    ):
        (out / name).write_text("### hotlap ab: pass")


def script(*arguments: str, closed: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Runs the script; closed: what the shell closes before, such as 2>&-."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", str(SCRIPT), *arguments],
        env={**os.environ, **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "main", "HEAD", WORKLOAD),
        ("compare", "absent", "HEAD", WORKLOAD),
        ("compare", "main", "absent", WORKLOAD),
        ("compare", "main"),
    ],
)
def test_nothing_green_is_left_where_a_comparison_fails(arguments: tuple[str, ...]) -> None:
    """The comment is posted, so it says that there is no verdict of this commit."""
    assert script(*arguments).returncode == 2
    comment = Path("hotlap-out/comment.md").read_text()
    assert comment.startswith("### hotlap ab: no verdict") and "pass" not in comment
    assert not any(Path("hotlap-out", name).exists() for name in ("verdict.json", "gate.sarif", "gate.xml"))
    assert Path("hotlap-out/own").exists()


def test_nothing_of_an_earlier_recording_is_left_where_one_fails() -> None:
    assert script("record", WORKLOAD).returncode == 2
    assert not any(Path("hotlap-out", name).exists() for name in ("run", "history.md"))


def test_an_output_folder_may_begin_with_a_dash(repository: Path) -> None:
    leave(Path("-out"))
    assert script("compare", "main", "HEAD", WORKLOAD, HOTLAP_OUT="-out").returncode == 2
    assert "no verdict" in Path("-out/comment.md").read_text()
    assert "./-out" in (repository / "asked").read_text().splitlines()


@pytest.mark.parametrize(
    "name", ["-x", "--output=planted", "--all", "main;touch${IFS}planted", "$(touch${IFS}planted)"]
)
def test_a_branch_is_never_an_option_nor_a_command(name: str, repository: Path) -> None:
    sha = git("rev-parse", "HEAD")
    assert script("compare", name, "HEAD", WORKLOAD).returncode == 2
    assert not (repository / "asked").exists()
    git("update-ref", f"refs/heads/{name}", sha)
    assert script("compare", name, name, "--help").returncode == 2
    asked = (repository / "asked").read_text().splitlines()
    assert asked[asked.index("--") :] == ["--", sha, sha, "--help"]
    assert not list(Path().glob("*planted*"))


@pytest.mark.parametrize("branch", ["a:refs/heads/main", "--force", "a b", ".."])
def test_a_branch_of_results_has_a_name_that_git_takes(branch: str, repository: Path) -> None:
    done = script("record", WORKLOAD, HOTLAP_BRANCH=branch)
    assert done.returncode == 2
    assert (repository / "asked").exists() == (branch == "--force"), "refs/heads/--force is one"


def test_a_remote_is_never_an_option(repository: Path) -> None:
    hotlap(repository, "mkdir -p hotlap-out/run && echo {} >hotlap-out/run/results.json")
    done = script("record", WORKLOAD, HOTLAP_REMOTE=f"--upload-pack=touch {repository / 'planted'};")
    assert done.returncode == 2 and "cannot reach" in done.stderr
    assert not (repository / "planted").exists()


@pytest.mark.parametrize("status", [0, 1, 3, 4, 70])
def test_the_status_is_hotlaps(status: int, repository: Path) -> None:
    hotlap(repository, f"echo {{}} >hotlap-out/verdict.json; exit {status}")
    assert script("compare", "main", "HEAD", WORKLOAD).returncode == status
    assert script("compare", "main", "HEAD", WORKLOAD, closed=">&- 2>&-").returncode == status


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_status_without_its_file_is_no_verdict(status: int, repository: Path) -> None:
    """Options that only print a help text end with 0, a Python that cannot start with 1."""
    hotlap(repository, f"exit {status}")
    for arguments in (("compare", "main", "HEAD", WORKLOAD), ("record", WORKLOAD)):
        done = script(*arguments)
        assert done.returncode == 2 and f"ended with {status} and left no" in done.stderr
    measures = "mkdir -p hotlap-out/run && echo {} >hotlap-out/run/results.json"
    hotlap(repository, f"[ $1 = history ] && exit {status}\n{measures}")
    done = script("record", WORKLOAD)
    assert done.returncode == 2 and "left no history.json" in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "2>/dev/full"])
def test_a_word_that_cannot_be_said_is_no_regression(closed: str) -> None:
    for arguments in ((), ("compare", "main"), ("compare", "absent", "HEAD", WORKLOAD), ("record",)):
        assert script(*arguments, closed=closed).returncode == 2


def test_a_reader_that_has_gone_is_no_regression() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([str(SCRIPT), "compare", "main"], stdout=writer, stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 2


@pytest.mark.parametrize("by", ["path", "name"])
def test_a_relative_remote_is_meant_from_here(by: str, repository: Path) -> None:
    """git would read it from the worktree in which the results are committed."""
    results = "mkdir -p hotlap-out/run && echo {} >hotlap-out/run/results.json"
    hotlap(repository, f"{results}\n[ $1 != history ] || echo {{}} >hotlap-out/history.json\nexit 0")
    if by == "name":
        git("remote", "set-url", "origin", "../origin.git")
    done = script("record", WORKLOAD, **({"HOTLAP_REMOTE": "../origin.git"} if by == "path" else {}))
    assert done.returncode == 0, done.stderr
    stored = git("-C", str(repository / "origin.git"), "ls-tree", "--name-only", "hotlap-history:results")
    assert len(stored.splitlines()) == 1
