"""The last lines of a run: what came out, in a sentence that no figure contradicts, and what to
type next.
"""

from __future__ import annotations

import ast
import shlex
from pathlib import Path
from typing import Any

import pytest

from hotlap.perf.lookup.cases import LIBRARY_DEFAULTS
from hotlap.perf.reports import outcome
from hotlap.perf.terms.case import Case, Plan
from hotlap.perf.terms.reasons import Reason, Unreadable
from hotlap.perf.terms.result import Deviation, Distance, Result, Samples, Task

RIGHT = Deviation({"real": Distance(0.3, 0.5, 1.0, 2.0, 0.0, 1.0, 0, 10)})


def timed(backend: str, seconds: list[float], **more: Any) -> Result:
    """A block a length; of one alone two samples, which give no interval."""
    values = tuple((length, length) for length in seconds)
    fields = {"workload": "net", "precision": "fp32", "batch": 1, "target": "cpu", "options": ()}
    fields |= {name: more.pop(name) for name in [*more] if name in fields}
    case = Case(backend=backend, **fields)  # type: ignore[arg-type]
    settings = {"status": "ok", "deviation": RIGHT, "metrics": {"latency": Samples("s", "lower", values)}}
    return Result(case, f"run/{case.group}", Plan(), **{**settings, **more})


def failed(backend: str, code: Any = "oom", **more: Any) -> Result:
    return timed(
        backend,
        [],
        metrics={},
        deviation=None,
        **{"status": "failed", "reason": Reason(code, "because"), **more},
    )


EAGER = timed("eager", [1.0] * 3)
WIDE = {"status": "noisy", "reason": Reason("wide_interval", "known to 14% only")}


@pytest.mark.parametrize(
    ("others", "text"),
    [
        (
            [timed("onnxruntime", [0.15625] * 3), timed("compile", [0.5] * 3)],
            "onnxruntime is 6.4 times as fast as eager (±0.0%), outputs within tolerance (0.30 of what is"
            " allowed)",
        ),
        (
            [timed("onnxruntime", [0.4, 0.5, 0.6], **WIDE)],
            "onnxruntime is 2.0 times as fast as eager (±65.6%), outputs within tolerance (0.30 of what is"
            " allowed)",
        ),
        (
            [timed("onnxruntime", [0.25, 1.0, 2.0], **WIDE), timed("compile", [0.8] * 3)],
            "compile is 1.2 times as fast as eager (±0.0%), outputs within tolerance (0.30 of what is"
            " allowed)",
        ),
        (
            [timed("compile", [1.1] * 3), timed("openvino", [2.0] * 3)],
            "nothing is known to be faster than eager; compile is 0.91 times as fast (±0.0%)",
        ),
        (
            [timed("eager", [0.5] * 3, options=LIBRARY_DEFAULTS), timed("compile", [2.0] * 3)],
            "nothing is known to be faster than eager; compile is 0.50 times as fast (±0.0%)",
        ),
        (
            [timed("compile", [0.5])],
            "too few blocks to tell what is faster (compile is 2.0 times as fast so far); raise --budget",
        ),
        (
            [timed("compile", [0.5] * 3, status="failed", reason=Reason("crashed", "SIGSEGV"))],
            "nothing to compare: eager takes 1.00 s a call; compile failed: crashed: SIGSEGV",
        ),
        (
            [failed("compile"), failed("openvino", "export_failed")],
            "nothing to compare: eager takes 1.00 s a call; compile failed: oom, openvino failed:"
            " export_failed",
        ),
        (
            [failed("compile")],
            "nothing to compare: eager takes 1.00 s a call; compile failed: oom: because",
        ),
    ],
)
def test_the_sentence_is_what_the_intervals_bear(others: list[Result], text: str) -> None:
    """A centre whose interval reaches 1 is not faster, whatever it is; samples of a case that
    failed are none of a winner's.
    """
    pace = timed("pace", [0.001] * 3, deviation=None)
    assert outcome.sentences([*others, EAGER, pace]) == [f"net: {text}"]


