"""The envelope that every judging command writes (gate, ab, kernels, review), and what it means for
the exit status.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from ..stats.compare import Outcome
from . import stored
from .case import Better
from .reasons import Unreadable

# Version of the file's format. 1 (0.2.0): first version.
SCHEMA = 1

# What a command is called: it stands in headings and in lines of a CI's log.
TOOL = re.compile(r"[a-z][a-z-]{0,30}")
# What a verdict is called in an archive.
MEMBER = "verdict.json"
# A finding takes less than 1 kB: tens of thousands fit.
MOST_BYTES = 32 << 20

# From best to worst: of several outcomes the worst wins.
ORDER: tuple[Outcome, ...] = ("pass", "inconclusive", "not_comparable", "regression")
# Exit status of each; 2 is a misuse of the command line.
EXIT: dict[Outcome, int] = {"pass": 0, "regression": 1, "inconclusive": 3, "not_comparable": 4}


class Place(msgspec.Struct, frozen=True):
    """Where a reader should look: a file relative to the repository, and a line from 1."""

    file: str
    line: int = 1


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One metric or counter of one case, judged."""

    # The case's id, or what else was judged.
    case: str
    # Name of the metric or counter.
    metric: str
    verdict: Outcome
    # BASE's value, in the metric's unit.
    base: float | None = None
    # HEAD's value, in the metric's unit.
    head: float | None = None
    # head / base.
    ratio: float | None = None
    # Lower end of the ratio's 95 % interval.
    low: float | None = None
    # Upper end of the ratio's 95 % interval.
    high: float | None = None
    # The change that was allowed, as ratio - 1.
    tolerance: float | None = None
    # The worsening that would have been seen, as ratio - 1.
    detectable: float | None = None
    # Base unit of base and head.
    unit: str = ""
    # Which way the metric improves.
    better: Better = "lower"
    # Counters are exact and judged first; presence is a case that came, went or lost its result.
    kind: Literal["counter", "time", "presence", "limit"] = "time"
    # Lines that explain the verdict.
    evidence: tuple[str, ...] = ()
    # Where the case's workload is written, if known.
    place: Place | None = None
    # Why a worsening is let pass: what was written of it where worsenings are acknowledged.
    acknowledged: str = ""
    # Lines of history.toml that would acknowledge it.
    entry: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """What a judging command says, as its --json writes it."""

    # The command.
    tool: str
    verdict: Outcome
    # Lines for the reader that belong to no single finding.
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    schema: int = SCHEMA

    @property
    def exit_status(self) -> int:
        """The command's exit status."""
        return EXIT[self.verdict]

    def having(self, verdict: Outcome) -> list[Finding]:
        """Returns the findings of that verdict."""
        return [finding for finding in self.findings if finding.verdict == verdict]


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """Returns the worst of the outcomes; of none at all, inconclusive."""
    return max(outcomes, key=ORDER.index, default="inconclusive")


def join(verdict: Verdict, others: list[Verdict]) -> Verdict:
    """Joins the verdicts of several tools: all findings, the worst outcome."""
    reasons = [f"{other.tool}: {reason}" for other in others for reason in other.reasons]
    return Verdict(
        tool=verdict.tool,
        verdict=worst([verdict.verdict, *(other.verdict for other in others)]),
        reasons=(*verdict.reasons, *reasons),
        findings=(*verdict.findings, *(finding for other in others for finding in other.findings)),
    )


def read(path: Path) -> Verdict:
    """Reads a verdict that another command wrote with --json, also as the member verdict.json of a
    ZIP archive.

    Raises Misuse where there is no file, Unreadable for one that cannot be used; what it does not
    understand is never a pass.
    """
    content = stored.content(path, MOST_BYTES)
    if content.startswith(b"PK"):
        content = stored.member(path, content, MEMBER, MOST_BYTES)
    verdict = stored.decode(path, content, Verdict, "not a verdict of hotlap (write one with --json)")
    if verdict.schema != SCHEMA:
        raise Unreadable(f"{path}: verdict schema {verdict.schema}, this hotlap reads {SCHEMA}")
    if any(finding.acknowledged and finding.verdict != "pass" for finding in verdict.findings):
        raise Unreadable(f"{path}: holds a finding that is acknowledged and did not pass")
    if not TOOL.fullmatch(verdict.tool):
        raise Unreadable(
            f"{path}: a verdict of {stored.line(verdict.tool, 40)}, which is no command of hotlap"
        )
    # A policy may let what could not be told pass, and nothing else.
    known = [finding.verdict for finding in verdict.findings if finding.verdict != "inconclusive"]
    if (
        known
        and verdict.verdict != "inconclusive"
        and ORDER.index(verdict.verdict) < ORDER.index(worst(known))
    ):
        raise Unreadable(f"{path}: says {verdict.verdict}, and holds a finding that is worse")
    return verdict
