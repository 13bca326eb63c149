"""What a trace says that cannot be is left out and said; what is only odd stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotlap.perf import cli
from hotlap.profiles.facts import audit
from hotlap.profiles.findings import review, trust
from hotlap.profiles.tables import files

from .. import real, synthetic

Events = list[dict[str, Any]]
# Microseconds between two launches, and kernels.
EVERY, KERNELS = 50, 20


def operators(at: float = 0) -> Events:
    """Each launches a kernel from within."""
    return [
        event
        for index in range(KERNELS)
        for event in (
            synthetic.operator("aten::mm", at + EVERY * index, 40),
            synthetic.call("cudaLaunchKernel", at + EVERY * index + 5, 6, index + 1),
        )
    ]


def kernels(at: float = 0) -> Events:
    return [synthetic.kernel("gemm", at + EVERY * index + 20, 20, index + 1) for index in range(KERNELS)]


def moved(index: int, start: float | None = None, dur: float = 20) -> Events:
    """The kernels, one of them at another time or of another length."""
    events = kernels()
    events[index] = {**events[index], "dur": dur, "ts": events[index]["ts"] if start is None else start}
    return events


# What cannot be: events, how many are left out, and words that say so.
WRONG = {
    "a day before its launch": ([*operators(), *moved(0, -1e11)], 1, "lie far from all that the host did"),
    "2 ms before its launch": ([*operators(), *moved(9, -2e3)], 1, "begin over 1 ms before their own launch"),
    "at time 0": (
        [
            *operators(1e9),
            *[{**event, "ts": event["ts"] if index else 0} for index, event in enumerate(kernels(1e9))],
        ],
        1,
        "at time 0, or by another clock",
    ),
    "over its successors": ([*operators(), *moved(3, dur=400)], 1, "last over several that were queued"),
    "of years": ([*operators(), *moved(3, dur=2 * 365 * 86400e6)], 1, "a clock overflowed"),
    "twice": ([*operators(), *kernels(), *kernels()], KERNELS, "are copies of others, alike in all"),
}


def reviewed(events: Events, folder: Path, name: str = "NVIDIA A100") -> review.Review:
    return review.review(synthetic.written(folder / "t.json", events, name=name))


@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_be_is_left_out_and_said(kind: str, tmp_path: Path) -> None:
    events, count, words = WRONG[kind]
    seen = reviewed(events, tmp_path)
    assert sum(each.events for each in seen.facts.audit.excluded) == count
    (note,) = [note for note in seen.trust.notes if words in note]
    assert f"{count:,} GPU events" in note and "left out of all figures" in note
    assert any(note.startswith("with them: window ") for note in seen.trust.notes)
    # What is left is that of the others: the window of the clean trace, or the next shorter one.
    clean = reviewed([*operators(), *kernels()], tmp_path).facts.line
    assert clean.window - 2 * EVERY * 1000 <= seen.facts.line.window <= clean.window
    assert seen.trust.grades["busy"] == ("exact" if kind == "twice" else "lower bound")
    assert "programmatic dependent launch" not in " ".join(seen.trust.notes)


def test_what_is_only_odd_stays(tmp_path: Path) -> None:
    """A kernel that begins a moment before its launch, one that overlaps the next, a long one."""
    early = reviewed([*operators(), *moved(7, EVERY * 7 + 4.4)], tmp_path)
    assert not early.facts.audit.excluded and early.trust.grades["launches"] == "exact"
    assert "1 of 20 GPU events begin up to 600 ns before their own launch: jitter" in " ".join(
        early.trust.notes
    )
    dependent = reviewed([*operators(), *moved(7, dur=60)], tmp_path)
    assert not dependent.facts.audit.excluded
    assert "1 kernels overlap" in " ".join(dependent.trust.notes)
    last = reviewed([*operators(), *moved(KERNELS - 1, dur=1e5)], tmp_path)
    assert not last.facts.audit.excluded


def test_where_all_are_early_the_clock_is_wrong_and_not_the_events(tmp_path: Path) -> None:
    events = [*operators(1e5), *kernels()]
    seen = reviewed(events, tmp_path)
    assert not seen.facts.audit.excluded and seen.trust.grades["launches"] == "unknown"


@pytest.mark.parametrize("key", sorted(real.EXPECTED))
def test_nothing_is_left_out_of_real_traces(key: str) -> None:
    trace = files.read(real.expected_trace(key))
    assert audit.of(trace).excluded == () and audit.of(trace).trace is trace


def test_launches_without_their_kernels_make_figures_lower_bounds(tmp_path: Path) -> None:
    some = [event for index, event in enumerate(kernels()) if index % 4]
    seen = reviewed([*operators(), *some], tmp_path)
    assert any("5 of 20 launches have no kernel" in note for note in seen.trust.notes)
    assert seen.trust.grades["busy"] == seen.trust.grades["window"] == "lower bound"
    # The profiler may end before what was launched last has run.
    ended = reviewed([*operators(), *kernels()[:-1]], tmp_path)
    assert ended.trust.grades["busy"] == "exact"


def test_a_gpus_trace_without_kernels_is_no_cpus(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = synthetic.written(tmp_path / "t.json", operators())
    assert cli.status(["review", str(path)]) == 4
    output = capsys.readouterr().out
    assert "a GPU's trace without its kernels: 20 launches" in output and "ProfilerActivity.CUDA" in output
    assert "bound" not in output and "fixes" not in output and "aten::mm" in output


@pytest.mark.parametrize("events", [[], [synthetic.event("", "gemm", 10 * index, 8) for index in range(100)]])
def test_a_trace_of_nothing_is_refused(
    events: Events, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = synthetic.written(tmp_path / "t.json", events)
    assert cli.status(["review", str(path)]) == 4
    output = capsys.readouterr().out
    assert "does the loop call step()" in output
    assert ("100 events (800 us) of no category, which is not known: not used" in output) == bool(events)


def test_work_outside_of_steps_and_steps_without_work_are_said(tmp_path: Path) -> None:
    late = [synthetic.step(0, -2e4, 1e3), *operators(), *kernels()]
    assert any("all work of the device lies outside" in note for note in reviewed(late, tmp_path).trust.notes)
    half = reviewed(
        [synthetic.step(0, 0, 500), synthetic.step(1, 5e3, 10), *operators(), *kernels()], tmp_path
    )
    notes = " ".join(half.trust.notes)
    assert "1 of 2 steps have no work of the device" in notes
    assert "50% of the device's work (200 us) lies outside of every step" in notes


def test_a_step_is_accounted_for_from_wall_to_wall(tmp_path: Path) -> None:
    """Nine tenths of it are the data loader's, before the first kernel."""
    loading = synthetic.event(
        "user_annotation", "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__", 10, 8900
    )
    seen = reviewed(
        [synthetic.step(1, 0, 1e4), loading, *synthetic.launched("gemm", 9000, 9010, 900, 1)], tmp_path
    )
    assert seen.bound is not None and seen.bound.word == "input"
    assert seen.bound.whole == 10_000_000 and seen.bound.parts["input"] == 9_010_000
    assert seen.bound.parts["compute"] == 900_000 and sum(seen.facts.idle.length) == 9_100_000
    (suggestion,) = [each for each in seen.fixes if each.rule == "input_bound"]
    assert suggestion.ceiling == 9_010_000
    gaps = {gap.start: gap for gap in seen.gaps}
    assert gaps[0].length == 9_010_000 and gaps[9_910_000].ends == "the end of the last step"