def test_int8_is_judged_by_what_the_model_is_for() -> None:
    task = Task("accuracy", "higher", 0.98, 0.99, 0.02)
    int8 = timed("onnxruntime", [0.5] * 3, precision="int8", deviation=Deviation(RIGHT.distances, task))
    assert outcome.sentence([EAGER, int8]) == (
        "onnxruntime int8 is 2.0 times as fast as eager (±0.0%), accuracy 0.9800 where fp32 has 0.9900"
    )


def test_each_question_has_its_sentence_with_what_tells_it_apart() -> None:
    second = [
        timed("eager", [1.0] * 3, batch=8, target="cuda:0"),
        failed("compile", batch=8, target="cuda:0"),
    ]
    assert [
        text.partition(":  ")[0].partition(" nothing")[0] for text in outcome.sentences([EAGER, *second])
    ] == [
        "net:",
        "net b8 cuda:0:",
    ]


def test_where_nothing_has_a_time_the_reason_is_the_sentence() -> None:
    both = [failed("eager"), failed("compile")]
    assert outcome.sentences(both) == ["net: nothing was measured: all failed: oom: because"]
    assert outcome.sentence([failed("eager"), failed("compile", "timeout")]) == (
        "nothing was measured: eager failed: oom, compile failed: timeout"
    )
    many = [
        failed(name, code)
        for name, code in zip("abcde", ["oom", "timeout", "oom", "oom", "oom"], strict=True)
    ]
    assert outcome.sentence(many).endswith("c failed: oom and 2 more")
    proven = failed("tensorrt", "no_device", status="verified", verified_to="L5", target="sm_80")
    assert outcome.sentences([proven, failed("eager", target="sm_80")]) == [
        "net: proven without the device, so without a time: tensorrt for sm_80 to L5;"
        " eager failed: oom: because"
    ]


class Tensor:
    dtype, shape = "float32", (1, 64)


class Built:
    inputs = (Tensor(),)


def lines(results: list[Result], monkeypatch: pytest.MonkeyPatch, refused: str = "nothing") -> list[str]:
    """What follows the sentences where every artefact can be opened but those of one backend."""

    def checked(folder: Path) -> Built:
        if refused in folder.name:
            raise Unreadable("needs the module's source")
        return Built()

    monkeypatch.setattr(outcome.opening, "checked", checked)
    monkeypatch.setattr(outcome.opening, "here", lambda manifest: None)
    return [*outcome.follow_up(results, Path("my runs/1"), {"net": "last.ckpt"})]


FASTER = [
    EAGER,
    timed("onnxruntime", [0.5] * 3, artefact="work/onnxruntime-fp32"),
    timed("compile", [0.2] * 3, artefact="work/compile-fp32"),
]


def test_the_snippet_is_python_and_loads_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    head, *code, following = lines(FASTER, monkeypatch)
    assert head == "load net as compile:"
    assert [line.strip() for line in code] == [
        "import hotlap",
        'model = hotlap.open_artefact("my runs/1/work/compile-fp32")',
        "outputs = model(*arrays)  # numpy: float32[1, 64]",
    ]
    ast.parse("\n".join(line.strip() for line in code))
    assert following == "next: hotlap bench-artefact 'my runs/1/work/compile-fp32'"


def test_what_cannot_be_opened_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(FASTER, monkeypatch, refused="compile")[0] == "load net as onnxruntime:"
    profile = "next: hotlap profile net --batch 1 --device cpu --checkpoint last.ckpt"
    assert lines(FASTER, monkeypatch, refused="fp32") == [profile]
    slower = timed("onnxruntime", [2.0] * 3, artefact="work/onnxruntime-fp32")
    assert lines([EAGER, slower], monkeypatch) == [profile]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (EAGER, ["hotlap", "profile", "net", "--batch", "1", "--device", "cpu", "--checkpoint", "last.ckpt"]),
        (failed("eager"), ["hotlap", "doctor"]),
        (
            failed("tensorrt", "no_device", status="verified", target="sm_80"),
            ["hotlap", "report", "my runs/1/results.json", "--matrix", "-"],
        ),
    ],
)
def test_the_next_command_is_one_that_hotlap_has(
    result: Result, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import typer

    from hotlap.perf.commands.application import app

    (text,) = lines([result], monkeypatch)
    assert shlex.split(text.removeprefix("next: ")) == words
    command: Any = typer.main.get_command(app())
    options = {option for each in command.commands[words[1]].params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= options
