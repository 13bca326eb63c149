"""A verdict for its readers: JUnit, SARIF 2.1.0, Markdown for a pull request, GitHub's annotations.

A regression is a failure, what could not be judged an error, in every format; only what passed is
green.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

import msgspec

from ..terms import escape
from ..terms.units import UNITS, scaled, significant
from ..terms.verdict import Finding, Verdict

# What a reader sees of each outcome.
WORD = {
    "pass": "pass",
    "regression": "regression",
    "inconclusive": "could not tell",
    "not_comparable": "not comparable",
}
# Rows of one table of Markdown: GitHub cuts a long comment off.
MOST_ROWS = 30
# Findings whose acknowledgement is spelt out: after some a reader knows how it is written.
MOST_ENTRIES = 5


def line(finding: Finding) -> str:
    """Returns one line for the reader: what moved, from where to where, how sure."""
    text = f"{finding.case}: {finding.metric}"
    if finding.base is not None or finding.head is not None:
        text += f" {amount(finding.base, finding.unit)} -> {amount(finding.head, finding.unit)}"
    if finding.ratio is not None:
        text += f", {percent(finding.ratio)}{interval(finding)}"
    if finding.tolerance is not None:
        text += f", tolerance {finding.tolerance:.1%}"
    if finding.verdict == "inconclusive" and finding.detectable is not None:
        text += f", detectable {finding.detectable:.1%}"
    evidence = f" ({'; '.join(finding.evidence)})" if finding.evidence else ""
    gain = finding.kind == "time" and improved(finding)
    return f"{text}: {'a gain' if gain else word(finding)}{evidence}"


def word(finding: Finding) -> str:
    """Returns what a reader sees of a finding's outcome."""
    return f"acknowledged: {finding.acknowledged}" if finding.acknowledged else WORD[finding.verdict]


def amount(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    if not math.isfinite(value):
        return f"{value:g}"
    if unit in UNITS:
        return scaled(value, unit)
    return f"{value:.0f}" if value == int(value) and abs(value) < 1e15 else significant(value, 4)


def percent(ratio: float) -> str:
    return f"{ratio - 1:+.1%}"


def interval(finding: Finding) -> str:
    return (
        ""
        if finding.low is None or finding.high is None
        else f" [{percent(finding.low)}, {percent(finding.high)}]"
    )


def junit(verdict: Verdict) -> bytes:
    """Returns JUnit XML, a test case for each finding, as Jenkins' schema has it (junit-10.xsd of
    its xunit plugin).

    Its test cases have no place: where to look is the last line of what a failed one says.
    """
    cases = list(map(testcase, verdict.findings))
    passed = len(verdict.having("pass")) == len(cases)
    if not cases or (verdict.verdict != "pass" and passed):
        cases.append(whole(verdict))
    name = f"hotlap {verdict.tool}"
    totals = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
    }
    root = ElementTree.Element("testsuites", {"name": name, **totals})
    ElementTree.SubElement(root, "testsuite", {"name": name, **totals}).extend(cases)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True)) + b"\n"


def testcase(finding: Finding) -> ElementTree.Element:
    """Returns a finding as a test case of JUnit."""
    named = {"classname": escape.plain(finding.case), "name": escape.plain(finding.metric)}
    case = ElementTree.Element("testcase", named)
    message = escape.plain(line(finding))
    if finding.verdict != "pass":
        tag = "failure" if finding.verdict == "regression" else "error"
        failed = ElementTree.SubElement(case, tag, {"type": finding.verdict, "message": message})
        place = f"\n{escape.plain(finding.place.file)}:{finding.place.line}" if finding.place else ""
        failed.text = message + place
    elif finding.acknowledged:
        ElementTree.SubElement(case, "system-out").text = message
    return case


def whole(verdict: Verdict) -> ElementTree.Element:
    """Returns a verdict that no finding explains as a test case of JUnit."""
    case = ElementTree.Element("testcase", {"classname": "hotlap", "name": escape.plain(verdict.tool)})
    if verdict.verdict != "pass":
        reasons = escape.plain("; ".join(verdict.reasons))
        ElementTree.SubElement(case, "error", {"type": verdict.verdict, "message": reasons})
    return case


