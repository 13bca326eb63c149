"""What reaches a terminal of names that would take it over."""

from __future__ import annotations

import io
import os
import sys
import threading

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hotlap.perf.reports.console import console
from hotlap.perf.terms import printer

# The clipboard, colours, the title, an overwritten line, text from right to left, a command of CI.
EVIL = "net\x1b]52;c;eA==\x07\x9b31m\x1b[2J\rok\u202e\n::error::planted ##vso[task.complete result=Failed]"
Captured = pytest.CaptureFixture[str]


def harmless(text: str) -> bool:
    """Whether text holds only lines that neither a terminal nor a CI system obeys."""
    lines = text.split("\n")
    return all(
        line.isprintable() and not line.lstrip().startswith("::") and "##vso[" not in line for line in lines
    )


def test_the_planted_name_is_not_harmless() -> None:
    assert not harmless(EVIL) and not harmless("::error::x") and not harmless("\x1b")


def test_lines_are_harmless(capsys: Captured) -> None:
    printer.line(EVIL)
    printer.note(EVIL)
    out, err = capsys.readouterr()
    assert out == err and out.count("\n") == 1 and harmless(out)


def test_a_counter_is_for_a_person_only(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    printer.counter(EVIL)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    printer.counter(EVIL)
    shown = capsys.readouterr().err
    assert shown.startswith("\r\x1b[K") and harmless(shown.removeprefix("\r\x1b[K"))


@pytest.mark.parametrize("content", ['{"name": "\x85\u202e ##vso[x]"}\n', f"<p>{EVIL}</p>\n"])
def test_documents_are_harmless(content: str, capsys: Captured) -> None:
    printer.document(content.encode())
    assert harmless(capsys.readouterr().out)


@pytest.mark.parametrize("width", [30, 37, 44, 200])
def test_tables_and_text_are_harmless_however_their_lines_are_broken(width: int) -> None:
    file = io.StringIO()
    output = console(file=file, width=width)
    table = Table("name", "what", title=EVIL, caption=EVIL, box=None)
    for fill in range(40):
        table.add_row(f"{'x' * fill}::error::planted", EVIL)
        table.add_row("", f"{'x' * fill}::error::planted")
    output.print(table)
    output.print(EVIL)
    output.print(Text(EVIL))
    output.print("x" * 30 + " ::error::planted")
    assert harmless(file.getvalue())


def test_a_name_makes_no_line_of_its_own() -> None:
    file = io.StringIO()
    output = console(file=file, width=200)
    table = Table("name", box=None)
    table.add_row(EVIL)
    output.print(table)
    output.print(EVIL)
    assert file.getvalue().count("\n") == 3


def test_a_name_is_no_markup(capsys: Captured) -> None:
    output = console()
    output.print("compile[mode:max-autotune] [/dim] [link=http://evil.example]x[/link] :smile:")
    table = Table("[red]head[/red]", box=None)
    table.add_row("[bold]cell[/bold]")
    output.print(table)
    shown = capsys.readouterr().out
    for words in (
        "[mode:max-autotune] [/dim] [link=http://evil.example]x[/link] :smile:",
        "[red]head",
        "[bold]cell",
    ):
        assert words in shown


def test_a_terminal_has_its_colours_and_its_live_table() -> None:
    file = io.StringIO()
    output = console(file=file, force_terminal=True, width=60)
    output.print("dim words", style="dim")
    with Live(console=output, auto_refresh=False, transient=True) as live:
        live.update(Table("head", box=None), refresh=True)
    shown = file.getvalue()
    assert "\x1b[2mdim words\x1b[0m" in shown and "\x1b[?25l" in shown


def test_what_is_no_terminal_is_wide_enough_for_a_table() -> None:
    assert console(file=io.StringIO()).width == 200


def test_a_stream_keeps_its_first_failure_and_raises_none() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = printer.Standing(writer)
    assert [stream.write(b"three") for _ in range(2)] == [5, 5]
    assert isinstance(stream.failure, BrokenPipeError)
    os.close(writer)


def test_a_stream_waits_for_a_pipe_that_would_not() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stream = io.BufferedWriter(printer.Standing(writer))
    received: list[bytes] = []
    slow = threading.Thread(target=lambda: received.extend(iter(lambda: os.read(reader, 9999), b"")))
    stream.write(b"x" * 60_000)
    threading.Timer(0.2, slow.start).start()
    stream.write(b"x" * 60_000)
    stream.flush()
    os.close(writer)
    slow.join(10)
    assert sum(map(len, received)) == 120_000
    os.close(reader)


def test_a_stream_writes_what_its_encoding_lacks_by_its_code(tmp_path: os.PathLike[str]) -> None:
    with open(os.path.join(tmp_path, "out"), "w", encoding="ascii") as opened:
        stream = printer.standing(opened.fileno(), opened)
        stream.write("±3 % \udcff\n")
        stream.flush()
    with open(os.path.join(tmp_path, "out")) as written:
        assert written.read() == "\\xb13 % \\udcff\n"
