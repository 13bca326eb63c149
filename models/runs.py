"""Folders of trainings: runs/train/ID.

They lie under the current directory, or under HOTLAP_RUNS instead of `runs`. Imports no torch. A
folder holds from the start settings.json, the whole configuration and where the run takes place;
last.ckpt after the first steps, and metrics.json once training has finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from ..perf.terms import files, stored

# Version of the formats of settings.json and metrics.json. 1: the first.
SCHEMA = 1
# Written when a run begins.
SETTINGS = "settings.json"
# Everything that the run was started with, as LightningCLI reads it.
CONFIGURATION = "config.yaml"
# The machine, the libraries and the commit.
ENVIRONMENT = "environment.json"
# What of the repository was not committed.
UNCOMMITTED = "uncommitted.diff"
# Of a longer one the names alone.
MOST_UNCOMMITTED = 16 << 20
# Written after each epoch and after so many steps.
CHECKPOINT = "last.ckpt"
# The folder of what a ModelCheckpoint keeps.
CHECKPOINTS = "checkpoints"
# The folder of logs: in it a folder of each kind, with one for every session.
LOGS = "logs"
# Written last: a run that has it is finished.
METRICS = "metrics.json"
# Locked by the process that trains the run.
LOCK = ".lock"


class RunRefused(ValueError):
    """A run cannot begin, or go on, with what is here."""


class NotResumable(RunRefused):
    """There is no such run to resume, or it cannot go on with what was asked for."""


@dataclass(frozen=True)
class Settings:
    """What a run was started with; everything random follows from it."""

    # The network's: of our own the file's, else package.module:Class.
    name: str
    seed: int
    # At most; -1 where steps or time end it.
    epochs: int
    # Of the training: one of mixed.NAMES.
    precision: str = "fp32"

    @classmethod
    def read(cls, folder: Path) -> Settings:
        """Reads the settings of a run's folder; those without a precision were of fp32.

        Raises Unreadable.
        """
        path = folder / SETTINGS
        return stored.decode(path, stored.content(path), cls, "not the settings of a training")


@dataclass(frozen=True)
class TrainingRun:
    """A finished training."""

    folder: Path
    settings: Settings
    # Metric name -> value on the validation split.
    validation: dict[str, float]
    # The same on the test split.
    test: dict[str, float]
    # Wall time over all sessions of the run.
    seconds: float
    # Of the optimizer.
    steps: int

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT


def without_split(name: str) -> str:
    """Returns a metric's name without the split's before it: validation_accuracy, val/accuracy."""
    return re.sub(r"^(validation|val|test)[_/]", "", name)


def root() -> Path:
    return files.runs_folder() / "train"


def create(settings: Settings) -> Path:
    """Makes a new folder and writes its settings.

    Its name sorts by time: the last part counts 1/65536 seconds.
    """
    now = datetime.now(UTC)
    moment = f"{now:%Y%m%d-%H%M%S}-{now.microsecond * 65536 // 1_000_000:04x}"
    folder = root() / f"{settings.name.rpartition(':')[2]}-{moment}"
    make(folder)
    write_json(folder / SETTINGS, {"schema": SCHEMA, **asdict(settings)})
    return folder


def make(folder: Path) -> None:
    """Makes a folder where runs live, which no repository around it is to take up: what is not
    committed would else grow with every run.
    """
    top = files.runs_folder()
    if not top.exists():
        top.mkdir(parents=True)
        files.write(top / ".gitignore", b"*\n")
    folder.mkdir(parents=True)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Has the run to itself while it is open; the lock ends with the process, whatever ends it.

    It is a lock of the process (POSIX): loader workers, which are forked from it and may outlive it
    by seconds, do not hold it on. Raises NotResumable where another process trains the run.
    """
    with files.appended(folder / LOCK) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise NotResumable(
                f"{folder.name} is being trained by another process; wait for it, or end it first"
            ) from error
        yield


