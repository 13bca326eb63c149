"""Names that a terminal, a CI system or a page would obey, in each place that they go to."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hotlap.perf.terms import escape

# Any text, and more often such of what is dangerous.
NASTY = st.lists(
    st.one_of(
        st.text(max_size=4),
        st.sampled_from(
            [
                "\x1b]52;c;eA==\x07", "\x9b31m", "\x1b[2J", "\r", "\n", "\u202e", "\u2066", "\u2028",
                "\x85", "\x00", "\ud800", "::error::", " ::stop-commands::t", "\xa0::error::", "##vso[",
                "##[error]", "##teamcity[", "###[", "|", "`", "[a](http://b)", "![", "<script>", "&lt;",
                "*", "**", "_", "~~", "$x$", "@you", "#1", "# ", "\\", "https://evil.example",
                "WWW.evil.example", "a@b.example",
            ]
        ),
    ),
    max_size=6,
).map("".join)  # fmt: skip


def obeyed(line: str) -> bool:
    """Whether GitHub's runner, Azure's agent or TeamCity would take a line for a command.

    ActionCommand.TryParseV2 trims all white space from the left, TryParse looks for ##[ anywhere.
    """
    return line.lstrip().startswith("::") or re.search(r"##\w*\[", line) is not None


@pytest.mark.parametrize(
    "text",
    ["::error::x", "  ::error::x", "\xa0::error::x", "\n::error::x", "a ##vso[task.complete]", "##[error]x",
     "x ##teamcity[a]", "###[x]", "####vso[x]"],
)  # fmt: skip
def test_a_command_of_a_ci_system_is_seen_and_taken_apart(text: str) -> None:
    assert any(obeyed(line) for line in text.splitlines())
    assert not obeyed(escape.log(text))


@given(NASTY)
def test_a_line_is_one_line_that_nobody_obeys(text: str) -> None:
    line = escape.log(text)
    assert line.isprintable() and not obeyed(line)
    assert escape.log(line) == line


def test_ordinary_names_stay_as_they_are() -> None:
    for text in ("bench/t.py::Class::test[a-b]", "compile[package:aoti] ±3 % µs ÷ 中文 é", "C# and # 1"):
        assert escape.log(text) == text


@given(NASTY)
def test_json_keeps_its_value_and_shows_nothing_that_is_obeyed(text: str) -> None:
    document = json.dumps({"name": text, "list": [text]}, ensure_ascii=False, indent=1)
    shown = escape.json(document)
    assert json.loads(shown) == json.loads(document)
    assert all(line.isprintable() and not obeyed(line) for line in shown.split("\n"))


RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


@given(NASTY)
def test_markdown_shows_the_name_and_nothing_else(text: str) -> None:
    rendered = RENDERER.render(f"| a | b |\n|---|---|\n| {escape.markdown(text)} | y |\n")
    assert re.sub(r"<(/?(table|thead|tbody|tr|th|td))>", "", rendered).count("<") == 0
    assert rendered.count("<td>") == 2
    words = ElementTree.fromstring(rendered).findall(".//td")[0].text or ""
    assert words.replace("\u200b", "") == " ".join(escape.plain(text).split())


@pytest.mark.parametrize("text", ["@you", "a/b#1", "https://evil.example", "www.evil.example", "a@b.example"])
def test_nobody_is_mentioned_and_no_address_becomes_a_link(text: str) -> None:
    """GitHub looks for these in the text that is left when the Markdown has been read."""
    shown = RENDERER.render(escape.markdown(text))
    assert "\u200b" in shown
    assert not re.search(r"@\w|#\d|://|www\.", shown)


def test_markdown_of_ordinary_names_can_be_read_in_its_source() -> None:
    for text in ("my_package.models:make", "518 us ±2.0%", "bench/t.py::t", "avx512_bf16", "1.92x (noisy)"):
        assert escape.markdown(text) == text


@given(NASTY)
def test_xml_can_be_read(text: str) -> None:
    element = ElementTree.fromstring(f'<a b="{escape.xml(text)}">{escape.xml(text)}</a>')
    assert (element.text or "") == (element.get("b") or "") == escape.plain(text)


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "", ".", "//evil.example/x"])
def test_a_path_out_of_the_repository_is_no_place(path: str) -> None:
    assert escape.uri(path) is None


def test_a_path_becomes_a_reference() -> None:
    assert escape.uri("bench/a b.py") == "bench/a%20b.py"
    assert escape.uri("https://evil.example/#?%") == "https%3A/evil.example/%23%3F%25"
    assert escape.uri("javascript:x") == "javascript%3Ax"


def test_a_message_of_sarif_holds_no_link() -> None:
    assert "](" not in escape.sarif("[click](http://evil.example)")


@given(NASTY)
def test_an_annotation_ends_where_it_should(text: str) -> None:
    shown = escape.annotation(text, ":,")
    assert shown.isprintable() and not set(shown) & set(":,")
