"""The script that times how long a user waits: which lines it waits for, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import first_answer

LINES = {
    "first line": "goal: min latency; AMD EPYC, 2 of 2 cores",
    "first provisional answer": "mine:make onnxruntime (library defaults)  8.24 us   13.79x  121k rows/s  ok",
    "confirmed": "onnxruntime fp32: 0.971 times as fast as onnxruntime by default [0.929, 1.02]",
    "loaded": "loaded (1, 10)",
}


@pytest.mark.parametrize("moment", LINES)
def test_a_moment_is_known_by_its_line_alone(moment: str) -> None:
    matching = [name for name, pattern in first_answer.MOMENTS.items() if pattern.match(LINES[moment])]
    assert matching == list(dict.fromkeys(["first line", moment]))


def test_moments_are_timed_as_lines_come(monkeypatch: pytest.MonkeyPatch) -> None:
    program = f"import time; print({LINES['first line']!r}); time.sleep(0.3); print({LINES['loaded']!r})"
    run = first_answer.waited(["-c", program])
    seconds = run["seconds"]
    assert set(seconds) == {"first line", "loaded", "end"} and run["exit"] == 0
    assert 0.3 <= seconds["loaded"] - seconds["first line"] < 5 and seconds["end"] >= seconds["loaded"]


def test_the_program_has_at_most_six_lines_and_compiles() -> None:
    program = first_answer.PROGRAM.format(budget="4m")
    assert len(program.splitlines()) <= 6
    compile(program, str(Path("program.py")), "exec")


def test_a_moment_that_did_not_come_is_empty() -> None:
    run = {"load": 0.0, "exit": 0, "seconds": {"first line": 0.4, "end": 250.0}}
    content = {
        "machine": "CPU",
        "libraries": {"torch": "2.14"},
        "budget": "4m",
        "lines": 6,
        "runs": {"command": run, "program": run},
    }
    lines = list(first_answer.table(content))
    assert "| first line | 0.4 s | 0.4 s | 2 s |" in lines and "| loaded |  |  | 360 s |" in lines
