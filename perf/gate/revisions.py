"""The two sides of a live comparison: git revisions in worktrees of their own, the working copy,
installed environments, or two workloads.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from ..lookup.workloads import Reference
from ..machine.survey import LIBRARIES
from ..race.installed import PROBE, interpreter
from ..race.leavings import PREFIX, OwnerMark
from ..race.origin import Origin
from ..terms.environment import Environment
from ..terms.reasons import Misuse

# What stands for the working copy on the command line, as for git.
WORKING_COPY = "."
# A part of each message that says so: a search for a commit reads it (history/culprit.py).
SAME_CODE = "there is nothing to compare"
# Files for people, by the end of their names and by all of it.
PROSE, PROSE_NAMES = (".md", ".rst", ".adoc"), ("README", "LICENSE", "CHANGELOG", "AUTHORS", "CONTRIBUTING")
# What a verdict says where a change touches nothing that the cases load.
UNCHANGED = "nothing measured changed"
# How git lists why a worktree is locked, where the reason is a mark of hotlap's.
LOCKED = f"locked {PREFIX}"
# Of the packages that two environments hold in different versions, as many are named as fit on a
# screen.
MOST_NAMED = 12


@dataclass(frozen=True)
class Revision:
    """One side of a comparison, ready to be run."""

    # base or head.
    name: str
    # Where its workers find their code.
    origin: Origin
    # Of its commit; empty where the side is none.
    sha: str = ""
    # The side itself where it is a workload, else empty.
    workload: str = ""
    # Version of its interpreter where it is an installed environment, else empty.
    python: str = ""
    # Distribution -> version where it is an installed environment, else empty.
    installed: dict[str, str] = field(default_factory=dict)

    def reference(self, workload: str) -> Reference:
        """Returns what this side loads for a workload."""
        return Reference(self.workload or workload)


Kind = Literal["workload", "environment", "revision"]


def kind(text: str) -> Kind:
    """Returns what a side is, as it stands on the command line."""
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
        """Returns a side, checked out if it is a commit. Raises Misuse."""
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
        sha = commit(self.repository, text, wrong)
        tree = (self.folder / "trees" / name).resolve()
        self.trees.append(tree)
        check_out(self.repository, tree, sha)
        return Revision(name, Origin(name, tree), sha)

    def environment(self, name: str, python: Path) -> Revision:
        """Returns a side that is an installed environment.

        Raises Misuse where it cannot run the workers, or is the same as the other side.
        """
        try:
            done = subprocess.run(
                [str(python), "-P", "-c", PROBE], capture_output=True, text=True, timeout=60, check=True
            )
            report = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            raise Misuse(
                f"{name}: {python} is no Python 3.11 or newer that runs: {lines[-1] if lines else error}"
            ) from None
        if report["lacks"]:
            raise Misuse(
                f"{name}: {python} lacks {', '.join(report['lacks'])}; install there: {python} -m pip install"
                f" {' '.join(report['lacks'])}"
            )
        if report["prefix"] in self.prefixes:
            raise Misuse(f"both sides are the environment {report['prefix']}: {SAME_CODE}")
        self.prefixes.append(report["prefix"])
        return Revision(
            name, Origin(name, python=python), python=report["python"], installed=report["installed"]
        )

    def close(self) -> None:
        """Removes the worktrees."""
        for tree in self.trees:
            remove(self.repository or Path(), tree)
        self.trees.clear()


def check_out(repository: Path, tree: Path, sha: str) -> None:
    """Adds a worktree at a commit, locked with a mark of this process; those of a hotlap that was
    killed are removed. Raises Misuse.
    """
    listed = git(repository, "worktree", "list", "--porcelain")
    for lines in (part.splitlines() for part in listed.split("\n\n")):
        reason = next((line for line in lines if line.startswith(LOCKED)), "").removeprefix(LOCKED)
        if (mark := OwnerMark.parse(reason)) is not None and mark.orphaned:
            remove(repository, Path(lines[0].removeprefix("worktree ")))
    git(repository, "worktree", "add", "--force", "--detach", "--quiet", "--", str(tree), sha)
    git(repository, "worktree", "lock", "--reason", f"{PREFIX}{OwnerMark.new()}", "--", str(tree))


def remove(repository: Path, tree: Path) -> None:
    """Removes a worktree, also a locked one."""
    ran_git(repository, "worktree", "remove", "--force", "--force", "--", str(tree))


def commit(folder: Path, revision: str, wrong: str) -> str:
    """Returns the hash of the commit that a name stands for; git is given nothing but hashes.

    A branch may be called --output=FILE, and a results file may hold any name. Raises Misuse with
    `wrong` where there is no such commit.
    """
    options = ("--verify", "--quiet", "--end-of-options")
    return git(folder, "rev-parse", *options, f"{revision}^{{commit}}", wrong=wrong)


def ran_git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs git, which speaks English here, and returns what came of it. Raises Misuse where it is
    not installed.
    """
    try:
        return subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        raise Misuse("git is not installed, and revisions are git's: apt-get install git") from None
    except ValueError:  # a name with a character 0, which no argument can hold
        return subprocess.CompletedProcess(arguments, 128, "", "a name holds a null character")


