"""The envelope and its formats: the worst wins, only what passed is green, names from files stay
text.
"""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from hotlap.perf.lookup import source_lines
from hotlap.perf.reports import formats
from hotlap.perf.terms import verdict
from hotlap.perf.terms.reasons import Misuse
from hotlap.perf.terms.verdict import Finding, Place, Verdict

NASTY = "a<script>|`x`\n::error::%0A\x00 & [b](c)"
REGRESSION = Finding(
    "net/eager",
    "latency",
    "regression",
    0.01,
    0.011,
    1.1,
    1.08,
    1.12,
    0.03,
    0.05,
    "s",
    evidence=("no structural cause",),
    place=Place("bench/x.py", 7),
)
UNKNOWN = Finding("net/compile", "latency", "inconclusive", 0.01, 0.0101, 1.01, 0.9, 1.1, 0.03, 0.2, "s")
COUNTER = Finding("net/compile", "graph_breaks", "regression", 0, 1, kind="counter")
FINE = Finding("net/eager", "memory", "pass", 3e8, 3e8, 1.0, 0.99, 1.01, 0.02, 0.03, "B")
FASTER = Finding(
    "net/openvino", "throughput", "pass", 100, 120, 1.2, 1.1, 1.3, 0.03, 0.05, "1/s", better="higher"
)
FULL = Verdict("gate", "regression", ("a reason",), (REGRESSION, UNKNOWN, COUNTER, FINE, FASTER))


def test_the_worst_wins_and_nothing_judged_is_inconclusive() -> None:
    assert verdict.worst(["pass", "inconclusive"]) == "inconclusive"
    assert verdict.worst(["inconclusive", "not_comparable"]) == "not_comparable"
    assert verdict.worst(["not_comparable", "regression", "pass"]) == "regression"
    assert verdict.worst([]) == "inconclusive"
    assert [Verdict("gate", outcome).exit_status for outcome in verdict.ORDER] == [0, 3, 4, 1]


def test_verdicts_of_other_tools_join(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    path.write_bytes(msgspec.json.encode(Verdict("kernels", "regression", ("spills",), (COUNTER,))))
    joined = verdict.join(Verdict("gate", "pass", (), (FINE,)), [verdict.read(path)])
    assert (joined.verdict, joined.reasons, joined.findings) == (
        "regression",
        ("kernels: spills",),
        (FINE, COUNTER),
    )


@pytest.mark.parametrize(
    "content",
    [
        "", "{}", "[]", '{"tool": "x", "verdict": "green"}', '{"tool": "x", "verdict": "pass", "schema": 9}',
        "\xff", "[" * 100_000,
        '{"tool": "x", "verdict": "pass", "findings": '
        '[{"case": "a", "metric": "b", "verdict": "regression"}]}',
        '{"tool": "x", "verdict": "regression", "findings": '
        '[{"case": "a", "metric": "b", "verdict": "regression", "acknowledged": "so what"}]}',
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_never_a_pass(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(Misuse) as caught:
        verdict.read(path)
    assert caught.value.exit_code == 4 and "\n" not in str(caught.value)


def test_what_could_not_be_told_may_pass_if_the_policy_let_it(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_bytes(msgspec.json.encode(Verdict("gate", "pass", ("as the policy says",), (UNKNOWN, FINE))))
    assert verdict.read(path).verdict == "pass"


def test_the_envelope_survives_a_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    path.write_bytes(msgspec.json.encode(FULL))
    assert verdict.read(path) == FULL
    assert json.loads(path.read_text())["findings"][0]["detectable"] == 0.05


def test_junit_has_one_failure_for_each_regression_and_errors_for_what_could_not_be_told() -> None:
    root = ElementTree.fromstring(formats.junit(FULL))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "2", "1")
    assert len(root.findall(".//failure")) == 2 and len(root.findall(".//error")) == 1
    first = root.find(".//testcase")
    assert first is not None and (first.findtext("failure") or "").splitlines()[-1] == "bench/x.py:7"


@pytest.mark.parametrize("outcome", ["inconclusive", "not_comparable"])
def test_junit_of_nothing_judged_is_red(outcome: verdict.Outcome) -> None:
    root = ElementTree.fromstring(formats.junit(Verdict("gate", outcome, ("nothing could be judged",))))
    assert root.get("errors") == "1" and len(root.findall(".//error")) == 1


def test_sarif_names_the_place() -> None:
    log = json.loads(formats.sarif(FULL))
    results = log["runs"][0]["results"]
    assert log["version"] == "2.1.0" and len(results) == 3
    assert [result["level"] for result in results] == ["error", "warning", "error"]
    place = results[0]["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("bench/x.py", 7)
    rules = log["runs"][0]["tool"]["driver"]["rules"]
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in results)


def test_markdown_leads_with_the_verdict_and_with_structure() -> None:
    text = formats.markdown(FULL)
    titles = [
        text.index(title)
        for title in (
            "hotlap gate: regression",
            "**Structure**",
            "**Slower or larger**",
            "**Could not tell**",
            "**Faster or smaller**",
            "1 within tolerance",
        )
    ]
    assert titles == sorted(titles)
    assert "+10.0%" in text and r"\[+8.0%, +12.0%\]" in text


def test_names_from_files_stay_text() -> None:
    nasty = Verdict(
        "gate", "regression", (NASTY,), (Finding(NASTY, NASTY, "regression", 1, 2, place=Place(NASTY)),)
    )
    text = formats.markdown(nasty)
    assert "<script>" not in text and "[b](c)" not in text and "`x`" not in text.replace(r"\`", "")
    rows = [line for line in text.splitlines() if "script" in line and line.startswith("|")]
    assert len(rows) == 1 and rows[0].replace(r"\|", "").count("|") == 10
    ElementTree.fromstring(formats.junit(nasty))
    json.loads(formats.sarif(nasty))
    (command,) = formats.workflow_commands(nasty)
    assert "\n" not in command and "\r" not in command, "GitHub reads a command at the start of a line only"
    properties = command.removeprefix("::error ").partition("::")[0]
    assert properties.count(",") == 2 and properties.endswith("title=hotlap gate")


def test_a_workload_is_found_in_its_file(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "models.py").write_text("import os\n\n\ndef make():\n    pass\n")
    assert source_lines.find("pkg.models:make", tmp_path) == Place("pkg/models.py", 4)
    assert source_lines.find("pkg.models:absent", tmp_path) == Place("pkg/models.py", 1)
    assert source_lines.find("pkg.other:make", tmp_path) is None
    (tmp_path / "models" / "nets").mkdir(parents=True)
    (tmp_path / "models" / "nets" / "resnet.py").write_text("\ndef load():\n    pass\n")
    assert source_lines.find("resnet:full", tmp_path) == Place("models/nets/resnet.py", 2)
    for name in (":make", "::make", "pkg..models:make", "hotlap:make"):
        assert source_lines.find(name, tmp_path) is None
