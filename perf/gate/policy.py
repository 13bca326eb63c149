"""What a gate asks for: tolerances, error rate, limits.

A TOML file, checked as a whole; a name it does not know is an error.

Its keys, with their defaults, stand in docs/gate.md.
"""

from __future__ import annotations

import fnmatch
import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..lookup import plugins
from ..terms import stored, units
from ..terms.counters import COUNTERS
from ..terms.reasons import Misuse, Unreadable

# Ten times as much is no tolerance any more: more likely a percentage written without its sign.
MOST_TOLERANCE = 10.0
Share = Annotated[float, msgspec.Meta(ge=0, le=MOST_TOLERANCE)]

# A resident set is counted in pages and moves by some whatever the code does.
MEMORY_SLACK_BYTES = 4 * 2**20
# Worsening that is let pass where the policy names none, as a share.
DEFAULT_TOLERANCE = {"latency": 0.03, "memory": 0.02}
# Growth of a counter that is let pass: files of an artefact hold paths and versions.
DEFAULT_SLACK: dict[str, float | str] = {"artefact_bytes": "2%"}
# Metrics that come from the oracle and from the task, not from a file in metrics/.
DEVIATION = "deviation"
TASK = "task"
# How far HEAD's answers are from BASE's, as a share of the size of BASE's (answers.py).
OUTPUTS = "outputs"
# The policy that a command takes where it is not told another.
FILE = Path("gate.toml")
# A part for each of thousands of cases fits.
MOST_BYTES = 1 << 20


class CasePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What applies to the cases whose id matches the glob `match`, in which [ means itself."""

    match: str
    tolerance: dict[str, Share] = {}
    slack: dict[str, float | str] = {}
    limits: dict[str, float] = {}
    ignore: bool | None = None

    def matches(self, case: str) -> bool:
        return fnmatch.fnmatchcase(case, self.match.replace("[", "[[]"))


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A gate.toml; its field names are the file's keys."""

    # Chance of any false alarm of a whole verdict.
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    # What becomes of a verdict where something could not be told.
    inconclusive: Literal["fail", "pass"] = "fail"
    # The verdict on a case that BASE has and HEAD has not.
    missing: Literal["inconclusive", "pass", "regression"] = "inconclusive"
    # By how much the same code is taken to differ between jobs where no pace ran beside it: the
    # standard deviation of the log of a time.
    between_jobs_sd: Share = 0.10
    # Measuring time of hotlap ab, as on its command line.
    budget: str = "10m"
    # Metric -> worsening that is let pass, as a share.
    tolerance: dict[str, Share] = {}
    # Counter -> growth that is let pass: a number, or a share such as "2%".
    slack: dict[str, float | str] = {}
    # Metric -> what HEAD must keep whatever BASE did, in the metric's unit.
    limits: dict[str, float] = {}
    # What applies to some cases only; later parts win.
    case: tuple[CasePart, ...] = ()

    def __post_init__(self) -> None:
        units.seconds(self.budget)
        known = {*plugins.modules("hotlap.metrics"), DEVIATION, TASK, OUTPUTS}
        parts: list[Policy | CasePart] = [self, *self.case]
        for part in parts:
            for name in (*part.tolerance, *part.limits):
                if name not in known:
                    raise plugins.Unknown("metric", name, known)
            for name, value in part.slack.items():
                if name not in COUNTERS:
                    raise plugins.Unknown("counter", name, COUNTERS)
                allowance(value, 100)
            if not all(math.isfinite(value) for value in part.limits.values()):
                raise Misuse("a limit must be a finite number")

    def of(self, case: str) -> Rules:
        """Returns what the case with this id is judged by."""
        asked, slack, limits = dict(self.tolerance), {**DEFAULT_SLACK, **self.slack}, dict(self.limits)
        ignored = False
        for part in self.case:
            if part.matches(case):
                asked |= part.tolerance
                slack |= part.slack
                limits |= part.limits
                ignored = ignored if part.ignore is None else part.ignore
        return Rules({**DEFAULT_TOLERANCE, **asked}, frozenset(asked), slack, limits, ignored)

    def idle(self, cases: Collection[str]) -> list[str]:
        """Returns a line for each part that matches no case: more likely a typing mistake than a
        wish.
        """
        return [
            f"policy: [[case]] match = {part.match!r} matches no case"
            for part in self.case
            if not any(map(part.matches, cases))
        ]


class Rules(msgspec.Struct, frozen=True):
    """What one case is judged by: fields of Policy after its parts.

    asked: the metrics whose tolerance the policy names itself.
    """

    tolerance: dict[str, float]
    asked: frozenset[str]
    slack: dict[str, float | str]
    limits: dict[str, float]
    ignored: bool


def allowance(value: float | str, base: int) -> float:
    """Returns by how much a counter of the value `base` may grow. Raises Misuse."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())
        if not match:
            raise Misuse(f'slack {value!r}: expected a number or a share such as "2%"')
        value = base * float(match[1]) / 100
    if not (value >= 0 and math.isfinite(value)):
        raise Misuse(f"slack {value!r}: expected a number of at least 0")
    return value


def accepting(table: str, name: str, value: float) -> str:
    """Returns the line of gate.toml that lets a change pass."""
    return f"if it is meant, gate.toml: {table}.{name} = {value:g} (of one case, under its [[case]])"


def percent(share: float) -> float:
    """Returns the next share above this one in whole percent, at most the largest tolerance."""
    return min(MOST_TOLERANCE, math.ceil(100 * share + 1) / 100)


def chosen(path: Path | None) -> Policy:
    """Returns the policy of --policy; without it that of gate.toml here, if there is one.

    Raises Misuse.
    """
    return read(path or (FILE if os.path.lexists(FILE) else None))


def read(path: Path | None) -> Policy:
    """Returns the policy in this file; the default without one.

    Raises Misuse with the place in the file.
    """
    if path is None:
        return Policy()
    if not path.exists():
        raise Misuse(f"{path}: there is no such policy file")
    content = stored.content(path, MOST_BYTES)
    try:
        return msgspec.toml.decode(content, type=Policy)
    except (msgspec.ValidationError, Misuse) as error:
        # msgspec wraps what __post_init__ raised.
        reason = error.__cause__ if isinstance(error.__cause__, Misuse) else error
        raise Misuse(f"{path}: not a policy: {stored.line(reason)}") from None
    except (*stored.UNDECODABLE, ValueError) as error:
        raise Unreadable(f"{path}: not a policy: {stored.line(error)}") from None
