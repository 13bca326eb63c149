"""A results file, a verdict and a trace whose names would take over a terminal or a CI job, through
every command that shows them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from markdown_it import MarkdownIt

from hotlap.perf import cli
from hotlap.perf.commands import pytest_plugin
from hotlap.perf.compiled import census, table
from hotlap.perf.compiled.entries import Failed
from hotlap.perf.reports import formats, output
from hotlap.perf.terms import result
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.environment import Environment
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Deviation, Result, Results, Samples, Task
from hotlap.perf.terms.verdict import Finding, Place, Verdict

Captured = pytest.CaptureFixture[str]
EVIL = (
    "a|b`c`\x1b]52;c;eA==\x07\x9b31m\r\u202e\n::error::planted ##vso[task.complete] ##[error]"
    " <script>[x](http://evil.example) @you #1 www.evil.example"
)
# What names and files of results may be called all the same.
WORKLOAD = "::error::planted"
HERE = Environment(
    EVIL, 2, 2**30, (), EVIL, "3.11.7", {"torch": EVIL}, (), "", 2, "keep", "madvise", EVIL, "host"
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOTLAP_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def results() -> str:
    """A results file in the working directory."""
    blocks = ((0.01, 0.011), (0.012, 0.01), (0.01, 0.0101))
    metrics = {
        "latency": Samples("s", "lower", blocks),
        "throughput": Samples("1/s", "higher", blocks, details={"item": EVIL}),
    }
    wrong = Deviation({}, Task(EVIL, "higher", 0.5, 0.5, 0.0))
    timed = [
        Result(
            Case(WORKLOAD, backend),
            "r",
            Plan(),
            "ok",
            environment=HERE.key,
            metrics=metrics,
            deviation=wrong,
            warnings=(EVIL,),
        )
        for backend in ("eager", "null")
    ]
    failed = Result(
        Case(WORKLOAD, "compile"), "r", Plan(), "failed", Reason("crashed", EVIL), environment=HERE.key
    )
    stored = Results("r", EVIL, {HERE.key: HERE}, results=(*timed, failed), started="2026-01-01T10:00:00Z")
    Path("results.json").write_bytes(result.encode(stored))
    return "results.json"


def harmless(text: str) -> bool:
    """Whether every line is one that neither a terminal nor a CI system obeys."""
    return all(
        line.isprintable() and not line.lstrip().startswith("::") and not re.search(r"##\w*\[", line)
        for line in text.split("\n")
    )


def only_text(markdown: str) -> bool:
    """Whether Markdown holds nothing of what the names would have made of it."""
    rendered = MarkdownIt("commonmark").enable("table").render(markdown.replace("<details><summary>", ""))
    return not re.search(r"<script|<a |<code|<em|@you|#1|://evil|www\.evil", rendered)


def test_the_planted_name_is_seen() -> None:
    assert not harmless(EVIL) and not only_text(EVIL) and not only_text("| a |\n|---|\n| @you |\n")


@pytest.mark.parametrize(
    "arguments",
    [("report",), ("report", "--svg", "-"), ("noise", "--listen", "0"), ("history", "--json", "-"),
     ("history", "--html", "-"), ("gate", "again.json"), ("gate", "again.json", "--json", "-"),
     ("gate", "again.json", "--junit", "-"), ("gate", "again.json", "--sarif", "-")],
    ids=" ".join,
)  # fmt: skip
def test_what_is_shown_is_harmless(arguments: tuple[str, ...], results: str, capsys: Captured) -> None:
    Path("again.json").write_bytes(Path(results).read_bytes() + b"\n")
    assert cli.status([arguments[0], results, *arguments[1:]]) in (0, 3, 4)
    out, err = capsys.readouterr()
    assert "planted" in out, err
    assert harmless(out) and harmless(err)


@pytest.mark.parametrize("kind", ["--markdown", "--matrix", "--brief"])
def test_markdown_of_results_holds_text_alone(kind: str, results: str, capsys: Captured) -> None:
    assert cli.status(["report", results, kind, "-"]) == 0
    assert cli.status(["report", results, kind, "table.md"]) == 0
    for text in (capsys.readouterr().out, Path("table.md").read_text()):
        assert "planted" in text and harmless(text) and only_text(text)
        rows = [re.sub(r"\\\|", "", line).count("|") for line in text.splitlines() if line.startswith("|")]
        assert len(set(rows)) == 1, "a cell never makes another"


def test_a_picture_with_control_characters_can_be_read(results: str) -> None:
    assert cli.status(["report", results, "--svg", "picture.svg"]) == 0
    assert all(line.isprintable() for line in Path("picture.svg").read_text().splitlines())
    ElementTree.parse("picture.svg")


def test_errors_are_one_harmless_line(capsys: Captured) -> None:
    for name in ("x\n::error::planted", "x\x1b]52;c;eA==\x07", "x\x9b31m\u202e"):
        for arguments in (
            ["gate", name, name],
            ["report", name],
            ["review", name],
            ["ab", name, name, "a:b"],
        ):
            assert cli.status(arguments) in (2, 4)
            error = capsys.readouterr().err
            assert error.count("\n") == 1 and harmless(error)


FINDING = Finding(EVIL, EVIL, "regression", 1, 2, 2.0, evidence=(EVIL,), place=Place(EVIL))
ACKNOWLEDGED = msgspec.structs.replace(FINDING, verdict="pass", acknowledged=EVIL)
VERDICT = Verdict("gate", "regression", (EVIL,), (FINDING,))


def test_a_verdict_is_harmless_in_every_format() -> None:
    markdown = formats.markdown(VERDICT)
    assert harmless(markdown) and only_text(markdown)
    (root,) = ElementTree.fromstring(formats.junit(VERDICT)).findall("testsuite/testcase")
    assert all(value.isprintable() for value in root.attrib.values())
    assert all(text.isprintable() for text in (root.findtext("failure") or "").split("\n"))
    log = json.loads(formats.sarif(VERDICT))["runs"][0]
    message = log["results"][0]["message"]["text"]
    assert message.isprintable() and "](" not in message
    (command,) = formats.workflow_commands(VERDICT)
    assert command.isprintable() and command.startswith("::error ") and "##" not in command.replace("# #", "")


def test_a_reason_is_text_in_every_format(capsys: Captured) -> None:
    accepted = Verdict("history", "pass", (), (ACKNOWLEDGED,))
    markdown = formats.markdown(accepted)
    assert "planted" in markdown and harmless(markdown) and only_text(markdown)
    (said,) = ElementTree.fromstring(formats.junit(accepted)).findall("testsuite/testcase/system-out")
    assert "planted" in (said.text or "") and (said.text or "").isprintable()
    output.show(accepted)
    shown = capsys.readouterr().out
    assert "planted" in shown and harmless(shown)


def test_an_entry_that_anybody_wrote_is_lines_of_code(capsys: Captured) -> None:
    """In Markdown every line of it is indented, so that nothing in it is read."""
    open_alarm = msgspec.structs.replace(FINDING, entry=(EVIL, "</details>"))
    written = Verdict("history", "regression", (), (open_alarm,))
    markdown = formats.markdown(written)
    block = markdown.partition("</summary>\n\n")[2].partition("\n\n</details>")[0]
    assert harmless(markdown) and block.count("\n") == 1
    assert all(text.startswith("    ") for text in block.split("\n"))
    rendered = MarkdownIt("commonmark").render(markdown)
    assert "<script" not in rendered and "&lt;/details&gt;" in rendered
    output.show(written)
    assert harmless(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("file", "uri"),
    [("bench/a b#.py", "bench/a%20b%23.py"), ("/etc/passwd", None), ("../x.py", None),
     ("http://evil.example/x", "http%3A/evil.example/x")],
)  # fmt: skip
def test_a_place_of_sarif_is_a_reference_inside_the_repository(file: str, uri: str | None) -> None:
    finding = msgspec.structs.replace(FINDING, place=Place(file, 3))
    (shown,) = json.loads(formats.sarif(Verdict("gate", "regression", (), (finding,))))["runs"][0]["results"]
    (location,) = shown["locations"]
    place = location.get("physicalLocation")
    assert (place and place["artifactLocation"]["uri"]) == uri


def test_githubs_log_gets_our_commands_and_none_of_a_name(results: str, capsys: Captured) -> None:
    for name, mean in (("base", 0.01), ("head", 0.02)):
        stats = {
            "mean": mean,
            "median": mean,
            "stddev": mean / 100,
            "rounds": 64,
            "data": [mean, mean * 1.01] * 32,
        }
        benchmark = {"name": EVIL, "fullname": f"{EVIL}::t", "stats": stats}
        Path(f"{name}.json").write_text(
            json.dumps({"machine_info": {"node": "one"}, "benchmarks": [benchmark]})
        )
    assert cli.status(["gate", "base.json", "head.json", "--github"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.lstrip().startswith("::")] == lines[:1]
    assert lines[0].startswith("::error file=") and harmless("\n".join(lines[1:])) and lines[0].isprintable()


def test_pytests_summary_is_harmless() -> None:
    class Terminal:
        def __init__(self) -> None:
            self.lines: list[str] = []

        def section(self, title: str) -> None:
            """Takes a heading."""

        def write_line(self, text: str) -> None:
            self.lines.append(text)

    class Config:
        stash = pytest.Stash()

        def getoption(self, name: str, default: object = None) -> object:
            return default

    nothing: Any = None
    races = pytest_plugin.Races(nothing)
    failed = Result(Case(WORKLOAD, "compile"), "r", Plan(), "failed", Reason("crashed", EVIL))
    races.done[failed.case.id] = failed
    config: Any = Config()
    config.stash[pytest_plugin._RACES] = races
    terminal: Any = Terminal()
    pytest_plugin.pytest_terminal_summary(terminal, config)
    assert "planted" in terminal.lines[0] and harmless("\n".join(terminal.lines))


def test_tables_of_kernels_hold_text_alone() -> None:
    failed = Failed(EVIL, EVIL, "sm_90", EVIL)
    counted = census.Census(EVIL, "sm_90", {EVIL: 1}, [census.Kernel(EVIL, 1, EVIL, 1, 0, 0, 0.5, 9)])
    for text in (table.markdown([failed], EVIL), census.markdown(counted)):
        assert harmless(text) and only_text(text)
    page = table.page([failed], EVIL, VERDICT)
    assert harmless(page.replace("##vso", "").replace("##[", "")) and "<script>" not in page
