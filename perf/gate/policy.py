"""What a gate asks for: tolerances, error rate, limits.

A TOML file, checked as a whole; a name it does not know is an error.

Its keys, with their defaults, stand in docs/gate.md.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from ..lookup import plugins
from ..terms import units
from ..terms.counters import COUNTERS
from ..terms.reasons import Misuse

Share = Annotated[float, msgspec.Meta(ge=0, le=10)]
Bound = Annotated[float, msgspec.Meta(gt=0)]

# A resident set is counted in pages and moves by some whatever the code does (shared/MEASURING.md b
# 8).
MEMORY_SLACK_BYTES = 4 * 2**20
DEFAULT_TOLERANCE = {"latency": 0.03, "memory": 0.02}
DEFAULT_SLACK: dict[str, float | str] = {"artefact_bytes": "2%"}
# Metrics that come from the task and from the oracle, not from a file in metrics/.
DEVIATION, TASK = "deviation", "task"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What applies to the cases that `match`."""

    match: str
    tolerance: dict[str, Share] = {}
    slack: dict[str, float | str] = {}
    limits: dict[str, float] = {}
    ignore: bool | None = None

    def matches(self, case: str) -> bool:
        return fnmatch.fnmatchcase(case, self.match.replace("[", "[[]"))


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    inconclusive: Literal["fail", "pass"] = "fail"
    missing: Literal["inconclusive", "pass", "regression"] = "inconclusive"
    between_jobs_sd: Share = 0.10
    budget: str = "10m"
    tolerance: dict[str, Share] = {}
    slack: dict[str, float | str] = {}
    limits: dict[str, float] = {}
    case: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        units.seconds(self.budget)
        known = {*plugins.modules("hotlap.metrics"), DEVIATION, TASK}
        parts: list[Policy | Part] = [self, *self.case]
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
        """A line for each part that matches no case: more likely a typing mistake than a wish."""
        return [
            f"policy: [[case]] match = {part.match!r} matches no case"
            for part in self.case
            if not any(map(part.matches, cases))
        ]


class Rules(msgspec.Struct, frozen=True):
    """What one case is judged by.

    asked: the metrics that the policy names itself. In its globs `[` means itself, since case ids
    contain it.
    """

    tolerance: dict[str, float]
    asked: frozenset[str]
    slack: dict[str, float | str]
    limits: dict[str, float]
    ignored: bool


def allowance(value: float | str, base: int) -> float:
    """How much a counter of this value may grow."""
    if isinstance(value, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())
        if not found:
            raise Misuse(f'slack {value!r}: expected a number or a share such as "2%"')
        return base * float(found[1]) / 100
    if not (value >= 0 and math.isfinite(value)):
        raise Misuse(f"slack {value!r}: expected a number of at least 0")
    return value


def read(path: Path | None) -> Policy:
    """The policy in this file; the default without one.

    Raises Misuse with the place in the file.
    """
    if path is None:
        return Policy()
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Policy)
    except FileNotFoundError:
        raise Misuse(f"{path}: there is no such policy file") from None
    except Misuse as error:
        raise Misuse(f"{path}: {error}") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ValueError) as error:
        raise Misuse(f"{path}: not a policy: {_reason(error)}") from None


def _reason(error: Exception) -> Any:
    """msgspec wraps what __post_init__ raises; the cause is the line for the reader."""
    return error.__cause__ if isinstance(error.__cause__, Misuse) else error
