"""Names of a trace, on a terminal and in a page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hotlap.perf import cli
from hotlap.profiles.findings import review
from hotlap.profiles.pages import text

from .. import synthetic

EVIL = "\x1b]52;c;eA==\x07\x9b31m\r\u202e\n::error::planted ##vso[task.complete]"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Two steps whose operators, kernels, frames and file have such a name."""
    events = [
        synthetic.step(1, 0, 100),
        synthetic.step(2, 100, 90),
        synthetic.operator(EVIL, 0, 9),
        *synthetic.launched(EVIL, 1, 20, 30, 1),
        *synthetic.launched(f"nccl{EVIL}", 40, 60, 10, 2),
        synthetic.event("python_function", EVIL, 70, 20),
    ]
    return synthetic.written(tmp_path / "trace\x1b[31m\n::error::planted.json", events, name=EVIL)


@pytest.mark.parametrize("arguments", [(), ("--json", "-"), ("--html", "-")], ids=" ".join)
@pytest.mark.parametrize("compared", [False, True])
def test_names_are_obeyed_by_nobody(
    arguments: tuple[str, ...], compared: bool, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.status(["review", str(trace), *([str(trace)] if compared else []), *arguments]) in (0, 3)
    out, err = capsys.readouterr()
    assert "planted" in out
    for line in (out + err).split("\n"):
        assert line.isprintable() and not line.lstrip().startswith("::") and not re.search(r"##\w*\[", line)


def test_a_page_in_a_file_has_no_control_character(trace: Path, tmp_path: Path) -> None:
    assert cli.status(["review", str(trace), "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "planted" in page and not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page
    )


def test_names_that_are_alike_are_cut_where_they_are() -> None:
    same = "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl<" + "x" * 60
    names = [f"{same}Add>", f"{same}Mul>", "short"]
    short = text.shortened(names, 60)
    assert len(set(short)) == 3 and all(len(name) <= 60 for name in short)
    assert short[0].endswith("Add>") and short[1].endswith("Mul>") and short[2] == "short"
    assert all(name.startswith("void at::native::ele") for name in short[:2])
    # The same name twice is the same.
    assert len(set(text.shortened([names[0], names[0]], 60))) == 1


def test_streams_are_listed_where_there_are_several(tmp_path: Path) -> None:
    events = [
        *synthetic.launched("a", 0, 10, 30, 1, stream=7),
        *synthetic.launched("b", 1, 20, 60, 2, stream=9),
        *synthetic.launched("c", 2, 30, 5, 3, stream=9),
    ]
    lines = list(text.lines(review.review(synthetic.written(tmp_path / "t.json", events))))
    (first,) = [line for line in lines if line.startswith("streams")]
    assert "60.0 us" in first and "2 x device 0, stream 9" in first
    assert any("1 x device 0, stream 7" in line for line in lines)


@pytest.mark.parametrize(("longer", "said"), [(10, False), (25, True)])
def test_a_step_with_more_of_the_collectives_is_named(longer: int, said: bool, tmp_path: Path) -> None:
    events = []
    for number in range(4):
        start, length = 200 * number, longer if number == 2 else 10
        events.append(synthetic.step(number, start, 200))
        events += synthetic.launched("gemm", start, start + 10, 60, 2 * number + 1)
        events += synthetic.launched(
            "ncclAllReduce", start + 1, start + 70, length, 2 * number + 2, stream=20
        )
    lines = list(text.lines(review.review(synthetic.written(tmp_path / "t.json", events))))
    words = "ProfilerStep#2 has 25.0 us of collectives, the others 10.0 us (median)"
    assert any(words in line for line in lines) == said