def sarif(verdict: Verdict) -> bytes:
    """Returns SARIF 2.1.0 (OASIS standard): regressions are errors, what could not be judged
    warnings. A place outside the repository is none.
    """
    shown = [finding for finding in verdict.findings if finding.verdict != "pass"]
    rules = sorted({finding.metric for finding in shown})
    results: list[dict[str, Any]] = []
    for finding in shown:
        place, case = finding.place, escape.plain(finding.case)
        uri = escape.uri(place.file) if place else None
        where = (
            {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": {"startLine": place.line}}}
            if place and uri
            else {}
        )
        logical = {"logicalLocations": [{"fullyQualifiedName": case, "kind": "member"}]}
        results.append(
            {
                "ruleId": escape.plain(finding.metric),
                "ruleIndex": rules.index(finding.metric),
                "level": "error" if finding.verdict == "regression" else "warning",
                "message": {"text": escape.sarif(line(finding))},
                "locations": [{**where, **logical}],
                "partialFingerprints": {"case/v1": escape.plain(f"{finding.case} {finding.metric}")},
            }
        )
    driver = {
        "name": "hotlap",
        "rules": [
            {
                "id": escape.plain(rule),
                "shortDescription": {"text": escape.sarif(f"{rule} got worse")},
            }
            for rule in rules
        ],
    }
    schema = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
    log = {"$schema": schema, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return msgspec.json.format(msgspec.json.encode(log), indent=1) + b"\n"


def markdown(verdict: Verdict) -> str:
    """Returns Markdown that is read in ten seconds: verdict, structural changes, what moved, what
    could not be judged, then the rest in a fold.
    """
    count = {name: len(verdict.having(name)) for name in WORD}  # type: ignore[arg-type]  # WORD's keys are the outcomes
    acknowledged = [finding for finding in verdict.findings if finding.acknowledged]
    count["pass"] -= len(acknowledged)
    parts = [f"{number} {WORD[name]}" for name, number in count.items() if number]
    parts += [f"{len(acknowledged)} acknowledged"] if acknowledged else []
    lines = [
        f"### hotlap {verdict.tool}: {WORD[verdict.verdict]}",
        "",
        f"{', '.join(parts) or 'nothing was judged'}.",
        "",
    ]
    lines += [f"- {escape.markdown(reason)}" for reason in verdict.reasons] + (
        [""] if verdict.reasons else []
    )
    structural = [
        finding
        for finding in verdict.findings
        if finding.kind != "time" and (finding.verdict != "pass" or finding.base != finding.head)
    ]
    moved = [
        finding for finding in verdict.findings if finding.kind == "time" and finding.verdict == "regression"
    ]
    better = [
        finding
        for finding in verdict.findings
        if finding.kind == "time" and finding.verdict == "pass" and improved(finding)
    ]
    unknown = [
        finding
        for finding in verdict.findings
        if finding.kind == "time" and finding.verdict in ("inconclusive", "not_comparable")
    ]
    for title, some in (
        ("Structure", structural),
        ("Slower or larger", moved),
        ("Could not tell", unknown),
        ("Acknowledged", acknowledged),
        ("Faster or smaller", better),
    ):
        if some:
            lines += [f"**{title}**", "", *table(some), ""]
    listed = {id(finding) for some in (structural, moved, unknown, better, acknowledged) for finding in some}
    rest = [finding for finding in verdict.findings if id(finding) not in listed]
    if rest:
        lines += [
            f"<details><summary>{len(rest)} within tolerance</summary>",
            "",
            *table(rest),
            "",
            "</details>",
            "",
        ]
    if meant := entries(verdict):
        lines += ["<details><summary>To acknowledge what is meant, in history.toml</summary>", ""]
        # A block of code, in which no character has a meaning.
        lines += [f"    {escape.log(text)}" for text in meant]
        lines += ["", "</details>", ""]
    return "\n".join(lines)


def entries(verdict: Verdict) -> list[str]:
    """Returns the lines that would acknowledge the findings, of many the first."""
    entered = [finding.entry for finding in verdict.findings if finding.entry]
    return [text for entry in entered[:MOST_ENTRIES] for text in entry]


def improved(finding: Finding) -> bool:
    """Whether the whole interval lies on the better side of no change."""
    if finding.low is None or finding.high is None:
        return False
    return finding.high < 1 if finding.better == "lower" else finding.low > 1


def table(findings: list[Finding]) -> Iterable[str]:
    yield "| case | metric | base | head | change | 95 % interval | tolerance | detectable | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for finding in findings[:MOST_ROWS]:
        sides = (finding.base, finding.head)
        cells = (
            finding.case,
            finding.metric,
            *(
                [amount(each, finding.unit) for each in sides]
                if any(each is not None for each in sides)
                else ["", ""]
            ),
            "" if finding.ratio is None else percent(finding.ratio),
            interval(finding).strip(),
            "" if finding.tolerance is None else f"{finding.tolerance:.1%}",
            "" if finding.detectable is None else f"{finding.detectable:.1%}",
            word(finding) + (f": {'; '.join(finding.evidence)}" if finding.evidence else ""),
        )
        yield "| " + " | ".join(map(escape.markdown, cells)) + " |"
    if len(findings) > MOST_ROWS:
        yield f"| {len(findings) - MOST_ROWS} more in the JSON | | | | | | | | |"


def workflow_commands(verdict: Verdict) -> Iterable[str]:
    """Yields GitHub's workflow commands: one for each finding that did not pass."""
    for finding in verdict.findings:
        if finding.verdict != "pass":
            place = (
                f" file={escape.annotation(finding.place.file, ':,')},line={finding.place.line}"
                if finding.place
                else ""
            )
            title = ("," if place else " ") + f"title=hotlap {verdict.tool}"
            level = "error" if finding.verdict == "regression" else "warning"
            yield f"::{level}{place}{title}::{escape.annotation(line(finding))}"
