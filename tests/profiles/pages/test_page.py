"""The review as a page, in a real browser."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotlap.perf import cli
from hotlap.profiles.facts import intervals
from hotlap.profiles.findings import review
from hotlap.profiles.pages import page
from tests.browser import browsed

from .. import synthetic

HOSTILE = "</title><script>document.title='owned'</script><img src=x onerror=alert(1)>"


def hostile(path: Path) -> Path:
    events = [
        synthetic.step(1, 0, 100),
        synthetic.step(2, 100, 90),
        synthetic.operator(HOSTILE, 0, 9),
        *synthetic.launched(HOSTILE, 1, 20, 30, 1),
        *synthetic.launched("nccl" + HOSTILE, 40, 60, 10, 2),
        synthetic.event("python_function", HOSTILE, 70, 20),
        *synthetic.launched("k" * 100_000, 100, 110, 20, 3),
        {
            "ph": "i",
            "name": "[memory]",
            "pid": 1,
            "tid": 1,
            "ts": 5,
            "args": {"Device Type": 1, "Device Id": 0, "Bytes": 1024, "Total Allocated": 4096},
        },
    ]
    return synthetic.written(path, events, name=HOSTILE)


@pytest.mark.parametrize("compared", [False, True])
def test_the_page_in_a_browser(compared: bool, tmp_path: Path) -> None:
    trace, out = hostile(tmp_path / "t.json"), tmp_path / "page.html"
    baseline = (
        [
            str(
                synthetic.written(
                    tmp_path / f"{HOSTILE.replace('/', '')}.json",
                    [synthetic.kernel("k", 0, 5), synthetic.kernel("k", 9, 1)],
                    name=HOSTILE,
                )
            )
        ]
        if compared
        else []
    )
    cli.status(["review", str(trace), *baseline, "--html", str(out)])
    text = out.read_text()
    assert "<script" not in text and "<img" not in text and "http" not in text.replace("http-equiv", "")
    seen, complaints = browsed(out, tmp_path)
    assert "<title>hotlap review: t.json</title>" in seen and ("Against" in seen) == compared
    assert "CONSOLE" not in complaints
    (whole,) = [part.whole for part in [review.review(trace).bound] if part is not None]
    bar = re.search(r'<svg id="window".*?</svg>', seen, re.DOTALL)
    assert bar is not None
    assert sum(map(int, re.findall(r'data-ns="(\d+)"', bar[0]))) == whole == 190_000
    assert sum(map(float, re.findall(r' width="([\d.]+)"', bar[0]))) == pytest.approx(page.WIDTH, abs=0.01)


def test_a_trace_without_a_gpu_and_a_damaged_one_have_pages(tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert (
        cli.status(
            [
                "review",
                str(synthetic.written(tmp_path / "cpu.json", [synthetic.operator("aten::mm", 0, 5)])),
                "--html",
                str(out),
            ]
        )
        == 0
    )
    assert "no GPU events" in out.read_text() and "Bound by compute" in out.read_text()
    cut = hostile(tmp_path / "cut.json")
    cut.write_bytes(cut.read_bytes()[:-200])
    assert cli.status(["review", str(cut), "--html", str(out)]) == 4
    assert "The file is damaged" in out.read_text()
    assert (
        cli.status(
            [
                "review",
                str(synthetic.written(tmp_path / "point.json", [synthetic.kernel("k", 5, 0)])),
                "--html",
                str(out),
            ]
        )
        == 0
    )
    assert "no extent" in out.read_text()


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 15)), max_size=8), st.integers(1, 9))
def test_coverage_of_columns_against_counting(pairs: list[tuple[int, int]], bins: int) -> None:
    start, length = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    edges = (np.arange(bins + 1, dtype=np.int64) * 110) // bins
    covered = page.covered(intervals.union(start, start + length), edges)
    moments = {moment for side, long in pairs for moment in range(side, side + long)}
    assert covered.tolist() == [
        len([moment for moment in moments if low <= moment < high]) for low, high in pairwise(edges.tolist())
    ]
