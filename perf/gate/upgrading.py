"""What other versions of libraries would do to a model: each is an installed environment, raced
against the running one as `hotlap ab` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from ..reports.formats import WORD, interval, percent
from ..terms.case import Case, Plan
from ..terms.files import clear
from ..terms.reasons import Misuse, Refusal
from ..terms.verdict import Finding, Verdict, worst
from .ab import compared
from .overlay import Upgrade, overlay
from .policy import Policy
from .revisions import Revisions


def judged(
    upgrades: Sequence[Upgrade],
    cases: Sequence[Case],
    policy: Policy,
    plan: Plan,
    folder: Path,
    environments: Path,
    report: Callable[[str], None],
) -> dict[str, Verdict]:
    """Returns the verdict on each upgrade, by its name.

    folder: where the results of each are left. environments: where they are installed. What cannot
    be installed, or does not run, is a finding.
    """
    verdicts: dict[str, Verdict] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for number, upgrade in enumerate(upgrades, start=1):
        place = f"[{number} of {len(upgrades)}] "

        def tell(text: str, place: str = place) -> None:
            report(place + text)

        try:
            python, conflicts = overlay(upgrade, environments, tell)
            verdict = raced(python, cases, policy, plan, folder / f"{number}", tell)
        except (Misuse, Refusal) as error:
            verdicts[upgrade.name] = absent(str(error.reason if isinstance(error, Refusal) else error))
        else:
            reasons = (*conflicts, *verdict.reasons)
            verdicts[upgrade.name] = msgspec.structs.replace(verdict, reasons=reasons)
    return verdicts


def joined(verdicts: Mapping[str, Verdict]) -> Verdict:
    """Returns all verdicts as one: a finding's case and a reason say with which versions."""
    findings = [
        msgspec.structs.replace(finding, case=f"{finding.case} with {name}")
        for name, verdict in verdicts.items()
        for finding in verdict.findings
    ]
    reasons = [f"{name}: {reason}" for name, verdict in verdicts.items() for reason in verdict.reasons]
    outcome = worst([verdict.verdict for verdict in verdicts.values()])
    return Verdict("upgrade", outcome, tuple(reasons), tuple(findings))


def raced(
    python: Path,
    cases: Sequence[Case],
    policy: Policy,
    plan: Plan,
    folder: Path,
    report: Callable[[str], None],
) -> Verdict:
    """Returns the verdict on one environment against the running one. Raises Misuse."""
    clear(folder, below=folder.parent)
    folder.mkdir()
    revisions = Revisions(folder)
    try:
        sides = revisions.open("base", sys.executable), revisions.open("head", str(python))
        return compared(sides, cases, policy, plan, folder, None, report)
    finally:
        revisions.close()


def absent(why: str) -> Verdict:
    """Returns the verdict on an environment that there is not."""
    finding = Finding("all cases", "presence", "inconclusive", kind="presence", evidence=(why,))
    return Verdict("upgrade", "inconclusive", (), (finding,))


def table(verdicts: Mapping[str, Verdict]) -> list[str]:
    """Returns a line for each combination of versions and case, the findings that are not a pass
    behind it.
    """
    lines = []
    for name, verdict in verdicts.items():
        lines.append(f"with {name}")
        by_case: dict[str, list[Finding]] = {}
        for finding in verdict.findings:
            by_case.setdefault(finding.case, []).append(finding)
        width = max(map(len, by_case), default=0)
        lines += [f"  {case:<{width}}  {summary(each)}" for case, each in by_case.items()]
    return lines


def summary(findings: Sequence[Finding]) -> str:
    """Returns what became of one case in a few words: its latency, and what else got worse."""
    latency = next((each for each in findings if each.metric == "latency" and each.ratio is not None), None)
    words = [WORD[worst([finding.verdict for finding in findings])]]
    if latency is not None and latency.ratio is not None:
        words.append(f"latency {percent(latency.ratio)}{interval(latency)}")
    words += [
        f"{finding.metric}: {'; '.join(finding.evidence) or WORD[finding.verdict]}"
        for finding in findings
        if finding.verdict != "pass" and finding is not latency
    ]
    return ", ".join(words)