def describe(folder: Path, configuration: str, threads: int) -> None:
    """Writes a new run's configuration, and where it takes place: machine, libraries, commit, and
    what of the repository around the current directory is not committed.
    """
    from ..perf.machine import survey

    files.write(folder / CONFIGURATION, configuration.encode())
    here = survey.collect(threads, "default")
    files.write(folder / ENVIRONMENT, msgspec.json.format(msgspec.json.encode(here), indent=1) + b"\n")
    if here.commit and (difference := uncommitted()):
        files.write(folder / UNCOMMITTED, difference)


def uncommitted() -> bytes:
    """Returns what of the repository around the current directory is in no commit, as a patch;
    files that git does not know among it. Names alone where it would be too long.
    """
    diff = ("git", "diff", "--no-ext-diff", "--no-color", "--binary")
    tracked = subprocess.run([*diff, "HEAD"], capture_output=True, check=False).stdout
    listed = ["git", "ls-files", "--others", "--exclude-standard", "-z"]
    others = subprocess.run(listed, capture_output=True, check=False).stdout.decode().split("\0")
    parts = [tracked]
    for name in filter(None, others):
        if sum(map(len, parts)) > MOST_UNCOMMITTED or Path(name).stat().st_size > MOST_UNCOMMITTED:
            parts.append(f"# too long: {name}\n".encode())
            continue
        new = [*diff, "--no-index", "--", os.devnull, name]
        parts.append(subprocess.run(new, capture_output=True, check=False).stdout)
    if len(tracked) > MOST_UNCOMMITTED:
        stat = subprocess.run([*diff[:-1], "--stat", "HEAD"], capture_output=True, check=False).stdout
        parts[0] = b"# too long; what differs from the commit:\n" + stat
    return b"".join(parts)


def newest(name: str, finished: bool) -> Path | None:
    """The folder of a network's newest finished, or unfinished, run; without a name of any; None
    where there is none.
    """
    short = name.rpartition(":")[2] or "*"
    fitting = [
        folder
        for folder in root().glob(f"{short}-????????-??????-????")
        if (folder / SETTINGS).exists() and (folder / METRICS).exists() == finished
    ]
    newest_first = sorted(
        fitting, key=lambda folder: folder.name[-len("YYYYmmdd-HHMMSS-xxxx") :], reverse=True
    )
    return next((folder for folder in newest_first if name in ("", Settings.read(folder).name)), None)


def to_resume(
    name: str, which: str, epochs: int | None, seed: int | None, precision: str | None = None
) -> Path:
    """The folder of the unfinished run `which` ("latest" or an ID) of a network.

    Raises NotResumable, in one line, where there is none, and where epochs, seed or precision
    differ from those that the run was started with.
    """
    folder = _existing(name, which)
    settings = Settings.read(folder)
    if name and settings.name != name:
        raise NotResumable(
            f"run {which} trains {settings.name}, not {name}; use: hotlap train {settings.name} --resume"
            f" {which}"
        )
    if (folder / METRICS).exists():
        raise NotResumable(f"run {folder.name} is finished; start a new one with: hotlap train {name}")
    for word, asked, known in (
        ("epochs", epochs, settings.epochs),
        ("seed", seed, settings.seed),
        ("precision", precision, settings.precision),
    ):
        if asked is not None and asked != known:
            raise NotResumable(
                f"run {folder.name} was started with {word} {known}, which cannot become {asked}; leave"
                f" --{word} out"
            )
    return folder


def _existing(name: str, which: str) -> Path:
    """The folder of the run with the ID `which`, or of the newest unfinished one for "latest"."""
    if which != "latest":
        folder = root() / which
        if not (folder / SETTINGS).exists():
            raise NotResumable(
                f"there is no run {which!r} in {root()}; leave the ID out to resume the newest unfinished one"
            )
        return folder
    unfinished = newest(name, finished=False)
    if unfinished is None:
        has = f"{name} has no" if name else "there is no"
        raise NotResumable(f"{has} unfinished run in {root()}; start one with: hotlap train {name or 'NAME'}")
    return unfinished


def digest(path: Path) -> str:
    """The sha256 of the file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all, also when the process is killed."""
    files.write(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
