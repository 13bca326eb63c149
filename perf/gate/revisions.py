"""The two sides of a live comparison: git revisions in worktrees of their own, the working copy,
installed environments, or two workloads.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..lookup.workloads import Reference
from ..race.installed import PROBE, interpreter
from ..race.origin import Origin
from ..terms.reasons import Misuse

WORKING_COPY = "."
SAME_CODE = "there is nothing to compare"


@dataclass(frozen=True)
class Revision:
    """sha: empty where the side is no commit.

    workload: given where the side is a workload instead of a revision.

    python, installed: version and distributions (name -> version) where it is an installed
    environment.
    """

    name: str
    origin: Origin
    sha: str = ""
    workload: str = ""
    python: str = ""
    installed: dict[str, str] = field(default_factory=dict)

    def reference(self, workload: str) -> Reference:
        return Reference(self.workload or workload)


Kind = Literal["workload", "environment", "revision"]


def kind(text: str) -> Kind:
    if ":" in text:
        return "workload"
    return "environment" if text != WORKING_COPY and interpreter(text) is not None else "revision"


class Revisions:
    """Checks out what it is asked for below `folder`, and removes the worktrees on `close`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.repository: Path | None = None
        self.trees: list[Path] = []
        self.prefixes: list[str] = []

    def open(self, name: str, text: str) -> Revision:
        """Raises Misuse."""
        if kind(text) == "workload":
            return Revision(name, Origin(name), workload=text)
        if kind(text) == "environment" and (python := interpreter(text)) is not None:
            return self.environment(name, python)
        self.repository = Path(git(Path(), "rev-parse", "--show-toplevel")).resolve()
        if text == WORKING_COPY:
            return Revision(name, Origin(name, self.repository))
        wrong = (
            f"{text!r} is no revision of {self.repository.name}; give a branch, tag, commit, or . for the"
            " working copy"
        )
        sha = git(self.repository, "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}", wrong=wrong)
        tree = (self.folder / "trees" / name).resolve()
        self.trees.append(tree)
        git(self.repository, "worktree", "add", "--force", "--detach", "--quiet", str(tree), sha)
        return Revision(name, Origin(name, tree), sha)

    def environment(self, name: str, python: Path) -> Revision:
        """Raises Misuse where it cannot run the workers, or is the same as the other side."""
        try:
            done = subprocess.run(
                [str(python), "-P", "-c", PROBE], capture_output=True, text=True, timeout=60, check=True
            )
            told = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise Misuse(
                f"{name}: {python} is no Python 3.11 or newer that runs: {said[-1] if said else error}"
            ) from None
        if told["lacks"]:
            raise Misuse(
                f"{name}: {python} lacks {', '.join(told['lacks'])}; install there: {python} -m pip install"
                f" {' '.join(told['lacks'])}"
            )
        if told["prefix"] in self.prefixes:
            raise Misuse(f"both sides are the environment {told['prefix']}: {SAME_CODE}")
        self.prefixes.append(told["prefix"])
        return Revision(name, Origin(name, python=python), python=told["python"], installed=told["installed"])

    def close(self) -> None:
        for tree in self.trees:
            subprocess.run(
                ["git", "worktree", "remove", "--force", str(tree)],
                cwd=self.repository,
                capture_output=True,
                check=False,
            )
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
