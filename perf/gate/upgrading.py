"""What other versions of libraries would do to a model: each is an installed environment, raced
against the running one as `hotlap ab` does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..terms.case import Case, Plan
from ..terms.files import clear
from ..terms.reasons import Misuse, Refusal
from ..terms.verdict import Finding, Verdict, worst
from .ab import compared
from .overlay import Upgrade, overlay
from .policy import Policy
from .revisions import Revisions

# What a finding says is with which versions: its case ends so.
WITH = " with "


def judged(
    upgrades: Sequence[Upgrade],
    cases: Sequence[Case],
    policy: Policy,
    plan: Plan,
    folder: Path,
    environments: Path,
    report: Callable[[str], None],
) -> Verdict:
    """Returns one verdict on all upgrades: a finding's case says with which versions.

    folder: where the results of each are left. environments: where they are installed. What cannot
    be installed, or does not run, is a finding.
    """
    findings, reasons = list[Finding](), list[str]()
    folder.mkdir(parents=True, exist_ok=True)
    for number, upgrade in enumerate(upgrades, start=1):

        def told(text: str, number: int = number) -> None:
            report(f"[{number} of {len(upgrades)}] {text}")

        try:
            python, conflicts = overlay(upgrade, environments, told)
            verdict = raced(python, cases, policy, plan, folder / f"{number}", told)
        except (Misuse, Refusal) as error:
            why = str(error.reason) if isinstance(error, Refusal) else str(error)
            findings.append(absent(upgrade, why))
            continue
        findings += [
            msgspec.structs.replace(finding, case=f"{finding.case}{WITH}{upgrade.name}")
            for finding in verdict.findings
        ]
        reasons += [f"{upgrade.name}: {reason}" for reason in (*conflicts, *verdict.reasons)]
    return Verdict(
        "upgrade", worst([finding.verdict for finding in findings]), tuple(reasons), tuple(findings)
    )


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


def absent(upgrade: Upgrade, why: str) -> Finding:
    """Returns the finding on an environment that there is not."""
    return Finding(
        f"all cases{WITH}{upgrade.name}", "presence", "inconclusive", kind="presence", evidence=(why,)
    )


def table(verdict: Verdict, upgrades: Sequence[Upgrade]) -> list[str]:
    """Returns a line for each combination of versions and case, the findings that are not a pass
    behind it.
    """
    lines = []
    for upgrade in upgrades:
        lines.append(f"with {upgrade.name}")
        by_case: dict[str, list[Finding]] = {}
        for finding in verdict.findings:
            case, _, versions = finding.case.rpartition(WITH)
            if versions == upgrade.name:
                by_case.setdefault(case, []).append(finding)
        width = max(map(len, by_case), default=0)
        lines += [f"  {case:<{width}}  {summary(each)}" for case, each in by_case.items()]
    return lines


def summary(findings: Sequence[Finding]) -> str:
    """Returns what became of one case in a few words: its latency, and what else got worse."""
    from ..reports.formats import WORD, interval, percent

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