def test_a_launch_that_returned_is_no_setup(tmp_path: Path) -> None:
    """The kernel comes half a second later: it was queued, and waited for something else."""
    events = [*synthetic.launched("a", 0, 10, 10, 1), *synthetic.launched("b", 25, 5e5, 5e5, 2, stream=8)]
    seen = reviewed(events, tmp_path)
    assert seen.bound is not None and seen.bound.parts["setup"] == 0
    assert seen.bound.parts["other"] == 499_980_000
    # A launch that itself takes so long loads its kernel.
    loads = reviewed(
        [*synthetic.launched("a", 0, 10, 10, 1), *synthetic.launched("b", 25, 5e5, 5e5, 2, call_dur=499_900)],
        tmp_path,
    )
    assert loads.bound is not None and loads.bound.parts["setup"] == 499_980_000


def test_an_annotation_is_no_work(tmp_path: Path) -> None:
    frame = synthetic.event("user_annotation", "forward", 0, 10_000)
    seen = reviewed([frame, synthetic.operator("aten::mm", 100, 500)], tmp_path)
    assert seen.host is not None
    assert seen.host.parts["compute"] == 500_000 and seen.host.parts["outside operators"] == 9_500_000


def test_dependent_launch_is_named_where_it_exists(tmp_path: Path) -> None:
    events = [*operators(), *moved(7, dur=60)]
    words = "programmatic dependent launch"
    for major, there in ((8, False), (9, True)):
        path = synthetic.written(tmp_path / f"{major}.json", events, major=major)
        assert (words in " ".join(review.review(path).trust.notes)) == there
    amd = synthetic.written(tmp_path / "amd.json", events, major=9, name="AMD Instinct MI300X")
    assert words not in " ".join(review.review(amd).trust.notes)


def test_kept_rows_are_those_of_the_file(tmp_path: Path) -> None:
    seen = reviewed([*operators(), *moved(3, dur=400)], tmp_path)
    assert len(seen.facts.as_read.gpu) == KERNELS and len(seen.trace.gpu) == KERNELS - 1
    assert np.isin(seen.trace.gpu.start, seen.facts.as_read.gpu.start).all()
    assert not trust.lost_kernels(seen.facts)


def test_a_trace_of_which_nothing_can_be_says_what_was_left_out(tmp_path: Path) -> None:
    years = [{**event, "dur": 2 * 365 * 86400e6} for event in kernels()]
    seen = reviewed(years, tmp_path)
    assert not len(seen.trace.gpu) and seen.bound is None
    assert any(note.startswith("20 GPU events") and "a clock overflowed" in note for note in seen.trust.notes)
