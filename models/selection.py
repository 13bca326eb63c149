"""Which runs a list shows, and in which order. Imports no torch."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..perf.terms.reasons import Misuse
from . import records
from .catalog import nearest
from .curves import split_of
from .records import StoredTraining


def named(every: Sequence[StoredTraining], globs: Sequence[str]) -> list[StoredTraining]:
    """Returns the runs of networks whose name matches one of the globs; of all without any."""
    return [
        record
        for record in every
        if not globs or any(fnmatch.fnmatchcase(record.settings.name, glob) for glob in globs)
    ]


def in_state(every: Sequence[StoredTraining], state: str) -> list[StoredTraining]:
    """Returns the runs that are unfinished, finished (promoted ones among them) or promoted."""
    wanted = {state, "promoted"} if state == "finished" else {state}
    return [record for record in every if record.state in wanted]


def where(every: Sequence[StoredTraining], conditions: Sequence[str]) -> list[StoredTraining]:
    """Returns the runs with all of these settings, each key=value; `init_args` may be left out of a
    key. Raises Misuse for what is no condition and for a key that no run has.
    """
    wanted = []
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise Misuse(f"--where {condition!r} is no KEY=VALUE, such as model.init_args.width=64")
        wanted.append((short(key), value))
    settings = [{short(key): value for key, value in record.configuration.items()} for record in every]
    known = {key for each in settings for key in each}
    for key, _ in wanted:
        if known and key not in known:
            raise Misuse(f"--where: no run has a setting {key!r}; {nearest(key, known)}")
    return [
        record
        for record, its in zip(every, settings, strict=True)
        if all(key in its and equal(its[key], value) for key, value in wanted)
    ]


def short(key: str) -> str:
    return key.replace(".init_args.", ".")


def equal(setting: Any, value: str) -> bool:
    """Whether a setting is what somebody wrote; numbers are compared as such."""
    if isinstance(setting, int | float) and not isinstance(setting, bool):
        try:
            return float(value) == setting
        except ValueError:
            return False
    return records.text(setting) == value


def ordered(every: Sequence[StoredTraining], metric: str) -> list[StoredTraining]:
    """Returns the runs by a metric of the validation split, the highest value first, with - before
    its name the lowest; those without a value last. Raises Misuse for a metric that no run has, and
    for one of the test split.
    """
    name = metric.removeprefix("-")
    split, rest = split_of(name)
    name = rest if split == "validation" else name
    if split == "test":
        raise Misuse(f"--sort {metric}: who chooses by the test split has none; sort by the validation split")
    known = {key for record in every for key in record.validation}
    if known and name not in known:
        raise Misuse(f"--sort: no run has a metric {name!r}; {nearest(name, known)}")
    sign = 1 if metric.startswith("-") else -1

    def place(record: StoredTraining) -> tuple[bool, float]:
        value = score(record.validation, name)
        return (True, 0.0) if value is None else (False, sign * value)

    return sorted(every, key=place)


def score(scores: Mapping[str, float | None], metric: str) -> float | None:
    """Returns a score; None where there is none or it is no number."""
    value = scores.get(metric)
    return None if value is None or math.isnan(value) else value
