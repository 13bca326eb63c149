"""What a person sees while a race runs, on a terminal and in a log."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from hotlap.perf.commands.progress import Watched
from hotlap.perf.lookup import plugins
from hotlap.perf.race.entrant import Entrant
from hotlap.perf.race.observations import Block, Observations
from hotlap.perf.race.timing import Turn
from hotlap.perf.reports.console import console
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Reason
from hotlap.perf.terms.result import Result, Samples
from hotlap.perf.terms.work import Subject, Work

HERE = Path()
NOTHING: Any = None


def entrant(backend: str, call_s: float, refusal: Reason | None = None) -> Entrant:
    case = Case("mlp", backend, options=(("layout", "channels-last"),) if backend == "compile" else ())
    turns = [Turn(call_s, call_s, 1, call_s, 0, 0, 0)] * 3
    block = Block(True, 1.0, 1.0, 1.0, 1, 1, 1, turns=turns, numbers=[1, 2, 3])
    return Entrant(
        case,
        plugins.backend(backend),
        [],
        {},
        HERE,
        HERE,
        HERE,
        Observations(case, {}, Subject(Work(0, 1, 1, 1, "row", True), ""), blocks=[block]),
        NOTHING,
        refusal=refusal,
    )


def watched(terminal: bool) -> tuple[Watched, io.StringIO]:
    text = io.StringIO()
    return Watched(console(file=text, force_terminal=terminal, width=120)), text


LANES = [
    entrant("eager", 0.002),
    entrant("compile", 0.001),
    entrant("null", 0.005, Reason("timeout", "too late")),
]


def test_a_terminal_shows_each_entrant_beside_the_first() -> None:
    progress, text = watched(terminal=True)
    progress.race("mlp/fp32", LANES, "block 2")
    progress.race("mlp/fp32", LANES, "building compile[package:aoti] fp32")
    progress.close()
    shown = text.getvalue()
    assert "building compile[package:aoti] fp32" in shown
    for words in (
        "mlp/fp32",
        "block 2",
        "compile[layout:channels-last] fp32",
        "2.00 ms",
        "0.50x the time",
        "timeout",
    ):
        assert words in shown


def test_a_log_gets_one_line_an_event_and_none_for_the_same_again() -> None:
    progress, text = watched(terminal=False)
    for event in ("building eager", "building eager", "", "block 1"):
        progress.race("mlp/fp32", LANES, event)
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert "mlp/fp32: block 1 (compile[layout:channels-last] fp32 0.50x the time)" in lines[1]


def test_the_pace_is_not_shown() -> None:
    for terminal in (True, False):
        progress, text = watched(terminal)
        progress.race("mlp/fp32", [*LANES, entrant("pace", 0.001)], "block 2")
        progress.close()
        assert "block 2" in text.getvalue() and "pace" not in text.getvalue()


def test_the_rows_of_a_first_look_stand_below_a_line_that_says_so() -> None:
    progress, text = watched(terminal=False)
    latency = {"latency": Samples("s", "lower", ((0.002,) * 3,) * 3)}
    progress.looked("mlp/fp32", [Result(Case("mlp", "eager"), "r", Plan(), "ok", metrics=latency)])
    empty, line, head, row = text.getvalue().rstrip().split("\n")
    assert empty == "" and line.startswith("A first look")
    assert head.startswith("case") and row.startswith("mlp eager  2.00 ms")
