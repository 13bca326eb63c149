"""The two sides of a live comparison: git revisions in worktrees of their own, the working copy, or two workloads."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from .origin import Origin
from .reasons import Misuse
from .workloads import Reference

WORKING_COPY = "."
SAME_CODE = "there is nothing to compare"


@dataclass(frozen=True)
class Revision:
    """sha: empty where the side is no commit. workload: given where the side is a workload instead of a revision."""

    name: str
    origin: Origin
    sha: str = ""
    workload: str = ""

    def reference(self, workload: str) -> Reference:
        return Reference(self.workload or workload)


class Revisions:
    """Checks out what it is asked for below `folder`, and removes the worktrees on `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository: Path | None = None
        self.trees: list[Path] = []

    def open(self, name: str, text: str) -> Revision:
        """Raises Misuse."""
        if ":" in text:
            return Revision(name, Origin(name), workload=text)
        self.repository = Path(git(Path(), "rev-parse", "--show-toplevel")).resolve()
        if text == WORKING_COPY:
            return Revision(name, Origin(name, self.repository))
        wrong = f"{text!r} is no revision of {self.repository.name}; give a branch, tag, commit, or . for the working copy"
        sha = git(self.repository, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}", wrong=wrong)
        tree = (self.folder / "trees" / name).resolve()
        self.trees.append(tree)
        git(self.repository, "worktree", "add", "--force", "--detach", "--quiet", str(tree), sha)
        return Revision(name, Origin(name, tree), sha)

    def close(self) -> None:
        for tree in self.trees:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=self.repository, capture_output=True, check=False)
        self.trees.clear()


def git(folder: Path, *arguments: str, wrong: str = "") -> str:
    """What git prints. Raises Misuse with git's own first line, or `wrong`."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Misuse("git is not installed, and revisions are git's: apt-get install git") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["failed"])[0]
        raise Misuse(wrong or f"git {arguments[0]}: {said}")
    return done.stdout.strip()
