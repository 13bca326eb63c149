"""JUnit as Jenkins has it: junit-10.xsd of its xunit plugin (jenkinsci/xunit-plugin, MIT licence,
src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd).

Its rules for what we write stand below as tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from hotlap.perf.reports import formats
from hotlap.perf.terms.verdict import Finding, Place, Verdict

COUNTS = {"tests", "failures", "errors"}
# Element -> the attributes that it must have.
REQUIRED = {"testsuites": set(), "testsuite": {"name", *COUNTS}, "testcase": {"name"}}
# Element -> the attributes that it may have.
ATTRIBUTES = {
    "testsuites": {"name", "time", *COUNTS},
    "testsuite": {
        "name", "group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url",
        *COUNTS,
    },
    "testcase": {"name", "time", "classname", "group"},
    "failure": {"type", "message"},
    "error": {"type", "message"},
    "skipped": {"type", "message"},
    "system-out": set(),
    "system-err": set(),
}  # fmt: skip
# Element -> the elements that may stand in it; no others have any.
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"testsuite", "properties", "testcase", "system-out", "system-err"},
    "testcase": {"skipped", "error", "failure", "system-out", "system-err"},
}

SLOWER = Finding("net/eager", "latency", "regression", 1, 2, 2.0, unit="s", place=Place("bench/x.py", 7))
UNKNOWN = Finding("net/eager", "memory", "inconclusive", evidence=("too few blocks",))
FINE = Finding("net/eager", "operators", "pass", 30, 30, kind="counter")
ACCEPTED = Finding("net/eager", "latency", "pass", 1, 2, 2.0, unit="s", acknowledged="meant")
# Findings and the verdict -> test cases, failures, errors.
VERDICTS = {
    "all kinds": (Verdict("gate", "regression", (), (SLOWER, UNKNOWN, FINE, ACCEPTED)), (4, 1, 1)),
    "nothing, pass": (Verdict("gate", "pass"), (1, 0, 0)),
    "nothing, could not tell": (Verdict("history", "inconclusive", ("too short",)), (1, 0, 1)),
    "pass, not comparable": (Verdict("gate", "not_comparable", ("another machine",), (FINE,)), (2, 0, 1)),
}


def strangers(root: ElementTree.Element) -> Iterator[str]:
    """Yields what Jenkins' schema has no place for."""
    known = ATTRIBUTES.get(root.tag, set())
    yield from (f"{root.tag}: attribute {name}" for name in root.attrib.keys() - known)
    yield from (f"{root.tag}: no {name}" for name in REQUIRED.get(root.tag, set()) - root.attrib.keys())
    for child in root:
        if child.tag not in CHILDREN.get(root.tag, set()):
            yield f"{root.tag}: element {child.tag}"
        yield from strangers(child)


@pytest.mark.parametrize("kind", VERDICTS)
def test_junit_has_nothing_that_jenkins_does_not_know(kind: str) -> None:
    verdict, counts = VERDICTS[kind]
    root = ElementTree.fromstring(formats.junit(verdict))
    assert root.tag == "testsuites" and list(strangers(root)) == []
    for element in (root, *root):
        assert tuple(int(element.get(name, "")) for name in ("tests", "failures", "errors")) == counts
    tags = ("testcase", "failure", "error")
    assert tuple(len(root.findall(f".//{tag}")) for tag in tags) == counts


@pytest.mark.parametrize(
    ("before", "planted", "words"),
    [
        ("<testcase ", '<testcase line="7" ', "testcase: attribute line"),
        ("<testcase ", '<testcase file="bench/x.py" ', "testcase: attribute file"),
        ("</failure>", "</failure><properties />", "testcase: element properties"),
        (' failures="1"', "", "testsuite: no failures"),
    ],
)
def test_what_jenkins_does_not_know_is_seen(before: str, planted: str, words: str) -> None:
    text = formats.junit(VERDICTS["all kinds"][0]).decode()
    assert words in list(strangers(ElementTree.fromstring(text.replace(before, planted))))


def test_where_to_look_is_the_last_line_of_a_failure() -> None:
    root = ElementTree.fromstring(formats.junit(VERDICTS["all kinds"][0]))
    assert (root.findtext(".//failure") or "").splitlines()[-1] == "bench/x.py:7"
    assert "acknowledged: meant" in (root.findtext(".//system-out") or "")