def git(folder: Path, *arguments: str, wrong: str = "") -> str:
    """Returns what git prints. Raises Misuse with git's own first line, or `wrong`."""
    done = ran_git(folder, *arguments)
    if done.returncode:
        message = (done.stderr.strip().splitlines() or ["failed"])[0]
        raise Misuse(wrong or f"git {arguments[0]}: {message}")
    return done.stdout.strip()


def readable(repository: Path, base: str, head: str) -> list[str]:
    """Returns the files that differ between two commits and that a model might read: all but prose
    and Python, of which it is known what was loaded. head: empty for the working copy.
    """
    changed = git(repository, "diff", "--name-only", "-z", base, *filter(None, [head]), "--").split("\0")
    if not head:
        changed += git(repository, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return [
        name
        for name in filter(None, changed)
        if Path(name).suffix not in (".py", *PROSE) and Path(name).stem not in PROSE_NAMES
    ]


def of_side(side: Revision, here: Environment) -> Environment:
    """Returns where a side runs: here, at its commit; or with its own interpreter and libraries."""
    if not side.installed:
        return msgspec.structs.replace(here, commit=side.sha)
    libraries = {name: side.installed[name] for name in LIBRARIES if name in side.installed}
    return msgspec.structs.replace(
        here,
        python=side.python,
        libraries={
            **libraries,
            **{name: here.libraries[name] for name in ("hotlap",) if name in here.libraries},
        },
    )


def installed_differently(base: Revision, head: Revision) -> str:
    """Returns a line for the reader: what two installed environments hold in different versions."""
    a, b = {"Python": base.python, **base.installed}, {"Python": head.python, **head.installed}
    different = [
        f"{name} {a.get(name, 'none')} -> {b.get(name, 'none')}"
        for name in sorted({**a, **b}, key=str.lower)
        if a.get(name) != b.get(name)
    ]
    more = f" and {len(different) - MOST_NAMED} more" if len(different) > MOST_NAMED else ""
    return "the two environments " + (
        f"differ: {', '.join(different[:MOST_NAMED])}{more}"
        if different
        else "hold the same versions of everything"
    )


def common_workloads(base: str, head: str, named: Sequence[str]) -> list[str]:
    """Returns the workloads that two sides, as they stand on the command line, both run.

    named: what the command line names beside them. Raises Misuse where the sides are of different
    kinds, or the workloads are missing or too many.
    """
    if kind(base) != kind(head):
        raise Misuse(
            f"{base} and {head} are of different kinds, {kind(base)} and {kind(head)}; give two of the same"
        )
    if kind(head) != "workload":
        if not named:
            raise Misuse(
                "what shall both sides run? name a workload: hotlap ab BASE HEAD package.module:function"
            )
        return list(named)
    if named:
        raise Misuse("the two sides are workloads themselves; leave the third argument out")
    return [head]
