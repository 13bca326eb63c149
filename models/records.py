"""Trainings that are on the disk, read back: settings, scores, where they took place.

Imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from ..perf.terms import stored
from ..perf.terms.reasons import Misuse, Unreadable
from . import curves, runs
from .catalog import nearest
from .curves import Points
from .promotion import PROMOTED
from .runs import Settings

# What of an environment is told apart when two runs are compared.
PLACE = ("cpu", "cores", "threads", "isa", "python", "commit", "gpus")


class StoredTraining(NamedTuple):
    """One run's folder."""

    folder: Path
    settings: Settings
    finished: bool
    # Metric -> value on the validation split; of an unfinished run what it logged last. None: no
    # number.
    validation: Mapping[str, float | None]
    # The same on the test split.
    test: dict[str, float | None]
    # What is written of its promotion; empty where there was none.
    promoted: dict[str, Any]
    # Wall time over all sessions; of an unfinished run 0.
    seconds: float
    # Of the optimizer; 0 where it is not known.
    steps: int
    # Key with dots -> value, of the whole configuration.
    configuration: dict[str, Any]
    # What of the environment is told apart -> its value.
    environment: dict[str, Any]
    # The last step that an unfinished run logged; 0 of a finished one, and before any was.
    last_step: int

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def state(self) -> str:
        return "promoted" if self.promoted else "finished" if self.finished else "unfinished"

    @property
    def curves(self) -> dict[str, Points]:
        """Metric as logged -> its points, read from the disk. Raises Unreadable."""
        return curves.read(self.folder, self.finished * (bool(self.validation) + bool(self.test)))

    @property
    def began(self) -> str:
        """Day and minute, in UTC, out of the run's name."""
        day, clock = self.id.rsplit("-", 3)[1:3]
        return f"{day[:4]}-{day[4:6]}-{day[6:]} {clock[:2]}:{clock[2:4]}"


def read(folder: Path) -> StoredTraining:
    """Reads one run. Raises Unreadable for a damaged file."""
    settings = Settings.read(folder)
    metrics: dict[str, Any] = {}
    if (folder / runs.METRICS).exists():
        metrics = decoded(folder / runs.METRICS)
    configuration: dict[str, Any] = {}
    if (folder / runs.CONFIGURATION).exists():
        import yaml

        path = folder / runs.CONFIGURATION
        try:
            configuration = flat(yaml.safe_load(stored.content(path)) or {})
        except yaml.YAMLError as error:
            raise Unreadable(f"{path}: not the settings of a training: {stored.line(error)}") from None
    environment: dict[str, Any] = {}
    if (folder / runs.ENVIRONMENT).exists():
        here = decoded(folder / runs.ENVIRONMENT)
        libraries = here.get("libraries", {})
        environment = {**{name: here.get(name) for name in PLACE}, **libraries}
    logged = {} if metrics else curves.read(folder)
    return StoredTraining(
        folder,
        settings,
        bool(metrics),
        metrics.get("validation", {}) if metrics else curves.latest(logged),
        dict(metrics.get("test", {})),
        decoded(folder / PROMOTED) if (folder / PROMOTED).exists() else {},
        float(metrics.get("seconds", 0.0)),
        int(metrics.get("steps", 0)),
        configuration,
        environment,
        max((points[-1][0] for points in logged.values()), default=0),
    )


def decoded(path: Path) -> dict[str, Any]:
    """Returns what a JSON file of a run holds. Raises Unreadable."""
    return stored.decode(path, stored.content(path), dict[str, Any], "not a file of a training")


def flat(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Returns nested settings by their keys with dots."""
    settings: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict) and value:
            settings |= flat(value, f"{before}{key}.")
        else:
            settings[f"{before}{key}"] = value
    return settings


def folders() -> list[Path]:
    """Returns the folders of all runs, oldest first."""
    every = (path.parent for path in runs.root().glob(f"*-????????-??????-????/{runs.SETTINGS}"))
    return sorted(every, key=lambda folder: folder.name.rsplit("-", 3)[1:])


def every() -> tuple[list[StoredTraining], dict[str, str]]:
    """Returns all runs, oldest first, and of those that cannot be read ID -> why."""
    readable, damaged = [], {}
    for folder in folders():
        try:
            readable.append(read(folder))
        except Misuse as error:
            damaged[folder.name] = str(error)
    return readable, damaged


def by_name(ID: str) -> StoredTraining:
    """Returns the run of this ID. Raises Misuse where there is none, Unreadable."""
    known = {folder.name: folder for folder in folders()}
    if ID not in known:
        raise Misuse(f"there is no run {ID!r} in {runs.root()}; {nearest(ID, known)}")
    return read(known[ID])


def differences(records: Sequence[StoredTraining], part: str) -> dict[str, list[Any]]:
    """Returns the settings, or what of the places, the runs do not share: key -> value of each.

    part: configuration or environment.
    """
    contents: list[dict[str, Any]] = [getattr(record, part) for record in records]
    keys = dict.fromkeys(key for content in contents for key in content)
    values = {key: [content.get(key) for content in contents] for key in keys}
    return {key: each for key, each in values.items() if any(value != each[0] for value in each)}


def superfluous(keep: int) -> list[Path]:
    """Returns the folders of finished runs but for the newest `keep` of each network, and but for
    promoted ones. A link is nobody's folder, and stays.
    """
    count: dict[str, int] = {}
    old = []
    for folder in reversed(folders()):
        kept = (folder / PROMOTED).exists() or folder.is_symlink()
        if (folder / runs.METRICS).exists() and not kept:
            name = Settings.read(folder).name
            count[name] = count.get(name, 0) + 1
            if count[name] > keep:
                old.append(folder)
    return old[::-1]


def remove(folder: Path) -> None:
    """Removes a run's folder. Raises Misuse where it cannot be."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise Misuse(f"{folder}: {error.strerror}") from None


def text(value: Any) -> str:
    """Returns a setting as its YAML would have it, in one line."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
