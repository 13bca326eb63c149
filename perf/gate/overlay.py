"""Installed environments that differ from the running one in some packages alone: a virtual
environment of its own for these, in front of all that is installed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ..terms import stored
from ..terms.files import clear
from ..terms.reasons import Misuse, Refusal

# A package and its versions, as a user writes them: torch==2.13,2.14.
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<versions>[A-Za-z0-9.,+!*_-]+)")
# How `pip install` and `pip check` say that two packages do not go together.
CONFLICT = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+) \S+ (?:requires .*which is (?:incompatible|not installed)"
    r"|has requirement .*, but you have .*)\.?$",
    re.MULTILINE,
)
# What pip says before it names what is in conflict, a line each, and how many are kept.
CAUSES = "The conflict is caused by:"
MOST_CAUSES = 3
# Packages of some GB over a slow line take a while.
INSTALLING_S = 3600.0
# More environments than anybody waits for.
MOST = 24
# What an environment that is whole has, beside its packages.
MARK = "complete"


class Upgrade(NamedTuple):
    """Packages in versions that an environment is to have: name -> version."""

    versions: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        return ", ".join(f"{name} {version}" for name, version in self.versions)

    @property
    def requirements(self) -> list[str]:
        """What pip is told: 2.13 stands for its newest patch."""
        return [
            f"{name}=={version}" + (".*" if re.fullmatch(r"\d+(\.\d+)?", version) else "")
            for name, version in self.versions
        ]


def upgrades(words: Sequence[str]) -> list[Upgrade]:
    """Returns every combination of the versions that were named.

    words: torch==2.13,2.14 and the like. Raises Misuse.
    """
    axes = []
    for word in words:
        if (match := REQUIREMENT.fullmatch(word)) is None:
            raise Misuse(f"{word!r} names no versions; write torch==2.13,2.14")
        versions = dict.fromkeys(filter(None, match["versions"].split(",")))
        if not versions:
            raise Misuse(f"{word!r} names no versions; write torch==2.13,2.14")
        axes.append([(match["name"], version) for version in versions])
    # As pip compares names (https://packaging.python.org/specifications/name-normalization).
    names = {re.sub(r"[-_.]+", "-", axis[0][0]).lower() for axis in axes}
    if len(names) < len(axes):
        raise Misuse("a package is named twice; write its versions with commas: torch==2.13,2.14")
    combinations = [Upgrade(each) for each in itertools.product(*axes)]
    if len(combinations) > MOST:
        raise Misuse(f"{len(combinations)} environments; {MOST} are the most, so name fewer versions")
    return combinations


def overlay(upgrade: Upgrade, folder: Path, report: Callable[[str], None]) -> tuple[Path, list[str]]:
    """Returns the interpreter of an environment with these versions, and what pip says that does
    not fit together in it. One that is whole is used again.

    folder: where environments are kept. Raises Refusal (build_failed), with pip's last words.
    """
    site = sysconfig.get_paths()["purelib"]
    key = hashlib.sha256(repr((upgrade.requirements, sys.executable, site)).encode()).hexdigest()[:12]
    place = folder / key
    python, mark = place / "bin" / "python", place / MARK
    if not mark.exists():
        clear(place, below=folder)
        report(f"{upgrade.name}: installing")
        ran(sys.executable, "-m", "venv", "--without-pip", str(place))
        own = ran(str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])").strip()
        # Packages named in a .pth file come after those of the environment itself.
        (Path(own) / "hotlap-base.pth").write_text(f"{site}\n")
        mark.write_text(installed(python, upgrade.requirements))
    return python, [stored.line(match[0]) for match in CONFLICT.finditer(mark.read_text())]


def installed(python: Path, requirements: Sequence[str]) -> str:
    """Installs packages, and with them those that went with other versions of them, as torchvision
    goes with one torch. Returns what pip says at the end. Raises Refusal.
    """
    pip = (sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check")
    wanted = list(requirements)
    printed = ran(*pip, "install", *wanted)
    for name in dict.fromkeys(match["name"] for match in CONFLICT.finditer(printed)):
        with contextlib.suppress(Refusal):  # there is none that fits: the conflict stays, and is said
            ran(*pip, "install", *wanted, name)
            wanted.append(name)
    return ran(*pip, "check", status=1)


def why(printed: str) -> str:
    """Returns why a command failed, in its own words: of pip what is in conflict, else its last
    error, which is not where to read more.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    if CAUSES in lines:
        causes = lines[lines.index(CAUSES) + 1 :][:MOST_CAUSES]
        return stored.line("in conflict: " + "; ".join(causes))
    errors = [line for line in lines if line.startswith("ERROR") and "for help visit" not in line]
    return stored.line((errors or lines or ["no message"])[-1])


def ran(*command: str, status: int = 0) -> str:
    """Returns what a command prints. Raises Refusal, with its last line, where it ends with more
    than this status.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=INSTALLING_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refusal("build_failed", f"no environment: {stored.line(error)}") from None
    if not 0 <= done.returncode <= status:
        raise Refusal("build_failed", f"no environment: {why(done.stdout + done.stderr)}")
    return done.stdout + done.stderr
