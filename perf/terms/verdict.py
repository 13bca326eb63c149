"""The envelope that every judging command writes (gate, ab, kernels, review), and what it means for
the exit status.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ..stats.compare import Outcome
from .case import Better
from .reasons import Misuse, Unreadable

# 1 (0.2.0): first version.
SCHEMA = 1

# The worst wins.
ORDER: tuple[Outcome, ...] = ("pass", "inconclusive", "not_comparable", "regression")
EXIT: dict[Outcome, int] = {"pass": 0, "regression": 1, "inconclusive": 3, "not_comparable": 4}


class Place(msgspec.Struct, frozen=True):
    """Where a reader should look: a file relative to the repository, and a line from 1."""

    file: str
    line: int = 1


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric or counter of one case. base, head: in the unit of the metric; low, high: of ratio
    = head / base, 95 %.

    tolerance, detectable: ratio - 1. kind: counters are exact and judged first; presence is a case
    that came, went or lost its result.
    """

    case: str
    metric: str
    verdict: Outcome
    base: float | None = None
    head: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    tolerance: float | None = None
    detectable: float | None = None
    unit: str = ""
    better: Better = "lower"
    kind: Literal["counter", "time", "presence", "limit"] = "time"
    evidence: tuple[str, ...] = ()
    place: Place | None = None


class Verdict(msgspec.Struct, frozen=True):
    """reasons: lines for the reader that belong to no single finding."""

    tool: str
    verdict: Outcome
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    schema: int = SCHEMA

    @property
    def exit_status(self) -> int:
        return EXIT[self.verdict]

    def having(self, verdict: Outcome) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == verdict]


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The worst of them. Nothing judged at all is inconclusive."""
    return max(outcomes, key=ORDER.index, default="inconclusive")


def join(verdict: Verdict, others: list[Verdict]) -> Verdict:
    """One verdict over several tools: all findings, the worst outcome."""
    reasons = [f"{other.tool}: {reason}" for other in others for reason in other.reasons]
    return Verdict(
        tool=verdict.tool,
        verdict=worst([verdict.verdict, *(other.verdict for other in others)]),
        reasons=(*verdict.reasons, *reasons),
        findings=(*verdict.findings, *(finding for other in others for finding in other.findings)),
    )


def read(path: Path) -> Verdict:
    """A verdict that another command wrote with --json.

    Raises Misuse; what it does not understand is never a pass.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Verdict)
    except FileNotFoundError:
        raise Misuse(f"{path}: there is no such file") from None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"{path}: not a verdict of hotlap (write one with --json): {error}") from None
    if found.schema != SCHEMA:
        raise Unreadable(f"{path}: verdict schema {found.schema}, this hotlap reads {SCHEMA}")
    # A policy may let what could not be told pass, and nothing else.
    known = [finding.verdict for finding in found.findings if finding.verdict != "inconclusive"]
    if known and found.verdict != "inconclusive" and ORDER.index(found.verdict) < ORDER.index(worst(known)):
        raise Unreadable(f"{path}: says {found.verdict}, and holds a finding that is worse")
    return found
